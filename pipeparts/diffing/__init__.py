"""What changed in meaning between two compiled pipelines, and whether callers break."""
