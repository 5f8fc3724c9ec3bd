"""Tests of the logic of `train_lightgbm`, and of what it shares with `train_keras`."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.training.train_lightgbm.logic import train_lightgbm
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime import training
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.models import REFERENCE_FILES, LoadedModel, read_model_info, read_reference
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.sampling import sample_table
from pipeparts.runtime.serving.features import Category, Numeric, Time
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, write_table

ROOT = Path(__file__).parents[4]
COLUMNS = {
    "carrier": "string", "dest": "string", "hour": "int64", "plane_year": "int64", "temp": "float64",
    "time_hour": "timestamp_utc",
}  # fmt: skip
SMALL = {"num_iterations": 15, "num_leaves": 7, "patience": 5}


def read_flights():
    kinds = {
        "flight_id": pa.string(),
        "late": pa.int64(),
        "plane_year": pa.int64(),
        "time_hour": pa.timestamp("us", "UTC"),
    }
    return pa_csv.read_csv(
        ROOT / "tests/data/flights.csv",
        convert_options=pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True),
    )


def make_transform(rows):
    carriers = tuple(sorted(pc.unique(rows["carrier"]).to_pylist()))
    dests = tuple(sorted(pc.unique(rows["dest"]).to_pylist()))[:40]
    return Transform(
        COLUMNS,
        [
            Category("carrier", ("carrier",), carriers),
            Category("dest", ("dest",), dests, buckets=4),
            Numeric("hour", "hour", center=13.0, factor=0.2),
            Numeric("plane_year", "plane_year", fill=2001.0, center=2001.0, factor=0.14, indicator=True),
            Numeric("temp", "temp", fill=56.0, center=56.0, factor=0.055),
            Time("time", "time_hour", parts=("weekday",), cycles=("day_of_year",)),
        ],
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rows = read_flights()
    month = rows["month"]
    write_table(folder / "train", rows.filter(pc.less_equal(month, 8)), source="tests/data/flights.csv")
    write_table(folder / "validation", rows.filter(pc.greater(month, 8)), source="tests/data/flights.csv")
    write_json(folder / "transform.json", make_transform(rows).as_dict())
    write_profile(folder / "profile.json", profile_of(Table(folder / "train")))
    return folder


def train(inputs, folder, *, train_path=None, validation_path=None, transform_path=None, **changes):
    arguments = {"label": "late", "hyperparameters": SMALL} | changes
    return train_lightgbm(
        train_path=train_path or inputs / "train",
        validation_path=validation_path or inputs / "validation",
        transform_path=transform_path or inputs / "transform.json",
        profile_path=inputs / "profile.json",
        model_path=folder / "model",
        metrics_path=folder / "metrics.json",
        page_path=folder / "page.html",
        **arguments,
    )


def altered(inputs, folder, name, change):
    """The training or validation table after a change to its rows."""
    write_table(folder / f"altered_{name}", change(Table(inputs / name).read()), source="changed")
    return folder / f"altered_{name}"


def with_label(rows, values):
    return rows.set_column(rows.schema.get_field_index("late"), "late", values)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(inputs, folder), folder


def test_the_model_takes_raw_columns(inputs, trained):
    _, folder = trained
    rows = Table(inputs / "validation").read().to_pandas()
    predictions = LoadedModel(folder / "model").predict(rows)
    assert list(predictions.columns) == ["prediction", "probability"]
    assert predictions["probability"].between(0, 1).all()
    assert set(predictions["prediction"]) <= {0, 1}
    assert (predictions["prediction"] == (predictions["probability"] >= 0.5)).all()
    assert predictions["probability"].nunique() > 50


def test_the_card_the_metrics_and_the_profile(inputs, trained):
    result, folder = trained
    info = read_model_info(folder / "model")
    assert info == result.info
    assert info.classes == (0, 1)
    assert info.columns == COLUMNS
    assert info.extra["unlabelled_training_rows"] == pc.sum(pc.is_null(Table(inputs / "train").read()["late"])).as_py()
    assert info.training_rows + info.extra["unlabelled_training_rows"] == Table(inputs / "train").rows
    assert read_json(folder / "metrics.json", what="metrics") == result.metrics
    assert {"train_loss", "validation_loss", "validation_roc_auc", "validation_brier"} <= set(result.metrics)
    assert result.metrics["validation_loss"] == pytest.approx(result.metrics["validation_log_loss"], rel=1e-4)
    assert (folder / "model/training_profile.json").read_bytes() == (inputs / "profile.json").read_bytes()
    page = (folder / "page.html").read_text()
    assert "Feature importance" in page
    assert "carrier" in page


def test_the_metrics_are_those_of_the_written_model(inputs, trained):
    from sklearn.metrics import brier_score_loss, roc_auc_score

    result, folder = trained
    rows = Table(inputs / "validation").read()
    rows = rows.filter(pc.is_valid(rows["late"]))
    predicted = LoadedModel(folder / "model").predict(rows.to_pandas())["probability"]
    truth = rows["late"].to_numpy()
    assert roc_auc_score(truth, predicted) == pytest.approx(result.metrics["validation_roc_auc"], rel=1e-5)
    assert brier_score_loss(truth, predicted) == pytest.approx(result.metrics["validation_brier"], rel=1e-5)


def sorted_rows(rows):
    return sorted(map(repr, rows.to_pylist()))


def test_the_model_carries_the_training_rows_and_its_predictions(inputs, trained, tmp_path):
    _, folder = trained
    reference = read_reference(folder / "model")
    columns = [*COLUMNS, "late"]
    assert reference.sample.column_names == columns
    assert sorted_rows(reference.sample) == sorted_rows(Table(inputs / "train").read(columns))
    rows = Table(inputs / "validation").read()
    assert rows["late"].null_count > 0
    predictions = pa.Table.from_pandas(LoadedModel(folder / "model").predict(rows.to_pandas()), preserve_index=False)
    assert sorted_rows(reference.prediction_sample) == sorted_rows(predictions)
    made = profile_of(Table(write_predictions(tmp_path / "predictions", predictions)))
    assert reference.prediction_profile.names == list(read_model_info(folder / "model").prediction_columns)
    assert reference.prediction_profile.columns == made.columns
    assert reference.prediction_profile.fingerprint == made.fingerprint
    assert reference.prediction_profile.source == (
        "the model's predictions on its validation table (tests/data/flights.csv)"
    )


def write_predictions(path, rows):
    write_table(path, rows.replace_schema_metadata(None), source="a test")
    return path


def test_of_many_rows_it_carries_a_sample(inputs, tmp_path, monkeypatch):
    from pipeparts.runtime import references

    monkeypatch.setattr(references, "REFERENCE_ROWS", 50)
    train(inputs, tmp_path)
    reference = read_reference(tmp_path / "model")
    assert reference.sample.equals(sample_table(Table(inputs / "train"), 50, [*COLUMNS, "late"]))
    assert reference.prediction_sample.num_rows == 50
    assert reference.prediction_profile.rows == Table(inputs / "validation").rows


def test_a_model_of_an_earlier_release_loads_and_serves(inputs, trained, tmp_path):
    _, folder = trained
    shutil.copytree(folder / "model", tmp_path / "model")
    for name in REFERENCE_FILES[1:]:
        (tmp_path / "model" / name).unlink()
    rows = Table(inputs / "validation").read().to_pandas()
    one, other = (LoadedModel(place / "model").predict(rows) for place in (folder, tmp_path))
    assert one.equals(other)
    reference = read_reference(tmp_path / "model")
    assert reference.profile.rows == Table(inputs / "train").rows
    assert (reference.prediction_profile, reference.sample, reference.prediction_sample) == (None, None, None)


def digests(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_same_seed_same_bytes_and_another_seed_another_model(inputs, trained, tmp_path):
    result, folder = trained
    again = train(inputs, tmp_path)
    assert again.info.fingerprint == result.info.fingerprint
    assert digests(tmp_path) == digests(folder)
    other = train(inputs, tmp_path, seed=1)
    assert other.info.fingerprint != result.info.fingerprint


CLEAN = """
import json, sys, warnings
sys.modules["pipeparts"] = None  # importing it fails
warnings.simplefilter("ignore")
import mlflow.pyfunc, pandas as pd
answers = []
for path in sys.argv[1:]:
    model = mlflow.pyfunc.load_model(path)
    answers.append(model.predict(model.input_example)["probability"].tolist())
