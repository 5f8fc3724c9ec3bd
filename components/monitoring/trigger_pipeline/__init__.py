"""Starts a pipeline on the platform that it runs on, once for each decision."""
