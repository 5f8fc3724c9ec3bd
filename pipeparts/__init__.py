"""Reusable Kubeflow Pipelines v2 components and pipelines for the whole life of a model."""

__version__ = "0.1.0"
