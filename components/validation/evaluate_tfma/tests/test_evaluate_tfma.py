"""Tests of `evaluate_tfma`: run in the tfx image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeparts.components.validation.evaluate_tfma import logic
from pipeparts.components.validation.evaluate_tfma.config import name_of
from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.tables import write_table
from pipeparts.runtime.verdict import read_verdict

pytestmark = pytest.mark.tfx

ROWS = 600


def binary(*, bad_slice: str = "", noise: float = 0.1) -> pa.Table:
    """Labels and probabilities; in one slice, where wished, the probabilities are turned round."""
    random = np.random.default_rng(0)
    truth = random.random(ROWS)
    label = (random.random(ROWS) < truth).astype(np.int64)
    origin = random.choice(["EWR", "JFK", "LGA"], ROWS)
    probability = np.clip(truth + random.normal(0, noise, ROWS), 0, 1)
    probability = np.where(origin == bad_slice, 1 - probability, probability)
    return pa.table({"id": np.arange(ROWS), "late": label, "origin": origin, "probability": probability})


def evaluate(folder: Path, predictions: pa.Table, baseline: pa.Table | None = None, **arguments: Any) -> Any:
    folder.mkdir(exist_ok=True)
    write_table(folder / "predictions", predictions, source="candidate")
    if baseline is not None:
        write_table(folder / "baseline", baseline, source="champion")
    given: dict[str, Any] = {
        "label": "late", "task": "binary", "prediction": "", "classes": None, "slices": None,
        "thresholds": None, "slice_thresholds": None, "min_slice_rows": 20, "keys": None,
        "beam_options": None,
    }  # fmt: skip
    return logic.evaluate(
        predictions_path=folder / "predictions",
        baseline_path=None if baseline is None else folder / "baseline",
        evaluation_path=folder / "evaluation",
        verdict_path=folder / "verdict.json",
        verdict_text_path=folder / "verdict.md",
        page_path=folder / "page.html",
        **{**given, **arguments},
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Better than the baseline as a whole, and far worse in one slice."""
    folder = tmp_path_factory.mktemp("compared")
    found = evaluate(
        folder, binary(bad_slice="LGA", noise=0.01), binary(noise=0.5), slices=["origin"], keys=["id"],
        thresholds={"AUC": {"min": 0.4}, "BinaryAccuracy": {"max": 0.99, "min_change": -0.5}},
        slice_thresholds={"AUC": {"min": 0.5, "min_change": 0.0}},
    )  # fmt: skip
    return folder, found


def auc(label: Any, score: Any) -> float:
    """The share of pairs that are in the right order."""
    high, low = score[label == 1][:, None], score[label == 0][None, :]
    return float(((high > low) + 0.5 * (high == low)).mean())


def test_the_metrics_are_those_of_their_definitions(compared: tuple[Path, Any]) -> None:
    _, found = compared
    rows, before = binary(bad_slice="LGA", noise=0.01).to_pydict(), binary(noise=0.5).to_pydict()
    label, score, old = (np.array(column) for column in (rows["late"], rows["probability"], before["probability"]))
    origin = np.array(rows["origin"])
    assert [item.slice for item in found.measured] == ["", "origin=EWR", "origin=JFK", "origin=LGA"]
    for item in found.measured:
        chosen = np.full(ROWS, True) if not item.slice else origin == item.slice.removeprefix("origin=")
        ours, theirs = auc(label[chosen], score[chosen]), auc(label[chosen], old[chosen])
        assert item.rows == chosen.sum()
        assert item.values["auc"] == pytest.approx(ours, abs=1e-4)
        assert item.changes["auc"] == pytest.approx(ours - theirs, abs=2e-4)
        right = ((score[chosen] > 0.5) == label[chosen]).mean()
        assert item.values["binary_accuracy"] == pytest.approx(right, abs=1e-6)
        assert item.values["mean_label"] == pytest.approx(label[chosen].mean(), abs=1e-6)


def test_a_slice_that_became_worse_is_found_and_no_other(compared: tuple[Path, Any]) -> None:
    folder, found = compared
    assert {check.name for check in found.verdict.failures} == {"auc:origin=LGA", "auc_change:origin=LGA"}
    assert len(found.verdict.checks) == 1 + 3 + 2 * 3
    assert not found.verdict.passed
    assert read_verdict(folder / "verdict.json") == found.verdict
    assert "origin=LGA" in (folder / "verdict.md").read_text()
    page = (folder / "page.html").read_text()
    assert "Change from the baseline, by slice" in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("https://www.w3.org/", "")


def test_tfmas_own_tools_read_the_result_and_agree(compared: tuple[Path, Any]) -> None:
    from tensorflow_model_analysis.api import model_eval_lib

    folder, _ = compared
    result = str(folder / "evaluation")
    whole = dict(model_eval_lib.load_eval_result(result, model_name="candidate").slicing_metrics)[()]
    assert whole[""][""]["example_count"]["doubleValue"] == ROWS
    validation = model_eval_lib.load_validation_result(result)
    assert not validation.validation_ok
    failing = {str(item.slice_key) for item in validation.metric_validations_per_slice}
    assert len(failing) == 1
    assert "LGA" in failing.pop()


