"""Checkpoints of a training: after each epoch, all that the next one depends on."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeparts.runtime.files import whole_file

logger = logging.getLogger(__name__)

_FILE = "epoch.npz"


def values_of(variables: list[Any]) -> list[npt.NDArray[Any]]:
    """Copies of the variables' values."""
    return [np.array(variable.numpy()) for variable in variables]


@dataclasses.dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        train: The training loss of each epoch so far.
        validation: The validation loss of each.
        best: The number, from 1, of the epoch with the lowest validation loss; 0 before the first.
        best_loss: That loss.
        waited: Epochs since then.
        best_weights: The network's variables after that epoch; empty in a training that begins.
    """

    train: list[float] = dataclasses.field(default_factory=list)
    validation: list[float] = dataclasses.field(default_factory=list)
    best: int = 0
    best_loss: float = 0.0
    waited: int = 0
    best_weights: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A place for the checkpoint of one training; without a folder nothing is kept.

    Attributes:
        folder: Named after the hash of everything that the training depends on.
    """

    folder: Path | None

    @classmethod
    def at(cls, parent: str, key: str) -> Checkpoint:
        """The place for the training with this key; an empty parent: none."""
        return cls(Path(parent) / key if parent else None)

    def write(self, state: TrainingState, variables: list[Any], best: list[Any]) -> None:
        """Keeps the state and the variables of network and optimizer."""
        if self.folder is None:
            return
        said = {k: v for k, v in dataclasses.asdict(state).items() if k != "best_weights"}
        arrays: dict[str, Any] = {f"variable_{i}": v for i, v in enumerate(values_of(variables))}
        arrays |= {f"best_{i}": v for i, v in enumerate(best)}
        with whole_file(self.folder / _FILE) as partial, partial.open("wb") as sink:
            np.savez(sink, state=np.array(json.dumps(said)), **arrays)

    def read(self, variables: list[Any]) -> TrainingState:
        """Sets the variables to those kept, and gives the state; a fresh one where nothing fits."""
        if self.folder is None or not (self.folder / _FILE).is_file():
            return TrainingState()
        try:
            with (self.folder / _FILE).open("rb") as file, np.load(file, allow_pickle=False) as kept:
                state = TrainingState(**json.loads(str(kept["state"])))
                values = [kept[f"variable_{i}"] for i in range(len(variables))]
                state.best_weights = [kept[f"best_{i}"] for i in range(sum(n.startswith("best_") for n in kept.files))]
            if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
                raise ValueError("variables of other shapes")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("begins anew: the checkpoint in %s cannot be used: %s", self.folder, error)
            return TrainingState()
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return state

    def remove(self) -> None:
        """Removes what was kept: the training has ended, and its model is written."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
