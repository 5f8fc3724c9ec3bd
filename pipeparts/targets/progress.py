"""What a person sees while a run goes on: a table that changes on a terminal, plain lines elsewhere."""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pipeparts.targets.local_record import GROUPS

if TYPE_CHECKING:
    from rich.console import Console, Group

    from pipeparts.targets.base import RemoteRun

#: How each state reads.
WORDS = {
    "queued": "queued",
    "running": "running",
    "succeeded": "done",
    "cached": "from the cache",
    "failed": "failed",
    "skipped": "skipped: its condition was not met",
    "not_run": "not run",
    "interrupted": "interrupted",
}
_STYLES = {
    "queued": ("·", "dim"),
    "running": (" ", "bold"),
    "succeeded": ("✓", "green"),
    "cached": ("✓", "cyan"),
    "failed": ("✗", "bold red"),
    "skipped": ("-", "dim"),
    "not_run": ("-", "dim"),
    "interrupted": ("!", "yellow"),
}
_TAIL_BYTES = 2000
_LOG_PREFIX = re.compile(r"^\[KFP Executor [^\]]*\]: ")
_GROUP_KINDS = {"condition": "if", "loop": "for each", "exit_handler": "", "pipeline": "pipeline"}


class Followed(Protocol):
    """A run as it is shown: the record of a local one, or what a platform says of its own.

    Attributes:
        data: The run: `pipeline`, `run_id`, and its `tasks`; see `RunRecord`.
    """

    data: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The tasks that do something: no groups."""

    @property
    def place(self) -> str:
        """Where it is, after its name: "in FOLDER", "on PLATFORM: ADDRESS"."""

    def task(self, identifier: str) -> dict[str, Any]:
        """A task by its id."""

    def log_of(self, task: Mapping[str, Any]) -> Path | None:
        """The file that a task's log grows in, where there is one."""


class FollowedRun:
    """A run of any target, as it was seen last.

    Args:
        run: The run, with its tasks.
    """

    def __init__(self, run: RemoteRun) -> None:
        self._run = run
        self.data: dict[str, Any] = {"pipeline": run.pipeline, "run_id": run.run_id}
        self.data["tasks"] = [
            {
                "id": task.id or task.name,
                "display_name": task.name,
                "kind": "step",
                "parent": None,
                "state": task.state,
                "attempt": 1,
                "started": _seconds(task.started),
                "finished": _seconds(task.ended),
                "seconds": _seconds(task.ended) - _seconds(task.started) if task.started and task.ended else None,
                "error": {"message": task.error} if task.error else None,
                "cached_from": None,
            }
            for task in run.tasks
        ]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Its tasks."""
        tasks: list[dict[str, Any]] = self.data["tasks"]
        return tasks

    @property
    def place(self) -> str:
        """The platform, and its page there."""
        return f"on {self._run.platform}" + (f": {self._run.link}" if self._run.link else "")

    def task(self, identifier: str) -> dict[str, Any]:
        """A task by its id."""
        return next(task for task in self.steps if task["id"] == identifier)

    def log_of(self, task: Mapping[str, Any]) -> None:
        """Its logs are the platform's."""


def _seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp() if moment else 0.0


class Progress(Protocol):
    """Shows a run as it changes."""

    def begin(self, record: Followed) -> None:
        """The run starts."""

    def update(self, record: Followed) -> None:
        """Called several times a second."""

    def stopping(self, record: Followed, grace_seconds: float) -> None:
        """Someone asked to stop; the steps have this long to clean up."""

    def end(self, record: Followed) -> None:
        """The run is over."""


class NoProgress:
    """Shows nothing."""

    def begin(self, record: Followed) -> None:
        """Shows nothing."""

    def update(self, record: Followed) -> None:
        """Shows nothing."""

    def stopping(self, record: Followed, grace_seconds: float) -> None:
        """Shows nothing."""

    def end(self, record: Followed) -> None:
        """Shows nothing."""


