"""The work of `train_keras`."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic

from pipeparts.components.training.train_keras.checkpoint import Checkpoint, TrainingState, values_of
from pipeparts.components.training.train_keras.export import write_network, write_saved_model
from pipeparts.components.training.train_keras.network import DEFAULT_NETWORK, NetworkSpec, build_network
from pipeparts.runtime.errors import DataError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.pages import Page
from pipeparts.runtime.params import parse_params
from pipeparts.runtime.serving.keras_model import SAVED_MODEL_FOLDER
from pipeparts.runtime.serving.network import NETWORK_FILE
from pipeparts.runtime.tables import Table
from pipeparts.runtime.training import (
    Floats,
    History,
    Spool,
    Target,
    Trained,
    TrainingParams,
    available_cores,
    check_fit,
    check_task,
    check_validation,
    class_weights,
    load_transform,
    model_card,
    read_target,
    rounded,
    training_page,
    validation_metrics,
)

logger = logging.getLogger(__name__)

#: Where checkpoints go when the hyperparameter `checkpoint_folder` is empty; empty itself: none are kept.
CHECKPOINT_VARIABLE = "PIPEPARTS_CHECKPOINT_FOLDER"

_SCORING_ROWS = 16_384
_BLOCK_ROWS = 1_024
_LOSS_NAMES = {"classification": "log loss", "regression": "squared error of the standardized label"}


class KerasParams(TrainingParams):
    """The hyperparameters of `train_keras`.

    Attributes:
        epochs: Most passes over the training rows.
        batch_rows: Rows in each step.
        learning_rate: At the start.
        schedule: "cosine" falls to zero over `epochs` (Loshchilov and Hutter, 2017); "plateau" halves it after
            an epoch without a better validation loss; "constant" leaves it.
        weight_decay: Of AdamW (Loshchilov and Hutter, 2019), on the weights but not on the biases.
        clip_norm: Longest gradient; 0: not clipped.
        hidden_units: Units of each hidden layer.
        activation: After each hidden layer.
        dropout: Share of units dropped after each hidden layer.
        batch_norm: Whether each hidden layer is normalized over the batch.
        wide: Whether a linear part stands beside the hidden layers.
        largest_embedding: Most dimensions of an embedding; fastai's rule below that.
        shuffle_rows: Rows held in memory to be shuffled.
        network_options: For a network of one's own: goes to it as `spec.options`.
        checkpoint_folder: Where a checkpoint is kept after each epoch, from which the same training goes on
            when it was killed; a folder that the next attempt sees too. It changes nothing in the model.
    """

    epochs: pydantic.PositiveInt = 20
    batch_rows: pydantic.PositiveInt = 1_024
    learning_rate: pydantic.PositiveFloat = 1e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    weight_decay: pydantic.NonNegativeFloat = 1e-4
    clip_norm: pydantic.NonNegativeFloat = 0.0
    hidden_units: list[pydantic.PositiveInt] = pydantic.Field(default=[128, 64], min_length=1)
    activation: Literal["relu", "gelu", "silu", "elu", "selu", "tanh"] = "relu"
    dropout: float = pydantic.Field(default=0.1, ge=0.0, lt=1.0)
    batch_norm: bool = False
    wide: bool = True
    largest_embedding: pydantic.PositiveInt = 32
    shuffle_rows: pydantic.PositiveInt = 262_144
    network_options: dict[str, Any] = {}
    checkpoint_folder: str = ""


def train_keras(
    *,
    train_path: str | os.PathLike[str],
    validation_path: str | os.PathLike[str],
    transform_path: str | os.PathLike[str],
    profile_path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    metrics_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    label: str,
    task: str = "classification",
    hyperparameters: dict[str, Any] | None = None,
    network: str = "",
    network_version: str = "",
    seed: int = 0,
) -> Trained:
    """Trains a network, and writes the model, its metrics and a page.

    Args:
        train_path: The training table.
        validation_path: The validation table: early stopping and the metrics look at it.
        transform_path: The fitted transform.
        profile_path: The training table's profile, to travel with the model.
        model_path: The folder to make.
        metrics_path: The JSON of the metrics to write.
        page_path: The HTML page to write.
        label: The label's column.
        task: "classification" or "regression".
        hyperparameters: See `KerasParams`.
        network: "package.module:function" of a network of one's own; see `NetworkSpec`.
        network_version: Tells apart the code under the same `network`.
        seed: Of the weights, the dropout and the order of rows.

    Returns:
        The model's card and the metrics.

    Raises:
        InputError: For a wrong parameter, or a network that does not fit.
        DataError: For labels that cannot be learned, or a loss that is no number.
        ContractError: For an artifact that is not what it should be.
    """
    from pipeparts.runtime.model_saving import save_model

    params = parse_params(KerasParams, hyperparameters, parameter="hyperparameters")
    checked_task = check_task(task)
    train_table, validation_table = Table(train_path), Table(validation_path)
    transform = load_transform(transform_path)
    check_fit(train_table, transform, label=label, parameter="train_table")
    check_fit(validation_table, transform, label=label, parameter="validation_table")
    target = read_target(train_table, validation_table, label, checked_task)
    weights = class_weights(params, target)
    start = time.monotonic()
    _prepare_tensorflow(seed)
    spec = _network_spec(transform, target, params)
    built = build_network(network, spec)
    logger.info("a network of %s weights, ready after %.1f s", f"{built.count_params():,}", _since(start))
    with (
        tempfile.TemporaryDirectory(prefix="pipeparts-train-") as scratch,
        Spool(train_table, transform, target, Path(scratch) / "train") as train_rows,
        Spool(validation_table, transform, target, Path(scratch) / "validation") as validation_rows,
    ):
        check_validation(target, validation_rows, where=str(validation_path))
        key = _training_key(
            train_table, validation_table, transform, target, params, network, network_version, seed
        )  # fmt: skip
        checkpoint = Checkpoint.at(params.checkpoint_folder or os.environ.get(CHECKPOINT_VARIABLE, ""), key)
        trainer = _Trainer(built, target, params, weights, train_rows, validation_rows, seed)
        history = trainer.run(checkpoint)
        metrics = _metrics(trainer, target, history)
    info = model_card(
        target,
        transform,
        train_table,
        validation_table,
        validation_rows,
        framework="keras",
        fingerprint=_fingerprint(built, transform, target),
        seed=seed,
        hyperparameters=params.model_dump(exclude={"checkpoint_folder"}),
        metrics=metrics,
        saved_model=SAVED_MODEL_FOLDER,
        network=network or "wide_and_deep",
        network_version=network_version,
        weights=int(built.count_params()),
        epochs=len(history.validation),
        best_epoch=history.best,
    )

    def write(folder: Path) -> None:
        write_saved_model(folder / SAVED_MODEL_FOLDER, built, transform, target, info)
        if (network or DEFAULT_NETWORK) == DEFAULT_NETWORK:
            write_network(folder / NETWORK_FILE, built, spec, target)

    save_model(
        model_path,
        info=info,
        transform=transform,
        loader="keras_model",
        write=write,
        requirements=["tensorflow"],
        table=train_table,
        validation_table=validation_table,
        profile_path=profile_path,
    )
    write_json(metrics_path, metrics)
    page = training_page(
        title="Training with Keras",
        info=info,
        target=target,
        history=history,
        metrics=metrics,
        hyperparameters=params.model_dump(),
        add=lambda page: _add_network(page, built, spec, own=bool(network)),
    )
    page.write(page_path)
    checkpoint.remove()
    return Trained(info=info, metrics=metrics)


def _prepare_tensorflow(seed: int) -> None:
    """Imports TensorFlow, with the cores there are, so that the same seed gives the same model."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _native_notes_kept_out():
        import keras
        import tensorflow as tf

        cores = available_cores()
        try:
            tf.config.threading.set_intra_op_parallelism_threads(cores)
            tf.config.threading.set_inter_op_parallelism_threads(cores)
        except RuntimeError:  # it runs already, with the threads that it was given
            logger.info("TensorFlow was started before: its threads stay as they are")
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        devices = [device.device_type for device in tf.config.list_logical_devices()]
    logger.info("TensorFlow %s on %s, %d cores", tf.__version__, " and ".join(sorted(set(devices))), cores)


