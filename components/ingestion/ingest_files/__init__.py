"""Reads files of CSV, TSV, JSON Lines or Parquet into a typed table."""
