"""Watching runs, data and models once they are live."""
