"""Fitting a declared feature set: what may be declared, what is learned, and the page that shows it."""
