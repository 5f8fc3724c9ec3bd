"""The work of `train_lightgbm`."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydantic

from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.pages import BLUE, Page, new_figure
from pipeparts.runtime.params import parse_params
from pipeparts.runtime.serving.lightgbm_model import MODEL_FILE, score_trees
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

_SCORING_ROWS = 65_536
_BLOCK_ROWS = 8_192
_FEATURES_SHOWN = 20
_LOSSES = {"binary_logloss": "log loss", "multi_logloss": "log loss", "rmse": "root mean squared error"}


class LightgbmParams(TrainingParams):
    """The hyperparameters of `train_lightgbm`; LightGBM's documentation says more of those with its names.

    Attributes:
        patience: Stops after this many trees without a better validation loss.
        num_iterations: Most trees (for more than two classes: most trees for each).
        learning_rate: Weight of each tree.
        num_leaves: Most leaves of a tree.
        max_depth: Deepest leaf; -1: no limit.
        min_data_in_leaf: Fewest rows of a leaf.
        feature_fraction: Share of the features that each tree may use.
        bagging_fraction: Share of the rows that each tree sees, drawn anew for each.
        lambda_l1: L1 penalty on the leaves.
        lambda_l2: L2 penalty on the leaves.
        cat_smooth: Smoothing of rare categories.
        cat_l2: L2 penalty on splits by category.
        max_cat_threshold: Most categories on one side of a split.
        max_bin: Most bins of a numeric feature.
    """

    patience: pydantic.PositiveInt = 50
    num_iterations: pydantic.PositiveInt = 1_000
    learning_rate: pydantic.PositiveFloat = 0.05
    num_leaves: int = pydantic.Field(default=31, ge=2, le=131_072)
    max_depth: int = pydantic.Field(default=-1, ge=-1)
    min_data_in_leaf: pydantic.PositiveInt = 20
    feature_fraction: float = pydantic.Field(default=0.8, gt=0.0, le=1.0)
    bagging_fraction: float = pydantic.Field(default=0.8, gt=0.0, le=1.0)
    lambda_l1: pydantic.NonNegativeFloat = 0.0
    lambda_l2: pydantic.NonNegativeFloat = 0.0
    cat_smooth: pydantic.NonNegativeFloat = 10.0
    cat_l2: pydantic.NonNegativeFloat = 10.0
    max_cat_threshold: pydantic.PositiveInt = 32
    max_bin: int = pydantic.Field(default=255, ge=2, le=65_535)


def train_lightgbm(
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
    """Grows boosted trees, and writes the model, its metrics and a page.

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
        hyperparameters: See `LightgbmParams`.
        network: Must be empty: it is there so that the trainers are called alike.
        network_version: Not used.
        seed: Of the draws of rows and features.

    Returns:
        The model's card and the metrics.

    Raises:
        InputError: For a wrong parameter.
        DataError: For labels that cannot be learned, or a loss that is no number.
        ContractError: For an artifact that is not what it should be.
    """
    from pipeparts.runtime.model_saving import save_model

    if network:
        raise InputError(
            "trees have no network", parameter="network", allowed="empty for LightGBM", received=network,
            hint="a network of your own goes to train_keras",
        )  # fmt: skip
    params = parse_params(LightgbmParams, hyperparameters, parameter="hyperparameters")
    checked_task = check_task(task)
    train_table, validation_table = Table(train_path), Table(validation_path)
    transform = load_transform(transform_path)
    check_fit(train_table, transform, label=label, parameter="train_table")
    check_fit(validation_table, transform, label=label, parameter="validation_table")
    target = read_target(train_table, validation_table, label, checked_task)
    weights = class_weights(params, target)
    with (
        tempfile.TemporaryDirectory(prefix="pipeparts-train-") as scratch,
        Spool(train_table, transform, target, Path(scratch) / "train") as train_rows,
        Spool(validation_table, transform, target, Path(scratch) / "validation") as validation_rows,
    ):
        check_validation(target, validation_rows, where=str(validation_path))
        booster, history = _grow(train_rows, validation_rows, transform, target, params, weights, seed)
        measured = validation_metrics(target, _predictions(booster, validation_rows, target))
    metrics = rounded(
        {
            "train_loss": history.train[history.best - 1],
            "validation_loss": history.validation[history.best - 1],
            **{f"validation_{name}": value for name, value in measured.items()},
            "trees": len(history.validation),
            "best_tree": history.best,
            "training_rows": target.rows,
        }
    )
    text = booster.model_to_string(num_iteration=history.best)
    info = model_card(
        target,
        transform,
        train_table,
        validation_table,
        validation_rows,
        framework="lightgbm",
        fingerprint=_fingerprint(text, transform, target),
        seed=seed,
        hyperparameters=params.model_dump(),
        metrics=metrics,
    )
    save_model(
        model_path,
        info=info,
        transform=transform,
        loader="lightgbm_model",
        write=lambda folder: (folder / MODEL_FILE).write_text(text, encoding="utf-8"),
        requirements=["lightgbm"],
        table=train_table,
        validation_table=validation_table,
        profile_path=profile_path,
    )
    write_json(metrics_path, metrics)
    gains = _gains(booster, transform, history.best)
    page = training_page(
        title="Training with LightGBM",
        info=info,
        target=target,
        history=history,
        metrics=metrics,
        hyperparameters=params.model_dump(),
        add=lambda page: _add_importance(page, gains),
    )
    page.write(page_path)
    return Trained(info=info, metrics=metrics)


def _grow(
    train_rows: Spool, validation_rows: Spool, transform: Any, target: Target, params: LightgbmParams,
    weights: Floats | None, seed: int,
) -> tuple[Any, History]:  # fmt: skip
    import lightgbm

    objective, metric = "regression", "rmse"
    if target.task == "classification":
        objective, metric = ("binary", "binary_logloss") if target.outputs == 1 else ("multiclass", "multi_logloss")
    settings = params.model_dump(
        exclude={"early_stopping", "patience", "min_improvement", "class_weights", "num_iterations"}
    ) | {
        "objective": objective,
        "metric": metric,
        "num_threads": available_cores(),
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "bagging_freq": 0 if params.bagging_fraction == 1.0 else 1,
        "verbosity": -1,
    }
    if objective == "multiclass":
        settings["num_class"] = len(target.classes)
    names = _feature_names(transform)
    places = list(range(train_rows.numbers, len(names)))
    train_set = lightgbm.Dataset(
        _sequence(train_rows), _labels(train_rows, target), weight=_weights(train_rows, weights), params=settings,
        feature_name=names, categorical_feature=places,
    )  # fmt: skip
    validation_set = train_set.create_valid(
        _sequence(validation_rows), _labels(validation_rows, target), weight=_weights(validation_rows, weights)
    )
    losses: dict[str, dict[str, list[float]]] = {}
    start = time.monotonic()
    try:
        booster = lightgbm.train(
            settings,
            train_set,
            num_boost_round=params.num_iterations,
            valid_sets=[train_set, validation_set],
            valid_names=["train", "validation"],
            callbacks=[
                lightgbm.record_evaluation(losses),
                _progress(start),
                *([_stop_early(params)] if params.early_stopping else []),
            ],
        )
    except lightgbm.basic.LightGBMError as error:
        raise DataError(
            "LightGBM cannot train on this", where="hyperparameters or data", received=str(error)
        ) from error
    history = History("tree", losses["train"][metric], losses["validation"][metric], 0, _LOSSES[metric])
    if not all(math.isfinite(loss) for loss in [*history.train, *history.validation]):
        raise DataError(
            "the loss is no number any more: the training diverged", where="the trees", allowed="a finite loss",
            received=f"training {history.train[-1]}, validation {history.validation[-1]}",
            hint=f"a lower hyperparameters.learning_rate than {params.learning_rate}",
        )  # fmt: skip
    best = len(history.validation)
    if params.early_stopping:
        best = _best_tree(history.validation, params.min_improvement)
    logger.info("%d trees in %.1f s, kept up to number %d", len(history.validation), time.monotonic() - start, best)
    return booster, History(history.unit, history.train, history.validation, best, history.loss_name)


def _best_tree(losses: list[float], min_improvement: float) -> int:
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best] - min_improvement:
            best = i
    return best + 1


def _stop_early(params: LightgbmParams) -> Any:
    """Stops after `patience` trees without a better validation loss; the training loss does not count."""
    import lightgbm

    losses: list[float] = []

    def look(environment: Any) -> None:
        losses.append(next(loss for name, _, loss, *_ in environment.evaluation_result_list if name == "validation"))
        best = _best_tree(losses, params.min_improvement)
        if len(losses) - best >= params.patience:
            raise lightgbm.callback.EarlyStopException(best - 1, environment.evaluation_result_list)

    look.order = 30  # type: ignore[attr-defined]
    return look


def _progress(start: float) -> Any:
    def look(environment: Any) -> None:
        if (environment.iteration + 1) % 100 == 0:
            losses = ", ".join(f"{name} {loss:.5f}" for name, _, loss, *_ in environment.evaluation_result_list)
            logger.info("tree %d: %s, %.1f s", environment.iteration + 1, losses, time.monotonic() - start)

    look.order = 20  # type: ignore[attr-defined]
    return look


def _sequence(rows: Spool) -> Any:
    """The features as LightGBM reads them: a block at a time, binned as they come."""
    import lightgbm

    class Features(lightgbm.Sequence):  # type: ignore[misc]
        batch_size = _BLOCK_ROWS

        def __init__(self) -> None:
            self._start = -1
            self._block = np.empty((0, 0))

        def __len__(self) -> int:
            return rows.rows

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, slice):
                return self._read(*index.indices(rows.rows)[:2])
            # The sample for the bins comes row by row, in rising order.
            start = index // _BLOCK_ROWS * _BLOCK_ROWS
            if start != self._start:
                self._block = self._read(start, min(start + _BLOCK_ROWS, rows.rows))
                self._start = start
            return self._block[index - start]

        def _read(self, start: int, stop: int) -> Any:
            block = rows.unpack(rows.words(start, stop))
            return np.hstack([block.numeric, block.categories], dtype=np.float64)  # LightGBM takes no other here

    return Features()


def _labels(rows: Spool, target: Target) -> Floats:
    labels = np.concatenate([block.labels for block in rows.in_order(_SCORING_ROWS)])
    if target.task == "regression":  # in the label's own unit: the trees are then of use without pipeparts
        return (labels.astype(np.float64) * target.scale + target.mean).astype(np.float32)
    return labels


def _weights(rows: Spool, weights: Floats | None) -> Floats | None:
    if weights is None:
        return None
    return np.concatenate([weights[block.labels.astype(np.int64)] for block in rows.in_order(_SCORING_ROWS)])


def _predictions(booster: Any, rows: Spool, target: Target) -> Iterator[tuple[Floats, npt.NDArray[Any]]]:
    for block in rows.in_order(_SCORING_ROWS):
        scores = score_trees(booster, block.numeric, block.categories)
        yield block.labels, (scores - target.mean) / target.scale


def _feature_names(transform: Any) -> list[str]:
    """The features' names without what LightGBM refuses in one, and each once."""
    names: list[str] = []
    for name in [*transform.numeric_names, *transform.category_names]:
        plain = re.sub(r"[^\w.=<>+-]", "_", name)
        names.append(plain if plain not in names else f"{plain}_{len(names)}")
    return names


