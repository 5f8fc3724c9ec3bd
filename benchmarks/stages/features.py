"""Fitting features and applying them: numbers filled and standardized, categories one-hot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tfx_stages
from benchmarks.data import CATEGORIES, NUMBERS
from benchmarks.stages.profile import prepare as prepare_table

TITLE = "Features: 8 numbers filled and standardized, 3 categories one-hot; fitted, applied, written"
PACKAGES = ["pyarrow", "polars", "scikit-learn", "numpy"]
_MOST_VALUES = 30


def prepare(folder: Path) -> None:
    """The table."""
    prepare_table(folder)


def ours(folder: Path) -> None:
    """`fit_features`, and its transform over the stream."""
    from pipeparts.components.feature_engineering.fit_features.logic import fit_features
    from pipeparts.runtime.serving.transform import Transform
    from pipeparts.runtime.tables import Table

    declared: dict[str, Any] = {name: {"kind": "numeric", "indicator": False} for name in NUMBERS}
    declared |= {name: {"kind": "category", "encode": "one_hot", "max_values": _MOST_VALUES} for name in CATEGORIES}
    paths = {"transform_path": folder / "transform.json", "page_path": folder / "transform.html"}
    fit_features(table_path=folder / "table", features=declared, **paths)
    transform = Transform.load(folder / "transform.json")
    names = list(transform.columns)
    writer = _Writer(folder / "features-ours.parquet")
    for batch in Table(folder / "table").batches(names, dictionaries=True):
        found = transform.apply(batch)
        writer.write(transform.numeric_names, found.numeric)
    writer.close()


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, names: list[str], rows: Any) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = [pa.array(np.ascontiguousarray(rows[:, place], dtype=np.float32)) for place in range(rows.shape[1])]
        batch = pa.RecordBatch.from_arrays(columns, names=list(names))
        # Dictionaries and extremes of zeros and ones cost more than they are worth.
        numbers = list(names[: len(NUMBERS)])
        options = {"use_dictionary": numbers, "write_statistics": numbers}
        self._writer = self._writer or pq.ParquetWriter(self._path, batch.schema, **options)
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


def polars(folder: Path) -> None:
    """Two lazy passes."""
    import polars as pl

    scan = pl.scan_parquet(folder / "table" / "*.parquet").select(*NUMBERS, *CATEGORIES)
    moments = scan.select(
        *(pl.col(n).mean().alias(f"{n}.mean") for n in NUMBERS), *(pl.col(n).std().alias(f"{n}.std") for n in NUMBERS)
    ).collect(engine="streaming")
    found: list[Any] = []
    for name in NUMBERS:
        mean, spread = moments[f"{name}.mean"][0], moments[f"{name}.std"][0]
        found.append(((pl.col(name).fill_null(mean) - mean) / spread).cast(pl.Float32).alias(name))
    for name in CATEGORIES:
        counts = scan.group_by(name).len().sort("len", descending=True).head(_MOST_VALUES).collect(engine="streaming")
        found += [
            (pl.col(name) == value).fill_null(value=False).cast(pl.Float32).alias(f"{name}={value}")
            for value in counts[name]
            if value is not None
        ]
    scan.select(found).sink_parquet(folder / "features-polars.parquet")


def sklearn(folder: Path) -> None:
    """A ColumnTransformer, in memory."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.read_parquet(folder / "table", columns=[*NUMBERS, *CATEGORIES])
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    one_hot = OneHotEncoder(max_categories=_MOST_VALUES, handle_unknown="ignore", sparse_output=False, dtype=np.float32)
    both = ColumnTransformer([("numbers", numbers, list(NUMBERS)), ("categories", one_hot, list(CATEGORIES))])
    rows = both.fit_transform(frame)
    writer = _Writer(folder / "features-sklearn.parquet")
    names = [str(name) for name in both.get_feature_names_out()]
    for start in range(0, len(rows), 131_072):
        writer.write(names, rows[start : start + 131_072])
    writer.close()


def floor_pass(folder: Path) -> None:
    """The raw columns decoded, twice."""
    from pipeparts.runtime.tables import Table

    for _ in range(2):
        for _ in Table(folder / "table").batches([*NUMBERS, *CATEGORIES]):
            pass


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": ("`fit_features`, with its page, and the transform", ours),
    "polars": ("polars, lazy", polars),
    "sklearn": ("scikit-learn over pandas", sklearn),
    "floor_pass": ("reading the raw columns twice", floor_pass),
}
IN_TFX_IMAGE = tfx_stages.FEATURES
