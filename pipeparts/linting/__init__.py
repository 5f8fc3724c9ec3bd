"""Lints a compiled KFP v2 pipeline: what would not run, or not as meant, on Kubeflow, on Vertex AI or on a laptop."""
