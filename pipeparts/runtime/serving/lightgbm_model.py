"""A LightGBM model as MLflow loads it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .predictions import ServedModel

MODEL_FILE = "model.txt"


class LightgbmModel(ServedModel):
    """Trees over the transform's features.

    Args:
        folder: The model's folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        import lightgbm

        self._booster = lightgbm.Booster(model_file=self.folder / MODEL_FILE)

    def score(self, numeric: npt.NDArray[np.float32], categories: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Scores features; the trees were grown on the label in its own unit."""
        return score_trees(self._booster, numeric, categories)


def score_trees(
    booster: Any, numeric: npt.NDArray[np.float32], categories: npt.NDArray[np.int32], **options: Any
) -> npt.NDArray[Any]:
    """Scores features with a booster, in training and in serving alike.

    Args:
        booster: The `lightgbm.Booster`.
        numeric: [n, numbers] float32.
        categories: [n, categories] int32.
        options: For `Booster.predict`.

    Returns:
        [n] or [n, classes].
    """
    if len(numeric) == 0:  # LightGBM refuses an empty matrix
        outputs = booster.num_model_per_iteration()
        return np.zeros(0 if outputs == 1 else (0, outputs))
    # float32 holds every category below 2**24 exactly; vocabularies end far below that.
    return np.asarray(booster.predict(np.hstack([numeric, categories.astype(np.float32)]), **options))


def _load_pyfunc(path: str) -> LightgbmModel:
    return LightgbmModel(path)
