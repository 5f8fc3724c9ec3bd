from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import yaml

from pipeparts.components.monitoring.report_drift import logic
from pipeparts.components.monitoring.report_drift.samples import from_profile
from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.errors import ContractError, DataError, InputError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.models import (
    FORMAT,
    INFO_FILE,
    PREDICTION_PROFILE_FILE,
    PREDICTION_SAMPLE_FILE,
    PROFILE_FILE,
    TRAINING_SAMPLE_FILE,
)
from pipeparts.runtime.monitoring import Drift, read_report
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.sampling import sample_table
from pipeparts.runtime.tables import Table, TableWriter, type_name, write_table

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"
FEATURES = ["carrier", "dest", "origin", "distance", "hour", "air_time"]


def flights() -> pa.Table:
    return csv.read_csv(FLIGHTS, convert_options=csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True))


def answers(rows: int, seed: int = 0, shift: float = 0.0, version: str = "models:/late/3") -> pa.Table:
    probability = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(shift - 1, 1, rows)))
    return pa.table(
        {
            "flight_id": [f"f{i}" for i in range(rows)],
            "prediction": (probability > 0.5).astype(np.int64),
            "probability": probability,
            "model_version": [version] * rows,
        }
    )


def make_model(
    folder: Path, training: pa.Table, features: list[str], *, fingerprint: str = "f" * 32, carried: bool = True
) -> Path:
    """A folder with all that a drift report reads of a model."""
    folder.mkdir(parents=True)
    (folder / "MLmodel").write_text(yaml.safe_dump({"model_uuid": "1", "flavors": {}, "run_id": None}))
    write_table(folder.parent / "training", training, source="training data")
    table = Table(folder.parent / "training")
    card = {
        "format": FORMAT,
        "task": "classification",
        "label": "late",
        "classes": [0, 1],
        "columns": {name: type_name(table.schema.field(name).type) for name in features},
        "framework": "lightgbm",
        "fingerprint": fingerprint,
        "training_fingerprint": table.info.fingerprint,
        "training_rows": table.rows,
        "seed": 0,
        "package_version": "0.1.0",
    }
    write_json(folder / INFO_FILE, card)
    write_profile(folder / PROFILE_FILE, profile_of(table))
    if carried:
        pq.write_table(sample_table(table, 1_000, features), folder / TRAINING_SAMPLE_FILE)
        write_table(folder.parent / "validation", answers(3_000).select(["prediction", "probability"]), source="v")
        validation = Table(folder.parent / "validation")
        write_profile(folder / PREDICTION_PROFILE_FILE, profile_of(validation))
        pq.write_table(sample_table(validation, 1_000), folder / PREDICTION_SAMPLE_FILE)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", flights(), FEATURES)


def table(path: Path, rows: pa.Table | Mapping[str, Any]) -> Path:
    write_table(path, rows if isinstance(rows, pa.Table) else pa.table(rows), source=path.name)
    return path


OUTPUTS = {
    "drift_path": "drift.json",
    "report_path": "report.html",
    "evidently_path": "evidently",
    "metrics_path": "metrics.json",
    "summary_path": "summary.md",
}


def run(tmp_path: Path, current: Any, **given: Any) -> Drift:
    out = given.pop("out", tmp_path / "out")
    place = current if isinstance(current, Path) else table(tmp_path / "current", current)
    given.setdefault("sample_rows", 200)
    paths = {name: out / file for name, file in OUTPUTS.items()}
    return logic.report_drift(current_path=place, **paths, **given)


