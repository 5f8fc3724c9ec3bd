"""A Keras model as MLflow loads it: the transform by numpy, the network by its SavedModel.

The SavedModel holds the network's graph, so that neither Keras code nor the package that built the
network has to be there. It has two signatures: `serving_default` takes raw columns, for TF Serving and
Vertex; `features` takes what the transform gives, for this module and for large batches.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .predictions import ServedModel

SAVED_MODEL_FOLDER = "savedmodel"
FEATURES_SIGNATURE = "features"


class KerasModel(ServedModel):
    """A network over the transform's features.

    Args:
        folder: The model's folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        self._tensor = tf.convert_to_tensor
        self._saved = tf.saved_model.load(str(self.folder / SAVED_MODEL_FOLDER))
        self._features = self._saved.signatures[FEATURES_SIGNATURE]

    def score(self, numeric: npt.NDArray[np.float32], categories: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Scores features."""
        given = self._features(numeric=self._tensor(numeric), categories=self._tensor(categories))
        return np.asarray(given["scores"].numpy())


def _load_pyfunc(path: str) -> KerasModel:
    return KerasModel(path)
