"""Measures a model on rows whose labels have arrived, against what it was at registration."""
