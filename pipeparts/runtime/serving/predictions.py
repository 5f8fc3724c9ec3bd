"""What a loaded model does around its network or trees: raw columns in, a frame of predictions out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .transform import Transform
from .values import TransformError, closest

if TYPE_CHECKING:
    import pandas as pd

CARD_FILE = "pipeparts.json"
TRANSFORM_FILE = "transform.json"

#: Rows transformed and scored at a time, so that memory stays bounded for a frame of any length.
BATCH_ROWS = 65_536


class ServedModel:
    """A saved model in memory; each framework says how it scores features.

    Args:
        folder: The model's folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.card: dict[str, Any] = json.loads((self.folder / CARD_FILE).read_text(encoding="utf-8"))
        self.transform = Transform.load(self.folder / TRANSFORM_FILE)
        self.classes: list[Any] = self.card["classes"]

    def score(self, numeric: npt.NDArray[np.float32], categories: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Scores features.

        Args:
            numeric: [n, numbers] float32.
            categories: [n, categories] int32.

        Returns:
            Regression: [n] in the label's unit. Two classes: [n], the probability of the second. More
            classes: [n, classes] probabilities.
        """
        raise NotImplementedError

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predicts; this is what MLflow calls.

        Args:
            model_input: n rows with the model's raw columns; others are ignored.
            params: Not used.

        Returns:
            n rows: `prediction`; for two classes `probability`, of the second; for more `probability_<class>`.
        """
        columns = {name: model_input[name] for name in self._check_columns(list(model_input.columns))}
        parts = [
            self.score_columns({name: values.iloc[start : start + BATCH_ROWS] for name, values in columns.items()})
            for start in range(0, max(1, len(model_input)), BATCH_ROWS)
        ]
        return self._frame(np.concatenate(parts), model_input.index)

    def score_columns(self, columns: Any) -> npt.NDArray[Any]:
        """Scores raw columns as they are, all rows at once: the way for batches that come as Arrow.

        Args:
            columns: The model's raw columns, of n values each, in any form that `Transform.apply` takes.

        Returns:
            What `score` gives.
        """
        features = self.transform.apply(columns)
        return self.score(features.numeric, features.categories)

    def get_raw_model(self) -> ServedModel:
        """This model, without MLflow's wrapper and its checks of each value."""
        return self

    def _check_columns(self, received: list[Any]) -> list[str]:
        for name in self.transform.columns:
            if name not in received:
                raise TransformError(
                    "a column that the model needs is missing",
                    where=f"column {name!r}",
                    allowed=list(self.transform.columns),
                    received=[str(column) for column in received],
                    hint=closest(name, [str(column) for column in received]),
                )
        return list(self.transform.columns)

    def _frame(self, scores: npt.NDArray[Any], index: Any) -> pd.DataFrame:
        import pandas as pd

        if self.card["task"] == "regression":
            return pd.DataFrame({"prediction": scores.astype(np.float64)}, index=index)
        classes = np.array(self.classes, dtype=object if isinstance(self.classes[0], str) else None)
        if len(classes) == 2:
            chosen = classes[(scores >= 0.5).astype(np.intp)]
            return pd.DataFrame({"prediction": chosen, "probability": scores.astype(np.float64)}, index=index)
        shares = {f"probability_{name}": scores[:, i].astype(np.float64) for i, name in enumerate(self.classes)}
        return pd.DataFrame({"prediction": classes[scores.argmax(axis=1)], **shares}, index=index)
