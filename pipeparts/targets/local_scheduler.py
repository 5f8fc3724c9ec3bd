"""Runs the schedules of this machine: each window once, in the order of their times."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeparts import compiling
from pipeparts.backfill import key_of
from pipeparts.config import LocalConfig
from pipeparts.errors import PipepartsError
from pipeparts.schedules import Schedule
from pipeparts.submission import check_arguments
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_once import run_once
from pipeparts.targets.local_target import LocalTarget
from pipeparts.targets.progress import Progress

logger = logging.getLogger(__name__)

#: How long it sleeps at most: a schedule that is made meanwhile is seen then.
_LONGEST_SLEEP_SECONDS = 10.0


def run_due(
    config: LocalConfig,
    *,
    now: dt.datetime,
    progress: Callable[[], Progress] | None = None,
) -> list[RunResult]:
    """Runs the newest window of each schedule that is over, unless it has been run.

    A window that was over before the schedule was made or resumed does not count; of several that were missed the
    newest alone is run: `pipeparts backfill` runs the others.

    Args:
        config: Where and how.
        now: The present.
        progress: Makes what shows how each run goes.

    Returns:
        How each run ended, of those that were due. A schedule whose run cannot start is logged, and stops no other.
    """
    done: list[RunResult] = []
    for folder, known in LocalTarget(config).kept_schedules():
        try:
            result = _run_one(config, folder, known, now, progress)
        except PipepartsError as error:
            logger.error("schedule %s cannot run: %s", known["name"], error)
            continue
        if result is not None:
            done.append(result)
    return done


def serve(
    config: LocalConfig,
    stop: threading.Event,
    *,
    progress: Callable[[], Progress] | None = None,
    ended: Callable[[RunResult], None] = lambda result: None,
) -> None:
    """Runs what is due, again and again, until it is asked to stop.

    Args:
        config: Where and how.
        stop: Asks it to stop; a run that goes on is stopped by the signal itself.
        progress: Makes what shows how each run goes.
        ended: Called with each run that has ended.
    """
    while not stop.is_set():
        for result in run_due(config, now=dt.datetime.now(dt.UTC), progress=progress):
            ended(result)
            if result.state == "interrupted":
                return
        stop.wait(_LONGEST_SLEEP_SECONDS)


def _run_one(
    config: LocalConfig,
    folder: Path,
    known: dict[str, Any],
    now: dt.datetime,
    progress: Callable[[], Progress] | None,
) -> RunResult | None:
    schedule = Schedule(**known["schedule"])
    window = schedule.last_window(now)
    if known["paused"] or window.end <= dt.datetime.fromisoformat(known["since"]):
        return None
    spec = compiling.read_yaml(folder / f"{known['digest']}.yaml")
    arguments = check_arguments(spec, window.fill(known["arguments"], where=known["name"]))
    key = key_of(known["pipeline"], window, arguments)
    if (folder / f"{key}.done").exists():
        return None
    logger.info("%s: %s", known["name"], window)
    result = run_once(spec, arguments, config, key=key, progress=progress() if progress else None)
    # A run that failed is not tried at every look: it is up to a person, or to the next window.
    if result.state != "interrupted":
        (folder / f"{key}.done").touch()
    return result
