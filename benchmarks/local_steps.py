"""What running steps costs, by `pipeparts run` and by kfp.local alone: trivial steps in a row, and steps side by side.

    .venv/bin/python benchmarks/local_steps.py [--times 3] [--venv] [--pipeline FILE --params FILE]

Each way is a process of its own, from the compiled YAML to the end of the run, one way after the other, and all ways
again as many times as said; the medians are shown. kfp.local runs the same YAML by `SubprocessRunner(use_venv=False)`,
and with `--venv` by `use_venv=True`, its default, which makes an environment and installs kfp into it for each step.
CPU seconds are those of all the processes.
"""
# kfp does not read annotations that are texts, so there is no `from __future__ import annotations` here.

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kfp import compiler, dsl

ROW = 10
WIDE = 8
BUSY_SECONDS = 0.5
KFP = """
import json, sys
from kfp import components, local

yaml, arguments, root, use_venv = sys.argv[1:]
local.init(runner=local.SubprocessRunner(use_venv=use_venv == "yes"), pipeline_root=root, enable_caching=True)
components.load_component_from_file(yaml)(**json.loads(arguments))
"""

Way = Callable[[Path, str, Path], list[str]]


def pass_on(text: str) -> str:
    """Gives back what it gets."""
    return text


def keep_busy(seconds: float, name: str) -> str:
    """Uses a core for a while."""
    import time

    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return name


def write_pipelines(folder: Path, *, install: bool) -> None:
    """Compiles the two pipelines; `install`: each step installs kfp, which it needs in an environment of its own."""
    component = functools.partial(dsl.component, base_image="pipeparts-python-data", install_kfp_package=install)

    @dsl.pipeline(name="in-a-row")
    def in_a_row(text: str = "x") -> None:
        """Trivial steps, each after the one before."""
        for _ in range(ROW):
            text = component(pass_on)(text=text).output

    @dsl.pipeline(name="side-by-side")
    def side_by_side(seconds: float = BUSY_SECONDS) -> None:
        """Steps that do not wait for each other."""
        for number in range(WIDE):
            component(keep_busy)(seconds=seconds, name=str(number))

    folder.mkdir()
    compiler.Compiler().compile(in_a_row, str(folder / "row.yaml"))
    compiler.Compiler().compile(side_by_side, str(folder / "wide.yaml"))


def pipeparts(*options: str) -> Way:
    """By the command."""

    def command(yaml: Path, arguments: str, root: Path) -> list[str]:
        given = root / "arguments.json"
        given.write_text(arguments, encoding="utf-8")
        run = [sys.executable, "-m", "pipeparts.cli", "run", str(yaml), "--root", str(root), "--params", str(given)]
        return [*run, *options]

    return command


def kfp_local(use_venv: str) -> Way:
    """As kfp's documentation says."""
    return lambda yaml, arguments, root: [sys.executable, "-c", KFP, str(yaml), arguments, str(root), use_venv]


WAYS: dict[str, Way] = {
    "pipeparts": pipeparts(),
    "pipeparts, one at a time": pipeparts("--parallel", "1"),
    "kfp.local, use_venv=False": kfp_local("no"),
    "kfp.local, use_venv=True": kfp_local("yes"),
}


def main() -> None:
    """Prints the comparison as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="how often each way runs")
    parser.add_argument("--venv", action="store_true", help="kfp.local with environments of its own, too")
    parser.add_argument("--pipeline", type=Path, help="a compiled pipeline of yours to run as well")
    parser.add_argument("--params", type=Path, help="a JSON file with its arguments")
    given = parser.parse_args()
    ways = {name: way for name, way in WAYS.items() if given.venv or not name.endswith("True")}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pipelines(folder / "as is", install=False)
        write_pipelines(folder / "installs", install=True)
        # The second finds the cache that the first has left.
        cases = [
            (f"{ROW} trivial steps in a row", "row.yaml", "{}"),
            (f"the same {ROW}, from the cache", "row.yaml", "{}"),
            (f"{WIDE} steps of {BUSY_SECONDS} s, side by side", "wide.yaml", "{}"),
        ]
        if given.pipeline:
            arguments = given.params.read_text(encoding="utf-8") if given.params else "{}"
            cases.append((given.pipeline.stem, str(given.pipeline.resolve()), arguments))
        print(f"{os.cpu_count()} cores; medians of {given.times}\n")
        print("| | way | seconds | CPU seconds | times the first's seconds |\n|---|---|---|---|---|")
        for what, yaml, arguments in cases:
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for number in range(given.times):
                for name, way in ways.items():
                    root = folder / f"{Path(yaml).stem}-{number}-{name}"
                    root.mkdir(exist_ok=True)
                    place = folder / ("installs" if name.endswith("True") else "as is")
                    found[name].append(_measure(way(place / yaml, json.dumps(json.loads(arguments)), root)))
            medians = {
                name: [statistics.median(column) for column in zip(*figures, strict=True)]
                for name, figures in found.items()
            }
            first = medians["pipeparts"][0]
            for name, (seconds, cpu) in medians.items():
                print(f"| {what} | {name} | {seconds:.2f} | {cpu:.2f} | {seconds / first:.2f} |", flush=True)


def _measure(command: list[str]) -> tuple[float, float]:
    """The seconds and the CPU seconds of a command and all that it starts."""
    before, began = _cpu_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - began, _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
