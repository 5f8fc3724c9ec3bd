"""Registering models, and finding the champion."""
