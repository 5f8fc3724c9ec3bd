"""Predicts a batch with the champion, and delivers the predictions."""