def _fingerprint(text: str, transform: Any, target: Target) -> str:
    from pipeparts.runtime.model_saving import model_fingerprint

    trees = text.split("\nparameters:", 1)[0]  # behind them stand the settings, the number of threads too
    said = [transform.fingerprint, target.task, target.classes]
    return model_fingerprint([json.dumps(said).encode(), trees.encode()])


def _gains(booster: Any, transform: Any, trees: int) -> list[tuple[str, float, int]]:
    """Each feature with its share of the total gain and the number of its splits, the most important first."""
    gain = booster.feature_importance("gain", iteration=trees)
    splits = booster.feature_importance("split", iteration=trees)
    total = float(gain.sum()) or 1.0
    names = [*transform.numeric_names, *transform.category_names]
    rows = [(name, float(g) / total, int(s)) for name, g, s in zip(names, gain, splits, strict=True)]
    return sorted(rows, key=lambda row: (-row[1], row[0]))


def _add_importance(page: Page, gains: list[tuple[str, float, int]]) -> None:
    page.heading("Feature importance")
    shown = gains[:_FEATURES_SHOWN]
    figure, axes = new_figure(7.0, 0.6 + 0.24 * len(shown))
    axes.barh([name for name, _, _ in reversed(shown)], [share for _, share, _ in reversed(shown)], color=BLUE)
    axes.set_xlabel("share of the total gain")
    page.plots([(figure, f"the {len(shown)} features by which the trees gain most, of {len(gains)}")])
    page.table([[*row] for row in gains if row[2]], columns=["feature", "share of the gain", "splits"])
