"""Quantiles of a stream of numbers in bounded memory, with a bound on their error."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BUFFER = 65_536
_KEPT = 8_192


class QuantileSketch:
    """Quantiles by sorted samples of equal weight, two of which are merged into one of twice the weight.

    The scheme of Manku, Rajagopalan and Lindsay (1998), with full buffers only. Up to 65,536 numbers it is exact;
    beyond them the rank of a quantile is off by at most `rank_error`, whatever the numbers and their order:
    0.0006 at 10 million. Deterministic, and about 0.6 MB.
    """

    def __init__(self) -> None:
        self.count = 0
        self.least = np.inf
        self.greatest = -np.inf
        self._buffer = np.empty(_BUFFER, dtype=np.float64)
        self._filled = 0
        self._levels: list[Floats | None] = []  # at place i a sorted sample, each number for 8 * 2**i
        self._error = 0
        self._odd: list[bool] = []

    def update(self, values: Floats) -> None:
        """Adds n finite numbers."""
        if len(values) == 0:
            return
        self.count += len(values)
        self.least = min(self.least, float(values.min()))
        self.greatest = max(self.greatest, float(values.max()))
        while len(values):
            taken = values[: _BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            values = values[len(taken) :]
            if self._filled == _BUFFER:
                self._compact()

    @property
    def rank_error(self) -> float:
        """The most by which the rank of a quantile is off, as a share of all numbers."""
        return self._error / self.count if self.count else 0.0

    def quantiles(self, ranks: Floats) -> Floats:
        """The numbers at ranks from 0 to 1, linear between neighbours (as numpy's default is)."""
        samples = [np.sort(self._buffer[: self._filled])]
        weights = [np.ones(self._filled)]
        step = _BUFFER // _KEPT
        for place, sample in enumerate(self._levels):
            if sample is not None:
                samples.append(sample)
                weights.append(np.full(len(sample), float(step << place)))
        values, weight = np.concatenate(samples), np.concatenate(weights)
        order = np.argsort(values, kind="stable")
        values, weight = values[order], weight[order]
        # Each number stands for its weight of neighbours, and lies in their middle.
        middle = (np.cumsum(weight) - weight + (weight - 1) / 2) / max(self.count - 1, 1)
        middle = np.concatenate([[0.0], middle, [1.0]])
        values = np.concatenate([[self.least], values, [self.greatest]])
        found: Floats = np.interp(ranks, middle, values)
        found[ranks <= 0.0] = self.least
        found[ranks >= 1.0] = self.greatest
        return found

    def _compact(self) -> None:
        step = _BUFFER // _KEPT
        self._filled = 0
        sample: Floats = np.sort(self._buffer)[step // 2 :: step].copy()
        self._error += step // 2
        for place in range(len(self._levels) + 1):
            if place == len(self._levels):
                self._levels.append(None)
                self._odd.append(False)
            waiting = self._levels[place]
            if waiting is None:
                self._levels[place] = sample
                return
            # Of each two neighbours the first is kept, and at the next merge the second: the errors even out.
            merged = np.sort(np.concatenate([waiting, sample]))
            sample = merged[int(self._odd[place]) :: 2].copy()
            self._odd[place] = not self._odd[place]
            self._error += step << place
            self._levels[place] = None
