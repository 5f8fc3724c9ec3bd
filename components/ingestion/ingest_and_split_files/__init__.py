"""Reads files of CSV, TSV, JSON Lines or Parquet straight into train, validation and test tables."""
