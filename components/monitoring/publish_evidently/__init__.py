"""Adds Evidently's report to an Evidently workspace, where its own UI shows the history."""
