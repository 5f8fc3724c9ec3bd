"""What a trained network is written as: the SavedModel, which TF Serving and Vertex load, and its weights for numpy."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeparts.components.training.train_keras.network import NetworkSpec
from pipeparts.runtime.models import ModelInfo
from pipeparts.runtime.serving import network as numpy_network
from pipeparts.runtime.serving.keras_model import FEATURES_SIGNATURE
from pipeparts.runtime.training import Target

logger = logging.getLogger(__name__)

#: How far the two forms of a network may be apart, as a share of the largest score.
_TOLERANCE = 1e-5
_ROWS_COMPARED = 512


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

    score = _scorer(network, target)
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


def write_network(file: Path, network: Any, spec: NetworkSpec, target: Target) -> None:
    """Writes the library's own network for numpy, where numpy has all that it needs and gives the same scores.

    Args:
        file: The file to make.
        network: What `wide_and_deep` built, trained.
        spec: What it was built from.
        target: What is predicted.
    """
    if spec.activation not in numpy_network.ACTIVATIONS:
        return
    about = {
        "format": numpy_network.FORMAT,
        "activation": spec.activation,
        "task": target.task,
        "mean": target.mean,
        "scale": target.scale,
    }
    plain = numpy_network.Network(about, _weights(network, spec))
    random = np.random.default_rng(0)
    numeric = random.normal(size=(_ROWS_COMPARED, len(spec.numeric_names))).astype(np.float32)
    ids = [random.integers(0, size, _ROWS_COMPARED) for size in spec.category_sizes]
    categories = np.array(ids, dtype=np.int32).reshape(len(ids), _ROWS_COMPARED).T
    expected = np.asarray(_scorer(network, target)(numeric, categories))
    away = float(np.abs(plain.score(numeric, categories) - expected).max())
    if away > _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        logger.warning("numpy's form of the network is off by %.2g: TensorFlow will run it", away)
        return
    plain.save(file)


def _scorer(network: Any, target: Target) -> Any:
    """What gives the network's scores from features, in the unit of the label or as probabilities."""
    import tensorflow as tf

    def score(numeric: Any, categories: Any) -> Any:
        raw = network({"numeric": numeric, "categories": categories}, training=False)
        if target.task == "regression":
            return tf.cast(raw[:, 0], tf.float64) * target.scale + target.mean
        return tf.sigmoid(raw[:, 0]) if target.outputs == 1 else tf.nn.softmax(raw)

    return score


def _weights(network: Any, spec: NetworkSpec) -> dict[str, Any]:
    """The weights of `wide_and_deep`, by the names that `serving.network.Network` has for them."""

    def of(layer: str) -> list[Any]:
        return [variable.numpy() for variable in network.get_layer(layer).variables]

    weights = {f"embedding_{i}": of(f"embedding_{i}")[0] for i in range(len(spec.category_sizes))}
    for i in range(len(spec.hidden_units)):
        kernel, *bias = of(f"hidden_{i}")
        if spec.batch_norm:
            # At rest it is linear, and goes into the layer before it.
            layer = network.get_layer(f"batch_norm_{i}")
            gamma, beta, mean, variance = (
                variable.numpy().astype(np.float64)
                for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            )
            factor = gamma / np.sqrt(variance + layer.epsilon)
            kernel, bias = kernel * factor, [beta - mean * factor]
        weights |= {f"kernel_{i}": kernel, f"bias_{i}": bias[0]}
    last = len(spec.hidden_units)
    weights[f"kernel_{last}"], weights[f"bias_{last}"] = of("deep")
    if spec.wide and spec.numeric_names:
        weights["wide_numeric"] = of("wide_numeric")[0]
    if spec.wide:
        weights |= {f"wide_{i}": of(f"wide_{i}")[0] for i in range(len(spec.category_sizes))}
    return {name: values.astype(np.float32) for name, values in weights.items()}


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
