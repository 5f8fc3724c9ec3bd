"""Statistics against a schema, by TensorFlow Data Validation."""
