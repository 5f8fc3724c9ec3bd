"""Predicting batches with a model, and delivering what it predicts."""
