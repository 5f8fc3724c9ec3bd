"""Contenders that our lock cannot hold: run by the interpreter of an environment of their own, without pipeparts.

They take long, and hold all rows in memory: beyond a million rows each is run on a few and on a million, and what all
would cost is extrapolated from the two.
"""

import sys
from pathlib import Path

#: Name to what it is in words.
PROFILE = {
    "whylogs": "whylogs",
    "ydata_profiling": "ydata-profiling, minimal, with its page",
}
FEW, PART = 1_000, 1_000_000


def python(folder: Path) -> Path:
    """The interpreter of their environment, made by `make bench` in the folder of the benchmarks."""
    return folder / "outside" / "bin" / "python"


def main(name: str, folder: Path, rows: int) -> None:
    """Profiles the first rows of the table."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / "table" / "part-00000.parquet") as file:
        frame = next(file.iter_batches(batch_size=rows)).to_pandas()
    if len(frame) != rows:
        raise ValueError(f"the table's first part has {len(frame):,} rows of the {rows:,}")
    if name == "whylogs":
        import whylogs  # type: ignore[import-not-found]

        whylogs.log(frame).view().to_pandas()
    else:
        from ydata_profiling import ProfileReport  # type: ignore[import-not-found]

        ProfileReport(frame, minimal=True, progress_bar=False).to_file(folder / "ydata-profiling.html")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
