"""The component `predict_table`."""
