"""Writes how a run ended, whatever happened, as the last step of a pipeline."""
