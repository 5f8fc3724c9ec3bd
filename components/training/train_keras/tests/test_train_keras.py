"""Tests of the logic of `train_keras`; what it shares with `train_lightgbm` is tested there."""

import json
import logging
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pytest

from pipeparts.components.training.train_keras.logic import train_keras
from pipeparts.errors import DataError, InputError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.models import REFERENCE_FILES, LoadedModel, read_model_info, read_reference
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.serving.features import Category, Numeric, Time
from pipeparts.runtime.serving.network import NETWORK_FILE
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, write_table

pytestmark = pytest.mark.slow  # each of them starts TensorFlow, or traces a network

ROOT = Path(__file__).parents[4]
COLUMNS = {
    "carrier": "string", "dest": "string", "hour": "int64", "plane_year": "int64", "temp": "float64",
    "time_hour": "timestamp_utc",
}  # fmt: skip
SMALL = {"epochs": 3, "hidden_units": [16], "batch_rows": 128}


def make_inputs(folder):
    kinds = {"late": pa.int64(), "plane_year": pa.int64(), "time_hour": pa.timestamp("us", "UTC")}
    options = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
    rows = pa_csv.read_csv(ROOT / "tests/data/flights.csv", convert_options=options)
    write_table(folder / "train", rows.filter(pc.less_equal(rows["month"], 8)), source="flights")
    write_table(folder / "validation", rows.filter(pc.greater(rows["month"], 8)), source="flights")
    transform = Transform(
        COLUMNS,
        [
            Category("carrier", ("carrier",), tuple(sorted(pc.unique(rows["carrier"]).to_pylist()))),
            Category("dest", ("dest",), tuple(sorted(pc.unique(rows["dest"]).to_pylist()))[:40], buckets=4),
            Numeric("hour", "hour", center=13.0, factor=0.2),
            Numeric("plane_year", "plane_year", fill=2001.0, center=2001.0, factor=0.14, indicator=True),
            Numeric("temp", "temp", fill=56.0, center=56.0, factor=0.055),
            Time("time", "time_hour", parts=("weekday",), cycles=("day_of_year",)),
        ],
    )
    write_json(folder / "transform.json", transform.as_dict())
    write_profile(folder / "profile.json", profile_of(Table(folder / "train")))
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def train(inputs, folder, **changes):
    arguments = {
        "train_path": inputs / "train",
        "validation_path": inputs / "validation",
        "transform_path": inputs / "transform.json",
        "profile_path": inputs / "profile.json",
        "model_path": folder / "model",
        "metrics_path": folder / "metrics.json",
        "page_path": folder / "page.html",
        "label": "late",
        "hyperparameters": SMALL,
    }
    return train_keras(**arguments | changes)


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return train(inputs, folder), folder


def hard_rows(inputs):
    """Real rows, and among them gaps and values that training never saw."""
    rows = Table(inputs / "validation").read([*COLUMNS]).to_pandas()
    rows.loc[0, "carrier"] = None
    rows.loc[1, "carrier"] = "no such carrier"
    rows.loc[2, "dest"] = "Zürich"
    rows.loc[3, ["plane_year", "temp"]] = np.nan
    rows.loc[4, "temp"] = 1e30
    return rows


def serve(model, rows):
    """The answer of the SavedModel's default signature to raw rows, as TF Serving would give it."""
    import tensorflow as tf

    served = tf.saved_model.load(str(model / "savedmodel")).signatures["serving_default"]
    tensors = {}
    for name, kind in COLUMNS.items():
        if kind in ("int64", "float64"):
            tensors[name] = tf.constant(rows[name].to_numpy(dtype=np.float64))
        elif kind == "timestamp_utc":
            tensors[name] = tf.constant([value.isoformat() for value in rows[name]])
        else:
            tensors[name] = tf.constant(["" if value is None or value != value else value for value in rows[name]])
    return {name: tensor.numpy() for name, tensor in served(**tensors).items()}


def test_the_saved_model_answers_like_the_model(inputs, trained):
    _, folder = trained
    rows = hard_rows(inputs)
    predicted = LoadedModel(folder / "model").predict(rows)
    served = serve(folder / "model", rows)
    assert set(served) == {"prediction", "probability"}
    assert np.allclose(served["probability"], predicted["probability"], atol=1e-5)
    assert (served["prediction"] == predicted["prediction"]).mean() > 0.999
    assert predicted["probability"].nunique() > 100


