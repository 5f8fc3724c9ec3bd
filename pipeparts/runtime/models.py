"""The model contract: an MLflow model folder that takes raw columns, with a card of its own beside `MLmodel`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeparts.runtime.errors import ContractError
from pipeparts.runtime.files import read_json

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from pipeparts.runtime.profiles import Profile

FORMAT = "pipeparts.model/1"
INFO_FILE = "pipeparts.json"
PROFILE_FILE = "training_profile.json"
TRAINING_SAMPLE_FILE = "training_sample.parquet"
PREDICTION_PROFILE_FILE = "prediction_profile.json"
PREDICTION_SAMPLE_FILE = "prediction_sample.parquet"

#: How the package with the serving code begins that is in each model; a hash of that code follows.
SERVING_PREFIX = "pipeparts_serving_"

#: All that `read_reference` reads: what a drift report needs of a model.
REFERENCE_FILES = (PROFILE_FILE, TRAINING_SAMPLE_FILE, PREDICTION_PROFILE_FILE, PREDICTION_SAMPLE_FILE)
#: Most rows of a sample.
REFERENCE_ROWS = 10_000

Task = Literal["classification", "regression"]


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself.

    Attributes:
        task: "classification" or "regression".
        label: The label's column in the training table.
        classes: The label's values in the order of the model's outputs; empty for regression.
        columns: The raw columns it takes, name to type name of the table contract.
        framework: "keras" or "lightgbm".
        fingerprint: Of the learned parameters and the transform: equal for equal models.
        training_fingerprint: The content fingerprint of the training table.
        training_rows: Rows it was trained on.
        seed: Of the training.
        package_version: Of pipeparts.
        extra: What the trainer adds (epochs run, best validation loss, ...).
    """

    task: Task
    label: str
    classes: tuple[Any, ...]
    columns: dict[str, str]
    framework: str
    fingerprint: str
    training_fingerprint: str
    training_rows: int
    seed: int
    package_version: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def positive_class(self) -> Any:
        """The class whose probability a binary model gives: the last of the two."""
        return self.classes[-1]

    @property
    def prediction_columns(self) -> tuple[str, ...]:
        """The columns of a prediction, in order.

        Regression: `prediction`. Two classes: `prediction`, `probability` (of the positive class).
        More classes: `prediction` and one `probability_<class>` each.
        """
        if self.task == "regression":
            return ("prediction",)
        if len(self.classes) == 2:
            return ("prediction", "probability")
        return ("prediction", *(f"probability_{name}" for name in self.classes))

    def metadata(self) -> dict[str, Any]:
        """What goes onto the KFP artifact."""
        return dataclasses.asdict(self) | {"classes": list(self.classes)}


def read_model_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Reads a model's card.

    Raises:
        ContractError: Where the folder is no model of the contract.
    """
    folder = Path(path)
    if not (folder / "MLmodel").is_file():
        raise ContractError(
            "no model here",
            where=str(path),
            allowed="an MLflow model folder (with a file MLmodel)",
            received="a folder without it" if folder.is_dir() else "no folder",
        )
    document = read_json(folder / INFO_FILE, what="a model's card")
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ContractError("not a model of this library", where=str(path), allowed=f"format {FORMAT!r}")
    try:
        return ModelInfo(**document | {"classes": tuple(document["classes"])})
    except (KeyError, TypeError) as error:
        raise ContractError("a damaged model card", where=str(folder / INFO_FILE), received=str(error)) from error


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a model carries of the data it comes from; a model of an earlier release has its profile alone.

    Attributes:
        profile: Of the training table.
        prediction_profile: Of the model's predictions on all rows of the validation table, with and without a label;
            its columns are the card's `prediction_columns`.
        sample: At most `REFERENCE_ROWS` rows of the training table: the model's raw columns and the label.
        prediction_sample: At most as many rows of those predictions.
    """

    profile: Profile
    prediction_profile: Profile | None
    sample: pa.Table | None
    prediction_sample: pa.Table | None


