"""The SavedModel: what TF Serving and Vertex load, from raw columns to predictions in one graph."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeparts.runtime.models import ModelInfo
from pipeparts.runtime.serving.keras_model import FEATURES_SIGNATURE
from pipeparts.runtime.training import Target


def write_saved_model(folder: Path, network: Any, transform: Any, target: Target, info: ModelInfo) -> None:
    """Writes the SavedModel of a network and its transform.

    Signature `serving_default`: the raw columns by name, [n] each, to the columns of a prediction, [n] each.
    Signature `features`: the transform's `numeric` and `categories` to `scores`.

    Args:
        folder: The folder to make.
        network: The trained `keras.Model`.
        transform: The transform.
        target: What is predicted.
        info: The model's card.
    """
    import tensorflow as tf

    from pipeparts.runtime.serving.transform_tf import apply_tf, input_signature

    def score(numeric: Any, categories: Any) -> Any:
        raw = network({"numeric": numeric, "categories": categories}, training=False)
        if target.task == "regression":
            return tf.cast(raw[:, 0], tf.float64) * target.scale + target.mean
        return tf.sigmoid(raw[:, 0]) if target.outputs == 1 else tf.nn.softmax(raw)

    signature = input_signature(transform)
    names = list(signature)

    def serve(*columns: Any) -> dict[str, Any]:
        return _prediction(score(*apply_tf(transform, dict(zip(names, columns, strict=True)))), info)

    def features(numeric: Any, categories: Any) -> dict[str, Any]:
        return {"scores": score(numeric, categories)}

    module = tf.Module()
    # The network's variables alone: tracking the Keras model itself would trace every layer of it again.
    module.weights = [variable.value for variable in network.variables]
    signatures = {
        "serving_default": tf.function(serve, autograph=False).get_concrete_function(*signature.values()),
        FEATURES_SIGNATURE: tf.function(features, autograph=False).get_concrete_function(
            tf.TensorSpec([None, len(transform.numeric_names)], tf.float32, name="numeric"),
            tf.TensorSpec([None, len(transform.category_names)], tf.int32, name="categories"),
        ),
    }
    with _quiet():
        tf.saved_model.save(module, str(folder), signatures=signatures)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps notes on names inside the graph out of the log."""
    loggers = [logging.getLogger("absl"), logging.getLogger("tensorflow")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _prediction(scores: Any, info: ModelInfo) -> dict[str, Any]:
    """The columns of a prediction from a model's scores, as tensors."""
    import tensorflow as tf

    if info.task == "regression":
        return {"prediction": scores}
    names = [re.sub(r"[^A-Za-z0-9_.-]", "_", name) for name in info.prediction_columns]
    if len(info.classes) == 2:
        chosen = tf.cast(scores >= 0.5, tf.int32)
        probabilities = [scores]
    else:
        chosen = tf.argmax(scores, axis=1)
        probabilities = tf.unstack(scores, axis=1)
    return dict(zip(names, [tf.gather(tf.constant(list(info.classes)), chosen), *probabilities], strict=True))
