"""From a CSV to typed Parquet, and to three splits by a hash."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data import TYPES

TITLE = "A CSV to typed Parquet in three splits by the hash of a key"
PACKAGES = ["pyarrow", "polars", "duckdb", "pandas"]
NOTE = """Ours hash each value, too, for the tables' fingerprints, look for rows that cannot be read, and take any
file: quotes, line breaks within them, encodings. In two steps, where the whole table is kept as well, each row is
written twice and read once more."""
_FRACTIONS = (0.8, 0.1, 0.1)


def prepare(folder: Path) -> None:
    """Nothing beyond the CSV."""


def _out(folder: Path) -> Path:
    out = folder / "out-ingest"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return out


def ours(folder: Path) -> None:
    """Types, quarantine, fingerprints and split in one component."""
    from pipeparts.components.ingestion.ingest_and_split_files.logic import ingest_and_split_files

    out = _out(folder)
    ingest_and_split_files(
        source=str(folder / "flights.csv"),
        train_table_path=out / "train",
        validation_table_path=out / "validation",
        test_table_path=out / "test",
        quarantine_path=out / "bad",
        columns=TYPES,
        key_columns=["tailnum", "time_hour"],
        fractions=list(_FRACTIONS),
    )


def ours_in_two_steps(folder: Path) -> None:
    """The same in two components: the table and the splits are both kept."""
    from pipeparts.components.feature_engineering.split_table.logic import split_table

    ours_table_alone(folder)
    out = folder / "out-ingest"
    split_table(
        table_path=out / "table",
        train_table_path=out / "train",
        validation_table_path=out / "validation",
        test_table_path=out / "test",
        columns=["tailnum", "time_hour"],
        fractions=list(_FRACTIONS),
    )


def ours_table_alone(folder: Path) -> None:
    """The first of the two."""
    from pipeparts.components.ingestion.ingest_files.logic import ingest_files

    out = _out(folder)
    source = str(folder / "flights.csv")
    ingest_files(source=source, table_path=out / "table", quarantine_path=out / "bad", columns=TYPES)


def _options() -> Any:
    import pyarrow as pa
    import pyarrow.csv as csv

    kinds = {name: pa.timestamp("us", tz="UTC") if kind == "timestamp_utc" else kind for name, kind in TYPES.items()}
    return csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)


def arrow(folder: Path) -> None:
    """A stream of batches into three writers, by a hash of numpy's."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    out = _out(folder)
    reader = csv.open_csv(folder / "flights.csv", convert_options=_options())
    writers = [pq.ParquetWriter(out / f"{i}.parquet", reader.schema) for i in range(3)]
    for batch in reader:
        keys = batch.column("time_hour").cast(pa.int64()).to_numpy() ^ batch.column("flight").to_numpy()
        place = (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        share = place / float(1 << 24)
        for i, (low, high) in enumerate(((0, 0.8), (0.8, 0.9), (0.9, 1.0))):
            writers[i].write_batch(batch.filter(pa.array((share >= low) & (share < high))))
    for writer in writers:
        writer.close()


def polars(folder: Path) -> None:
    """A lazy scan, sunk into three files."""
    import polars as pl

    out = _out(folder)
    kinds = {"string": pl.String, "int64": pl.Int64, "timestamp_utc": pl.String}
    scan = pl.scan_csv(folder / "flights.csv", schema={name: kinds[kind] for name, kind in TYPES.items()})
    scan = scan.with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%d %H:%M:%S%.fZ", time_zone="UTC"))
    share = pl.struct("tailnum", "time_hour").hash(0) / 2**64
    for i, (low, high) in enumerate(((0, 0.8), (0.8, 0.9), (0.9, 1.1))):
        scan.filter((share >= low) & (share < high)).sink_parquet(out / f"{i}.parquet")


def duckdb(folder: Path) -> None:
    """A typed table, and three copies of its parts."""
    import duckdb as db

    out = _out(folder)
    kinds = {"string": "VARCHAR", "int64": "BIGINT", "timestamp_utc": "TIMESTAMPTZ"}
    columns = {name: kinds[kind] for name, kind in TYPES.items()}
    connection = db.connect(str(out / "scratch.duckdb"))
    connection.execute(
        f"create table t as select * from read_csv('{folder}/flights.csv', columns={columns}, header=true)"
    )
    share = "hash(tailnum, time_hour) / 18446744073709551616.0"
    for i, (low, high) in enumerate(((0, 0.8), (0.8, 0.9), (0.9, 1.1))):
        where = f"{share} >= {low} and {share} < {high}"
        connection.execute(f"copy (select * from t where {where}) to '{out}/{i}.parquet' (format parquet)")


def pandas_in_chunks(folder: Path) -> None:
    """A million rows at a time."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = _out(folder)
    kinds = {name: {"string": "string", "int64": "Int64"}[kind] for name, kind in TYPES.items() if name != "time_hour"}
    writers: list[Any] = [None, None, None]
    for chunk in pd.read_csv(folder / "flights.csv", dtype=kinds, parse_dates=["time_hour"], chunksize=1_000_000):
        share = pd.util.hash_pandas_object(chunk[["tailnum", "time_hour"]], index=False) / 2**64
        for i, (low, high) in enumerate(((0, 0.8), (0.8, 0.9), (0.9, 1.1))):
            part = pa.Table.from_pandas(chunk[(share >= low) & (share < high)], preserve_index=False)
            writers[i] = writers[i] or pq.ParquetWriter(out / f"{i}.parquet", part.schema)
            writers[i].write_table(part)
    for writer in writers:
        writer.close()


def floor_bytes(folder: Path) -> None:
    """Every byte, once."""
    with (folder / "flights.csv").open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def floor_parse(folder: Path) -> None:
    """Arrow's parser, into nothing."""
    import pyarrow.csv as csv

    for _ in csv.open_csv(folder / "flights.csv", convert_options=_options()):
        pass


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": ("`ingest_and_split_files`", ours),
    "ours_two_steps": ("`ingest_files`, then `split_table`", ours_in_two_steps),
    "ours_table_alone": ("`ingest_files` alone", ours_table_alone),
    "arrow": ("pyarrow, a stream, one pass", arrow),
    "polars": ("polars, a lazy scan for each split", polars),
    "duckdb": ("duckdb", duckdb),
    "pandas": ("pandas in chunks", pandas_in_chunks),
    "floor_bytes": ("reading the bytes", floor_bytes),
    "floor_parse": ("parsing the CSV, into nothing", floor_parse),
}
