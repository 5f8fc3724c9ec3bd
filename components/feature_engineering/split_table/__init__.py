"""Splits a table into train, validation and test tables."""
