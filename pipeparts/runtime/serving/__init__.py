"""What a saved model carries with it: the transform that turns raw columns into features, and the models on top.

This package is copied into every saved model and loads there without pipeparts: its modules import the
standard library, numpy, (when they are called) pandas and pyarrow, TensorFlow in `transform_tf`, and one
another by relative imports. A test holds it to that.
"""
