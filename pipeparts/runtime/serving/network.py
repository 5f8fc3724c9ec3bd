"""The library's own network in numpy: the numbers of its SavedModel to 1e-5, without TensorFlow's start and memory.

`train_keras` writes its weights beside the SavedModel where the network is the library's own; any other network
has no such file, and is run by TensorFlow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

NETWORK_FILE = "network.npz"
FORMAT = "pipeparts.network/1"

# Products of small matrices: for large ones OpenBLAS starts threads, which cost more than they save here. Blocks of
# them: few enough rows for the hidden layers to stay in the processor's cache.
_MATRIX_ROWS = 128
_BLOCK_MATRICES = 32

# Klambauer and others, 2017.
_SELU_ALPHA, _SELU_SCALE = np.float32(1.6732632423543772), np.float32(1.0507009873554805)


def _elu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.expm1(x))


def _selu(x: Floats) -> Floats:
    return _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x))


def _relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0), out=x)


def _tanh(x: Floats) -> Floats:
    return np.tanh(x, out=x)


#: The activations that are here; not "gelu", whose error function numpy lacks.
ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "elu": _elu,
    "relu": _relu,
    "selu": _selu,
    "silu": lambda x: x * sigmoid(x),
    "tanh": _tanh,
}


class Network:
    """Embeddings and dense layers, beside a linear part.

    Args:
        about: `activation`, of `ACTIVATIONS`; `task`; `mean` and `scale` of a regression's label.
        weights: float32 arrays by name: `embedding_<i>` [size, width]; `kernel_<i>` [in, out] and `bias_<i>` [out],
            of the hidden layers and then of the last; `wide_numeric` [numbers, outputs] and `wide_<i>`
            [size, outputs], where there is a linear part.
    """

    def __init__(self, about: Mapping[str, Any], weights: Mapping[str, Floats]) -> None:
        if about.get("format") != FORMAT:
            raise ValueError(f"not a network of the format {FORMAT!r}: {about.get('format')!r}")
        self.about = dict(about)
        self.weights = dict(weights)
        self._activation = ACTIVATIONS[about["activation"]]
        # Everything lies the other way round, rows last, as the transform gives its numbers.
        self._embeddings = self._turned("embedding_")
        self._kernels = self._turned("kernel_")
        self._biases = [bias[:, None] for bias in self._turned("bias_")]
        self._wide_numeric = weights["wide_numeric"].T if "wide_numeric" in weights else None
        self._wide = self._turned("wide_")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """A network from its file."""
        with np.load(path, allow_pickle=False) as file:
            weights = {name: file[name] for name in file.files if name != "about"}
            return cls(json.loads(file["about"].tobytes()), weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: the same bytes for the same network."""
        about = np.frombuffer(json.dumps(self.about, sort_keys=True).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {"about": about, **self.weights}
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)

    def score(self, numeric: Floats, categories: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Scores features, as `ServedModel.score` says."""
        count = len(numeric)
        raw = np.empty((len(self._biases[-1]), count), dtype=np.float32)
        with np.errstate(all="ignore"):
            for rows, shape in _blocks(count):
                given = numeric[rows].T.reshape(numeric.shape[1], *shape)
                ids = categories[rows].T.reshape(categories.shape[1], *shape)
                raw[:, rows] = self._block(given, ids).transpose(1, 0, 2).reshape(len(raw), -1)
            if self.about["task"] == "regression":
                numbers: npt.NDArray[np.float64] = raw[0].astype(np.float64)
                return numbers * float(self.about["scale"]) + float(self.about["mean"])
            return sigmoid(raw[0]) if len(raw) == 1 else _softmax(raw).T

    def _block(self, numeric: Floats, categories: npt.NDArray[np.int32]) -> Floats:
        """The raw scores, [matrices, outputs, rows], of features, [features, matrices, rows]."""
        numbers = numeric.transpose(1, 0, 2)
        parts = [_looked_up(table, ids) for table, ids in zip(self._embeddings, categories, strict=True)]
        hidden = np.concatenate([*parts, numbers], axis=1) if parts else numbers
        last = len(self._kernels) - 1
        for place, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            hidden = kernel @ hidden
            hidden += bias
            if place < last:
                hidden = self._activation(hidden)
        if self._wide_numeric is not None:
            hidden += self._wide_numeric @ numbers
        for table, ids in zip(self._wide, categories, strict=bool(self._wide)):
            hidden += _looked_up(table, ids)
        return hidden

    def _turned(self, prefix: str) -> list[Floats]:
        """The numbered weights of a name, in order, transposed."""
        count = sum(name.removeprefix(prefix).isdigit() for name in self.weights if name.startswith(prefix))
        return [np.ascontiguousarray(self.weights[f"{prefix}{i}"].T) for i in range(count)]


def _blocks(count: int) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Cuts rows into blocks, and says of each how many matrices of how many rows it is: the last is a single one."""
    matrices, rest = divmod(count, _MATRIX_ROWS)
    for start in range(0, matrices, _BLOCK_MATRICES):
        stop = min(start + _BLOCK_MATRICES, matrices)
        yield slice(start * _MATRIX_ROWS, stop * _MATRIX_ROWS), (stop - start, _MATRIX_ROWS)
    if rest:
        yield slice(count - rest, count), (1, rest)


def _looked_up(table: Floats, ids: npt.NDArray[np.int32]) -> Floats:
    """The columns of a table, [width, size], for ids, [matrices, rows]: [matrices, width, rows]."""
    return table[:, ids].transpose(1, 0, 2)


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _softmax(raw: Floats) -> Floats:
    powers: Floats = np.exp(raw - raw.max(axis=0))
    powers /= powers.sum(axis=0)
    return powers
