"""Trains a Keras network on a table, and registers it where it passes the gate."""