def test_the_card_and_the_page(inputs, trained):
    result, folder = trained
    info = read_model_info(folder / "model")
    assert info == result.info
    assert info.framework == "keras"
    assert (folder / "model" / info.extra["saved_model"] / "saved_model.pb").is_file()
    assert info.extra["epochs"] <= 3
    assert json.loads((folder / "metrics.json").read_text()) == result.metrics
    assert result.metrics["validation_loss"] == pytest.approx(result.metrics["validation_log_loss"], rel=1e-4)
    page = (folder / "page.html").read_text()
    assert "embedding_0" in page
    assert "epoch" in page


def test_the_model_carries_the_training_rows_and_its_predictions(inputs, trained):
    _, folder = trained
    reference = read_reference(folder / "model")
    columns = [*COLUMNS, "late"]
    training = Table(inputs / "train").read(columns)
    assert sorted(map(repr, reference.sample.to_pylist())) == sorted(map(repr, training.to_pylist()))
    rows = Table(inputs / "validation").read()
    assert rows["late"].null_count > 0
    predicted = LoadedModel(folder / "model").predict(rows.to_pandas())
    assert sorted(reference.prediction_sample["prediction"].to_pylist()) == sorted(predicted["prediction"])
    probabilities = np.sort(reference.prediction_sample["probability"].to_numpy())
    assert np.allclose(probabilities, np.sort(predicted["probability"]), atol=1e-6)
    profile = reference.prediction_profile
    assert profile.rows == rows.num_rows
    assert profile.column("probability").numbers.mean == pytest.approx(predicted["probability"].mean(), abs=1e-6)


def test_same_seed_same_model_and_another_seed_another(inputs, trained, tmp_path):
    result, folder = trained
    again = train(inputs, tmp_path)
    assert again.info.fingerprint == result.info.fingerprint
    assert (tmp_path / "page.html").read_bytes() == (folder / "page.html").read_bytes()
    assert (tmp_path / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()
    for name in REFERENCE_FILES:
        assert (tmp_path / "model" / name).read_bytes() == (folder / "model" / name).read_bytes()
    assert train(inputs, tmp_path, seed=1).info.fingerprint != result.info.fingerprint


CLEAN = """
import sys, warnings
sys.modules["pipeparts"] = None  # importing it fails
warnings.simplefilter("ignore")
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(model.input_example)["probability"].tolist())
"""


def test_the_model_loads_without_pipeparts(trained, tmp_path):
    _, folder = trained
    result = subprocess.run(
        [sys.executable, "-c", CLEAN, str(folder / "model")],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout.splitlines()[-1])) == 5


SCORE = """
import sys
from pipeparts.runtime.models import LoadedModel
from pipeparts.runtime.tables import Table
scores = LoadedModel(sys.argv[1]).score(next(Table(sys.argv[2]).batches()))
print(len(scores), sorted({"tensorflow", "keras", "mlflow"} & set(sys.modules)))
"""