def change(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_data_that_a_model_was_trained_on_has_not_drifted(tmp_path: Path, model: Path) -> None:
    found = run(tmp_path, flights(), model_path=model)
    assert not found.drifted
    assert found.share_drifted == 0
    assert found.reason == "0 of 6 columns drifted (0%; limit 50%); no predictions were given."
    assert found.model == "f" * 32
    assert {column.name for column in found.columns} == set(FEATURES)
    assert {column.score for column in found.columns} == {0}
    assert found.sample_rows == 200
    assert found.reference.rows == found.current.rows == 2_005
    assert found.reference.source == "training data"


def test_what_is_written(tmp_path: Path, model: Path) -> None:
    rows = change(flights(), "distance", np.full(2_005, 5_000))
    found = run(tmp_path, rows, model_path=model)
    assert read_report(Drift, tmp_path / "out" / "drift.json") == found
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics == logic.scalars(found)
    assert metrics["drifted"] == 0
    assert metrics["drifted_columns"] == 1
    assert metrics["psi_distance"] > 1
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert summary.startswith("# Not drifted\n")
    assert summary.index("| distance |") < summary.index("| carrier |")
    assert "distance" in (tmp_path / "out" / "report.html").read_text()
    assert not list((tmp_path / "out").glob(".*"))
    assert logic.metadata(found)["drifted_columns"] == "distance"


def test_the_same_input_gives_the_same_bytes_whatever_the_order_of_the_rows(tmp_path: Path, model: Path) -> None:
    rows = flights()
    turned = rows.take(pa.array(np.random.default_rng(0).permutation(len(rows))))
    run(tmp_path, table(tmp_path / "one" / "batch", rows), model_path=model, out=tmp_path / "out1")
    run(tmp_path, table(tmp_path / "two" / "batch", turned), model_path=model, out=tmp_path / "out2")
    assert files(tmp_path / "out1") == files(tmp_path / "out2")


def test_half_of_the_columns_is_a_drift_of_the_whole(tmp_path: Path, model: Path) -> None:
    rows = flights()
    for name in ("distance", "hour", "air_time"):
        rows = change(rows, name, np.full(len(rows), 23))
    found = run(tmp_path, rows, model_path=model)
    assert found.drifted
    assert found.share_drifted == 0.5
    assert {column.name for column in found.columns[:3]} == {"distance", "hour", "air_time"}
    kept = run(tmp_path, rows, model_path=model, limits={"share_drifted": 0.51})
    assert not kept.drifted


def test_columns_narrow_and_widen(tmp_path: Path, model: Path) -> None:
    found = run(tmp_path, flights(), model_path=model, columns=["distance", "dep_time", "time_hour"])
    assert {column.name: (column.role, column.kind) for column in found.columns} == {
        "distance": ("feature", "number"),
        "dep_time": ("other", "number"),
        "time_hour": ("other", "number"),
    }


def test_empty_lists_and_dictionaries_count_as_not_given(tmp_path: Path, model: Path) -> None:
    found = run(tmp_path, flights(), model_path=model, columns=[], limits={}, model_uri="")
    assert len(found.columns) == 6


def test_categories_come_and_go(tmp_path: Path, model: Path) -> None:
    rows = flights()
    carriers = ["??" if value == "UA" else value for value in rows["carrier"].to_pylist()]
    found = run(tmp_path, change(rows, "carrier", carriers), model_path=model).column("carrier")
    assert found is not None
    assert found.drifted
    united = rows["carrier"].to_pylist().count("UA")
    assert [(item.value, item.count) for item in found.new_categories] == [("??", united)]
    assert [(item.value, item.count) for item in found.vanished_categories] == [("UA", united)]
    assert "carrier, new: ??" in (tmp_path / "out" / "summary.md").read_text()


def test_limits_of_a_column_and_of_a_statistic(tmp_path: Path, model: Path) -> None:
    rows = flights()
    moved = change(rows, "distance", np.array(rows["distance"]) + 150)
    before = run(tmp_path, moved, model_path=model, limits={"psi": None}).column("distance")
    assert before is not None
    assert "psi" not in before.limits
    assert before.statistics["psi"] is not None
    limits = {"columns": {"distance": {"kolmogorov_smirnov": 0.05, "wasserstein": None}}}
    after = run(tmp_path, moved, model_path=model, limits=limits).column("distance")
    assert after is not None
    assert after.drifted
    assert after.limits == {"psi": 0.2, "kolmogorov_smirnov": 0.05, "missing_change": 0.05}
    assert "kolmogorov_smirnov" in after.exceeded


def test_a_table_as_the_reference(tmp_path: Path) -> None:
    rows = flights()
    reference = table(tmp_path / "reference", rows)
    found = run(tmp_path, rows, reference_path=reference)
    assert not found.drifted
    assert found.model == ""
    kinds = {column.name: column.kind for column in found.columns}
    assert set(kinds) == set(rows.schema.names)
    assert kinds["time_hour"] == "unsupported"
    assert kinds["month"] == "category"
    assert "a time goes on by itself" in next(c.reason for c in found.columns if c.name == "time_hour")
    assert "## Not compared" in (tmp_path / "out" / "summary.md").read_text()


def test_a_column_that_one_of_two_tables_has_alone_is_listed(tmp_path: Path) -> None:
    numbers = np.arange(50.0)
    reference = table(tmp_path / "reference", {"x": numbers, "gone": numbers})
    found = run(tmp_path, {"x": numbers, "came": numbers}, reference_path=reference)
    assert {column.name: column.reason for column in found.columns if column.kind == "unsupported"} == {
        "gone": "the current table has no such column",
        "came": "the reference has no such column",
    }
    assert found.reason.startswith("0 of 1 column drifted")
    assert "- gone: the current table has no such column" in (tmp_path / "out" / "summary.md").read_text()
    assert "the current table has no such column" in (tmp_path / "out" / "report.html").read_text()
    asked = run(tmp_path, tmp_path / "current", reference_path=reference, columns=["x"])
    assert [column.name for column in asked.columns] == ["x"]


def test_identifiers_are_not_compared_unless_asked_for(tmp_path: Path) -> None:
    reference = table(
        tmp_path / "reference", {"id": [f"a{i}" for i in range(500)], "row": range(500), "x": [1.0] * 500}
    )
    rows = {"id": [f"b{i}" for i in range(500)], "row": range(500, 1000), "x": [1.0] * 500}
    found = run(tmp_path, rows, reference_path=reference)
    assert [column.kind for column in found.columns] == ["number", "unsupported", "unsupported"]
    asked = run(tmp_path, tmp_path / "current", reference_path=reference, columns=["id", "row"])
    assert {column.name for column in asked.drifted_columns} == {"row"}


def test_predictions_of_the_model(tmp_path: Path, model: Path) -> None:
    same = table(tmp_path / "same", answers(2_000, 1, version="f" * 32))
    found = run(tmp_path, flights(), model_path=model, predictions_path=same)
    assert not found.drifted
    assert {column.name for column in found.columns if column.role == "prediction"} == {"prediction", "probability"}
    moved = table(tmp_path / "moved", answers(2_000, 1, shift=1.0, version="f" * 32))
    found = run(tmp_path, flights(), model_path=model, predictions_path=moved)
    assert found.drifted
    assert found.share_drifted == 0
    finding = found.findings[1]
    assert finding.name == "prediction_drift"
    assert finding.exceeded
    assert finding.value == found.columns[0].statistics["psi"]
    assert found.columns[0].name == "probability"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["prediction_psi"] == finding.value
    assert not run(
        tmp_path, tmp_path / "current", model_path=model, predictions_path=moved, limits={"prediction_psi": 50}
    ).drifted


def test_only_the_answers_of_this_model_count(tmp_path: Path, model: Path) -> None:
    mixed = pa.concat_tables([answers(500, 1, version="f" * 32), answers(1_500, 2, shift=3.0, version="e" * 32)])
    found = run(tmp_path, flights(), model_path=model, predictions_path=table(tmp_path / "mixed", mixed))
    assert not found.drifted
    only = [column for column in found.columns if column.role == "prediction"]
    assert all((column.statistics["psi"] or 0) < 0.1 for column in only)


def test_the_answers_of_another_model_are_refused(tmp_path: Path, model: Path) -> None:
    other = table(tmp_path / "other", answers(50, version="e" * 32))
    with pytest.raises(ContractError, match="not those of the reference's model") as error:
        run(tmp_path, flights(), model_path=model, predictions_path=other)
    assert error.value.facts["allowed"] == "f" * 32
    assert error.value.facts["received"] == "e" * 32


def test_answers_named_by_their_version_go_with_the_models_folder(tmp_path: Path, model: Path) -> None:
    """The folder does not know under which version it was registered."""
    found = run(tmp_path, flights(), model_path=model, predictions_path=table(tmp_path / "p", answers(2_000, 1)))
    assert found.findings[1].value is not None


def test_a_model_of_an_earlier_release(tmp_path: Path) -> None:
    """It carries its profile alone: the report's reference is made from that, column by column."""
    model = make_model(tmp_path / "model", flights(), FEATURES, carried=False)
    predictions = table(tmp_path / "p", answers(100, version="f" * 32))
    found = run(tmp_path, flights(), model_path=model, predictions_path=predictions)
    assert not found.drifted
    assert "the model has no profile of its predictions" in found.findings[1].reason
    assert found.sample_rows == 200


def test_tables_of_predictions_against_each_other(tmp_path: Path) -> None:
    reference = table(tmp_path / "reference", answers(3_000))
    found = run(tmp_path, answers(3_000, 5, shift=1.0), reference_path=reference)
    assert found.drifted
    assert {column.name: column.role for column in found.columns if column.kind != "unsupported"} == {
        "prediction": "prediction",
        "probability": "prediction",
    }


def test_predictions_beside_a_reference_table(tmp_path: Path) -> None:
    rows = pa.table({"x": np.random.default_rng(0).normal(size=2_000)})
    both = rows.append_column("probability", answers(2_000)["probability"])
    moved = table(tmp_path / "moved", answers(2_000, 1, shift=1.0))
    found = run(tmp_path, rows, reference_path=table(tmp_path / "both", both), predictions_path=moved)
    assert found.drifted
    none = run(tmp_path, tmp_path / "current", reference_path=table(tmp_path / "x", rows), predictions_path=moved)
    assert none.findings[1].reason == "the reference table has no predictions"


def embeddings(rows: int, seed: int, *, move: float = 0.0, spread: float = 1.0, width: int = 32) -> pa.Array:
    vectors = np.random.default_rng(seed).normal(0, spread, (rows, width)).astype(np.float32)
    vectors[:, 3] += move
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)


