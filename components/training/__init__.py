"""Training models that take raw columns."""