print(json.dumps(answers))
print(len({name.split(".")[0] for name in sys.modules if name.startswith("pipeparts_serving")}))
"""


def test_two_releases_load_side_by_side_without_pipeparts(inputs, trained, tmp_path, monkeypatch):
    """A champion of an older release keeps its own serving code beside that of the challenger."""
    from pipeparts.runtime import model_saving

    _, folder = trained
    shutil.copytree(model_saving._SERVING, tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "serving" / "predictions.py").open("a") as source:
        source.write("\n# another release\n")
    monkeypatch.setattr(model_saving, "_SERVING", tmp_path / "serving")
    train(inputs, tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", CLEAN, str(folder / "model"), str(tmp_path / "model")],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    answers, packages = result.stdout.splitlines()
    first, second = json.loads(answers)
    assert len(first) == 5
    assert first == second
    assert packages == "2"


def test_the_signature_takes_integers_with_gaps_and_times_with_a_zone(trained):
    import mlflow.pyfunc

    _, folder = trained
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    example = model.input_example
    example["plane_year"] = [None] * (len(example) - 1) + [1999]
    assert model.predict(example)["probability"].notna().all()
    types = {column.name: str(column.type) for column in model.metadata.signature.inputs}
    assert types["hour"] == "DataType.long"
    assert types["plane_year"] == "Any"
    assert types["carrier"] == "DataType.string"
    assert [c.name for c in model.metadata.signature.outputs] == ["prediction", "probability"]


def test_a_missing_column_at_prediction_is_named(inputs, trained):
    _, folder = trained
    rows = Table(inputs / "validation").read().to_pandas().rename(columns={"carrier": "carier"})
    import mlflow.pyfunc

    with pytest.raises(ValueError, match="a column that the model needs is missing") as error:
        mlflow.pyfunc.load_model(str(folder / "model")).get_raw_model().predict(rows)
    assert "did you mean 'carier'?" in str(error.value)


def test_no_rows_give_no_predictions(inputs, trained):
    _, folder = trained
    rows = Table(inputs / "validation").read().to_pandas()
    assert len(LoadedModel(folder / "model").predict(rows[:0])) == 0


def test_more_than_two_classes(inputs, tmp_path):
    transform = Transform(
        {"distance": "float64", "temp": "float64"},
        [Numeric("distance", "distance", factor=0.001), Numeric("temp", "temp", fill=50.0)],
    )
    write_json(tmp_path / "transform.json", transform.as_dict())

    def floats(rows):
        return rows.set_column(rows.schema.get_field_index("distance"), "distance", rows["distance"].cast(pa.float64()))

    paths = {f"{name}_path": altered(inputs, tmp_path, name, floats) for name in ("train", "validation")}
    result = train(inputs, tmp_path, **paths, transform_path=tmp_path / "transform.json", label="origin")
    assert result.info.classes == ("EWR", "JFK", "LGA")
    predictions = LoadedModel(tmp_path / "model").predict(Table(paths["validation_path"]).read().to_pandas())
    shares = predictions[[f"probability_{name}" for name in result.info.classes]]
    assert np.allclose(shares.sum(axis=1), 1)
    assert set(predictions["prediction"]) <= {"EWR", "JFK", "LGA"}
    assert result.metrics["validation_accuracy"] > 0.4
    reference = read_reference(tmp_path / "model")
    assert reference.prediction_profile.names == list(predictions.columns)
    assert reference.prediction_sample["prediction"].type == pa.string()
    counts = reference.prediction_profile.column("prediction").top.counts()
    assert counts == predictions["prediction"].value_counts().to_dict()


def test_regression_predicts_in_the_labels_unit(inputs, tmp_path):
    result = train(inputs, tmp_path, label="distance", task="regression", hyperparameters={"num_iterations": 60})
    rows = Table(inputs / "validation").read().to_pandas()
    predicted = LoadedModel(tmp_path / "model").predict(rows)["prediction"]
    off = predicted - rows["distance"]
    assert float(np.sqrt((off**2).mean())) == pytest.approx(result.metrics["validation_rmse"], rel=1e-4)
    assert result.metrics["validation_r2"] > 0.5
    assert result.info.classes == ()
    carried = read_reference(tmp_path / "model").prediction_profile.column("prediction").numbers
    assert (carried.minimum, carried.maximum) == (predicted.min(), predicted.max())


def test_weights_move_the_probabilities(inputs, trained, tmp_path):
    _, folder = trained
    rows = Table(inputs / "validation").read().to_pandas()
    plain = LoadedModel(folder / "model").predict(rows)["probability"].mean()
    train(inputs, tmp_path, hyperparameters=SMALL | {"class_weights": "balanced"})
    balanced = LoadedModel(tmp_path / "model").predict(rows)["probability"].mean()
    train(inputs, tmp_path, hyperparameters=SMALL | {"class_weights": {"0": 10.0, "1": 1.0}})
    light = LoadedModel(tmp_path / "model").predict(rows)["probability"].mean()
    assert light < plain < balanced


def test_without_early_stopping_every_tree_is_kept(inputs, tmp_path):
    many = {"num_iterations": 80, "learning_rate": 0.5, "patience": 2}
    stopped = train(inputs, tmp_path / "stopped", hyperparameters=many)
    whole = train(inputs, tmp_path / "whole", hyperparameters=many | {"early_stopping": False})
    assert stopped.metrics["best_tree"] < stopped.metrics["trees"] < 80
    assert whole.metrics["best_tree"] == whole.metrics["trees"] == 80
    assert whole.metrics["validation_loss"] > stopped.metrics["validation_loss"]


def set_all(value):
    return lambda rows: with_label(rows, pa.array([value] * rows.num_rows, pa.int64()))


def text_label(rows):
    return with_label(rows, pa.array([str(v) for v in rows["late"].to_pylist()]))


def without_ones(rows):
    return rows.filter(pc.equal(rows["late"], 0))


@pytest.mark.parametrize(
    ("changes", "expected", "facts"),
    [
        ({"label": "lat"}, InputError, ["the table has no such column", "did you mean 'late'?"]),
        ({"label": "carrier"}, InputError, ["the label is among the features", "received: carrier"]),
        ({"task": "clasification"}, InputError, ["did you mean 'classification'?"]),
        ({"label": "origin", "task": "regression"}, InputError, ["not a number", "received: string"]),
        ({"label": "time_hour_2"}, InputError, ["no such column"]),
        ({"label": "flight_id"}, DataError, ["too many classes", "more than 1,000", 'task="regression"']),
        ({"hyperparameters": {"num_leafs": 5}}, InputError, ["num_leafs", "did you mean 'num_leaves'?"]),
        ({"hyperparameters": {"learning_rate": -1}}, InputError, ["hyperparameters.learning_rate", "greater than 0"]),
        ({"hyperparameters": {"class_weights": "balance"}}, InputError, ["class_weights", "balance"]),
        ({"hyperparameters": {"class_weights": {"0": 1.0}}}, InputError, ["exactly the label's classes", "'1' has no"]),
        ({"hyperparameters": {"class_weights": {"0": 1, "no": 1}}}, InputError, ["exactly the label's classes"]),
        ({"network": "team.nets:wide"}, InputError, ["trees have no network", "received: team.nets:wide"]),
    ],
)
def test_wrong_parameters(inputs, tmp_path, changes, expected, facts):
    with pytest.raises(expected) as error:
        train(inputs, tmp_path, **changes)
    for fact in facts:
        assert fact in str(error.value)
    assert not list(tmp_path.iterdir()), "a failed training leaves nothing"


@pytest.mark.parametrize(
    ("name", "change", "facts"),
    [
        ("train", set_all(1), ["the label is constant", "received: 1 in every row"]),
        ("train", set_all(None), ["no row of the training table has a label", "all without a label"]),
        ("train", lambda rows: rows[:0], ["the training table is empty"]),
        ("validation", set_all(None), ["no row of the validation table has a label"]),
        ("validation", lambda rows: rows[:0], ["no row of the validation table has a label"]),
        ("validation", without_ones, ["the validation table lacks a class", "none of 1", "stratified"]),
        ("validation", set_all(7), ["a class that the training table does not have", "allowed: 0, 1", "received: 7"]),
        ("validation", text_label, ["a label of another type", "allowed: int64, as in", "received: string"]),
        ("train", lambda rows: rows.drop(["temp"]), ["the transform does not fit the table", "no column 'temp'"]),
        (
            "train",
            lambda rows: rows.set_column(0, "hour2", rows["hour"]).drop(["hour"]),
            ["the transform does not fit the table", "no column 'hour'", "did you mean 'hour2'?"],
        ),
        (
            "train",
            lambda rows: rows.set_column(rows.schema.get_field_index("temp"), "temp", rows["carrier"]),
            ["the transform does not fit the table", "column 'temp'", "received: string"],
        ),
    ],
)
def test_wrong_tables(inputs, tmp_path, name, change, facts):
    with pytest.raises((InputError, DataError)) as error:
        train(inputs, tmp_path, **{f"{name}_path": altered(inputs, tmp_path, name, change)})
    for fact in facts:
        assert fact in str(error.value)
    assert not (tmp_path / "model").exists()


def test_infinite_and_missing_labels_of_a_regression(inputs, tmp_path):
    def put(value):
        def change(rows):
            numbers = rows["temp"].cast(pa.float64()).to_pylist()
            return with_label(rows, pa.array([value, *numbers[1:]], pa.float64()))

        return change

    numbers = {"task": "regression"}
    infinite = altered(inputs, tmp_path, "train", put(float("inf")))
    validation = altered(inputs, tmp_path, "validation", put(1.0))
    with pytest.raises(DataError, match="a label that is infinite"):
        train(inputs, tmp_path, train_path=infinite, validation_path=validation, **numbers)
    missing = altered(inputs, tmp_path, "train", put(float("nan")))
    result = train(inputs, tmp_path, train_path=missing, validation_path=validation, **numbers)
    nulls = Table(inputs / "train").read()["temp"].null_count
    assert result.info.extra["unlabelled_training_rows"] == 1 + nulls


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}'])
def test_what_is_no_transform_is_refused(inputs, tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ContractError):
        train(inputs, tmp_path, transform_path=tmp_path / "t.json")


def test_a_failure_while_saving_leaves_no_model(inputs, tmp_path):
    (tmp_path / "bad").mkdir()
    shutil.copytree(inputs, tmp_path / "inputs")
    (tmp_path / "inputs" / "profile.json").write_text("no JSON")
    with pytest.raises(ContractError, match="a profile is not JSON"):
        train(tmp_path / "inputs", tmp_path / "bad")
    assert not list((tmp_path / "bad").iterdir())


# --- what the trainers share


@pytest.fixture(scope="module")
def spool(inputs, tmp_path_factory):
    table, transform = Table(inputs / "train"), Transform.load(inputs / "transform.json")
    target = training.read_target(table, table, "late", "classification")
    with training.Spool(table, transform, target, tmp_path_factory.mktemp("spool") / "rows") as rows:
        yield rows


@settings(max_examples=30, deadline=None)
@given(
    batch_rows=st.integers(1, 500),
    seed=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    buffer_rows=st.integers(1, 2_000),
    block_rows=st.integers(1, 300),
)
def test_a_shuffle_gives_every_row_once(spool, batch_rows, seed, buffer_rows, block_rows):
    def rows_of(batches):
        packed = [np.hstack([b.numeric, b.categories, b.labels[:, None]]) for b in batches]
        assert all(len(part) == batch_rows for part in packed[:-1])
        return np.vstack(packed)

    options = {"seed": seed, "buffer_rows": buffer_rows, "block_rows": block_rows}
    shuffled = rows_of(spool.shuffled(batch_rows, **options))
    again = rows_of(spool.shuffled(batch_rows, **options))
    in_order = rows_of(spool.in_order(batch_rows))
    assert np.array_equal(shuffled, again)
    assert np.array_equal(np.sort(shuffled, axis=0), np.sort(in_order, axis=0))
    order = np.lexsort(shuffled.T), np.lexsort(in_order.T)
    assert np.array_equal(shuffled[order[0]], in_order[order[1]])


def test_another_epoch_has_another_order(spool):
    def labels(epoch):
        return [b.labels.tolist() for b in spool.shuffled(64, seed=(0, epoch), buffer_rows=10_000, block_rows=16)]

    assert labels(0) != labels(1)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), min_size=2, max_size=60).filter(
        lambda v: np.ptp([x for x in v if x is not None] or [0]) > 1e-3
    )
)
def test_a_regressions_label_is_standardized_and_back(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("labels")
    write_table(folder / "t", pa.table({"y": pa.array(values, pa.float64())}), source="test")
    table = Table(folder / "t")
    target = training.read_target(table, table, "y", "regression")
    present = np.array([v for v in values if v is not None])
    assert target.mean == pytest.approx(present.mean(), rel=1e-9, abs=1e-6)
    assert target.scale == pytest.approx(present.std(), rel=1e-6)
    known, encoded = target.encode(pa.array(values, pa.float64()), where="t")
    assert known.tolist() == [v is not None for v in values]
    assert np.allclose(encoded * target.scale + target.mean, present, rtol=1e-5, atol=1e-5 * target.scale)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (pa.array([True, False, None, True]), (False, True)),
        (pa.array(["b", "a", None, "ü"]), ("a", "b", "ü")),
        (pa.array([2.0, 1.0, float("nan")]), (1.0, 2.0)),
        (pa.array([3, -1, 3], pa.int64()), (-1, 3)),
    ],
)
def test_classes_are_the_sorted_labels(tmp_path, values, classes):
    write_table(tmp_path / "t", pa.table({"y": values}), source="test")
    table = Table(tmp_path / "t")
    target = training.read_target(table, table, "y", "classification")
    assert target.classes == classes
    assert sum(target.class_rows) == target.rows == len(values) - target.unlabelled
    _, codes = target.encode(values, where="t")
    assert [classes[int(code)] for code in codes] == [v for v in values.to_pylist() if v is not None and v == v]


MEMORY = """
import sys, tempfile
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeparts.runtime.serving.features import Numeric
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, TableWriter
from pipeparts.runtime.training import Spool, read_target

random = np.random.default_rng(0)
names = [f"x{i}" for i in range(10)]
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    schema = pa.schema([(n, pa.float64()) for n in names] + [("y", pa.int64())])
    with TableWriter(folder / "t", schema, source="random", fingerprint=False) as writer:
        for _ in range(int(sys.argv[1])):
            columns = [*random.normal(size=(10, 100_000)), random.integers(0, 2, 100_000)]
            writer.write(pa.record_batch(columns, schema=schema))
    table = Table(folder / "t")
    transform = Transform({n: "float64" for n in names}, [Numeric(n, n) for n in names])
    with Spool(table, transform, read_target(table, table, "y", "classification"), folder / "spool") as rows:
        total = sum(len(b) for b in rows.shuffled(1024, seed=(0, 0), buffer_rows=262_144, block_rows=1024))
    assert total == table.rows
print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table():
    def megabytes(hundred_thousands):
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(hundred_thousands)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return int(result.stdout)

    assert megabytes(40) < megabytes(5) + 100