class PlainProgress:
    """A line for each thing that happens: for files and continuous integration."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._closed = False
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}

    def begin(self, record: Followed) -> None:
        """Names the run and its folder."""
        name, steps = record.data["pipeline"], len(record.steps)
        counted = f", {steps} steps" if steps else ""  # a platform knows them when they begin
        self._line(f"run {record.data['run_id']} of {name}{counted}, {record.place}")

    def update(self, record: Followed) -> None:
        """A line for each step whose state changed."""
        for task in record.steps:
            for part in task.get("iterations") or [task]:
                key = (task["id"], part.get("iteration", ""))
                state = (part["state"], part["attempt"])
                if self._seen.get(key, ("queued", 1)) == state:
                    continue
                self._seen[key] = state
                name = label(task, part)
                self._line(f"{time.strftime('%H:%M:%S')}  {name}: {describe(part)}")

    def stopping(self, record: Followed, grace_seconds: float) -> None:
        """A line that says so."""
        self._line(_stopping_text(grace_seconds))

    def end(self, record: Followed) -> None:
        """The last changes."""
        self.update(record)

    def _line(self, text: str) -> None:
        if not self._closed:
            try:
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except BrokenPipeError:
                self._closed = True  # nobody reads on (`| head`); the run goes on


class LiveProgress:
    """A table of the steps that is drawn again as it changes."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False, redirect_stdout=False)
        self._spinner = Spinner("dots", style="bold")
        self._stopping = ""

    def begin(self, record: Followed) -> None:
        """Names the run, and draws the table."""
        from rich.markup import escape

        data = record.data
        self._console.print(f"[bold]{escape(data['pipeline'])}[/]  run {data['run_id']}", highlight=False)
        self._live.start()
        self.update(record)

    def update(self, record: Followed) -> None:
        """Draws the table again."""
        self._live.update(self._table(record, running=True))

    def stopping(self, record: Followed, grace_seconds: float) -> None:
        """Says so below the table."""
        self._stopping = _stopping_text(grace_seconds)
        self._live.update(self._table(record, running=True), refresh=True)

    def end(self, record: Followed) -> None:
        """Draws it for the last time, whole."""
        self._stopping = ""
        self._live.update(self._table(record, running=False), refresh=True)
        self._live.stop()

    def _table(self, record: Followed, *, running: bool) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        # Some columns stay free for the ^C that a terminal echoes: wrapped into a new line, it would shift the table.
        width = max(40, self._console.width - 8)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1), width=width)
        table.add_column(width=1)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=width // 2)
        table.add_column(justify="right", no_wrap=True, min_width=7)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        rows = [task for task in record.data["tasks"] if task["kind"] != "exit_handler"]
        folded = self._folded(record, rows) if running else set()
        for task in rows:
            if task["id"] in folded:
                continue
            state = task["state"]
            mark, style = _STYLES[state]
            indent = "  " * _depth(record, task)
            group = _GROUP_KINDS.get(task["kind"])
            name = Text(
                f"{indent}{f'{group} ' if group else ''}{task['display_name']}",
                style="dim" if group is not None else style,
            )
            note = self._note(record, task) if group is None else ""
            if state == "skipped":
                # Said once, at the group whose condition it was.
                above = record.task(task["parent"])["state"] if task["parent"] else ""
                note = "" if above == "skipped" else WORDS[state]
            seconds = "" if group is not None else _time_of(task)
            first = (
                self._spinner
                if state == "running" and group is None
                else Text("" if group is not None else mark, style=style)
            )
            table.add_row(first, name, Text(seconds, style=style), Text(note, style="dim"))
        tail = [Text(f"  and {len(folded)} more", style="dim")] if folded else []
        tail += [Text(self._stopping, style="yellow")] if self._stopping else []
        return Group(table, *tail)

    def _folded(self, record: Followed, rows: list[dict[str, Any]]) -> set[str]:
        """What is left out where the terminal is too low: the steps that wait, then those long done."""
        room = max(5, self._console.size.height - 4)
        if len(rows) <= room:
            return set()
        order = {
            "running": 0,
            "failed": 1,
            "interrupted": 1,
            "succeeded": 2,
            "cached": 3,
            "queued": 3,
            "skipped": 4,
            "not_run": 4,
        }
        kept = sorted(rows, key=lambda task: (order[task["state"]], -(task["finished"] or 0)))[:room]
        return {task["id"] for task in rows} - {task["id"] for task in kept}

    def _note(self, record: Followed, task: Mapping[str, Any]) -> str:
        if iterations := task.get("iterations"):
            done = sum(1 for part in iterations if part["state"] in ("succeeded", "cached"))
            return f"{done} of {len(iterations)} iterations"
        if task["state"] == "running":
            tries = f"attempt {task['attempt']}: " if task["attempt"] > 1 else ""
            log = record.log_of(task)
            return tries + (last_line(log) if log else "")
        if task["state"] in ("queued", "succeeded"):
            return ""
        if task["state"] == "failed" and task["error"]:
            return str(task["error"]["message"]).partition("\n")[0]
        return WORDS[task["state"]]


