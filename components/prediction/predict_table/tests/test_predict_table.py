"""Tests of the logic of `predict_table`, with trained models, a real MLflow server and one that is not there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pytest

from pipeparts.components.prediction.predict_table.logic import predict_table
from pipeparts.components.registry.register_mlflow.logic import register_mlflow
from pipeparts.components.training.train_keras.logic import train_keras
from pipeparts.components.training.train_lightgbm.logic import train_lightgbm
from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.models import LoadedModel, import_mlflow, read_model_info
from pipeparts.runtime.predictions import served_model
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.serving.features import Category, Numeric, Time
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, TableWriter, write_table
from tests.mlflow_services import mlflow_server, write_evaluation, write_model, write_verdict

ROOT = Path(__file__).parents[4]
COLUMNS = {
    "carrier": "string", "distance": "int64", "plane_year": "int64", "temp": "float64", "time_hour": "timestamp_utc",
}  # fmt: skip
LABELS = {
    "late": pa.int64(), "late_bool": pa.bool_(), "late_text": pa.string(), "origin": pa.string(),
    "air_time": pa.float64(),
}  # fmt: skip


def read_flights():
    kinds = {"late": pa.int64(), "plane_year": pa.int64(), "time_hour": pa.timestamp("us", "UTC")}
    rows = pa_csv.read_csv(
        ROOT / "tests/data/flights.csv",
        convert_options=pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True),
    )
    late = pc.equal(rows["late"], 1)
    return rows.append_column("late_bool", late).append_column("late_text", pc.if_else(late, "yes", "no"))


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """The 2,005 real flights, with the label `late` in three types."""
    folder = tmp_path_factory.mktemp("flights") / "table"
    write_table(folder, read_flights(), source="tests/data/flights.csv")
    return folder


@pytest.fixture(scope="module")
def train(flights, tmp_path_factory):
    """Trains a model for a label, each once."""
    folder, models = tmp_path_factory.mktemp("models"), {}
    features = [
        Category("carrier", ("carrier",), ("AA", "B6", "DL", "EV", "UA"), buckets=3),
        Numeric("distance", "distance", center=1000.0, factor=0.001),
        Numeric("plane_year", "plane_year", fill=2001.0, center=2001.0, factor=0.1, indicator=True),
        Numeric("temp", "temp", fill=56.0, center=56.0, factor=0.05),
        Time("time", "time_hour", parts=("weekday",), cycles=("day_of_year",)),
    ]
    write_json(folder / "transform.json", Transform(COLUMNS, features).as_dict())
    write_profile(folder / "profile.json", profile_of(Table(flights)))

    def make(label, trainer=train_lightgbm):
        key = (label, trainer.__name__)
        if key not in models:
            here = folder / "-".join(key)
            small = {"epochs": 2, "hidden_units": [8]} if trainer is train_keras else {"num_iterations": 8}
            trainer(
                train_path=flights, validation_path=flights, transform_path=folder / "transform.json",
                profile_path=folder / "profile.json", model_path=here / "model", metrics_path=here / "metrics.json",
                page_path=here / "page.html", label=label, hyperparameters=small,
                task="regression" if label == "air_time" else "classification",
            )  # fmt: skip
            models[key] = here / "model"
        return models[key]

    return make


@pytest.fixture
def predict(tmp_path, flights):
    def run(model=None, table=None, **arguments):
        return predict_table(
            table_path=table or flights, predictions_path=tmp_path / "predictions", model_path=model, **arguments
        )

    return run


def change(flights, folder, alter):
    """The flights after a change to their rows."""
    write_table(folder / "changed", alter(Table(flights).read()), source="changed")
    return folder / "changed"


# What is predicted.


@pytest.mark.parametrize("label", LABELS)
def test_predictions_are_those_of_the_model_in_the_tables_order(predict, train, flights, tmp_path, label):
    model = train(label)
    info = predict(model, columns=["flight_id", "origin"], batch_rows=300)
    made = Table(tmp_path / "predictions")
    card = read_model_info(model)
    assert made.schema.names == ["flight_id", "origin", *card.prediction_columns, "model_version"]
    rows, source = made.read(), Table(flights).read()
    assert rows.select(["flight_id", "origin"]).equals(source.select(["flight_id", "origin"]))
    expected = LoadedModel(model).predict(source.to_pandas())
    for name in card.prediction_columns:
        wanted = expected[name].to_numpy()
        got = rows[name].to_numpy()
        assert np.array_equal(got, wanted) if name == "prediction" else np.allclose(got, wanted, atol=1e-12, rtol=0)
        assert name == "prediction" or made.schema.field(name).type == pa.float64()
    assert made.schema.field("prediction").type == LABELS[label]
    assert served_model(made) == card.fingerprint
    assert info.metadata() == {
        "rows": 2005, "columns": made.info.columns, "source": "tests/data/flights.csv",
        "fingerprint": info.fingerprint, "model_version": card.fingerprint, "model_fingerprint": card.fingerprint,
        "framework": "lightgbm", "rows_without_prediction": 0,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("label", ["late_text", "origin", "air_time"])
def test_a_network_predicts_what_mlflow_serves(predict, train, flights, tmp_path, label):
    model = train(label, train_keras)
    predict(model)
    rows = Table(flights).read(list(COLUMNS)).to_pandas()
    served = import_mlflow().pyfunc.load_model(str(model)).predict(rows)
    made = Table(tmp_path / "predictions").read().to_pandas()
    assert list(made.columns) == [*served.columns, "model_version"]
    for name in served.columns:
        if name == "prediction" and label != "air_time":
            assert (made[name] == served[name]).mean() > 0.999
        else:
            assert np.allclose(made[name], served[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [None, []])
def test_without_columns_to_keep_there_are_predictions_alone(predict, train, tmp_path, columns):
    predict(train("late"), columns=columns)
    assert Table(tmp_path / "predictions").schema.names == ["prediction", "probability", "model_version"]


def test_neither_the_label_nor_other_columns_have_to_be_there(predict, train, flights, tmp_path):
    model = train("late")
    whole = predict(model).fingerprint
    table = change(flights, tmp_path, lambda rows: rows.select([*reversed(COLUMNS)]))
    assert predict(model, table).fingerprint == whole


def test_columns_of_a_like_type_will_do(predict, train, flights, tmp_path):
    def alter(rows):
        for name, kind in (("distance", pa.float32()), ("temp", pa.float64()), ("carrier", pa.large_string())):
            rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(kind))
        return rows

    model = train("late")
    whole = predict(model).fingerprint
    assert predict(model, change(flights, tmp_path, alter)).fingerprint == whole


def test_the_size_of_a_batch_changes_nothing(predict, train):
    found = {predict(train("origin"), columns=["flight_id"], batch_rows=rows).fingerprint for rows in (7, 1000, 65_536)}
    assert len(found) == 1


def test_the_same_input_is_the_same_bytes(predict, train, tmp_path):
    files = []
    for _ in range(2):
        predict(train("late"), columns=["flight_id"])
        files.append({file.name: file.read_bytes() for file in (tmp_path / "predictions").iterdir()})
    assert files[0] == files[1]


def test_an_empty_table_gives_an_empty_table(predict, train, flights, tmp_path):
    info = predict(train("late"), change(flights, tmp_path, lambda rows: rows.slice(0, 0)), columns=["flight_id"])
    assert info.rows == 0
    assert list(info.columns.values()) == ["string", "int64", "float64", "string"]


def test_gaps_in_the_raw_columns_are_the_transforms_business(predict, train, flights, tmp_path):
    def alter(rows):
        for name in COLUMNS:
            empty = pa.nulls(rows.num_rows, rows.schema.field(name).type)
            rows = rows.set_column(rows.schema.get_field_index(name), name, empty)
        return rows

    assert predict(train("late"), change(flights, tmp_path, alter)).extra["rows_without_prediction"] == 0


def test_a_row_without_a_usable_answer_stays_and_is_counted(predict, tmp_path, caplog):
    rows = pa.table({"id": [1, 2, 3, 4], "distance": [1.0, None, float("inf"), 2.0]})
    write_table(tmp_path / "table", rows, source="test")
    model = write_model(tmp_path / "model")
    info = predict(model, tmp_path / "table", columns=["id"], batch_rows=2)
    assert info.extra["rows_without_prediction"] == 2
    assert Table(tmp_path / "predictions").read().to_pydict() == {
        "id": [1, 2, 3, 4],
        "prediction": [2.0, None, None, 4.0],
        "model_version": ["aa" * 16] * 4,
    }
    assert "the model has no usable answer for 2 of 4 rows" in caplog.text


def test_a_raw_column_can_be_kept_too(predict, tmp_path):
    write_table(tmp_path / "table", pa.table({"id": [1], "distance": [1.0]}), source="test")
    predict(write_model(tmp_path / "model"), tmp_path / "table", columns=["distance", "id"])
    assert Table(tmp_path / "predictions").schema.names == ["distance", "id", "prediction", "model_version"]


# Wrong input.


@pytest.mark.parametrize(
    ("arguments", "headline", "received", "hint"),
    [
        ({}, "no model to predict with", "neither", "train and register a model first"),
        ({"model_uri": "models:/late/1", "model": "m"}, "two models to predict with", "models:/late/1 and an", ""),
        ({"model_uri": "late@champion"}, "not the URI of a registered model", "late@champion", "models:/late@champion"),
        ({"model": "m", "columns": ["flight"]}, "no such column", "flight", ""),
        ({"model": "m", "columns": ["flight_di"]}, "no such column", "flight_di", "did you mean 'flight_id'?"),
        ({"model": "m", "columns": ["origin", "origin"]}, "kept twice", "origin", ""),
        ({"model": "m", "columns": [3]}, "not the name of a column", "int: 3", ""),
        ({"model": "m", "batch_rows": 0}, "not a number of rows", "0", ""),
        ({"model": "m", "batch_rows": 10**9}, "not a number of rows", "1000000000", ""),
    ],
)
def test_a_wrong_parameter_is_explained(predict, tmp_path, flights, arguments, headline, received, hint):
    table = change(flights, tmp_path, lambda rows: rows.drop_columns(["flight"]))
    with pytest.raises(InputError, match=headline) as error:
        predict(table=table, **arguments)
    assert error.value.facts["received"].startswith(received)
    assert error.value.facts["allowed"]
    assert hint in error.value.facts.get("hint", "")
    assert not (tmp_path / "predictions").exists()


@pytest.mark.parametrize("name", ["prediction", "probability", "model_version"])
def test_a_kept_column_with_the_name_of_a_prediction(predict, train, flights, tmp_path, name):
    table = change(flights, tmp_path, lambda rows: rows.append_column(name, rows["flight_id"]))
    assert predict(train("late"), table, columns=["flight_id"]).rows == 2005
    shutil.rmtree(tmp_path / "predictions")
    with pytest.raises(InputError, match="has the name of a prediction column") as error:
        predict(train("late"), table, columns=["flight_id", name])
    assert error.value.facts["allowed"] == "other names than prediction, probability, model_version"
    assert error.value.facts["received"] == name
    assert not (tmp_path / "predictions").exists()


def test_missing_and_mistyped_columns_are_all_named(predict, train, flights, tmp_path):
    def alter(rows):
        rows = rows.drop_columns(["carrier"])
        return rows.set_column(rows.schema.get_field_index("temp"), "temp", rows["temp"].cast(pa.string()))

    with pytest.raises(ContractError, match="the table is not what the model takes") as error:
        predict(train("late"), change(flights, tmp_path, alter))
    assert error.value.facts["received"] == "carrier is missing; temp is string, not float64"
    assert "carrier: string, distance: int64" in error.value.facts["allowed"]
    assert "label" not in error.value.facts["allowed"]


def test_a_time_that_does_not_fit_names_the_rows(predict, train, flights, tmp_path):
    def alter(rows):
        return rows.set_column(
            rows.schema.get_field_index("time_hour"), "time_hour", pa.array([1] * rows.num_rows, pa.duration("s"))
        )

    with pytest.raises(ContractError, match="the model fails on the table's rows") as error:
        predict(train("late"), change(flights, tmp_path, alter))
    assert error.value.facts["where"] == "among rows 0 to 2,005"
    assert "time_hour" in error.value.facts["received"]
    assert not (tmp_path / "predictions").exists()


def test_what_is_no_table_and_no_model_is_refused(predict, train, tmp_path):
    with pytest.raises(ContractError, match="no table here"):
        predict(train("late"), tmp_path / "nothing")
    with pytest.raises(ContractError, match="no model here"):
        predict(tmp_path)


def test_a_truncated_table_leaves_nothing(predict, train, flights, tmp_path):
    shutil.copytree(flights, tmp_path / "cut")
    part = tmp_path / "cut" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[2000:20_000] = bytes(18_000)  # the footer is whole, so the table opens
    part.write_bytes(data)
    with pytest.raises(ContractError, match="a damaged table"):
        predict(train("late"), tmp_path / "cut", columns=Table(flights).schema.names[:3])
    assert {entry.name for entry in tmp_path.iterdir()} == {"cut"}


def test_a_full_disk_leaves_nothing(predict, train, tmp_path, monkeypatch):
    write = TableWriter.write

    def fail(self, rows):
        write(self, rows)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TableWriter, "write", fail)
    with pytest.raises(OSError, match="No space left"):
        predict(train("late"), batch_rows=100)
    assert list(tmp_path.iterdir()) == []


# By the registry.


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(server_folder):
    with mlflow_server(server_folder) as uri:
        yield uri


def register(model, folder, uri, name, champion=""):
    return register_mlflow(
        model_path=model, verdict_path=write_verdict(folder), evaluation_path=write_evaluation(folder),
        registration_path=folder / "registration.json", model_name=name, champion=champion, tracking_uri=uri,
    )["uri"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("place", ["server", "sqlite"])
def test_an_alias_predicts_with_the_version_it_is_on(predict, train, tmp_path, request, caplog, place):
    uri = request.getfixturevalue("server") if place == "server" else f"sqlite:///{tmp_path}/mlflow.db"
    first = register(train("late"), tmp_path, uri, f"late {place}")
    by_artifact = predict(train("late"), columns=["flight_id"])
    caplog.clear()
    caplog.set_level("INFO")
    info = predict(model_uri=f"models:/late {place}@champion", tracking_uri=uri, columns=["flight_id"])
    assert info.extra["model_version"] == first == f"models:/late {place}/1"
    assert info.extra["model_fingerprint"] == by_artifact.extra["model_fingerprint"]
    assert caplog.text.count("downloading ") == 1
    made = Table(tmp_path / "predictions")
    assert set(made.read(["model_version"])["model_version"].to_pylist()) == {first}
    second = register(train("late_bool"), tmp_path, uri, f"late {place}", champion=first)
    info = predict(model_uri=f"models:/late {place}@champion", tracking_uri=uri)
    assert info.extra["model_version"] == second == f"models:/late {place}/2"
    assert info.columns["prediction"] == "bool"
    assert predict(model_uri=first, tracking_uri=uri).columns["prediction"] == "int64"


@pytest.mark.slow
def test_what_a_registry_does_not_have(predict, train, tmp_path, server, server_folder):
    register(train("late"), tmp_path, server, "absent")
    for wanted, headline in [
        ("models:/other@champion", "the registry has no such model"),
        ("models:/absent@nobody", "the registered model has no such alias"),
        ("models:/absent/9", "the registry has no such version"),
    ]:
        with pytest.raises(ContractError, match=headline) as error:
            predict(model_uri=wanted, tracking_uri=server)
        assert error.value.facts["parameter"] == "model_uri"
        assert error.value.facts["received"] == wanted
    for file in list(server_folder.rglob("pipeparts.json")):
        shutil.rmtree(file.parent)
    with pytest.raises(ContractError, match="has the version, but not its files"):
        predict(model_uri="models:/absent@champion", tracking_uri=server)
    assert not (tmp_path / "predictions").exists()


def test_a_registry_that_does_not_answer_can_be_tried_again(predict, tmp_path):
    with pytest.raises(ServiceError, match="the MLflow server does not answer") as error:
        predict(model_uri="models:/late@champion", tracking_uri="http://me:secret@127.0.0.1:9")
    assert error.value.retryable
    assert "secret" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


# In a process of its own.

CODE = """
import sys
from pipeparts.components.prediction.predict_table.logic import predict_table
predict_table(table_path=sys.argv[1], predictions_path=sys.argv[2], columns=["id"], model_path=sys.argv[3],
              batch_rows=int(sys.argv[4]))