def test_the_librarys_network_is_run_without_tensorflow(inputs, trained):
    _, folder = trained
    command = [sys.executable, "-c", SCORE, str(folder / "model"), str(inputs / "validation")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{Table(inputs / 'validation').rows} []\n"


def test_regression_predicts_in_the_labels_unit(inputs, tmp_path):
    result = train(
        inputs, tmp_path, label="distance", task="regression",
        hyperparameters={"epochs": 20, "learning_rate": 0.01, "batch_rows": 128, "schedule": "plateau"},
    )  # fmt: skip
    rows = Table(inputs / "validation").read().to_pandas()
    predicted = LoadedModel(tmp_path / "model").predict(rows)["prediction"]
    off = predicted - rows["distance"]
    assert float(np.sqrt((off**2).mean())) == pytest.approx(result.metrics["validation_rmse"], rel=1e-4)
    assert result.metrics["validation_r2"] > 0.5
    served = serve(tmp_path / "model", rows)
    # Of the label's spread: near zero float32 has rounding of that size itself, in TensorFlow as in numpy.
    assert np.abs(served["prediction"] - predicted).max() <= 3e-6 * rows["distance"].std()


def test_more_than_two_classes(inputs, tmp_path):
    result = train(inputs, tmp_path, label="origin", hyperparameters=SMALL | {"class_weights": "balanced"})
    rows = Table(inputs / "validation").read().to_pandas()
    predicted = LoadedModel(tmp_path / "model").predict(rows)
    assert result.info.classes == ("EWR", "JFK", "LGA")
    shares = predicted[["probability_EWR", "probability_JFK", "probability_LGA"]]
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
    served = serve(tmp_path / "model", rows)
    assert np.allclose(served["probability_JFK"], predicted["probability_JFK"], atol=1e-5)
    assert [name.decode() for name in served["prediction"][:50]] == predicted["prediction"].tolist()[:50]


@pytest.mark.parametrize(
    "features",
    [
        [Numeric("temp", "temp", fill=56.0, center=56.0, factor=0.055)],
        [Category("carrier", ("carrier",), ("AA", "UA"))],
    ],
    ids=["numbers alone", "categories alone"],
)
def test_features_of_one_kind_are_enough(inputs, tmp_path, features):
    columns = {name: COLUMNS[name] for feature in features for name in feature.columns}
    write_json(tmp_path / "transform.json", Transform(columns, features).as_dict())
    train(inputs, tmp_path, transform_path=tmp_path / "transform.json", hyperparameters={"epochs": 1})
    predicted = LoadedModel(tmp_path / "model").predict(Table(inputs / "validation").read().to_pandas())
    assert predicted["probability"].between(0, 1).all()


def test_the_best_epoch_is_kept_or_the_last(inputs, tmp_path):
    fast = {"epochs": 12, "learning_rate": 0.03, "batch_rows": 64, "patience": 2, "schedule": "plateau", "dropout": 0.0}
    stopped = train(inputs, tmp_path / "stopped", hyperparameters=fast)
    whole = train(inputs, tmp_path / "whole", hyperparameters=fast | {"early_stopping": False})
    assert stopped.metrics["best_epoch"] == stopped.metrics["epochs"] - 2 < 10
    assert whole.metrics["best_epoch"] == whole.metrics["epochs"] == 12
    for result in (stopped, whole):  # the loss of the epoch kept is that of the weights kept
        assert result.metrics["validation_loss"] == pytest.approx(result.metrics["validation_log_loss"], rel=1e-4)
    assert whole.metrics["validation_loss"] > stopped.metrics["validation_loss"]


# --- killed and resumed

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pipeparts.components.training.train_keras import logic, checkpoint
kept = checkpoint.Checkpoint.write

def write(self, state, *rest):
    kept(self, state, *rest)
    if len(state.train) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint.Checkpoint.write = write
inputs, folder = Path(sys.argv[2]), Path(sys.argv[3])
logic.train_keras(
    train_path=inputs / "train", validation_path=inputs / "validation", transform_path=inputs / "transform.json",
    profile_path=inputs / "profile.json", model_path=folder / "model", metrics_path=folder / "metrics.json",
    page_path=folder / "page.html", label="late",
    hyperparameters={"epochs": 4, "hidden_units": [16], "batch_rows": 128, "dropout": 0.3},
)
"""


def test_a_killed_training_goes_on_and_gives_the_same_model(inputs, tmp_path, caplog, monkeypatch):
    parameters = {"epochs": 4, "hidden_units": [16], "batch_rows": 128, "dropout": 0.3}
    uninterrupted = train(inputs, tmp_path / "whole", hyperparameters=parameters)
    checkpoints = tmp_path / "checkpoints"
    monkeypatch.setenv("PIPEPARTS_CHECKPOINT_FOLDER", str(checkpoints))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(ROOT), str(inputs), str(tmp_path / "killed")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "model").exists()
    assert len(list(checkpoints.iterdir())) == 1
    with caplog.at_level(logging.INFO):
        resumed = train(inputs, tmp_path / "killed", hyperparameters=parameters)
    assert "goes on after epoch 2" in caplog.text
    assert resumed.info.fingerprint == uninterrupted.info.fingerprint
    assert resumed.metrics == uninterrupted.metrics
    assert not list(checkpoints.iterdir()), "a training that ended needs no checkpoint"


def test_a_damaged_checkpoint_is_not_used(inputs, trained, tmp_path, caplog):
    from pipeparts.components.training.train_keras import checkpoint

    result, _ = trained
    kept = {}

    def keep(self, state, variables, best):
        kept["folder"] = self.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "epoch.npz").write_bytes(b"PK\x03\x04 half a file")

    parameters = SMALL | {"checkpoint_folder": str(tmp_path / "checkpoints")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoint, "write", keep)
        patch.setattr(checkpoint.Checkpoint, "remove", lambda self: None)
        train(inputs, tmp_path, hyperparameters=parameters)
    assert (kept["folder"] / "epoch.npz").is_file()
    again = train(inputs, tmp_path, hyperparameters=parameters)
    assert "begins anew" in caplog.text
    assert again.info.fingerprint == result.info.fingerprint, "where checkpoints go changes nothing"


# --- a network of one's own

TEAM = """
import keras

def narrow(spec):
    inputs = spec.inputs()
    hidden = keras.layers.Dense(spec.options.get("units", 4), activation="relu")(inputs["numeric"])
    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(hidden), name="narrow")

