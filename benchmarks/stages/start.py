"""What it takes to begin: the command, and the imports that a step waits for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TITLE = "Starting: the command, and imports (seconds do not depend on the rows)"
PACKAGES = ["kfp", "typer", "tensorflow", "mlflow", "evidently", "pandas", "polars", "pyarrow"]


def prepare(folder: Path) -> None:
    """Nothing."""


def _command(*arguments: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "pipeparts.cli", *arguments], check=True, stdout=subprocess.DEVNULL)

    return run


def _compile_all(folder: Path) -> None:
    from pipeparts import catalog, compiling

    for entry in catalog.pipelines():
        compiling.to_yaml(compiling.compile_spec(entry.name))


def _import(name: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        subprocess.run([sys.executable, "-W", "ignore", "-c", f"import {name}"], check=True)

    return run


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "help": ("`pipeparts --help`", _command("--help")),
    "list": ("`pipeparts list`", _command("list")),
    "compile": ("compiling every pipeline", _compile_all),
    **{
        f"import_{name}": (f"`import {name}`", _import(name))
        for name in ("pyarrow", "polars", "pandas", "kfp", "mlflow", "evidently", "tensorflow")
    },
    "floor_python": ("Python, and nothing", _import("sys")),
}
