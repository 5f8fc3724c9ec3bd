"""Splitting tables and fitting the features that models see."""
