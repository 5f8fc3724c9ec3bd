"""The pipeline `run_scheduled`."""
