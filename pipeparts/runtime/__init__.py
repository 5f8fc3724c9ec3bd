"""Helpers that run inside the containers: artifact contracts, errors, hashing, pages.

Nothing here imports kfp, the command line or the targets.
"""
