"""`evaluate_tfma`: measures predictions by TensorFlow Model Analysis, against thresholds and a baseline."""
