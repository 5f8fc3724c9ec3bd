"""Statistics of a table, by TensorFlow Data Validation."""