@contextlib.contextmanager
def _native_notes_kept_out() -> Iterator[None]:
    """Sends what native code writes to standard error, before it heeds any setting, to the debug log."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            notes.seek(0)
            logger.debug("TensorFlow's start: %s", notes.read().decode(errors="replace"))


def _network_spec(transform: Any, target: Target, params: KerasParams) -> NetworkSpec:
    return NetworkSpec(
        numeric_names=tuple(transform.numeric_names),
        category_names=tuple(transform.category_names),
        category_sizes=tuple(int(size) for size in transform.category_sizes),
        task=target.task,
        outputs=target.outputs,
        options=dict(params.network_options),
        hidden_units=tuple(params.hidden_units),
        activation=params.activation,
        dropout=params.dropout,
        batch_norm=params.batch_norm,
        wide=params.wide,
        largest_embedding=params.largest_embedding,
    )


class _Trainer:
    """The training loop: an epoch at a time, each with its own seeded order of rows."""

    def __init__(
        self, network: Any, target: Target, params: KerasParams, weights: Floats | None,
        train_rows: Spool, validation_rows: Spool, seed: int,
    ) -> None:  # fmt: skip
        import keras

        self.network = network
        self.target = target
        self.params = params
        self.train_rows = train_rows
        self.validation_rows = validation_rows
        self.seed = seed
        self.weights = np.ones(max(1, len(target.classes)), dtype=np.float32) if weights is None else weights
        steps = math.ceil(train_rows.rows / params.batch_rows)
        rate: Any = params.learning_rate
        if params.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(params.learning_rate, steps * params.epochs)
        self.optimizer = keras.optimizers.AdamW(
            rate, weight_decay=params.weight_decay, clipnorm=params.clip_norm or None
        )
        self.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self.optimizer.build(network.trainable_variables)
        self._epoch = 0
        self._make_functions(steps)

    def run(self, checkpoint: Checkpoint) -> History:
        """Trains to the end, from the checkpoint if there is one; the network then has the weights that are kept."""
        variables = [*self.network.variables, *self.optimizer.variables]
        state = checkpoint.read(variables)
        best: list[Any] = state.best_weights or values_of(self.network.variables)
        if state.train:
            logger.info("goes on after epoch %d, from the checkpoint in %s", len(state.train), checkpoint.folder)
        start = time.monotonic()
        while len(state.train) < self.params.epochs and not self._is_over(state):
            self._epoch = len(state.train)
            train_loss, validation_loss = self._train_epoch(), self._validation_loss()
            self._check_finite(train_loss, validation_loss)
            state.train.append(train_loss)
            state.validation.append(validation_loss)
            if state.best == 0 or validation_loss < state.best_loss - self.params.min_improvement:
                state.best, state.best_loss, state.waited = len(state.train), validation_loss, 0
                best = values_of(self.network.variables)
            else:
                state.waited += 1
                if self.params.schedule == "plateau":
                    self.optimizer.learning_rate = float(self.optimizer.learning_rate) / 2
            logger.info(
                "epoch %d of %d: training loss %.5f, validation loss %.5f, %.1f s",
                *(len(state.train), self.params.epochs, train_loss, validation_loss, _since(start)),
            )
            checkpoint.write(state, variables, best)
        kept = len(state.train)
        if self.params.early_stopping:
            kept = state.best
            for variable, value in zip(self.network.variables, best, strict=True):
                variable.assign(value)
        return History("epoch", state.train, state.validation, kept, _LOSS_NAMES[self.target.task])

    def _is_over(self, state: TrainingState) -> bool:
        return self.params.early_stopping and state.waited >= self.params.patience

    def predictions(self) -> Iterator[tuple[Floats, Floats]]:
        """Labels and predictions of the validation rows, as `validation_metrics` takes them."""
        for rows in self.validation_rows.in_order(_SCORING_ROWS):
            yield rows.labels, self._score(rows.numeric, rows.categories).numpy()

    def _make_functions(self, steps: int) -> None:
        import tensorflow as tf

        numbers, categories = self.train_rows.numbers, self.train_rows.categories
        signature = (
            tf.TensorSpec([None, numbers], tf.float32),
            tf.TensorSpec([None, categories], tf.int32),
            tf.TensorSpec([None], tf.float32),
        )
        self._dataset = tf.data.Dataset.from_generator(self._shuffled, output_signature=signature).prefetch(8)
        weights = tf.constant(self.weights)
        network, optimizer, target = self.network, self.optimizer, self.target

        def losses(scores: Any, labels: Any) -> tuple[Any, Any]:
            """The weighted loss and the weight of each row."""
            if target.task == "regression":
                return tf.square(scores[:, 0] - labels), tf.ones_like(labels)
            codes = tf.cast(labels, tf.int32)
            weight = tf.gather(weights, codes)
            if target.outputs == 1:
                loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores[:, 0])
            else:
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=codes, logits=scores)
            return loss * weight, weight

        def step(numeric: Any, categories: Any, labels: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                scores = network({"numeric": numeric, "categories": categories}, training=True)
                loss, weight = losses(scores, labels)
                total, mass = tf.reduce_sum(loss), tf.reduce_sum(weight)
                objective = total / mass
                if network.losses:
                    objective += tf.add_n(network.losses)
            gradients = tape.gradient(objective, network.trainable_variables)
            optimizer.apply(gradients, network.trainable_variables)
            return total, mass

        def evaluate(numeric: Any, categories: Any, labels: Any) -> tuple[Any, Any]:
            loss, weight = losses(network({"numeric": numeric, "categories": categories}, training=False), labels)
            return tf.reduce_sum(loss), tf.reduce_sum(weight)

        def score(numeric: Any, categories: Any) -> Any:
            return to_predictions(network({"numeric": numeric, "categories": categories}, training=False), target)

        # Without AutoGraph, as Keras itself traces: the layers convert their own code where they need it.
        self._step = tf.function(step, input_signature=signature, autograph=False)
        self._evaluate = tf.function(evaluate, input_signature=signature, autograph=False)
        self._score = tf.function(score, input_signature=signature[:2], autograph=False)

    def _shuffled(self) -> Iterator[tuple[Any, Any, Any]]:
        batches = self.train_rows.shuffled(
            self.params.batch_rows,
            seed=(self.seed, self._epoch),
            buffer_rows=self.params.shuffle_rows,
            block_rows=_BLOCK_ROWS,
        )
        for rows in batches:
            yield rows.numeric, rows.categories, rows.labels

    def _train_epoch(self) -> float:
        sums = [self._step(*batch) for batch in self._dataset]
        return _mean(sums)

    def _validation_loss(self) -> float:
        batches = self.validation_rows.in_order(_SCORING_ROWS)
        return _mean([self._evaluate(rows.numeric, rows.categories, rows.labels) for rows in batches])

    def _check_finite(self, train_loss: float, validation_loss: float) -> None:
        if math.isfinite(train_loss) and math.isfinite(validation_loss):
            return
        raise DataError(
            "the loss is no number any more: the training diverged",
            where=f"epoch {self._epoch + 1}",
            allowed="a finite loss",
            received=f"training {train_loss}, validation {validation_loss}",
            hint=f"a lower hyperparameters.learning_rate than {self.params.learning_rate}, or a clip_norm; "
            "or features that are standardized",
        )


def to_predictions(scores: Any, target: Target) -> Any:
    """A network's raw scores as probabilities, or as the standardized value, in TensorFlow."""
    import tensorflow as tf

    if target.task == "regression":
        return scores[:, 0]
    return tf.sigmoid(scores[:, 0]) if target.outputs == 1 else tf.nn.softmax(scores)


