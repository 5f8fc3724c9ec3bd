"""Tests across the whole repository, and what tests share."""