def _stopping_text(grace_seconds: float) -> str:
    return f"stopping: the steps have {duration(grace_seconds)} to clean up; Ctrl-C again ends them at once"


def describe(part: Mapping[str, Any]) -> str:
    """A step's state in words, with its time."""
    words = WORDS[part["state"]]
    if part["state"] == "cached" and part["cached_from"]:
        return f"{words} (run {part['cached_from']})"
    if part["state"] == "running" and part["attempt"] > 1:
        return f"{words}, attempt {part['attempt']}"
    if part["state"] in ("succeeded", "failed", "interrupted") and part["seconds"] is not None:
        return f"{words}, {duration(part['seconds'])}"
    return words


def label(task: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """A step's name, with the loop's iteration."""
    if not part.get("iteration"):
        return str(task["display_name"])
    numbers = ", ".join(re.findall(r"-iteration-(\d+)", part["iteration"]))
    return f"{task['display_name']} [iteration {numbers}]"


def duration(seconds: float) -> str:
    """A time for people: 0.3 s, 12 s, 3 min 5 s, 2 h 14 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shown_path(path: Path) -> str:
    """A path as seen from the working directory, where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    said = [line for line in lines if line and line not in ("{", "}", "]", "},", "],")]
    line = _LOG_PREFIX.sub("", said[-1]) if said else ""
    return (
        "" if line.startswith(("Got executor_input", "Loading KFP component", "Wrote executor output", '"')) else line
    )


def _time_of(task: Mapping[str, Any]) -> str:
    if task["state"] == "running" and task["started"]:
        return duration(time.time() - task["started"])
    return duration(task["seconds"]) if task["seconds"] is not None and task["state"] != "cached" else ""


def _depth(record: Followed, task: Mapping[str, Any]) -> int:
    depth = 0
    parent = task["parent"]
    while parent is not None:
        group = record.task(parent)
        depth += group["kind"] != "exit_handler"
        parent = group["parent"]
    return depth


def count_steps(record: Mapping[str, Any]) -> dict[str, int]:
    """How many steps are in each state, without the states that none is in."""
    states = [task["state"] for task in record["tasks"] if task["kind"] not in GROUPS]
    return {state: states.count(state) for state in WORDS if state in states}


def summary(record: Mapping[str, Any]) -> str:
    """How a run ended, in a line."""
    words = {**WORDS, "skipped": "skipped"}
    parts = [f"{number} {words[state]}" for state, number in count_steps(record).items()]
    verb = {"succeeded": "succeeded in", "failed": "failed after", "interrupted": "was interrupted after"}[
        record["state"]
    ]
    return f"{record['pipeline']} {verb} {duration(record['seconds'])}: {', '.join(parts)}"


def failure_text(failure: Mapping[str, Any], folder: Path) -> str:
    """A failed step's own error, as a person needs it: what, where in the code, and where the log is."""
    error = failure["error"] or {"type": "Error", "message": "the step failed", "pipeparts": False}
    ended = error["type"] == "ProcessEnded"
    text = str(error["message"]) if error.get("pipeparts") or ended else f"{error['type']}: {error['message']}"
    lines = text.splitlines() or [error["type"]]
    if error.get("where") and not error.get("pipeparts"):
        lines.append(f"  in {error['where']}")
    if ended:
        lines += [f"  | {line}" for line in error.get("traceback", [])]
    if failure.get("log"):
        lines.append(f"  log: {shown_path(folder / failure['log'])}")
    return "\n".join([f"{label(failure, failure)} failed", *(f"  {line}" for line in lines)])
