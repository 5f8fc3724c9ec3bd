"""The component `train_lightgbm`."""
