"""Writes how a run ended, and tells people where it failed, as the last step of a pipeline."""