print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)
"""


def child(table, predictions, model, batch_rows):
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(table), str(predictions), str(model), str(batch_rows)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def grow(flights, folder, rows):
    """A table of many rows, the real flights again and again."""
    source = Table(flights).read([*COLUMNS]).combine_chunks()
    with TableWriter(folder, source.schema.insert(0, pa.field("id", pa.int64())), source="flights") as writer:
        for start in range(0, rows, source.num_rows):
            ids = pa.array(np.arange(start, start + source.num_rows))
            writer.write(source.add_column(0, "id", ids))
    return folder


@pytest.mark.slow
def test_killed_half_way_it_leaves_no_half_table(predict, train, flights, tmp_path):
    table = grow(flights, tmp_path / "table", 20_000)
    process = child(table, tmp_path / "predictions", train("late"), 1)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".predictions.*.partial")):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "predictions").exists()
    whole = predict(train("late"), table, columns=["id"])
    assert whole.rows == Table(tmp_path / "predictions").rows == Table(table).rows


@pytest.mark.slow
def test_memory_does_not_grow_with_the_table(train, flights, tmp_path):
    peaks = []
    for rows in (300_000, 3_000_000):
        table = grow(flights, tmp_path / f"table{rows}", rows)
        process = child(table, tmp_path / "predictions", train("late"), 65_536)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        peaks.append(int(output))
    assert peaks[1] < peaks[0] + 60, f"resident megabytes for a small and a large table: {peaks}"
    assert peaks[1] < 450
