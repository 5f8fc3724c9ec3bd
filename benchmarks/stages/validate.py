"""Whether a table holds what a schema asks for: ranges, values allowed, shares of missing values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.stages.profile import ours as profile
from benchmarks.stages.profile import prepare as prepare_table

TITLE = "Validation: four ranges, two lists of values and four shares of missing values"
PACKAGES = ["pyarrow", "polars", "duckdb", "pandas"]

RANGES = {"month": (1, 12), "hour": (0, 23), "minute": (0, 59), "distance": (0, 6_000)}
ALLOWED = {
    "origin": ["EWR", "JFK", "LGA"],
    "carrier": ["9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"],
}
MISSING = {"dep_time": 0.05, "arr_time": 0.05, "air_time": 0.05, "tailnum": 0.05}


def prepare(folder: Path) -> None:
    """The table, and its profile."""
    prepare_table(folder)
    profile(folder)


def ours(folder: Path) -> None:
    """On the profile: no row is read."""
    from pipeparts.components.data_validation.validate_table.logic import validate_table

    columns: dict[str, dict[str, Any]] = {name: {"min": low, "max": high} for name, (low, high) in RANGES.items()}
    columns |= {name: {"allowed": values} for name, values in ALLOWED.items()}
    columns |= {name: {"max_missing_share": share} for name, share in MISSING.items()}
    verdict = validate_table(
        table_path=folder / "table",
        profile_path=folder / "profile.json",
        verdict_path=folder / "verdict.json",
        verdict_text_path=folder / "verdict.md",
        schema_used_path=folder / "schema.yaml",
        page_path=folder / "verdict.html",
        schema={"columns": columns},
        reference_profile_path=None,
    )
    _require(verdict.passed)


def ours_with_the_profile(folder: Path) -> None:
    """The profile too, as for a table that has none yet."""
    profile(folder)
    ours(folder)


def polars(folder: Path) -> None:
    """One lazy query."""
    import polars as pl

    found = pl.scan_parquet(folder / "table" / "*.parquet").select(
        *((~pl.col(name).is_between(low, high)).sum().alias(name) for name, (low, high) in RANGES.items()),
        *((~pl.col(name).is_in(values)).sum().alias(name) for name, values in ALLOWED.items()),
        *((pl.col(name).null_count() > share * pl.len()).alias(name) for name, share in MISSING.items()),
    )
    _require(not any(found.collect(engine="streaming").row(0)))


def duckdb(folder: Path) -> None:
    """One query."""
    import duckdb as db

    wanted = [f"count(*) filter ({name} not between {low} and {high})" for name, (low, high) in RANGES.items()]
    wanted += [f"count(*) filter ({name} not in {tuple(values)})" for name, values in ALLOWED.items()]
    wanted += [f"count(*) - count({name}) > {share} * count(*)" for name, share in MISSING.items()]
    found = db.sql(f"select {', '.join(wanted)} from read_parquet('{folder}/table/*.parquet')").fetchall()
    _require(not any(found[0]))


def pandas(folder: Path) -> None:
    """The ten columns in memory."""
    import pandas as pd

    frame = pd.read_parquet(folder / "table", columns=[*RANGES, *ALLOWED, *MISSING])
    _require(all(frame[name].between(low, high).all() for name, (low, high) in RANGES.items()))
    _require(all(frame[name].isin(values).all() for name, values in ALLOWED.items()))
    _require(all(frame[name].isna().mean() <= share for name, share in MISSING.items()))


def floor_pass(folder: Path) -> None:
    """The ten columns decoded, once."""
    from pipeparts.runtime.tables import Table

    for _ in Table(folder / "table").batches([*RANGES, *ALLOWED, *MISSING]):
        pass


def _require(holds: bool) -> None:
    """A way that finds fault with these flights is not quick, but wrong."""
    if not holds:
        raise AssertionError("the flights do not hold what they were asked for")


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": ("`validate_table` on the table's profile, with its page", ours),
    "ours_with_the_profile": ("`profile_table`, then `validate_table`", ours_with_the_profile),
    "polars": ("polars: the counts alone", polars),
    "duckdb": ("duckdb: the counts alone", duckdb),
    "pandas": ("pandas: the counts alone", pandas),
    "floor_pass": ("reading the ten columns", floor_pass),
}
