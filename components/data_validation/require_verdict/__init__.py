"""Stops the run where a verdict has not passed."""
