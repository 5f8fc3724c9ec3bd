"""A program, not a module: loads a model as a server would, where pipeparts cannot be imported, and asks it.

`serving_check` runs it by its path in a process of its own: python -I -B serving_probe.py MODEL ANSWER. What it
finds goes to the file ANSWER as JSON. It imports nothing of this library, and lets no one else import it.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

_BLOCKED = "pipeparts"


class _Absent:
    """An import finder that says that a package is not there, though an editable install put it on the path."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == _BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r} where the model is served", name=name)


def main(model: str, answer: str) -> None:
    """Asks a model and writes what it answers.

    Args:
        model: The model's folder.
        answer: The file to write.
    """
    sys.meta_path.insert(0, _Absent())
    for name in [name for name in sys.modules if name.partition(".")[0] == _BLOCKED]:
        del sys.modules[name]
    found: dict[str, Any] = {}
    try:
        _ask(Path(model), found)
    except Exception as error:  # whatever a model's code raises is what we are here to see
        last = traceback.extract_tb(error.__traceback__)[-1]
        found["error"] = f"{type(error).__name__}: {error}"
        found["where"] = f"{Path(last.filename).name}, line {last.lineno}"
    Path(answer).write_text(json.dumps(found, default=str), encoding="utf-8")


def _ask(folder: Path, found: dict[str, Any]) -> None:
    import mlflow.pyfunc

    card = json.loads((folder / "pipeparts.json").read_text(encoding="utf-8"))
    model = mlflow.pyfunc.load_model(str(folder))
    found["loads"] = True
    example = model.input_example
    if example is None:
        return
    found["example_columns"] = [str(name) for name in example.columns]
    found["example_rows"] = len(example)
    predictions = model.predict(example)
    found["answer"] = {str(name): values.tolist() for name, values in predictions.items()}
    saved = folder / str(card["extra"].get("saved_model", "savedmodel"))
    if "saved_model" in card["extra"] or saved.is_dir():
        found["savedmodel"] = _ask_saved_model(saved, card["columns"], example)


def _ask_saved_model(folder: Path, columns: dict[str, str], example: Any) -> dict[str, list[Any]]:
    import numpy as np
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    inputs = {}
    for name, spec in serve.structured_input_signature[1].items():
        values = example[name] if name in example else example[_named(name, columns)]
        if spec.dtype == tf.string:
            raw = np.array([_text(value) for value in values], dtype=object)
        else:
            raw = values.astype("float64").to_numpy(dtype=spec.dtype.as_numpy_dtype, na_value=np.nan)
        inputs[name] = tf.constant(raw.reshape([-1] + [1] * (len(spec.shape) - 1)), dtype=spec.dtype)
    outputs = {name: np.asarray(value.numpy()) for name, value in serve(**inputs).items()}
    return {
        name: values.reshape(len(example), -1).squeeze(axis=1 if values.size == len(example) else ()).tolist()
        for name, values in outputs.items()
        if values.dtype.kind in "fiub"
    }


def _named(name: str, columns: dict[str, str]) -> str:
    """The column behind an input whose name TensorFlow had to change ("dep time" to "dep_time")."""
    plain = {"".join(c if c.isalnum() else "_" for c in column): column for column in columns}
    return plain[name]


def _text(value: Any) -> str:
    """A value as a SavedModel takes it: "" for missing, times in ISO 8601."""
    if value is None or value != value:
        return ""
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
