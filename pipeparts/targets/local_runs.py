"""The runs of a root folder: to list, to find, to clear away."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeparts.errors import InputError, suggest
from pipeparts.targets.local import is_watched, state_of


def list_runs(root: Path) -> list[dict[str, Any]]:
    """Every run's record, the newest first, with its `folder` and its true state."""
    found = []
    for folder in (root / "runs").glob("*/"):
        with contextlib.suppress(OSError, ValueError):
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            found.append({**record, "state": state_of(record, folder), "folder": str(folder)})
    return sorted(found, key=lambda record: float(record["started"]), reverse=True)


def find_run(root: Path, name: str | None) -> Path:
    """A run's folder.

    Args:
        root: The root folder.
        name: The run's name, or a part of it that no other run's has; None for the newest.

    Raises:
        InputError: Where no run, or more than one, is called so.
    """
    folders = [Path(run["folder"]) for run in list_runs(root)]
    if not folders:
        raise InputError(
            "there are no runs here", parameter="run", where=str(root / "runs"), allowed="a root folder with runs"
        )
    if name is None:
        return folders[0]
    exact = [folder for folder in folders if folder.name == name]
    fitting = exact or [folder for folder in folders if name in folder.name]
    if len(fitting) != 1:
        names = [folder.name for folder in fitting or folders]
        raise InputError(
            "several runs have this in their name" if fitting else "no run of this name",
            parameter="run",
            where=str(root / "runs"),
            allowed=names[:5],
            received=name,
            hint=suggest(name, names) if not fitting else None,
        )
    return fitting[0]


def clean(root: Path, keep: int) -> tuple[list[str], int]:
    """Removes old runs with their artifacts, and the cache entries that need them.

    What a run that stays took from the cache stays too, and so do runs that are going on.

    Args:
        root: The root folder.
        keep: How many of the newest runs stay.

    Returns:
        The names of the runs removed, and the bytes freed.
    """
    runs = list_runs(root)
    kept = {run["run_id"] for run in runs[:keep]}
    kept |= {run["run_id"] for run in runs if is_watched(Path(run["folder"]))}
    for run in runs:
        if run["run_id"] in kept:
            kept |= set(_sources(run))
    removed, freed = [], 0
    for run in runs:
        if run["run_id"] not in kept:
            freed += sum(path.stat().st_size for path in Path(run["folder"]).rglob("*") if path.is_file())
            shutil.rmtree(run["folder"], ignore_errors=True)
            removed.append(run["run_id"])
    gone = set(removed)
    for note in (root / "cache" / "steps").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(note.read_text(encoding="utf-8")).get("run_id") in gone:
                (root / "cache" / note.name).unlink(missing_ok=True)
                note.unlink()
    return removed, freed


def _sources(run: dict[str, Any]) -> Iterator[str]:
    """The other runs whose artifacts a run's record points to."""
    for task in run["tasks"]:
        for part in [task, *task.get("iterations", [])]:
            if part.get("cached_from"):
                yield part["cached_from"]
            for output in part["outputs"].values():
                first, _, rest = str(output.get("uri", "")).partition("/")
                if first == os.pardir:
                    yield rest.partition("/")[0]
