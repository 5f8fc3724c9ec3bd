"""Adds a batch to the monitoring history, and draws all batches side by side."""
