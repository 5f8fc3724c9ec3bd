"""Runs the schedules of this machine: each window once, in the order of their times."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

from pipeparts import compiling
from pipeparts.backfill import key_of
from pipeparts.compiling import Spec
from pipeparts.config import LocalConfig
from pipeparts.errors import PipepartsError
from pipeparts.schedules import Schedule, Window
from pipeparts.submission import check_arguments
from pipeparts.targets.base import RemoteRun
from pipeparts.targets.local_target import LocalTarget

logger = logging.getLogger(__name__)

#: How long it sleeps at most: a schedule that is made meanwhile is seen then.
_LONGEST_SLEEP_SECONDS = 10.0
#: How often it looks at runs that go on.
_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class _Due:
    """A window that is to be run."""

    window: Window
    spec: Spec
    arguments: dict[str, Any]
    key: str
    done: Path


class Scheduler:
    """Starts what is due, each schedule's windows one after the other, the schedules side by side.

    A run is a process of its own, as one that was submitted. A window is run once: it is noted when its run has ended,
    and a run of it that goes on, or has succeeded, is found by its key, whoever started it. A window that was over
    before its schedule was made or resumed does not count. A run that failed is not tried again: it is up to a person
    (`pipeparts backfill`), or to the next window.

    Args:
        config: Where and how.
        catch_up: How many windows of each schedule are made up for at most, the newest; 0: all of them.
        began: Called with a schedule's name, its window and its run.
        ended: Called with each run that has ended.
    """

    def __init__(
        self,
        config: LocalConfig,
        *,
        catch_up: int = 1,
        began: Callable[[str, Window, RemoteRun], None] = lambda name, window, run: None,
        ended: Callable[[RemoteRun], None] = lambda run: None,
    ) -> None:
        self._target = LocalTarget(config)
        self._catch_up = catch_up
        self._began, self._ended = began, ended
        self._running: dict[str, tuple[_Due, RemoteRun]] = {}

    def step(self, now: dt.datetime) -> list[RemoteRun]:
        """Notes which runs have ended, and starts what is due.

        Args:
            now: The present.

        Returns:
            The runs that have ended since the last time. A schedule whose run cannot start is logged, and stops no
            other.
        """
        over = [run for name in list(self._running) if (run := self._look(name)) is not None]
        for folder, known in self._target.kept_schedules():
            name = str(known["name"])
            if name in self._running or known["paused"]:
                continue
            try:
                due = next(self._due(folder, known, now), None)
                if due is None:
                    continue
                run = self._target.submit(due.spec, due.arguments, key=due.key)
            except PipepartsError as error:
                logger.error("schedule %s cannot run: %s", name, error)
                continue
            self._running[name] = (due, run)
            self._began(name, due.window, run)
            over += [run] if (run := self._look(name)) is not None else []
        return over

    @property
    def is_busy(self) -> bool:
        """Whether runs go on."""
        return bool(self._running)

    def stop(self) -> None:
        """Stops the runs that go on; their windows are run again when the scheduler is."""
        with futures.ThreadPoolExecutor(max(1, len(self._running))) as pool:
            for run in pool.map(lambda each: self._target.cancel(each[1].run_id), self._running.values()):
                self._ended(run)
        self._running.clear()

    def _look(self, name: str) -> RemoteRun | None:
        """A schedule's run, where it has ended; its window is noted then."""
        due, run = self._running[name]
        if run.state == "running":
            run = dataclasses.replace(self._target.status(run.run_id), new=run.new)
        if run.state == "running":
            return None
        del self._running[name]
        if due.done.parent.is_dir():  # otherwise the schedule was deleted meanwhile
            due.done.touch()
        self._ended(run)
        return run

    def _due(self, folder: Path, known: dict[str, Any], now: dt.datetime) -> Iterator[_Due]:
        """The windows that are over and not done, the earliest first."""
        schedule = Schedule(**known["schedule"])
        since = dt.datetime.fromisoformat(known["since"])
        over = itertools.takewhile(lambda window: window.end > since, schedule.past_windows(now))
        newest = list(itertools.islice(over, self._catch_up or None))
        if not newest:
            return
        spec = compiling.read_yaml(folder / f"{known['digest']}.yaml")
        for window in reversed(newest):
            arguments = check_arguments(spec, window.fill(known["arguments"], where=str(known["name"])))
            key = key_of(known["pipeline"], window, arguments)
            done = folder / f"{key}.done"
            if not done.exists():
                yield _Due(window, spec, arguments, key, done)


def run_due(scheduler: Scheduler, now: dt.datetime, stop: threading.Event) -> list[RemoteRun]:
    """Runs what is due now, and waits for its end.

    Args:
        scheduler: The scheduler.
        now: The present.
        stop: Asks to stop: the runs that go on are stopped, too.

    Returns:
        The runs, as they ended.
    """
    over = scheduler.step(now)
    while scheduler.is_busy and not stop.is_set():
        stop.wait(_POLL_SECONDS)
        over += scheduler.step(now)
    scheduler.stop()
    return over


def serve(scheduler: Scheduler, stop: threading.Event) -> None:
    """Runs what is due, again and again, until it is asked to stop; the runs that go on are stopped then.

    Args:
        scheduler: The scheduler.
        stop: Asks to stop.
    """
    while not stop.is_set():
        scheduler.step(dt.datetime.now(dt.UTC))
        stop.wait(_POLL_SECONDS if scheduler.is_busy else _LONGEST_SLEEP_SECONDS)
    scheduler.stop()
