"""Plots of an evaluation that several pages draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeparts.runtime.evaluation import Evaluation
from pipeparts.runtime.pages import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CELLS_WITH_NUMBERS = 12


def confusion_figure(evaluation: Evaluation) -> Figure:
    """The confusion matrix of a classification, coloured by the share of each actual class."""
    matrix = np.array(evaluation.curves["confusion"])
    names = [str(name) for name in evaluation.classes]
    size = len(names)
    figure, axes = new_figure(5.2, 3.2 if size <= 6 else min(8.0, 1.6 + 0.28 * size))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(size), names, rotation=0 if size <= 6 else 90)
    axes.set_yticks(range(size), names)
    axes.set(xlabel="predicted", ylabel=f"actual {evaluation.label}")
    if size <= _MOST_CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{count:,}" + (f"\n{shares[row, column]:.1%}" if size <= 4 else "")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if size > 4 else 10)
    return figure