@pytest.mark.parametrize("width", [2, 32, 200])
@pytest.mark.parametrize(("change", "drifts"), [({}, False), ({"move": 3.0}, True), ({"spread": 2.0}, True)])
def test_vectors(tmp_path: Path, width: int, change: dict[str, float], drifts: bool) -> None:
    change = {"move": 15.0} if "move" in change and width > 64 else change
    reference = table(
        tmp_path / "reference", {"e": embeddings(3_000, 1, width=width if width != 2 else 4), "x": [1] * 3_000}
    )
    rows = {"e": embeddings(2_000, 2, width=width if width != 2 else 4, **change), "x": [1] * 2_000}
    found = run(tmp_path, rows, reference_path=reference).column("e")
    assert found is not None
    assert found.kind == "vector"
    assert found.drifted == drifts
    p_value = found.statistics["p_value"]
    assert p_value is not None
    assert (p_value < 1e-6) == drifts
    if not drifts:
        assert found.score < 0.5


def test_vectors_that_cannot_be_used_count_as_missing(tmp_path: Path) -> None:
    good = [[0.1, 0.2], [0.3, 0.1], [0.2, 0.2], [0.4, 0.1]] * 50
    reference = table(tmp_path / "reference", {"e": pa.array(good, pa.list_(pa.float64()))})
    bad = [None, [1.0], [1.0, None], [float("nan"), 1.0]] * 25
    found = run(tmp_path, {"e": pa.array(good + bad, pa.list_(pa.float64()))}, reference_path=reference).columns[0]
    assert found.current_missing_share == pytest.approx(1 / 3)
    assert found.reference_missing_share == 0
    assert found.exceeded == ("missing_change",)


