"""Fits a declared feature set on a table, giving a transform."""
