"""Holds a table against a schema, and writes the verdict."""
