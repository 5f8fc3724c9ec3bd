"""What every trainer shares: labels, transformed rows on disk, class weights, metrics and the page."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pydantic

import pipeparts
from pipeparts.runtime.errors import ContractError, DataError, InputError, suggest
from pipeparts.runtime.models import ModelInfo, Task
from pipeparts.runtime.pages import BLUE, GREY, ORANGE, Page, new_figure
from pipeparts.runtime.params import Params
from pipeparts.runtime.tables import Table, type_name

if TYPE_CHECKING:
    from pipeparts.runtime.serving.transform import Transform

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

TASKS = ("classification", "regression")
MAX_CLASSES = 1_000
_LABEL_BATCH_ROWS = 1_048_576
_SPOOL_BATCH_ROWS = 65_536


class TrainingParams(Params):
    """The hyperparameters that every trainer takes.

    Attributes:
        class_weights: "none"; "balanced" (each class weighs the same in total); or class to weight, for
            every class. Weights other than "none" move the probabilities away from the observed shares.
        early_stopping: Whether the epoch (or tree) with the lowest validation loss is kept; false trains to the end
            and keeps the last. That is for validation rows whose share of classes is far from that of
            the rows to come: their loss then prefers what is off in the same direction.
        patience: Stops after this many epochs (or trees) without a better validation loss.
        min_improvement: What counts as better: a validation loss lower by more than this.
    """

    class_weights: Literal["none", "balanced"] | dict[str, pydantic.PositiveFloat] = "none"
    early_stopping: bool = True
    patience: pydantic.PositiveInt = 3
    min_improvement: pydantic.NonNegativeFloat = 0.0

    @pydantic.field_validator("class_weights", mode="before")
    @classmethod
    def _name_classes(cls, value: Any) -> Any:
        # YAML reads {0: 1.0} with a number for the class, JSON with a string.
        return {str(name): weight for name, weight in value.items()} if isinstance(value, dict) else value


def check_task(task: str) -> Task:
    """Checks the parameter `task`.

    Raises:
        InputError: For anything but "classification" and "regression".
    """
    if task == "classification":
        return "classification"
    if task == "regression":
        return "regression"
    raise InputError(
        "a task that is not known", parameter="task", allowed=list(TASKS), received=task, hint=suggest(task, TASKS)
    )


@dataclasses.dataclass(frozen=True)
class Target:
    """What is to be predicted, as the training table shows it.

    Attributes:
        label: The label's column.
        task: "classification" or "regression".
        classes: The distinct labels in ascending order; empty for regression.
        class_rows: Rows of each class; empty for regression.
        mean: Of a regression's label; 0 for classification.
        scale: The standard deviation of a regression's label; 1 for classification.
        rows: Rows with a label.
        unlabelled: Rows without one, which training leaves out.
    """

    label: str
    task: Task
    classes: tuple[Any, ...]
    class_rows: tuple[int, ...]
    mean: float
    scale: float
    rows: int
    unlabelled: int

    @property
    def outputs(self) -> int:
        """The numbers that a model gives for a row: one for regression and for two classes, else one a class."""
        return len(self.classes) if len(self.classes) > 2 else 1

    def encode(self, values: pa.Array, *, where: str) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Turns labels into numbers: the index of the class, or the standardized value.

        Args:
            values: n labels, null where there is none.
            where: The table, for the message.

        Returns:
            n flags (whether there is a label), and the m numbers of those that have one.

        Raises:
            DataError: For a class that the training table does not have, or a label that is not finite.
        """
        known = label_known(values)
        present = values.filter(pa.array(known))
        if self.task == "regression":
            numbers = _as_floats(present)
            if not np.isfinite(numbers).all():
                raise _infinite(self.label, where)
            return known, ((numbers - self.mean) / self.scale).astype(np.float32)
        classes = pa.array(self.classes, type=present.type)
        codes = pc.index_in(present, value_set=classes)
        if codes.null_count:
            unknown = present.filter(pc.is_null(codes))[0].as_py()
            raise DataError(
                "a class that the training table does not have",
                parameter="label",
                where=f"{where}, column {self.label!r}",
                allowed=self.classes,
                received=repr(unknown),
                hint="split the table so that every class is among the training rows",
            )
        return known, codes.to_numpy(zero_copy_only=False).astype(np.float32)


