"""The serving check: a model loads in a clean process, without pipeparts, and answers its own input example."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pipeparts.runtime.errors import PipepartsError
from pipeparts.runtime.models import LoadedModel, ModelInfo, import_mlflow
from pipeparts.runtime.verdict import Check

#: The most that two answers of the same model may differ, of 1 or of the value where that is larger.
TOLERANCE = 1e-5

_PROBE = Path(__file__).with_name("serving_probe.py")
# What would lead the clean process back to this one's settings.
_LEFT_OUT = ("PYTHON", "MLFLOW_TRACKING", "MLFLOW_REGISTRY", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT")


class ServingCheck:
    """The check, begun when the block begins, so that it runs beside other work.

    Args:
        path: The model's folder.
        info: The model's card.
        timeout_seconds: How long the clean process may take, from its start.
    """

    def __init__(self, path: str | os.PathLike[str], info: ModelInfo, *, timeout_seconds: float) -> None:
        self._path = Path(path).resolve()
        self._info = info
        self._timeout = timeout_seconds
        self._scratch = tempfile.TemporaryDirectory(prefix="serving-check-")
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def __enter__(self) -> ServingCheck:
        folder = Path(self._scratch.name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        self._started = time.monotonic()
        with (folder / "errors.txt").open("wb") as errors:
            # -I: no PYTHONPATH, no user packages, no current folder. -B: the model's folder stays as it is.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(_PROBE), str(self._path), str(folder / "answer.json")],
                cwd=folder,
                env=kept | quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._scratch.cleanup()

    def checks(self, model: LoadedModel | None) -> list[Check]:
        """Waits for the clean process and judges its answer.

        Args:
            model: The model in this process, to compare with; None where it did not load here.

        Returns:
            The checks, those that could not be made left out.
        """
        found = self._wait()
        if not found.get("loads"):
            return [Check("serving:loads", False, reason=f"does not load in a clean process: {_failure(found)}")]
        checks = [Check("serving:loads", True, reason="loads in a clean process, without pipeparts")]
        problem = self._problem(found)
        rows = found.get("example_rows")
        reason = problem or f"answers the {rows} rows of its input example with finite numbers"
        checks.append(Check("serving:answers", not problem, value=rows, reason=reason))
        if problem:
            return checks
        answer = found["answer"]
        checks.append(self._same_answer(answer, model))
        if "savedmodel" in found:
            checks.append(self._saved_model(answer, found["savedmodel"]))
        return checks

    def _wait(self) -> dict[str, Any]:
        assert self._process is not None
        folder = Path(self._scratch.name)
        try:
            code = self._process.wait(timeout=max(0.0, self._started + self._timeout - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._stop()
            return {"error": f"no answer within {self._timeout:g} s"}
        try:
            found: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            said = (folder / "errors.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            ended = f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return {"error": f"the process {ended}" + (f": {said[-1]}" if said else "")}

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own session: what it has started, too
            self._process.wait()

    def _problem(self, found: dict[str, Any]) -> str:
        """What is wrong with an answer, or "" for nothing."""
        if "error" in found and "answer" not in found:
            return f"fails on its own input example: {_failure(found)}"
        if "example_columns" not in found:
            return "has no input example"
        lacking = [name for name in self._info.columns if name not in found["example_columns"]]
        if lacking:
            return f"its input example lacks columns that its card names: {', '.join(lacking)}"
        answer, rows = found["answer"], found["example_rows"]
        if not rows:
            return "its input example has no rows"
        if tuple(answer) != self._info.prediction_columns:
            return f"answers with the columns {', '.join(answer)}, not {', '.join(self._info.prediction_columns)}"
        if any(len(values) != rows for values in answer.values()):
            return f"does not answer each of the {rows} rows"
        for name in self._numeric_columns():
            if not np.isfinite(_numbers(answer[name])).all():
                return f"answers with {name} that is no finite number"
        if "error" in found:
            return f"its SavedModel fails: {_failure(found)}"
        return ""

    def _numeric_columns(self) -> tuple[str, ...]:
        columns = self._info.prediction_columns
        return columns if self._info.task == "regression" else columns[1:]

    def _same_answer(self, answer: dict[str, list[Any]], model: LoadedModel | None) -> Check:
        name = "serving:same_answer"
        if model is None:
            return Check(name, False, threshold=TOLERANCE, reason="does not load in this process")
        try:
            mlflow = import_mlflow()
            example = mlflow.models.Model.load(str(self._path)).load_input_example(str(self._path))
            here = model.predict(example)
        except Exception as error:  # whatever the model's own code raises
            text = error.headline if isinstance(error, PipepartsError) else f"{type(error).__name__}: {error}"
            return Check(name, False, threshold=TOLERANCE, reason=f"fails in this process: {text}")
        # A passed check has no value: the last bits of a float differ between machines, and a verdict should not.
        furthest = max(_distance(answer[column], here[column].tolist()) for column in self._numeric_columns())
        other_classes = self._info.task != "regression" and answer["prediction"] != here["prediction"].tolist()
        passed = furthest <= TOLERANCE and not other_classes
        reason = "the same answer in the clean process as in this one"
        if not passed:
            reason = f"answers otherwise in the clean process than in this one, by up to {furthest:.3g}"
        return Check(name, passed, value=None if passed else _finite(furthest), threshold=TOLERANCE, reason=reason)

    def _saved_model(self, answer: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> Check:
        name = "serving:savedmodel"
        scores = self._numeric_columns()
        pairs = [(answer[column], outputs[column]) for column in scores if column in outputs]
        if not pairs and len(outputs) == 1:
            # One tensor under a name of its own: a column for each score.
            table = np.atleast_2d(np.asarray(next(iter(outputs.values())), dtype=np.float64).T)
            if len(table) == len(scores):
                pairs = [(answer[column], list(table[i])) for i, column in enumerate(scores)]
        if len(pairs) < len(scores):
            return Check(
                name,
                False,
                threshold=TOLERANCE,
                reason=f"its SavedModel gives {', '.join(sorted(outputs)) or 'nothing'}, not {', '.join(scores)}",
            )
        furthest = max(_distance(first, second) for first, second in pairs)
        passed = furthest <= TOLERANCE
        reason = "its SavedModel answers raw columns with the same numbers"
        if not passed:
            reason = f"its SavedModel answers otherwise, by up to {furthest:.3g}"
        return Check(name, passed, value=None if passed else _finite(furthest), threshold=TOLERANCE, reason=reason)


def _failure(found: dict[str, Any]) -> str:
    text = str(found.get("error", "no answer")).strip().splitlines()[0]
    return f"{text} ({found['where']})" if "where" in found else text


def _numbers(values: list[Any]) -> Any:
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError):
        return np.array([np.nan])


def _distance(first: list[Any], second: list[Any]) -> float:
    """The largest difference, of 1 or of the value where that is larger; infinity where they cannot be compared."""
    one, other = _numbers(first), _numbers(second)
    if one.shape != other.shape:
        return float("inf")
    distance = np.abs(one - other) / np.maximum(1.0, np.abs(other))
    return float(np.where(np.isnan(distance), np.inf, distance).max())


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
