"""Where a compiled pipeline can run: one module each, with one interface."""