def label_known(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each label is there: neither null nor NaN."""
    missing = pc.is_null(values, nan_is_null=pa.types.is_floating(values.type))
    return ~np.asarray(missing.to_numpy(zero_copy_only=False), dtype=np.bool_)


def read_target(table: Table, validation_table: Table, label: str, task: Task) -> Target:
    """Looks at the label's column of the training table, in one pass over it.

    Args:
        table: The training table.
        validation_table: Only the type of its label is looked at.
        label: The label's column.
        task: "classification" or "regression".

    Raises:
        InputError: Where the table has no such column, or its type does not fit the task.
        DataError: Where no row has a label, all have the same, or there are more than `MAX_CLASSES` classes.
    """
    kind = table.schema.field(label).type
    _check_label_type(kind, label, task, str(table.path))
    validation_kind = validation_table.schema.field(label).type
    _check_label_type(validation_kind, label, task, str(validation_table.path))
    if task == "classification" and validation_kind != kind:
        raise DataError(
            "the validation table has a label of another type",
            parameter="label",
            where=f"{validation_table.path}, column {label!r}",
            allowed=f"{type_name(kind)}, as in the training table",
            received=type_name(validation_kind),
        )
    if task == "regression":
        return _regression_target(table, label)
    return _classification_target(table, label)


def check_validation(target: Target, rows: Spool, *, where: str) -> None:
    """Checks that the validation table can tell a good model from a bad one.

    Raises:
        DataError: Where it has no labelled row, or fewer than two classes.
    """
    if rows.rows == 0:
        raise DataError("no row of the validation table has a label", parameter="label", where=where)
    absent = [name for index, name in enumerate(target.classes) if not rows.class_rows.get(index)]
    if target.task == "classification" and len(target.classes) - len(absent) < 2:
        raise DataError(
            "the validation table lacks a class",
            parameter="label",
            where=f"{where}, column {target.label!r}",
            allowed=f"rows of every class: {', '.join(map(str, target.classes))}",
            received=f"none of {', '.join(map(str, absent))}",
            hint="split by another boundary, or stratified by the label",
        )
    if absent:
        logger.warning("the validation table has no row of %s", ", ".join(map(str, absent)))


def class_weights(params: TrainingParams, target: Target) -> Floats | None:
    """The weight of each class, or None where all weigh the same.

    Raises:
        InputError: Where weights are given for a regression, or not for exactly the classes.
    """
    chosen = params.class_weights
    if chosen == "none":
        return None
    if target.task == "regression":
        raise InputError(
            "a regression has no classes to weigh",
            parameter="hyperparameters.class_weights",
            allowed="none",
            received=chosen,
        )
    if chosen == "balanced":
        counts = np.asarray(target.class_rows, dtype=np.float64)
        balanced: Floats = (counts.sum() / (len(counts) * counts)).astype(np.float32)
        return balanced
    names = [str(name) for name in target.classes]
    assert isinstance(chosen, dict)
    wrong = sorted(set(chosen) ^ set(names))
    if wrong:
        raise InputError(
            "class weights that are not for exactly the label's classes",
            parameter="hyperparameters.class_weights",
            allowed=names,
            received=sorted(chosen),
            hint=suggest(wrong[0], names) if wrong[0] in chosen else f"{wrong[0]!r} has no weight",
        )
    weights: Floats = np.asarray([chosen[name] for name in names], dtype=np.float32)
    return weights


def check_fit(table: Table, transform: Transform, *, label: str, parameter: str) -> None:
    """Checks that a table has the columns that the transform reads; their types show when it is applied.

    Raises:
        InputError: Where a column is missing, the label's too, or the label is itself a feature.
    """
    table.require([label], parameter="label")
    if label in transform.columns:
        raise InputError(
            "the label is among the features",
            parameter="label",
            allowed="a column that the transform does not read",
            received=label,
            hint="leave it out of `features`: a model that sees its label learns nothing else",
        )
    missing = [name for name in transform.columns if name not in table.schema.names]
    if missing:
        raise InputError(
            "the transform does not fit the table: a column is missing",
            parameter=parameter,
            where=str(table.path),
            allowed=sorted(transform.columns),
            received=f"no column {missing[0]!r}",
            hint=suggest(missing[0], table.schema.names) or "fit the transform on this table's training rows",
        )


def load_transform(path: str | os.PathLike[str]) -> Transform:
    """Reads a transform.

    Raises:
        ContractError: Where the file is no transform.
    """
    from pipeparts.runtime.serving.transform import Transform, TransformError

    try:
        return Transform.load(path)
    except TransformError as error:
        raise ContractError(error.headline, **error.facts) from None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Transformed rows with their labels.

    Attributes:
        numeric: [n, numbers] float32.
        categories: [n, categories] int32.
        labels: [n] float32: index of the class, or the standardized value.
    """

    numeric: Floats
    categories: Ints
    labels: Floats

    def __len__(self) -> int:
        return len(self.labels)


class Spool:
    """The labelled rows of a table, transformed once and kept in a temporary file.

    Training reads them once an epoch; from here that costs no parsing and no transform, and only the
    rows in hand are in memory. Every value takes four bytes: the numbers, the categories, the label.

    Args:
        table: The table.
        transform: Applied to every row.
        target: Encodes the labels; rows without one are left out.
        file: Where to write; it is made anew, and the caller removes it.
    """

    def __init__(self, table: Table, transform: Transform, target: Target, file: Path) -> None:
        self.numbers = len(transform.numeric_names)
        self.categories = len(transform.category_names)
        self.width = self.numbers + self.categories + 1
        self.rows = 0
        self.unlabelled = 0
        self.class_rows: dict[int, int] = {}
        self._file = file
        self._handle = -1
        self._target = target
        columns = list(transform.columns)
        with file.open("wb") as sink:
            for batch in table.batches([*columns, target.label], batch_rows=_SPOOL_BATCH_ROWS):
                known, labels = target.encode(batch.column(target.label), where=str(table.path))
                self.unlabelled += int(batch.num_rows - len(labels))
                if not len(labels):
                    continue
                kept = batch if len(labels) == batch.num_rows else batch.filter(pa.array(known))
                features = _apply(transform, {name: kept.column(name) for name in columns}, table)
                sink.write(self._pack(features.numeric, features.categories, labels).tobytes())
                self.rows += len(labels)
                self._count(labels)
        logger.info("%s rows of %s transformed into %d features", f"{self.rows:,}", table.path.name, self.width - 1)

    def __enter__(self) -> Spool:
        self._handle = os.open(self._file, os.O_RDONLY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
        self._handle = -1

    def words(self, start: int, stop: int) -> npt.NDArray[np.int32]:
        """The rows from `start` up to `stop`, as [n, width] words of four bytes."""
        row_bytes = 4 * self.width
        data = os.pread(self._handle, (stop - start) * row_bytes, start * row_bytes)
        return np.frombuffer(data, dtype=np.int32).reshape(-1, self.width)

    def unpack(self, words: npt.NDArray[np.int32]) -> Rows:
        """Packed words as rows."""
        floats = words.view(np.float32)
        return Rows(
            numeric=np.ascontiguousarray(floats[:, : self.numbers]),
            categories=np.ascontiguousarray(words[:, self.numbers : -1]),
            labels=np.ascontiguousarray(floats[:, -1]),
        )

    def in_order(self, batch_rows: int) -> Iterator[Rows]:
        """All rows in the table's order."""
        for start in range(0, self.rows, batch_rows):
            yield self.unpack(self.words(start, min(start + batch_rows, self.rows)))

    def shuffled(self, batch_rows: int, *, seed: tuple[int, int], buffer_rows: int, block_rows: int) -> Iterator[Rows]:
        """All rows once, in an order that the seed settles.

        Blocks of neighbouring rows are drawn in random order into a buffer, and the buffer's rows are
        shuffled: a full shuffle for a table that fits in the buffer, and a mix of far-away blocks for one
        that does not.

        Args:
            batch_rows: Rows in each batch; the last has what is left.
            seed: Of the training, and the number of the epoch.
            buffer_rows: Most rows held at a time.
            block_rows: Rows read together.
        """
        random = np.random.default_rng(list(seed))
        block_count = math.ceil(self.rows / block_rows)
        order = random.permutation(block_count)
        blocks_held = max(1, buffer_rows // block_rows)
        left = np.empty((0, self.width), dtype=np.int32)
        for first in range(0, block_count, blocks_held):
            starts = [int(block) * block_rows for block in order[first : first + blocks_held]]
            held = np.concatenate([left, *(self.words(s, min(s + block_rows, self.rows)) for s in starts)])
            held = held[random.permutation(len(held))]
            whole = len(held) // batch_rows * batch_rows
            for start in range(0, whole, batch_rows):
                yield self.unpack(held[start : start + batch_rows])
            left = held[whole:]
        if len(left):
            yield self.unpack(left)

    def _pack(self, numeric: Floats, categories: Ints, labels: Floats) -> npt.NDArray[np.int32]:
        packed = np.empty((len(labels), self.width), dtype=np.int32)
        packed.view(np.float32)[:, : self.numbers] = numeric
        packed[:, self.numbers : -1] = categories
        packed.view(np.float32)[:, -1] = labels
        return packed

    def _count(self, labels: Floats) -> None:
        if self._target.task == "classification":
            for index, count in zip(*np.unique(labels, return_counts=True), strict=True):
                self.class_rows[int(index)] = self.class_rows.get(int(index), 0) + int(count)


def validation_metrics(target: Target, batches: Iterator[tuple[Floats, npt.NDArray[Any]]]) -> dict[str, float]:
    """The main metrics of predictions.

    Args:
        target: What is predicted.
        batches: Pairs of encoded labels [n] and of what the model says of them: for regression the
            standardized value [n], for two classes the probability of the second [n], for more classes the
            probability of each [n, classes].

    Returns:
        Two classes: log_loss, accuracy, roc_auc, average_precision, brier. More: log_loss, accuracy.
        Regression, in the label's unit: rmse, mae, r2.
    """
    if target.task == "regression":
        return _regression_metrics(target, batches)
    if len(target.classes) == 2:
        return _binary_metrics(batches)
    rows, loss, hits = 0, 0.0, 0
    for labels, probabilities in batches:
        codes = labels.astype(np.int64)
        chosen = np.clip(probabilities[np.arange(len(codes)), codes].astype(np.float64), 1e-15, 1.0)
        loss -= float(np.log(chosen).sum())
        hits += int((probabilities.argmax(axis=1) == codes).sum())
        rows += len(codes)
    return {"log_loss": loss / rows, "accuracy": hits / rows}


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Metrics with six significant digits: what a console shows, and no noise behind it."""
    return {name: float(f"{value:.6g}") for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class Trained:
    """What the training gives back.

    Attributes:
        info: The model's card.
        metrics: As logged.
    """

    info: ModelInfo
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class History:
    """The losses by epoch (or tree).

    Attributes:
        unit: "epoch" or "tree".
        train: The loss on the training rows, first epoch first.
        validation: The loss on the validation rows.
        best: The number, from 1, of the one that was kept.
        loss_name: What the losses are: "log loss", "squared error of the standardized label".
    """

    unit: str
    train: list[float]
    validation: list[float]
    best: int
    loss_name: str


def model_card(
    target: Target,
    transform: Transform,
    train_table: Table,
    validation_table: Table,
    validation_rows: Spool,
    *,
    framework: str,
    fingerprint: str,
    seed: int,
    hyperparameters: Mapping[str, Any],
    metrics: Mapping[str, Any],
    **more: Any,
) -> ModelInfo:
    """What a trained model says of itself: the same of every trainer, and what this one adds as `more`."""
    return ModelInfo(
        task=target.task,
        label=target.label,
        classes=target.classes,
        columns=dict(transform.columns),
        framework=framework,
        fingerprint=fingerprint,
        training_fingerprint=train_table.info.fingerprint,
        training_rows=target.rows,
        seed=seed,
        package_version=pipeparts.__version__,
        extra={
            **more,
            "validation_rows": validation_rows.rows,
            "validation_fingerprint": validation_table.info.fingerprint,
            "unlabelled_training_rows": target.unlabelled,
            "unlabelled_validation_rows": validation_rows.unlabelled,
            "transform_fingerprint": transform.fingerprint,
            "hyperparameters": dict(hyperparameters),
            **metrics,
        },
    )


def training_page(
    *, title: str, info: ModelInfo, target: Target, history: History, metrics: Mapping[str, float],
    hyperparameters: Mapping[str, Any], add: Callable[[Page], None],
) -> Page:  # fmt: skip
    """The page that every trainer writes.

    Args:
        title: The heading.
        info: The model's card.
        target: What is predicted.
        history: The losses.
        metrics: As logged.
        hyperparameters: As used, defaults filled in.
        add: Adds the trainer's own sections, between the curves and the hyperparameters.
    """
    page = Page(title, f"{target.task} of {target.label!r} with {info.framework}, {info.training_rows:,} training rows")
    shown = {name.removeprefix("validation_"): v for name, v in metrics.items() if name.startswith("validation_")}
    page.heading(f"On the {info.extra['validation_rows']:,} validation rows")
    page.facts({**shown, f"best {history.unit}": history.best, f"{history.unit}s run": len(history.validation)})
    if history.unit == "epoch" or len(history.validation) > 1:
        page.heading("Loss")
        figure, axes = new_figure(7.0, 3.4)
        numbers = range(1, len(history.validation) + 1)
        axes.plot(numbers, history.train, color=GREY, label="training")
        axes.plot(numbers, history.validation, color=BLUE, label="validation")
        axes.axvline(history.best, color=ORANGE, linewidth=1, linestyle="--", label=f"kept: {history.best}")
        axes.set_xlabel(history.unit)
        axes.set_ylabel(history.loss_name)
        axes.legend(frameon=False)
        page.plots([(figure, f"{history.loss_name} by {history.unit}; the dashed line is the one that was kept")])
    add(page)
    page.heading("Label")
    if target.task == "classification":
        page.table(
            [
                [str(name), rows, rows / target.rows]
                for name, rows in zip(target.classes, target.class_rows, strict=True)
            ],
            columns=["class", "training rows", "share"],
        )
    else:
        page.facts({"mean": target.mean, "standard deviation": target.scale})
    page.text(f"{target.unlabelled:,} training rows without a label were left out.")
    page.heading("Hyperparameters")
    page.table([[name, str(value)] for name, value in hyperparameters.items()], columns=["name", "value"])
    page.heading("Raw columns that the model takes")
    page.table([[name, kind] for name, kind in info.columns.items()], columns=["column", "type"])
    return page


def available_cores() -> int:
    """The processor cores that this process may use: its affinity, and the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return max(1, cores)


def _apply(transform: Transform, columns: dict[str, pa.Array], table: Table) -> Any:
    from pipeparts.runtime.serving.values import TransformError

    try:
        return transform.apply(columns)
    except TransformError as error:
        facts = error.facts | {"where": f"{table.path}, {error.facts.get('where', '')}".removesuffix(", ")}
        raise DataError(
            f"the transform does not fit the table: {error.headline}",
            hint=facts.pop("hint", None) or "fit the transform on this table's training rows",
            **facts,
        ) from None


def _check_label_type(kind: pa.DataType, label: str, task: Task, where: str) -> None:
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if task == "regression" and not numeric:
        raise InputError(
            "the label of a regression is not a number",
            parameter="label",
            where=f"{where}, column {label!r}",
            allowed="a column of int64, float64 or another numeric type",
            received=type_name(kind),
            hint='for classes use task="classification"',
        )
    if task == "classification" and (
        pa.types.is_decimal(kind) or not (numeric or pa.types.is_boolean(kind) or _is_text(kind))
    ):
        raise InputError(
            "the label's type has no classes",
            parameter="label",
            where=f"{where}, column {label!r}",
            allowed="a column of string, bool, int64 or float64",
            received=type_name(kind),
        )


def _classification_target(table: Table, label: str) -> Target:
    counts: dict[Any, int] = {}
    unlabelled = 0
    for batch in table.batches([label], batch_rows=_LABEL_BATCH_ROWS):
        values = batch.column(0)
        known = label_known(values)
        unlabelled += int((~known).sum())
        for pair in pc.value_counts(values.filter(pa.array(known))).to_pylist():
            counts[pair["values"]] = counts.get(pair["values"], 0) + pair["counts"]
        if len(counts) > MAX_CLASSES:
            raise DataError(
                "the label has too many classes",
                parameter="label",
                where=f"{table.path}, column {label!r}",
                allowed=f"at most {MAX_CLASSES:,} distinct values",
                received=f"more than {MAX_CLASSES:,}",
                hint='for a number use task="regression"',
            )
    _check_varied(len(counts), next(iter(counts), None), table, label)
    classes = sorted(counts)
    return Target(
        label=label, task="classification", classes=tuple(classes),
        class_rows=tuple(counts[name] for name in classes), mean=0.0, scale=1.0,
        rows=sum(counts.values()), unlabelled=unlabelled,
    )  # fmt: skip


def _regression_target(table: Table, label: str) -> Target:
    rows, unlabelled, mean, squares = 0, 0, 0.0, 0.0
    first: float | None = None
    for batch in table.batches([label], batch_rows=_LABEL_BATCH_ROWS):
        values = batch.column(0)
        known = label_known(values)
        unlabelled += int((~known).sum())
        numbers = _as_floats(values.filter(pa.array(known)))
        if not len(numbers):
            continue
        if not np.isfinite(numbers).all():
            raise _infinite(label, str(table.path))
        first = float(numbers[0]) if first is None else first
        # Chan, Golub and LeVeque (1983): means and sums of squares of two parts, joined.
        part_mean = float(numbers.mean())
        shift = part_mean - mean
        total = rows + len(numbers)
        squares += float(((numbers - part_mean) ** 2).sum()) + shift**2 * rows * len(numbers) / total
        mean += shift * len(numbers) / total
        rows = total
    scale = math.sqrt(squares / rows) if rows else 0.0
    _check_varied(rows if scale > 0 else min(rows, 1), first, table, label)
    return Target(
        label=label, task="regression", classes=(), class_rows=(), mean=mean, scale=scale, rows=rows,
        unlabelled=unlabelled,
    )  # fmt: skip


def _check_varied(distinct: int, example: Any, table: Table, label: str) -> None:
    where = f"{table.path}, column {label!r}"
    if table.rows == 0:
        raise DataError("the training table is empty", parameter="train_table", where=str(table.path), allowed="rows")
    if distinct == 0:
        raise DataError(
            "no row of the training table has a label", parameter="label", where=where,
            received=f"{table.rows:,} rows, all without a label",
        )  # fmt: skip
    if distinct == 1:
        raise DataError(
            "the label is constant: there is nothing to learn", parameter="label", where=where,
            allowed="two distinct values at least", received=f"{example!r} in every row",
        )  # fmt: skip


def _infinite(label: str, where: str) -> DataError:
    return DataError(
        "a label that is infinite", parameter="label", where=f"{where}, column {label!r}", allowed="finite numbers"
    )


def _binary_metrics(batches: Iterator[tuple[Floats, npt.NDArray[Any]]]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    pairs = list(batches)
    labels = np.concatenate([pair[0] for pair in pairs]).astype(np.float64)
    probabilities = np.concatenate([pair[1] for pair in pairs]).astype(np.float64)
    safe = np.clip(probabilities, 1e-15, 1 - 1e-15)
    return {
        "log_loss": float(-(labels * np.log(safe) + (1 - labels) * np.log1p(-safe)).mean()),
        "accuracy": float(((probabilities >= 0.5) == (labels == 1)).mean()),
        "roc_auc": float(roc_auc_score(labels, probabilities)),
        "average_precision": float(average_precision_score(labels, probabilities)),
        "brier": float(((probabilities - labels) ** 2).mean()),
    }


def _regression_metrics(target: Target, batches: Iterator[tuple[Floats, npt.NDArray[Any]]]) -> dict[str, float]:
    rows, squared, absolute, total, squares = 0, 0.0, 0.0, 0.0, 0.0
    for labels, predictions in batches:
        truth = labels.astype(np.float64)
        off = predictions.astype(np.float64) - truth
        squared += float((off**2).sum())
        absolute += float(np.abs(off).sum())
        total += float(truth.sum())
        squares += float((truth**2).sum())
        rows += len(truth)
    spread = squares - total**2 / rows
    metrics = {"rmse": math.sqrt(squared / rows) * target.scale, "mae": absolute / rows * target.scale}
    # One row, or one value throughout, has no spread to explain.
    return metrics | ({"r2": 1 - squared / spread} if spread > 1e-9 * rows else {})


def _as_floats(values: pa.Array) -> npt.NDArray[np.float64]:
    return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
