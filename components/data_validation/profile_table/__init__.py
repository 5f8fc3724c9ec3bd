"""Profiles a table: statistics of every column, in one pass."""
