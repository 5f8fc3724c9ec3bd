"""Trains LightGBM on a table, and registers it where it passes the gate.

The flow of `train_and_register` with another training component; the steps before it are served from
the same cache.
"""

from pipeparts.components import train_lightgbm
from pipeparts.pipelines.train_and_register.pipeline import build

train_and_register_lightgbm = build(train_lightgbm, name="train-and-register-lightgbm")
