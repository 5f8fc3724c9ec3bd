"""Validates data by TensorFlow Data Validation."""
