"""Measures a model on a table."""
