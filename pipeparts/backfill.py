"""Runs what schedules would have run in a past period: each run once, in the order of their times."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeparts import catalog, compiling, submission
from pipeparts.compiling import Spec
from pipeparts.errors import InputError
from pipeparts.schedules import Schedule, Window, parse_day, read_schedule


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a schedule.

    Attributes:
        pipeline: The pipeline's name.
        spec: The compiled pipeline.
        window: The time that it is about.
        arguments: The parameters, for this window.
        key: The same for the same pipeline, window and arguments: such a run is done once.
    """

    pipeline: str
    spec: Spec
    window: Window
    arguments: dict[str, Any]
    key: str


def plan(
    files: Sequence[str | os.PathLike[str]], *, start: str, end: str, now: dt.datetime | None = None
) -> list[PlannedRun]:
    """What the schedules of files of parameters would have run.

    Args:
        files: Files of parameters, each with a pipeline and a schedule.
        start: The first day, or moment, that a window may begin at; in the schedule's time zone.
        end: The day or moment before which it begins.
        now: The present: windows that are not over yet are left out.

    Returns:
        The runs in the order of their times; for the same time in the order of the files.

    Raises:
        InputError: For a file without pipeline or schedule, parameters that do not fit the pipeline, or a period
            without a run.
    """
    now = now or dt.datetime.now(dt.UTC)
    runs: list[PlannedRun] = []
    for file in files:
        pipeline, schedule, parameters = _read(file)
        spec = compiling.compile_spec(catalog.find(pipeline).name)
        first, last = (parse_day(day, schedule, parameter=name) for day, name in ((start, "--start"), (end, "--end")))
        for window in schedule.windows(first, last):
            if window.end > now:
                break
            arguments = submission.check_arguments(spec, window.fill(parameters))
            runs.append(PlannedRun(pipeline, spec, window, arguments, key_of(pipeline, window, arguments)))
    if not runs:
        raise InputError(
            "no run of these schedules has its window in this period",
            parameter="--start, --end",
            where=", ".join(str(file) for file in files),
            allowed="a period in which a window begins, and which is over",
            received=f"{start} to {end}",
        )
    return sorted(runs, key=lambda run: run.window.end)


def _read(file: str | os.PathLike[str]) -> tuple[str, Schedule, dict[str, Any]]:
    pipeline, parameters = submission.read_parameter_file(file)
    schedule = read_schedule(file)
    for name, value in (("pipeline", pipeline), ("schedule", schedule)):
        if value is None:
            raise InputError(
                f"the file of parameters has no `{name}:`",
                parameter=name,
                where=str(file),
                allowed="pipeline: NAME, schedule: {cron: '0 6 1 * *'} and parameters: {...}",
                received="nothing",
            )
    assert pipeline is not None
    assert schedule is not None
    return pipeline, schedule, parameters


def key_of(pipeline: str, window: Window, arguments: Mapping[str, Any]) -> str:
    """The key of a pipeline's run for a window: the same for the same arguments."""
    text = json.dumps(dict(arguments), sort_keys=True, default=str)
    return f"{pipeline}-{window.end:%Y%m%dT%H%M}-{hashlib.sha256(text.encode()).hexdigest()[:12]}".replace("_", "-")