def _mean(sums: list[tuple[Any, Any]]) -> float:
    total = sum(float(value) for value, _ in sums)
    return total / sum(float(mass) for _, mass in sums)


def _metrics(trainer: _Trainer, target: Target, history: History) -> dict[str, float]:
    measured = validation_metrics(target, trainer.predictions())
    return rounded(
        {
            "train_loss": history.train[history.best - 1],
            "validation_loss": history.validation[history.best - 1],
            **{f"validation_{name}": value for name, value in measured.items()},
            "epochs": len(history.validation),
            "best_epoch": history.best,
            "training_rows": target.rows,
        }
    )


def _fingerprint(network: Any, transform: Any, target: Target) -> str:
    from pipeparts.runtime.model_saving import model_fingerprint

    said = [transform.fingerprint, target.task, target.classes, target.mean, target.scale]
    weights = [part for v in network.weights for part in (str(v.shape).encode(), v.numpy().tobytes())]
    return model_fingerprint([json.dumps(said).encode(), *weights])


def _training_key(
    train_table: Table, validation_table: Table, transform: Any, target: Target, params: KerasParams,
    network: str, network_version: str, seed: int,
) -> str:  # fmt: skip
    """A hash of everything that a training depends on: only the very same one may go on from a checkpoint."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    said = {
        "train": train_table.info.fingerprint,
        "validation": validation_table.info.fingerprint,
        "transform": transform.fingerprint,
        "label": [target.label, target.task],
        "hyperparameters": params.model_dump(exclude={"checkpoint_folder"}),
        "network": [network, network_version],
        "seed": seed,
        "versions": [importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")],
        "code": code.hexdigest(),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _add_network(page: Page, network: Any, spec: NetworkSpec, *, own: bool) -> None:
    page.heading("Network")
    page.text(
        f"{network.name}: {network.count_params():,} weights over {len(spec.numeric_names)} numeric and "
        f"{len(spec.category_names)} categorical features."
    )
    page.table(
        [
            [layer.name, type(layer).__name__, _shape(layer), layer.count_params()]
            for layer in network.layers
            if layer.count_params()
        ],
        columns=["layer with weights", "kind", "output", "weights"],
    )
    if spec.category_names and not own:
        page.heading("Categories", level=3)
        sizes = zip(spec.category_names, spec.category_sizes, strict=True)
        page.table(
            [[name, size, spec.embedding_dimensions(size)] for name, size in sizes],
            columns=["feature", "values", "embedding dimensions (fastai's rule)"],
        )


def _shape(layer: Any) -> str:
    shape = getattr(getattr(layer, "output", None), "shape", ())
    return " x ".join("rows" if size is None else str(size) for size in shape)


def _since(start: float) -> float:
    return time.monotonic() - start
