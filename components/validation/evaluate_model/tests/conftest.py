"""Small models of the contract, for the tests of this stage: a weighted sum, with no trainer behind it."""

import hashlib
import json
import textwrap

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest

from pipeparts.runtime.models import FORMAT, INFO_FILE, ModelInfo, import_mlflow
from pipeparts.runtime.tables import write_table

# The code of such a model, under a name made of its content, as the trainers do it.
LOADER = """
import json
from pathlib import Path

import numpy as np
import pandas as pd

{extra}

class Model:
    def __init__(self, folder):
        self.card = json.loads((Path(folder) / "pipeparts.json").read_text())
        self.weights = self.card["extra"]["weights"]

    def predict(self, rows, params=None):
        {hook}
        sums = sum(np.nan_to_num(rows[name].to_numpy(dtype=float)) * w for name, w in self.weights.items())
        sums = sums + self.card["extra"]["bias"]
        if self.card["task"] == "regression":
            return pd.DataFrame({{"prediction": sums}})
        classes = self.card["classes"]
        if len(classes) == 2:
            p = 1 / (1 + np.exp(-sums))
            p = np.where(rows.index < self.card["extra"]["nan_rows"], np.nan, p)
            return pd.DataFrame({{"prediction": np.array(classes)[(p >= 0.5).astype(int)], "probability": p}})
        logits = np.stack([sums * k for k in range(len(classes))], axis=1)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        frame = pd.DataFrame(shares, columns=[f"probability_{{name}}" for name in classes])
        frame.insert(0, "prediction", np.array(classes)[shares.argmax(axis=1)])
        return frame

    def get_raw_model(self):
        return self


def _load_pyfunc(path):
    return Model(path)
"""


def build_model(
    folder,
    weights,
    *,
    bias=0.0,
    task="classification",
    label="late",
    classes=(0, 1),
    hook="pass",
    extra="",
    nan_rows=0,
    card=None,
    example=True,
):
    """Writes a model: weights by column, and code that tests put in (`hook` in predict, `extra` at the top)."""
    mlflow = import_mlflow()
    code = textwrap.dedent(LOADER).format(hook=hook, extra=extra)
    name = f"tiny_{hashlib.sha256(code.encode()).hexdigest()[:12]}"
    source = folder.parent / f"{name}.py"
    source.write_text(code)
    info = ModelInfo(
        task=task,
        label=label,
        classes=() if task == "regression" else tuple(classes),
        columns=dict.fromkeys(weights, "float64"),
        framework="lightgbm",
        fingerprint=hashlib.sha256(repr((weights, bias, code, nan_rows, classes)).encode()).hexdigest()[:32],
        training_fingerprint="0" * 32,
        training_rows=1,
        seed=0,
        package_version="0",
        extra={"weights": weights, "bias": bias, "nan_rows": nan_rows},
    )
    document = {"format": FORMAT, **info.__dict__, "classes": list(info.classes), **(card or {})}
    rows = pd.DataFrame({name: [1.0, 0.5, -2.0] for name in weights})
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=name,
        code_paths=[str(source)],
        pip_requirements=["mlflow", "pandas"],
        input_example=rows if example else None,
        signature=mlflow.models.infer_signature(rows) if example else None,
    )
    (folder / INFO_FILE).write_text(json.dumps(document))
    return folder


@pytest.fixture
def make_model(tmp_path):
    def make(name="model", weights=None, **options):
        weights = {"hour": 0.12, "distance": -0.0001, "wind_speed": 0.02} if weights is None else weights
        return build_model(tmp_path / name, weights, **{"bias": -2.8, **options})

    return make


@pytest.fixture(scope="session")
def flights():
    """The 2,005 real flights of the repository."""
    table = pyarrow.csv.read_csv("tests/data/flights.csv")
    floats = ["hour", "distance", "wind_speed", "temp", "arr_delay"]
    for column in floats:
        table = table.set_column(table.schema.get_field_index(column), column, table[column].cast(pa.float64()))
    return table


@pytest.fixture
def flights_table(tmp_path, flights):
    write_table(tmp_path / "flights", flights, source="flights.csv")
    return tmp_path / "flights"
