"""A schema from statistics, by TensorFlow Data Validation."""
