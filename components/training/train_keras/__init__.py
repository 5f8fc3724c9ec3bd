"""The component `train_keras`."""
