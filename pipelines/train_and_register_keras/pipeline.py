"""Trains a Keras network on a table, and registers it where it passes the gate.

The flow of `train_and_register` with another training component; on a laptop, the steps before it are served from
the same cache.
"""

from pipeparts.components import train_keras
from pipeparts.pipelines.train_and_register.pipeline import build

train_and_register_keras = build(train_keras, name="train-and-register-keras")
