"""What a table is compared with: what travels with a model, or another table."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.models import REFERENCE_FILES, ModelInfo, read_model_info, read_reference
from pipeparts.runtime.monitoring import Data
from pipeparts.runtime.predictions import MODEL_VERSION, served_model
from pipeparts.runtime.profiles import Profile
from pipeparts.runtime.profiling import kind_of
from pipeparts.runtime.registered_models import open_model, resolve_version
from pipeparts.runtime.tables import Table


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a table is compared with.

    Attributes:
        model: The model, as `models:/name/3` or a fingerprint; "" for a table.
        info: The model's card.
        profile: Of the model's training table.
        sample: Rows of it; None for a model that was trained before it kept any.
        predictions: Profile of the model's predictions on its validation table.
        prediction_sample: Rows of these.
        table: The table, where it is one.
    """

    model: str = ""
    info: ModelInfo | None = None
    profile: Profile | None = None
    sample: pa.Table | None = None
    predictions: Profile | None = None
    prediction_sample: pa.Table | None = None
    table: Table | None = None

    @property
    def kinds(self) -> dict[str, str]:
        """Column to kind of its profile."""
        if self.table is not None:
            return {field.name: kind_of(field.type) for field in self.table.schema}
        assert self.profile is not None
        return {column.name: column.kind for column in self.profile.columns}

    @property
    def data(self) -> Data:
        """Which rows it is."""
        known = self.table.info if self.table is not None else self.profile
        assert known is not None
        return Data(rows=known.rows, fingerprint=known.fingerprint, source=known.source)


def find_reference(
    *,
    model_path: str | os.PathLike[str] | None,
    model_uri: str,
    reference_path: str | os.PathLike[str] | None,
    predictions: Table | None,
    tracking_uri: str,
) -> Reference:
    """Opens the reference that was given, or that of the model which made the predictions.

    Raises:
        InputError: Where none is given, or more than one, or the predictions are of a model that is not registered.
        ContractError: Where it is not what it should be, or the registry does not have it.
        ServiceError: Where the registry does not answer.
    """
    given = [
        name
        for name, value in (("model", model_path), ("model_uri", model_uri), ("reference", reference_path))
        if value
    ]
    if len(given) > 1:
        raise InputError("more than one reference was given", parameter=given[0], allowed="one of them", received=given)
    if reference_path:
        return Reference(table=Table(reference_path))
    if model_path:
        return _of_model(Path(model_path), "")
    if not model_uri:
        model_uri = _served(predictions)
    version = resolve_version(model_uri, tracking_uri)
    with open_model(version, tracking_uri, files=REFERENCE_FILES) as folder:
        return _of_model(folder, version)


def _served(predictions: Table | None) -> str:
    if predictions is None:
        raise InputError(
            "no reference was given",
            parameter="model_uri",
            allowed="one of model, model_uri and reference, or predictions, whose model it then is",
            received="none of them",
        )
    served = served_model(predictions)
    if not served.startswith("models:/"):
        raise InputError(
            "the predictions are of a model that is not registered",
            parameter="model",
            where=f"column {MODEL_VERSION} of {predictions.path}",
            allowed="the model itself as `model`, or predictions of a registered one",
            received=served,
        )
    return served


def _of_model(folder: Path, version: str) -> Reference:
    info = read_model_info(folder)
    carried = read_reference(folder)
    return Reference(
        model=version or info.fingerprint,
        info=info,
        profile=carried.profile,
        sample=carried.sample,
        predictions=carried.prediction_profile,
        prediction_sample=carried.prediction_sample,
    )


def read_names(columns: Sequence[str] | None) -> tuple[str, ...]:
    """The parameter `columns`, held to its form.

    Raises:
        InputError: Where it is no list of names.
    """
    if columns is not None and (
        isinstance(columns, str) or not all(isinstance(name, str) and name for name in columns)
    ):
        raise InputError(
            "the columns are not a list of names", parameter="columns", allowed="a list", received=repr(columns)
        )
    return tuple(dict.fromkeys(columns or ()))