def test_vectors_of_another_length_are_a_drift_that_says_so(tmp_path: Path) -> None:
    reference = table(tmp_path / "reference", {"e": embeddings(300, 1)})
    shorter = pa.array([[1.0, 2.0]] * 300, pa.list_(pa.float64()))
    found = run(tmp_path, {"e": shorter}, reference_path=reference).columns[0]
    assert found.drifted
    assert found.exceeded == ("missing_change",)
    assert "of another length than the reference's" in found.reason


def test_vectors_of_a_model_are_compared_with_its_sample(tmp_path: Path) -> None:
    rows = pa.table({"e": embeddings(800, 1), "x": np.arange(800.0)})
    model = make_model(tmp_path / "model", rows, ["e", "x"])
    assert not run(tmp_path, rows, model_path=model).drifted
    moved = pa.table({"e": embeddings(800, 2, move=4.0), "x": np.arange(800.0)})
    assert [c.name for c in run(tmp_path, moved, model_path=model).drifted_columns] == ["e"]


@pytest.mark.parametrize(
    "values",
    [
        [None, None, None],
        [float("nan")] * 3,
        [float("inf"), float("-inf"), float("nan")],
        [1e308, -1e308, 5e-324],
        [0.0, -0.0, 0.0],
        [7.0],
    ],
    ids=str,
)
def test_odd_numbers_go_through_to_the_report(tmp_path: Path, values: list[float | None]) -> None:
    rows = {"x": pa.array(values, pa.float64()), "y": pa.array(["a"] * len(values))}
    found = run(tmp_path, rows, reference_path=table(tmp_path / "reference", rows))
    assert not found.drifted
    other = {"x": pa.array([1.0, 2.0] * 50), "y": pa.array(["a"] * 100)}
    run(tmp_path, other, reference_path=tmp_path / "reference")


