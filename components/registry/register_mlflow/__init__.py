"""Registers a model that passed its gate in an MLflow registry, and makes it the champion."""
