"""Measuring a model, and judging it against the champion."""
