"""Puts a table's Parquet files where they are wanted: a folder or a bucket."""
