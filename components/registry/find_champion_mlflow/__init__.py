"""Finds the model version that is the champion in an MLflow registry."""
