"""The standard errors of metrics, against formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeparts.runtime.bootstrap import standard_error
from pipeparts.runtime.evaluation import Predictions

OPTIONS = {"threshold": 0.5, "samples": 1_000, "seed": (0,)}


def binary(rows: int, seed: int = 0) -> Predictions:
    random = np.random.default_rng(seed)
    scores = random.beta(2, 5, rows)
    labels = (random.random(rows) < scores).astype(np.int8)
    return Predictions("binary", labels, scores, None, (), rows)


def delong(predictions: Predictions) -> float:
    """DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated ROC Curves", 1988."""
    positive = predictions.scores[predictions.labels == 1]
    negative = predictions.scores[predictions.labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    parts = wins.mean(axis=1).var(ddof=1) / len(positive), wins.mean(axis=0).var(ddof=1) / len(negative)
    return math.sqrt(sum(parts))


def test_the_area_under_the_roc_curve_is_as_sure_as_delong_says():
    predictions = binary(3_000)
    found = standard_error("roc_auc", predictions, most_rows=10_000, **OPTIONS)
    assert found == pytest.approx(delong(predictions), rel=0.08)


def test_accuracy_is_as_sure_as_the_binomial_says():
    predictions = binary(3_000)
    share = float(((predictions.scores >= 0.5) == predictions.labels).mean())
    found = standard_error("accuracy", predictions, most_rows=10_000, **OPTIONS)
    assert found == pytest.approx(math.sqrt(share * (1 - share) / 3_000), rel=0.08)


def test_a_part_of_the_rows_stands_for_all():
    predictions = binary(20_000)
    whole = standard_error("roc_auc", predictions, most_rows=20_000, **OPTIONS)
    part = standard_error("roc_auc", predictions, most_rows=5_000, **OPTIONS)
    assert part == pytest.approx(whole, rel=0.12)


def test_one_class_alone_has_none():
    predictions = binary(100)
    alone = Predictions("binary", np.zeros(100, np.int8), predictions.scores, None, (), 100)
    assert standard_error("roc_auc", alone, most_rows=1_000, **OPTIONS) is None
    nothing = Predictions("binary", np.zeros(0, np.int8), np.zeros(0), None, (), 0)
    assert standard_error("roc_auc", nothing, most_rows=1_000, **OPTIONS) is None
