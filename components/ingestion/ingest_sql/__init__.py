"""Reads a table or a query's rows from a database into a typed table."""
