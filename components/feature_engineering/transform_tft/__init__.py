"""Feature engineering by TensorFlow Transform."""
