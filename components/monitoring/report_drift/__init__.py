"""Says whether a table has drifted from the data that a model was trained on, and where."""
