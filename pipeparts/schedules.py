"""When a pipeline runs, and the window of time that each of its runs is about.

A parameter file with a `schedule` may name the window in its parameters, `{start:%Y-%m}`, so that the same file serves
every run of the schedule, and the runs of the past (`pipeparts backfill`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import re
import zoneinfo
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from pipeparts.config import read_mapping
from pipeparts.errors import InputError, suggest
from pipeparts.runtime.params import Params, parse_params

NAMES = ("previous_start", "start", "end")

_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?::(%[^{}]*))?\}")
_DEFAULT_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


@dataclasses.dataclass(frozen=True)
class Window:
    """The time between two runs of a schedule, which the later of the two is about.

    Attributes:
        previous_start: When the window before begins.
        start: When it begins.
        end: When it ends: the time of the run.
    """

    previous_start: dt.datetime
    start: dt.datetime
    end: dt.datetime

    def __str__(self) -> str:
        """As 2013-08-01 to 2013-09-01; with the time where it is less than a day."""
        form = "%Y-%m-%d" if self.end - self.start >= dt.timedelta(days=1) else "%Y-%m-%d %H:%M"
        return f"{self.start:{form}} to {self.end:{form}}"

    def fill(self, value: Any, *, where: str = "") -> Any:
        """Replaces `{start}`, `{end}` and `{previous_start}`, with or without a format, in every text of a value.

        Raises:
            InputError: For a placeholder that there is not.
        """
        if isinstance(value, str):
            return _PLACEHOLDER.sub(lambda match: self._text(match, value, where), value)
        if isinstance(value, Mapping):
            return {key: self.fill(item, where=f"{where}.{key}" if where else str(key)) for key, item in value.items()}
        return [self.fill(item, where=where) for item in value] if isinstance(value, list) else value

    def _text(self, match: re.Match[str], text: str, where: str) -> str:
        name, form = match.groups()
        if name not in NAMES:
            raise InputError(
                "a placeholder that a schedule does not have",
                parameter=where,
                allowed=[f"{{{known}:%Y-%m-%d}}" for known in NAMES],
                received=f"{match[0]} in {text!r}",
                hint=suggest(name, NAMES),
            )
        moment: dt.datetime = getattr(self, name)
        return moment.strftime(form or _DEFAULT_FORMAT)


class Schedule(Params):
    """When a pipeline runs.

    Attributes:
        cron: Minute, hour, day of the month, month, day of the week: "0 6 1 * *" is 06:00 on the first of each month.
        time_zone: Its IANA name.
    """

    cron: str
    time_zone: str = "UTC"

    @pydantic.field_validator("cron")
    @classmethod
    def _is_cron(cls, text: str) -> str:
        from cronsim import CronSim, CronSimError

        try:
            CronSim(text, dt.datetime(2000, 1, 1))
        except CronSimError as error:
            raise ValueError(f"five fields of cron, as '0 6 1 * *' ({error})") from None
        if len(text.split()) != 5:  # a sixth would be seconds, which Vertex does not take
            raise ValueError("five fields of cron, as '0 6 1 * *'")
        return text

    @pydantic.field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError):
            raise ValueError("the IANA name of a time zone, as Europe/Paris") from None
        return name

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The time zone."""
        return zoneinfo.ZoneInfo(self.time_zone)

    @property
    def portable_cron(self) -> str:
        """The cron in the words that Kubeflow's and Vertex AI's schedulers read as this library does.

        Kubeflow's parser (robfig/cron 1.2) has the days of the week from 0 to 6, so Sunday is 0 alone.

        Raises:
            InputError: For what is not plain cron: L, LW and #.
        """
        from cronsim.cronsim import Field

        fields = self.cron.upper().split()
        days = Field.DOW.parse(fields[4])
        if fields[2].startswith("L") or not all(isinstance(day, int) for day in days):
            raise InputError(
                "not every platform reads this cron",
                parameter="schedule.cron",
                allowed="numbers, names, *, ranges, lists and steps",
                received=self.cron,
            )
        if not fields[4].startswith("*") and any(mark in fields[4] for mark in "7/"):
            fields[4] = ",".join(map(str, sorted({int(day) % 7 for day in days if isinstance(day, int)})))
        return " ".join(fields)

    def windows(self, start: dt.datetime, end: dt.datetime) -> Iterator[Window]:
        """The windows that begin from `start` on and before `end`, the earliest first."""
        from cronsim import CronSim

        start, end = start.astimezone(self.zone), end.astimezone(self.zone)
        # A moment earlier, so that a run at `start` itself begins a window.
        ticks = CronSim(self.cron, start - dt.timedelta(microseconds=1))
        previous = next(CronSim(self.cron, start, reverse=True))
        begin = next(ticks)
        for following in ticks:
            if begin >= end:
                return
            yield Window(previous, begin, following)
            previous, begin = begin, following

    def last_window(self, now: dt.datetime) -> Window:
        """The newest window that is over."""
        return next(self.past_windows(now))

    def past_windows(self, now: dt.datetime) -> Iterator[Window]:
        """The windows that are over, the newest first; there is no end to them."""
        from cronsim import CronSim

        ticks = CronSim(self.cron, now.astimezone(self.zone) + dt.timedelta(microseconds=1), reverse=True)
        end, begin = next(ticks), next(ticks)
        for previous in ticks:
            yield Window(previous, begin, end)
            begin, end = previous, begin


def names_window(value: Any) -> bool:
    """Whether any text of a value names the window: `{start}`, `{end}` or `{previous_start}`."""
    if isinstance(value, str):
        return any(match[1] in NAMES for match in _PLACEHOLDER.finditer(value))
    if isinstance(value, Mapping):
        return any(names_window(item) for item in value.values())
    return isinstance(value, list) and any(names_window(item) for item in value)


def read_schedule(path: str | os.PathLike[str]) -> Schedule | None:
    """The schedule in a file of parameters, or None where it has none.

    Raises:
        InputError: For a schedule with an unknown key or a wrong value.
    """
    given = read_mapping(path, what="the file of parameters").get("schedule")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InputError(
            "`schedule` is not a mapping",
            where=str(path),
            parameter="schedule",
            allowed="cron: '0 6 1 * *', and time_zone",
            received=given,
        )
    try:
        return parse_params(Schedule, given, parameter="schedule")
    except InputError as error:
        error.facts.setdefault("where", str(path))
        raise


def parse_day(text: str, schedule: Schedule, *, parameter: str) -> dt.datetime:
    """A day or a moment, in the schedule's time zone where it names none.

    Raises:
        InputError: For a text that is neither.
    """
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            "not a day", parameter=parameter, allowed="ISO 8601, as 2013-08-01 or 2013-08-01T06:00", received=text
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=schedule.zone)
