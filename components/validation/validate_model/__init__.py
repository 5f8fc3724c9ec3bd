"""Decides whether a model is good enough, and better than the champion."""