def test_the_same_rows_give_the_same_result(compared: tuple[Path, Any], tmp_path: Path) -> None:
    folder, found = compared
    again = evaluate(
        tmp_path, binary(bad_slice="LGA", noise=0.01), binary(noise=0.5), slices=["origin"], keys=["id"],
        thresholds={"AUC": {"min": 0.4}, "BinaryAccuracy": {"max": 0.99, "min_change": -0.5}},
        slice_thresholds={"AUC": {"min": 0.5, "min_change": 0.0}},
    )  # fmt: skip
    assert again == found
    for name in ("verdict.json", "page.html"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_regression_and_rows_that_cannot_be_measured(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    truth = random.normal(100, 20, ROWS)
    label = pa.array(truth, mask=np.arange(ROWS) < 10)
    prediction = truth + random.normal(0, 5, ROWS)
    prediction[50] = np.nan
    found = evaluate(
        tmp_path, pa.table({"late": label, "prediction": prediction}), task="regression",
        thresholds={"MeanSquaredError": {"max": 30.0}, "MeanAbsolutePercentageError": {}},
    )  # fmt: skip
    whole = found.measured[0]
    kept = [i for i in range(10, ROWS) if i != 50]
    squared = np.mean((prediction[kept] - truth[kept]) ** 2)
    assert whole.values["mean_squared_error"] == pytest.approx(squared, rel=1e-5)
    assert 0 < whole.values["mean_absolute_percentage_error"] < 100
    assert (found.counts.unlabelled, found.counts.unanswered, found.counts.written) == (10, 1, ROWS - 11)
    assert [check.name for check in found.verdict.failures] == ["answered"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"task": "ranking"}, "not a task that TFMA measures here", "task"),
    ({"task": "multiclass"}, "evaluate_model measures more than two classes", "task"),
    ({"label": "delay"}, "delay", "label"),
    ({"prediction": "origin"}, "a prediction that is no number", "prediction"),
    ({"classes": [1]}, "classes that do not go with the task", "classes"),
    ({"thresholds": {"Auc": {}}}, "a metric that TFMA does not know", "thresholds.Auc"),
    ({"thresholds": [1]}, "thresholds that are no dictionary", "thresholds"),
    ({"slices": ["origin+"]}, "a slice that is not one", "slices[0]"),
    ({"slices": ["dest"]}, "dest", "slices[0]"),
    ({"slice_thresholds": {"Recal": {"min": 0}}}, "a metric that TFMA does not know", "slice_thresholds.Recal"),
    ({"thresholds": {"AUC": {"least": 0}}}, "a bound that is not known", "thresholds.AUC"),
    ({"thresholds": {"AUC": {"min": "high"}}}, "not the bounds of a metric", "thresholds.AUC"),
    ({"thresholds": {"AUC": {"min_change": 0}}}, "a change from no baseline", "thresholds.AUC"),
    ({"slice_thresholds": {"AUC": {"min": 0}}}, "thresholds for slices, and no slices", "slice_thresholds"),
    ({"min_slice_rows": 0}, "a number out of range", "min_slice_rows"),
    ({"beam_options": {"runner": "Sparkk"}}, "a runner of Beam that is not known", "beam_options.runner"),
]


@pytest.mark.parametrize(("arguments", "message", "parameter"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_measured(
    tmp_path: Path, arguments: dict[str, Any], message: str, parameter: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        evaluate(tmp_path, binary(), **arguments)
    assert caught.value.facts["parameter"] == parameter
    assert not (tmp_path / "evaluation").exists()


def test_a_baseline_of_other_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of other rows") as caught:
        evaluate(tmp_path, binary(), binary().slice(1))
    assert caught.value.facts["received"] == "599 rows"
    turned = binary().take(pa.array([1, 0, *range(2, ROWS)]))
    with pytest.raises(DataError, match="in another order") as caught:
        evaluate(tmp_path / "other", binary(), turned, keys=["id"])
    assert "row 1" in str(caught.value.facts["where"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.set_column(1, "late", pa.array(["yes"] * ROWS)), "a label that is none of the classes"),
        (lambda table: table.set_column(1, "late", pa.nulls(ROWS, pa.int64())), "no row can be measured"),
        (lambda table: table.slice(0, 0), "a table without rows"),
    ],
)
def test_data_that_cannot_be_measured(tmp_path: Path, change: Callable[[pa.Table], pa.Table], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path, change(binary()))


def test_names_of_metrics_as_in_tfmas_results() -> None:
    assert [name_of(name) for name in ("AUC", "AUCPrecisionRecall", "BinaryAccuracy", "F1Score")] == [
        "auc", "auc_precision_recall", "binary_accuracy", "f1_score",
    ]  # fmt: skip
