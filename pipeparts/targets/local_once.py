"""Runs that happen once for a key on this machine, however often and from wherever they are asked for."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeparts.compiling import Spec
from pipeparts.config import LocalConfig
from pipeparts.runtime.files import write_json
from pipeparts.submission import check_arguments
from pipeparts.targets import local
from pipeparts.targets.base import RunResult, check_key
from pipeparts.targets.local_record import read_kept
from pipeparts.targets.progress import Progress

logger = logging.getLogger(__name__)


def run_once(
    spec: Spec,
    arguments: Mapping[str, Any] | None = None,
    config: LocalConfig | None = None,
    *,
    key: str,
    progress: Progress | None = None,
) -> RunResult:
    """Runs a compiled pipeline for a key, unless a run of the key has succeeded already.

    A run of the key that is going on in another process is waited for. One that failed or was interrupted is run
    again, as a new run: its finished steps come from the cache. A key belongs to one pipeline of one root folder.

    Args:
        spec: The compiled pipeline.
        arguments: Its parameters.
        config: Where and how; the defaults unless given.
        key: What the run is for: a decision's id, a period.
        progress: Shows how it goes; nothing unless given.

    Returns:
        The run that succeeded before (`new` is false then), or how the new one ended.

    Raises:
        InputError: Where the key, the pipeline, an argument or the configuration is wrong; nothing has run then.
    """
    config = config or LocalConfig()
    check_key(key)
    check_arguments(spec, arguments or {})
    root = local.root_folder(config)
    pipeline = spec["pipelineInfo"]["name"]
    note = note_of(root, pipeline, key)
    with _turn(note.with_name(f"{key}.lock"), what=f"{pipeline} for {key}"):
        earlier = _succeeded(root, note)
        if earlier is not None:
            return earlier
        run_id = local.new_run_id(pipeline)
        # Written first: a process that is killed has left word of which run it was.
        write_json(note, {"key": key, "pipeline": pipeline, "run_id": run_id, "state": "running", "outputs": {}})
        result = local.run(spec, arguments, config, progress=progress, run_id=run_id, key=key)
        _note(note, result.record)
        return result


def note_of(root: Path, pipeline: str, key: str) -> Path:
    """Where it is kept which run a key of a pipeline has; the run itself may be cleared away."""
    return root / "once" / pipeline / f"{key}.json"


@contextlib.contextmanager
def _turn(path: Path, *, what: str) -> Iterator[None]:
    """Waits until no other process holds the key's lock, and holds it; it is released however this one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process runs %s: waiting for its end", what)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _succeeded(root: Path, note: Path) -> RunResult | None:
    """The run of the key, where it succeeded: by its own record, or where that was cleared away by the note."""
    known = read_kept(note)
    if not known:
        return None
    folder = root / "runs" / str(known["run_id"])
    record = read_kept(folder / "run.json")
    if (record or known)["state"] != "succeeded":
        return None
    if record and known["state"] != "succeeded":
        _note(note, record)
    return RunResult(
        run_id=str(known["run_id"]),
        state="succeeded",
        folder=folder,
        # A process that was killed at the very end has not written it.
        report=local.write_report(folder) if record else None,
        outputs=dict((record or known)["outputs"]),
        record=record or known,
        new=False,
    )


def _note(note: Path, record: Mapping[str, Any]) -> None:
    """Keeps how the run ended; it stays where the run itself is cleared away (`pipeparts clean`)."""
    write_json(note, {name: record[name] for name in ("key", "pipeline", "run_id", "state", "outputs")})