def test_types_that_tables_have(tmp_path: Path) -> None:
    import datetime as dt
    import decimal

    rows = pa.table(
        {
            "decimal": pa.array([decimal.Decimal("1.25"), None] * 20, pa.decimal128(9, 2)),
            "date": pa.array([dt.date(2013, 1, 1)] * 40),
            "time": pa.array([dt.time(1, 2)] * 40),
            "duration": pa.array([dt.timedelta(1)] * 40),
            "bytes": pa.array([b"a", b"\xff"] * 20),
            "dictionary": pa.array(["a", "b"] * 20).dictionary_encode(),
            "flag": pa.array([True, None] * 20),
            "unsigned": pa.array([2**64 - 1, 1] * 20, pa.uint64()),
            "nothing": pa.nulls(40),
            "structure": pa.array([{"a": 1}] * 40),
            "texts": pa.array([["a"]] * 40),
        }
    )
    reference = table(tmp_path / "reference", rows)
    found = run(tmp_path, rows, reference_path=reference, columns=rows.schema.names)
    assert not found.drifted
    left_out = {column.name for column in found.columns if column.kind == "unsupported"}
    assert left_out == {"structure", "texts"}


# What is refused.


def refused(tmp_path: Path, kind: type[Exception], headline: str, current: Any = None, **given: Any) -> dict[str, str]:
    with pytest.raises(kind, match=headline) as error:
        run(tmp_path, flights() if current is None else current, **given)
    assert not (tmp_path / "out").exists()
    return error.value.facts  # type: ignore[attr-defined]


def test_an_empty_table_is_refused(tmp_path: Path, model: Path) -> None:
    facts = refused(tmp_path, DataError, "the current table has no rows", flights().slice(0, 0), model_path=model)
    assert facts["allowed"] == "one row at least"
    empty = table(tmp_path / "empty", answers(0))
    refused(tmp_path, DataError, "the predictions have no rows", model_path=model, predictions_path=empty)
    reference = table(tmp_path / "none", flights().slice(0, 0))
    refused(tmp_path, DataError, "the reference has no rows", reference_path=reference)


def test_a_column_that_the_model_takes_must_be_there(tmp_path: Path, model: Path) -> None:
    rows = flights().drop_columns(["dest", "hour"]).append_column("dst", flights()["dest"])
    facts = refused(tmp_path, ContractError, "does not have the model's columns", rows, model_path=model)
    assert facts["received"] == "without dest, hour"
    assert facts["hint"] == "did you mean 'dst'?"
    assert "hour: number" in facts["allowed"]


def test_a_column_of_another_kind_is_refused(tmp_path: Path, model: Path) -> None:
    rows = change(flights(), "hour", [str(value) for value in flights()["hour"].to_pylist()])
    facts = refused(tmp_path, ContractError, "does not have the model's columns", rows, model_path=model)
    assert facts["received"] == "of another kind: hour (text, not number)"