def two_wide(spec):
    inputs = spec.inputs()
    return keras.Model(inputs, keras.layers.Dense(2)(inputs["numeric"]))

def squashed(spec):
    inputs = spec.inputs()
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(inputs["numeric"]))

def one_input(spec):
    given = keras.Input((3,), name="numbers")
    return keras.Model(given, keras.layers.Dense(1)(given))

def nothing(spec):
    return "a network"

def broken(spec):
    raise RuntimeError("no such option: depth")
"""


@pytest.fixture
def team(tmp_path, monkeypatch):
    (tmp_path / "team_networks.py").write_text(textwrap.dedent(TEAM))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("team_networks", None)


def test_a_teams_network_is_trained_and_needs_no_team_to_load(inputs, team, tmp_path):
    result = train(
        inputs, tmp_path, network="team_networks:narrow", network_version="7",
        hyperparameters={"epochs": 1, "network_options": {"units": 5}},
    )  # fmt: skip
    assert result.info.extra["network"] == "team_networks:narrow"
    assert result.info.extra["weights"] == (6 + 1) * 5 + 6
    sys.modules["team_networks"] = None
    predicted = LoadedModel(tmp_path / "model").predict(Table(inputs / "validation").read().to_pandas())
    assert predicted["probability"].between(0, 1).all()
    assert not (tmp_path / "model" / NETWORK_FILE).exists(), "TensorFlow runs it"


@pytest.mark.parametrize(
    ("network", "facts"),
    [
        ("team_networks", ["an import path that is not one", "allowed: package.module:function"]),
        ("team_network:narrow", ["module cannot be imported", "No module named 'team_network'"]),
        ("team_networks:narow", ["no such function", "received: narow", "did you mean 'narrow'?"]),
        ("team_networks:two_wide", ["another shape", "allowed: [rows, 1]", "received: rows, 2"]),
        ("team_networks:squashed", ["an activation of its own", "received: sigmoid"]),
        ("team_networks:one_input", ["does not take the inputs", "spec.inputs()"]),
        ("team_networks:nothing", ["gives no Keras model", "received: str"]),
        ("team_networks:broken", ["the network's function failed", "RuntimeError: no such option: depth"]),
    ],
)
def test_a_network_that_does_not_fit(inputs, team, tmp_path, network, facts):
    with pytest.raises(InputError) as error:
        train(inputs, tmp_path, network=network)
    for fact in facts:
        assert fact in str(error.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "expected", "facts"),
    [
        ({"hyperparameters": {"learning_rte": 1}}, InputError, ["learning_rte", "did you mean 'learning_rate'?"]),
        ({"hyperparameters": {"dropout": 1.0}}, InputError, ["hyperparameters.dropout", "less than 1"]),
        ({"hyperparameters": {"schedule": "cosin"}}, InputError, ["hyperparameters.schedule", "'cosine'"]),
        ({"hyperparameters": SMALL | {"learning_rate": 1e30}}, DataError, ["the loss is no number any more", "1e+30"]),
        ({"label": "lat"}, InputError, ["no such column", "did you mean 'late'?"]),
    ],
)
def test_what_cannot_be_trained(inputs, tmp_path, changes, expected, facts):
    with pytest.raises(expected) as error:
        train(inputs, tmp_path, **changes)
    for fact in facts:
        assert fact in str(error.value)
    assert not list(tmp_path.iterdir()), "a failed training leaves nothing"
