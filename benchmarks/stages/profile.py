"""What the columns of a table hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import outside, tfx_stages
from benchmarks.data import TYPES

TITLE = "A profile: counts, missing, moments, quantiles, top values of every column"
PACKAGES = ["pyarrow", "polars", "duckdb", "pandas"]


def prepare(folder: Path) -> None:
    """The table."""
    from pipeparts.components.ingestion.ingest_files.logic import ingest_files

    if not (folder / "table").is_dir():
        ingest_files(
            source=str(folder / "flights.csv"),
            table_path=folder / "table",
            quarantine_path=folder / "bad",
            columns=TYPES,
        )


def ours(folder: Path) -> None:
    """With histograms and its page."""
    from pipeparts.components.data_validation.profile_table.logic import profile_table

    profile_table(
        table_path=folder / "table",
        profile_path=folder / "profile.json",
        page_path=folder / "profile.html",
        bins=50,
        top=20,
    )


def polars(folder: Path) -> None:
    """A column at a time, all exact."""
    import polars as pl

    for name in TYPES:
        column = pl.scan_parquet(folder / "table" / "*.parquet").select(name).collect(engine="streaming")[name]
        column.null_count()
        column.value_counts(sort=True).head(10)
        if column.dtype.is_numeric():
            (column.mean(), column.std(), column.min(), column.max())
            ordered = column.drop_nulls().sort()
            [ordered.quantile(q) for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)]


def duckdb(folder: Path) -> None:
    """Its own summary, and the top values."""
    import duckdb as db

    connection = db.connect()
    table = f"read_parquet('{folder}/table/*.parquet')"
    connection.execute(f"create temp table found as summarize select * from {table}")  # zoned times want pytz in Python
    for name in TYPES:
        connection.execute(
            f"select {name}::varchar, count(*) from {table} group by 1 order by 2 desc limit 10"
        ).fetchall()


def pandas(folder: Path) -> None:
    """Everything in memory."""
    import pandas as pd

    frame = pd.read_parquet(folder / "table")
    frame.isna().sum()
    frame.describe(percentiles=[0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99], include="all")
    for name in TYPES:
        frame[name].value_counts().head(10)


def floor_pass(folder: Path) -> None:
    """Every column decoded, once."""
    from pipeparts.runtime.tables import Table

    for _ in Table(folder / "table").batches():
        pass


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": ("`profile_table`, with its page", ours),
    "polars": ("polars, a column at a time, by sorting", polars),
    "duckdb": ("duckdb: summarize, and top values", duckdb),
    "pandas": ("pandas: describe, and top values", pandas),
    "floor_pass": ("reading the table", floor_pass),
}
OUTSIDE = outside.PROFILE
IN_TFX_IMAGE = tfx_stages.PROFILE