@pytest.mark.parametrize(
    ("limits", "place", "received"),
    [
        ({"pis": 0.1}, "limits.pis", "pis"),
        ({"psi": -1}, "limits.psi", "int: -1"),
        ({"psi": "much"}, "limits.psi", "str: 'much'"),
        ({"share_drifted": 1.5}, "limits.share_drifted", "float: 1.5"),
        ({"correction": "bonferroni"}, "limits.correction", "str: 'bonferroni'"),
        ({"alpha": 0}, "limits.alpha", "int: 0"),
        ({"columns": {"distance": {"pis": 1}}}, "limits.columns.distance.pis", "pis"),
        ({"columns": {"distanze": {"psi": 1}}}, "limits.columns.distanze", "distanze"),
        ({"columns": {"carrier": {"wasserstein": 1}}}, "limits.columns.carrier", "wasserstein"),
    ],
)
def test_wrong_limits_are_refused(tmp_path: Path, model: Path, limits: Any, place: str, received: str) -> None:
    facts = refused(tmp_path, InputError, ".", model_path=model, limits=limits)
    assert facts["parameter"] == place
    assert facts["received"] == received
    assert facts["allowed"]


@pytest.mark.parametrize("rows", [0, -1, True, 2.5, "10", 10_000_000])
def test_a_wrong_size_of_the_sample_is_refused(tmp_path: Path, model: Path, rows: Any) -> None:
    facts = refused(tmp_path, InputError, "`sample_rows` is out of its range", model_path=model, sample_rows=rows)
    assert facts["received"] == repr(rows)


def test_wrong_columns_are_refused(tmp_path: Path, model: Path) -> None:
    facts = refused(tmp_path, InputError, "no such column", model_path=model, columns=["distanze"])
    assert facts["hint"] == "did you mean 'distance'?"
    facts = refused(tmp_path, InputError, "not a list of names", model_path=model, columns="distance")
    assert facts["received"] == "'distance'"


def test_the_reference_is_given_once(tmp_path: Path, model: Path) -> None:
    facts = refused(tmp_path, InputError, "no reference was given")
    assert "predictions" in facts["allowed"]
    facts = refused(tmp_path, InputError, "more than one", model_path=model, model_uri="models:/late/1")
    assert facts["received"] == "model, model_uri"
    unregistered = table(tmp_path / "p", answers(10, version="a" * 32))
    facts = refused(tmp_path, InputError, "a model that is not registered", predictions_path=unregistered)
    assert facts["received"] == "a" * 32


def test_nothing_that_can_be_compared(tmp_path: Path) -> None:
    rows = pa.table({"when": pa.array([0, 1], pa.timestamp("us"))})
    facts = refused(
        tmp_path, DataError, "no column can be compared", rows, reference_path=table(tmp_path / "reference", rows)
    )
    assert facts["received"].startswith("when: a time goes on")
    other = pa.table({"other": [1, 2]})
    refused(tmp_path, ContractError, "no column in common", other, reference_path=tmp_path / "reference")


def test_damaged_inputs_are_refused(tmp_path: Path, model: Path) -> None:
    (model / PROFILE_FILE).write_text("{")
    refused(tmp_path, ContractError, "a profile is not JSON", model_path=model)
    (model / PROFILE_FILE).unlink()
    refused(tmp_path, ContractError, "no training profile", model_path=model)
    with pytest.raises(ContractError, match="no table here"):
        run(tmp_path, tmp_path / "nowhere", model_path=model)


def test_killed_while_it_writes_leaves_no_half_written_report(tmp_path: Path, model: Path) -> None:
    current = table(tmp_path / "current", flights())
    script = (
        "import os, sys; from pathlib import Path;"
        "from pipeparts.components.monitoring.report_drift import logic;"
        "logic.write_text = lambda *_: os._exit(9);"
        f"out = Path(sys.argv[1]); paths = {{k: out / v for k, v in {OUTPUTS!r}.items()}};"
        "logic.report_drift(current_path=sys.argv[2], model_path=sys.argv[3], sample_rows=50, **paths)"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "out"), str(current), str(model)]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == 9
    assert not (tmp_path / "out" / "drift.json").exists()
    again = run(tmp_path, current, model_path=model)
    assert read_report(Drift, tmp_path / "out" / "drift.json") == again


def test_a_sample_made_from_a_profile_is_distributed_as_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = {
        "x": pa.array(random.normal(0, 1, 20_000), mask=random.random(20_000) < 0.25),
        "n": random.integers(0, 5, 20_000),
        "t": random.choice(list("abc"), 20_000, p=[0.6, 0.3, 0.1]),
    }
    profile = profile_of(Table(table(tmp_path / "t", rows)))
    x = from_profile(profile.column("x"), 1_000)
    assert x.null_count == pytest.approx(250, abs=10)
    values = np.array(x.drop_null())
    assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx(np.array([-1.28, 0, 1.28]), abs=0.05)
    assert sorted(set(from_profile(profile.column("n"), 100).to_pylist())) == [0, 1, 2, 3, 4]
    assert from_profile(profile.column("t"), 100).to_pylist().count("a") == pytest.approx(60, abs=2)


