"""Each stage against the tools that a user would pick instead: `make bench`, or `python -m benchmarks --help`.

Every contender is a process of its own, from the start of the interpreter to its end. The contenders of a stage take
turns, so that what else the machine does falls on all of them. Figures are medians of the rounds; ratios are of CPU
seconds, which are truer than wall time on a machine that others use too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import outside
from benchmarks.measuring import (
    as_dict,
    machine,
    measure,
    measure_in_tfx_image,
    measure_outside,
    median,
    read_results,
    versions,
)
from tests.tfx_image import image

STAGES = ("ingest", "profile", "validate", "features", "drift", "predict", "start")
HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def main() -> None:
    """Measures, and writes results.json, README.md and the plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="one number or several")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--limit-seconds", type=float, default=400.0, help="wall time after which one is cut off")
    parser.add_argument("--limit-megabytes", type=float, default=10_000.0, help="memory over which one is cut off")
    parser.add_argument("--folder", type=Path, default=Path(".pipeparts/bench"))
    parser.add_argument("--report", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--run", nargs=2, metavar=("STAGE", "CONTENDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        _stage(given.run[0]).CONTENDERS[given.run[1]][1](given.folder)
        return
    if not given.report:
        for rows in given.rows:
            _measure_all(given, rows)
    from benchmarks.page import write_page

    write_page(read_results(RESULTS), HERE)


def _stage(name: str) -> Any:
    return importlib.import_module(f"benchmarks.stages.{name}")


def _measure_all(given: argparse.Namespace, rows: int) -> None:
    folder = given.folder / str(rows)
    folder.mkdir(parents=True, exist_ok=True)
    if {"ingest", "profile", "validate", "features"} & set(given.stages) and not (folder / "flights.csv").is_file():
        from benchmarks.data import write_csv

        write_csv(folder / "flights.csv", rows)
    for name in given.stages:
        stage = _stage(name)
        extra = [rows] if len(inspect.signature(stage.prepare).parameters) > 1 else []
        stage.prepare(folder, *extra)
        ways = {each: functools.partial(measure, name) for each in stage.CONTENDERS}
        words = {each: what for each, (what, _) in stage.CONTENDERS.items()}
        elsewhere = [("OUTSIDE", measure_outside, outside.python(given.folder).is_file())]
        elsewhere += [("IN_TFX_IMAGE", measure_in_tfx_image, image() is not None)]
        for kind, way, is_there in elsewhere:
            if is_there:
                words |= getattr(stage, kind, {})
                ways |= {each: functools.partial(way, rows=rows) for each in getattr(stage, kind, {})}
        contenders = [each for each in ways if each not in given.skip]
        runs: dict[str, list[Any]] = {each: [] for each in contenders}
        for number in range(given.rounds):
            for each in contenders:
                if runs[each] and (runs[each][-1].cut_off or runs[each][-1].failed):
                    continue  # it will not do better
                limits = {"limit_seconds": given.limit_seconds, "limit_megabytes": given.limit_megabytes}
                found = ways[each](each, folder, **limits)
                runs[each].append(found)
                state = "cut off" if found.cut_off else found.failed or f"{found.megabytes:,.0f} MB"
                sys.stderr.write(f"{name}, {rows:,} rows, round {number + 1}: {each}: {found.cpu:.2f} CPU s, {state}\n")
        results = read_results(RESULTS)
        results[f"{name}/{rows}"] = {
            "rows": rows,
            "stage": name,
            "title": stage.TITLE,
            "rounds": given.rounds,
            "when": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(stage.PACKAGES),
            "contenders": {
                each: {
                    "what": words[each],
                    **as_dict(median(found)),
                }
                for each, found in runs.items()
            },
        }
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