def read_reference(folder: str | os.PathLike[str]) -> Reference:
    """Reads what a model carries for a drift report: the files `REFERENCE_FILES`, of which the first must be there.

    Raises:
        ContractError: Where the folder has no training profile, or a file is damaged.
    """
    from pipeparts.runtime.profiles import read_profile

    path = Path(folder)
    if not (path / PROFILE_FILE).is_file():
        raise ContractError(
            "the model has no training profile",
            where=str(folder),
            allowed=f"a model folder with {PROFILE_FILE}, as the trainers write it",
            received="a folder without it" if path.is_dir() else "no folder",
        )
    predicted = path / PREDICTION_PROFILE_FILE
    return Reference(
        profile=read_profile(path / PROFILE_FILE),
        prediction_profile=read_profile(predicted) if predicted.exists() else None,
        sample=_read_sample(path / TRAINING_SAMPLE_FILE),
        prediction_sample=_read_sample(path / PREDICTION_SAMPLE_FILE),
    )


def _read_sample(file: Path) -> pa.Table | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.exists():
        return None
    try:
        with pq.ParquetFile(file, memory_map=False) as parquet:
            return parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise ContractError("a damaged sample", where=str(file), allowed="Parquet", received=str(error)) from error


def import_mlflow() -> Any:
    """MLflow's Python-function models, imported so that they call neither home nor another program."""
    # setdefault: who wants them says so in the environment.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own type hints make it warn of itself
        import mlflow
        import mlflow.pyfunc

    return mlflow


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Keeps Python from writing into the folders that it imports from: a model that was read is as it was."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _load_ours(folder: Path) -> Any | None:
    """What MLflow would load, without MLflow's import of seconds; None for a model with another loader than ours."""
    import yaml

    flavor = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]["python_function"]
    loader = str(flavor["loader_module"])
    if not loader.startswith(SERVING_PREFIX) or flavor.get("data"):
        return None
    code = str(folder / flavor["code"])
    sys.path.insert(0, code)
    try:
        return importlib.import_module(loader)._load_pyfunc(str(folder))
    finally:
        sys.path.remove(code)


class LoadedModel:
    """A model in memory.

    Args:
        path: The model's folder.

    Raises:
        ContractError: Where the folder is no model of the contract, or does not load.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.info = read_model_info(path)
        try:
            with _no_bytecode():
                # Without MLflow's wrapper, which takes seconds for a million rows and lets no gaps into integers.
                self._model = _load_ours(Path(path)) or import_mlflow().pyfunc.load_model(str(path)).get_raw_model()
        except Exception as error:  # MLflow and each framework raise what they like
            raise ContractError("the model does not load", where=str(path), received=repr(error)) from error

    @classmethod
    def of(cls, info: ModelInfo, model: Any) -> LoadedModel:
        """A model that is in memory already: its card, and what MLflow's loader module gives."""
        loaded = cls.__new__(cls)
        loaded.info, loaded._model = info, model
        return loaded

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predicts.

        Args:
            rows: n rows with the raw columns of `info.columns`, more columns are ignored.

        Returns:
            n rows with the columns `info.prediction_columns`; `prediction` is a class or a number.

        Raises:
            ContractError: Where the model answers with something else.
        """
        predictions: pd.DataFrame = self._model.predict(rows[list(self.info.columns)])
        if tuple(predictions.columns) != self.info.prediction_columns or len(predictions) != len(rows):
            raise ContractError(
                "the model's answer is not what its card says",
                allowed=f"{len(rows)} rows of {self.info.prediction_columns}",
                received=f"{len(predictions)} rows of {tuple(predictions.columns)}",
            )
        return predictions

    def score(self, rows: pa.RecordBatch) -> npt.NDArray[Any] | None:
        """Scores rows straight from Arrow: the same numbers as `predict`, without a detour over pandas.

        Args:
            rows: n rows with the raw columns of `info.columns`.

        Returns:
            Regression: [n]. Two classes: [n], the probability of the second. More: [n, classes]. None for a model that
            takes frames alone.

        Raises:
            ContractError: Where the model answers with something else.
        """
        scorer = getattr(self._model, "score_columns", None)
        if scorer is None:
            return None
        scores: npt.NDArray[Any] = scorer(rows)
        count, classes = rows.num_rows, len(self.info.classes)
        wanted = (count,) if classes <= 2 else (count, classes)
        if scores.shape != wanted:
            raise ContractError(
                "the model's answer is not what its card says", allowed=f"scores of {wanted}", received=scores.shape
            )
        return scores