# With a registry.


@pytest.fixture
def registry(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = mlflow_registry.connect(uri, create=True)
    client = found.client
    experiment = client.create_experiment("late", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    client.log_artifacts(run_id, str(model), "model")
    client.create_registered_model("late")
    for _ in range(3):
        client.create_model_version("late", f"{tmp_path}/artifacts/{run_id}/artifacts/model", run_id)
    client.set_registered_model_alias("late", "champion", "3")
    return uri


def test_a_registered_model_by_alias(tmp_path: Path, registry: str) -> None:
    found = run(tmp_path, flights(), model_uri="models:/late@champion")
    assert found.model == "models:/late/3"
    assert not found.drifted


def test_the_model_that_made_the_predictions(tmp_path: Path, registry: str) -> None:
    found = run(tmp_path, flights(), predictions_path=table(tmp_path / "p", answers(2_000, 1)))
    assert found.model == "models:/late/3"
    assert found.findings[1].value is not None
    with pytest.raises(ContractError, match="not those of the reference's model"):
        run(tmp_path, tmp_path / "current", model_uri="models:/late/2", predictions_path=tmp_path / "p")


# Many rows.


def many(path: Path, seed: int, *, rows: int = 5_000_000, shift: float = 0.0) -> Path:
    """19 columns: numbers with many values, whole numbers, categories of 2 to 5,000 values, gaps."""
    texts = pa.array([f"text {i}" for i in range(5_000)])

    def part(number: int, size: int = 100_000) -> pa.Table:
        random = np.random.default_rng([seed, number])
        columns = {f"number_{i}": random.normal(i, 1 + i, size) for i in range(6)}
        columns["amount"] = np.round(random.lognormal(3 + shift, 1, size), 2)
        columns["rate"], columns["far"] = random.random(size), random.normal(1e6, 1, size)
        columns["delay"], columns["distance"] = random.poisson(20, size), random.integers(100, 3_000, size)
        columns["hour"], columns["large"] = random.integers(0, 24, size), random.integers(0, 2**40, size)
        columns["flag"] = random.random(size) < 0.3
        for name, values in (("carrier", 10), ("kind", 3), ("place", 300)):
            columns[name] = texts.take(pa.array(random.integers(0, values, size)))
        columns["tail"] = texts.take(pa.array(np.minimum(random.geometric(0.002, size), 4_999)))
        columns["gaps"] = pa.array(random.normal(0, 1, size), mask=random.random(size) < 0.2)
        return pa.table(columns)

    with TableWriter(path, part(0).schema, source=path.name, fingerprint=False) as writer:
        for number in range(rows // 100_000):
            writer.write(part(number))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("against", ["table", "model"])
def test_five_million_rows_in_bounded_memory(tmp_path: Path, against: str) -> None:
    """Measured: 540 MB, 10 s of CPU for the decision on two tables, 10 s for the samples, 5 s for Evidently's page."""
    current = many(tmp_path / "current", 2, shift=0.6)
    if against == "table":
        given = {"reference_path": str(many(tmp_path / "reference", 1))}
    else:
        few = Table(many(tmp_path / "few", 1, rows=500_000)).read()
        given = {"model_path": str(make_model(tmp_path / "model", few, few.schema.names))}
    script = (
        "import sys; from pathlib import Path;"
        "from pipeparts.components.monitoring.report_drift import logic;"
        f"out = Path(sys.argv[1]); paths = {{k: out / v for k, v in {OUTPUTS!r}.items()}};"
        f"found = logic.report_drift(current_path=sys.argv[2], **{given!r}, **paths);"
        "print(*(column.name for column in found.drifted_columns));"
        'print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)'
    )
    arguments = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "out"), str(current)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
    drifted, megabytes = done.stdout.splitlines()
    assert drifted == "amount"
    assert int(megabytes) < 800
