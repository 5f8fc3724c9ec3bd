"""The networks: the library's own, and a team's by its import path."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.models import Task

DEFAULT_NETWORK = "pipeparts.components.training.train_keras.network:wide_and_deep"


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
    """What a network is built from; a team's function gets this, and gives a `keras.Model` back.

    The model takes the dictionary of `inputs()` and gives raw scores, [n, outputs] float32, from a last
    layer without an activation: the training adds the sigmoid, the softmax or the label's unit.

    Attributes:
        numeric_names: The numeric features, in the order of the input `numeric`.
        category_names: The categorical features, in the order of the input `categories`.
        category_sizes: For each categorical feature, how many values: they go from 0 to this less one.
        task: "classification" or "regression".
        outputs: Scores a row: 1 for regression and for two classes, else one a class.
        options: The hyperparameter `network_options`, as it was given.
        hidden_units: The hyperparameter of that name, as are the ones below.
        activation: See `KerasParams`.
        dropout: See `KerasParams`.
        batch_norm: See `KerasParams`.
        wide: See `KerasParams`.
        largest_embedding: See `KerasParams`.
    """

    numeric_names: tuple[str, ...]
    category_names: tuple[str, ...]
    category_sizes: tuple[int, ...]
    task: Task
    outputs: int
    options: dict[str, Any]
    hidden_units: tuple[int, ...]
    activation: str
    dropout: float
    batch_norm: bool
    wide: bool
    largest_embedding: int

    def inputs(self) -> dict[str, Any]:
        """The inputs: `numeric` [n, numbers] float32 and `categories` [n, categories] int32."""
        import keras

        return {
            "numeric": keras.Input(shape=(len(self.numeric_names),), dtype="float32", name="numeric"),
            "categories": keras.Input(shape=(len(self.category_names),), dtype="int32", name="categories"),
        }

    def embedding_dimensions(self, size: int) -> int:
        """The width of an embedding of `size` values: fastai's rule, round(1.6 * size ** 0.56), capped."""
        wanted: float = 1.6 * size**0.56
        return max(1, min(self.largest_embedding, round(wanted)))


def wide_and_deep(spec: NetworkSpec) -> Any:
    """Builds the library's network: embeddings and dense layers, beside a linear part (Cheng et al., 2016).

    Args:
        spec: What the data and the hyperparameters ask for.

    Returns:
        The `keras.Model`.
    """
    import keras
    from keras import layers

    inputs = spec.inputs()
    columns = [inputs["categories"][:, i] for i in range(len(spec.category_names))]
    parts = [
        layers.Embedding(size, spec.embedding_dimensions(size), name=f"embedding_{i}")(column)
        for i, (size, column) in enumerate(zip(spec.category_sizes, columns, strict=True))
    ]
    if spec.numeric_names:
        parts.append(inputs["numeric"])
    hidden = parts[0] if len(parts) == 1 else layers.Concatenate(name="features")(parts)
    for i, units in enumerate(spec.hidden_units):
        hidden = layers.Dense(units, use_bias=not spec.batch_norm, kernel_initializer="he_normal", name=f"hidden_{i}")(
            hidden
        )
        if spec.batch_norm:
            hidden = layers.BatchNormalization(name=f"batch_norm_{i}")(hidden)
        hidden = layers.Activation(spec.activation, name=f"activation_{i}")(hidden)
        if spec.dropout:
            hidden = layers.Dropout(spec.dropout, name=f"dropout_{i}")(hidden)
    scores = [layers.Dense(spec.outputs, name="deep")(hidden)]
    if spec.wide and spec.numeric_names:
        scores.append(layers.Dense(spec.outputs, use_bias=False, name="wide_numeric")(inputs["numeric"]))
    if spec.wide:
        # One weight a value: a linear layer over the one-hot column, without making that column.
        scores.extend(
            layers.Embedding(size, spec.outputs, embeddings_initializer="zeros", name=f"wide_{i}")(column)
            for i, (size, column) in enumerate(zip(spec.category_sizes, columns, strict=True))
        )
    total = scores[0] if len(scores) == 1 else layers.Add(name="scores")(scores)
    return keras.Model(inputs, total, name="wide_and_deep")


def build_network(path: str, spec: NetworkSpec) -> Any:
    """Builds a network from its import path, and holds it to what the training needs.

    Args:
        path: "package.module:function"; empty for the library's own.
        spec: What the function is called with.

    Returns:
        The `keras.Model`, built.

    Raises:
        InputError: For a path that leads to no function, a function that fails or gives no model, or a model
            with other inputs or outputs.
    """
    function = _find_function(path or DEFAULT_NETWORK)
    try:
        network = function(spec)
    except Exception as error:  # a team's code raises what it likes
        raise InputError(
            "the network's function failed",
            parameter="network",
            where=path,
            received=f"{type(error).__name__}: {error}",
        ) from error
    _check_network(network, path or DEFAULT_NETWORK, spec)
    return network


def _find_function(path: str) -> Any:
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise InputError(
            "an import path that is not one", parameter="network", allowed="package.module:function", received=path
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            "the network's module cannot be imported",
            parameter="network",
            where=path,
            allowed="a module that is installed in the image (on a laptop: in this environment)",
            received=f"{type(error).__name__}: {error}",
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise InputError(
            "the network's module has no such function",
            parameter="network",
            where=module_name,
            allowed=functions,
            received=name,
            hint=suggest(name, functions),
        )
    return function


def _check_network(network: Any, path: str, spec: NetworkSpec) -> None:
    import keras
    import numpy as np

    if not isinstance(network, keras.Model):
        raise InputError(
            "the network's function gives no Keras model",
            parameter="network", where=path, allowed="a keras.Model", received=type(network).__name__,
        )  # fmt: skip
    numeric = np.zeros((2, len(spec.numeric_names)), dtype=np.float32)
    categories = np.zeros((2, len(spec.category_names)), dtype=np.int32)
    try:
        shape = tuple(network({"numeric": numeric, "categories": categories}, training=False).shape)
    except Exception as error:  # Keras and TensorFlow raise what they like
        raise InputError(
            "the network does not take the inputs that it gets",
            parameter="network",
            where=path,
            allowed=f"a dictionary: numeric {[None, *numeric.shape[1:]]}, categories {[None, *categories.shape[1:]]}",
            received=f"{type(error).__name__}: {error}",
            hint="build it on spec.inputs()",
        ) from error
    if shape != (2, spec.outputs):
        raise InputError(
            "the network gives another shape than the task needs",
            parameter="network",
            where=path,
            allowed=f"[rows, {spec.outputs}] for this {spec.task}",
            received=["rows" if i == 0 and size == 2 else size for i, size in enumerate(shape)],
            hint="its last layer has spec.outputs units",
        )
    last = network.layers[-1] if network.layers else None
    activation = getattr(getattr(last, "activation", None), "__name__", "linear")
    if activation in ("sigmoid", "softmax"):
        raise InputError(
            "the network's last layer has an activation of its own",
            parameter="network",
            where=f"{path}, layer {last.name!r}" if last is not None else path,
            allowed="raw scores, from a layer without an activation",
            received=activation,
            hint="the training adds the sigmoid or softmax itself, in the form that is exact for small probabilities",
        )
