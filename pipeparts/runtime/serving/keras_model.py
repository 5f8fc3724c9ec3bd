"""A Keras model as MLflow loads it: the transform by numpy, the network by numpy too, or by its SavedModel.

The library's own network is run from `network.npz`, without TensorFlow; any other from its SavedModel. That holds
the network's graph, so that neither Keras code nor the package that built the network has to be there. It has two
signatures: `serving_default` takes raw columns, for TF Serving and Vertex; `features` takes what the transform
gives, for this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .network import NETWORK_FILE, Network
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
        file = self.folder / NETWORK_FILE
        self._score = Network.load(file).score if file.is_file() else _saved_model(self.folder / SAVED_MODEL_FOLDER)

    def score(self, numeric: npt.NDArray[np.float32], categories: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Scores features."""
        return self._score(numeric, categories)


def _saved_model(path: Path) -> Callable[[Any, Any], npt.NDArray[Any]]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    saved = tf.saved_model.load(str(path))

    def score(numeric: Any, categories: Any) -> npt.NDArray[Any]:
        features = saved.signatures[FEATURES_SIGNATURE]  # it holds the variables by weak references alone
        given = features(numeric=tf.convert_to_tensor(numeric), categories=tf.convert_to_tensor(categories))
        return np.asarray(given["scores"].numpy())

    return score


def _load_pyfunc(path: str) -> KerasModel:
    return KerasModel(path)
