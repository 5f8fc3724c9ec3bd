"""Decides whether a model is to be trained again, and says why."""
