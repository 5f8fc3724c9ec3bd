"""Watches a model on a batch whose labels have arrived, and trains it again where it has to be."""
