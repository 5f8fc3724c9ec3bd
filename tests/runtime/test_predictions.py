"""Tests of the table of predictions, and of what is kept of a model's answer."""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.errors import ContractError, DataError
from pipeparts.runtime.models import LoadedModel, ModelInfo
from pipeparts.runtime.predictions import (
    MODEL_VERSION,
    answer,
    prediction_arrays,
    prediction_schema,
    served_model,
    usable_scores,
)
from pipeparts.runtime.tables import Table, write_table

INFO = ModelInfo(
    task="classification", label="late", classes=(0, 1), columns={"x": "float64"}, framework="lightgbm",
    fingerprint="aa", training_fingerprint="bb", training_rows=1, seed=0, package_version="0",
)  # fmt: skip
REGRESSION = dataclasses.replace(INFO, task="regression", classes=())


def info(*classes):
    return dataclasses.replace(INFO, classes=classes)


class Scores:
    """A model that scores columns: what it is told to say."""

    def __init__(self, scores):
        self.scores = np.array(scores)

    def score_columns(self, columns):
        return self.scores


class Frames:
    """A model that takes frames alone."""

    def __init__(self, **columns):
        self.frame = pd.DataFrame(columns)

    def predict(self, rows):
        if "error" in self.frame:
            raise RuntimeError(self.frame["error"][0])
        return self.frame


def ask(card, model, rows=None):
    count = rows or len(getattr(model, "scores", getattr(model, "frame", None)))
    batch = pa.record_batch({"x": [0.5] * count})
    return answer(LoadedModel.of(card, model), batch, start=1_000_000)


def columns(card, model):
    made = pa.record_batch(prediction_arrays(ask(card, model), card), schema=prediction_schema(card))
    return made.to_pydict()


@pytest.mark.parametrize(
    ("card", "types"),
    [
        (REGRESSION, {"prediction": "double"}),
        (info(0, 1), {"prediction": "int64", "probability": "double"}),
        (info(False, True), {"prediction": "bool", "probability": "double"}),
        (info("no", "yes"), {"prediction": "string", "probability": "double"}),
        (info(0.5, 1.5), {"prediction": "double", "probability": "double"}),
        (info("a", "b", "c"), {"prediction": "string", **{f"probability_{c}": "double" for c in "abc"}}),
    ],
)
def test_the_columns_have_the_type_of_the_classes(card, types):
    assert {field.name: str(field.type) for field in prediction_schema(card)} == types
    assert tuple(prediction_schema(card).names) == card.prediction_columns


@pytest.mark.parametrize("classes", [(0, 1), (False, True), ("no", "yes")])
def test_two_classes_by_column_and_by_frame(classes):
    scores = [0.25, 0.5, np.nan, 1.0 + 1e-9, -1e-9, 1.5, np.inf]
    no, yes = classes
    expected = {
        "prediction": [no, yes, None, yes, no, None, None],
        "probability": [0.25, 0.5, None, 1.0, 0.0, None, None],
    }
    assert columns(info(*classes), Scores(scores)) == expected
    said = Frames(prediction=[no, yes, no, yes, no, yes, yes], probability=scores)
    assert columns(info(*classes), said) == expected


def test_more_classes_by_column_and_by_frame():
    card = info("a", "b", "c")
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [np.nan, 0.5, 0.5], [0.2, 0.5, 0.3]])
    made = columns(card, Scores(scores))
    assert made["prediction"] == ["a", "c", None, "b"]
    assert made["probability_b"] == [0.2, 0.2, None, 0.5]  # a row without an answer has none at all
    shares = {f"probability_{c}": scores[:, i] for i, c in enumerate("abc")}
    assert columns(card, Frames(prediction=["a", "c", "b", "b"], **shares)) == made
    strange = ask(card, Frames(prediction=["a", "z", "b", None], **shares))
    assert strange.usable.tolist() == [True, False, False, False]


def test_a_regression():
    scores = [1.5, np.nan, -np.inf, 1e300]
    assert columns(REGRESSION, Scores(scores)) == {"prediction": [1.5, None, None, 1e300]}
    assert columns(REGRESSION, Frames(prediction=scores)) == {"prediction": [1.5, None, None, 1e300]}


@given(st.lists(st.floats(), min_size=1))
@settings(max_examples=50, deadline=None)
def test_usable_scores_are_probabilities_or_missing(scores):
    kept = usable_scores(INFO, np.array(scores))
    assert np.all(np.isnan(kept) | ((kept >= 0) & (kept <= 1)))
    assert np.array_equal(np.isnan(kept), [not -1e-6 <= score <= 1 + 1e-6 for score in scores])
    assert np.array_equal(np.isfinite(usable_scores(REGRESSION, np.array(scores))), np.isfinite(scores))


@pytest.mark.parametrize(
    ("card", "model", "headline", "received"),
    [
        (INFO, Frames(error=["out of order"]), "the model fails on the table's rows", "RuntimeError: out of order"),
        (INFO, Scores([0.5, 0.5]), "not what its card says", "2"),
        (INFO, Scores([[0.5, 0.5, 0.5]]), "not what its card says", "1, 3"),
        (info("a", "b", "c"), Scores([0.5]), "not what its card says", "1"),
        (INFO, Frames(prediction=[1]), "not what its card says", "('prediction',)"),
        (INFO, Frames(prediction=[1], probability=["much"]), "not numbers", "much"),
    ],
)
def test_an_answer_of_another_kind_is_refused(card, model, headline, received):
    with pytest.raises(ContractError, match=headline) as error:
        ask(card, model, rows=1)
    assert received in error.value.facts["received"]


def test_the_rows_of_a_failure_are_named():
    with pytest.raises(ContractError) as error:
        ask(INFO, Frames(error=["no"] * 5))
    assert error.value.facts["where"] == "among rows 1,000,000 to 1,000,005"


def table(folder, versions, kind=None, name=MODEL_VERSION):
    rows = pa.table({"prediction": [1] * len(versions), name: pa.array(versions, kind or pa.string())})
    write_table(folder / "predictions", rows, source="test")
    return Table(folder / "predictions")


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_the_model_of_most_rows_served(tmp_path, kind):
    versions = ["models:/late/1"] * 3 + ["models:/late/2"] * 4 + [None] * 9
    assert served_model(table(tmp_path, versions, kind)) == "models:/late/2"


def test_of_equally_many_rows_it_is_the_first_by_name(tmp_path):
    assert served_model(table(tmp_path, ["models:/late/2", "models:/late/1"])) == "models:/late/1"


@pytest.mark.parametrize("versions", [[], [None, None]])
def test_where_no_row_says_which_model_it_fails(tmp_path, versions):
    with pytest.raises(DataError, match="no row says which model made it") as error:
        served_model(table(tmp_path, versions))
    assert error.value.facts["received"] == ("2 rows without one" if versions else "an empty table")


@pytest.mark.parametrize(
    ("changes", "received"), [({"name": "version"}, "prediction, version"), ({"kind": pa.int64()}, "int64")]
)
def test_a_table_of_something_else_is_refused(tmp_path, changes, received):
    with pytest.raises(ContractError, match="not a table of predictions") as error:
        served_model(table(tmp_path, [1, 2] if "kind" in changes else ["a", "b"], **changes))
    assert received in error.value.facts["received"]
    assert f"a column {MODEL_VERSION} of text" in error.value.facts["allowed"]
