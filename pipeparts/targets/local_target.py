"""This machine as a target like the others: runs in the background, and schedules."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime.files import write_json, write_text
from pipeparts.schedules import Schedule
from pipeparts.submission import check_arguments, prepare_arguments
from pipeparts.targets import local, local_runs
from pipeparts.targets.base import (
    Output,
    PlannedSchedule,
    RemoteRun,
    RemoteSchedule,
    Target,
    TaskStatus,
    check_key,
    choose_schedule,
    wait_for_end,
)
from pipeparts.targets.binding import check_secrets
from pipeparts.targets.local_once import note_of
from pipeparts.targets.local_record import GROUPS, failures, read_kept
from pipeparts.targets.progress import label

PLATFORM = "local"

_POLL_SECONDS = 0.2
_START_SECONDS = 60.0
_WAIT_SECONDS = 30 * 86_400.0


class LocalTarget(Target):
    """This machine.

    A run is a process of its own in the background: it goes on when the shell that started it has gone. A key runs
    once, as on the other platforms. Schedules are kept under the root, and `pipeparts scheduler` runs what is due.

    Args:
        config: Where and how.
    """

    platform = PLATFORM

    def __init__(self, config: LocalConfig) -> None:
        self._config = config
        self._root = local.root_folder(config)

    @override
    def step_settings(self) -> dict[str, Any]:
        return self._config.model_dump(mode="json", exclude_defaults=True, exclude={"root", "open_report"})

    @override
    def compile(self, spec: compiling.Spec) -> list[compiling.Spec]:
        local.check_runs_here(spec, self._config)
        return [spec]

    @override
    def submit(self, spec: compiling.Spec, arguments: Mapping[str, Any], *, key: str) -> RemoteRun:
        check_key(key)
        self.compile(spec)
        prepare_arguments(spec, arguments)  # what is wrong is said here, and not in a log
        check_secrets(spec, self._config)
        pipeline = spec["pipelineInfo"]["name"]
        note = note_of(self._root, pipeline, key)
        known = read_kept(note)
        if known and (found := self._known(known)) is not None and found.state in ("running", "succeeded"):
            return dataclasses.replace(found, key=key, new=False)
        process = self._start(spec, arguments, key)
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            current = read_kept(note)
            if current and (not known or current["run_id"] != known["run_id"]):
                with contextlib.suppress(InputError):
                    return dataclasses.replace(self.status(str(current["run_id"])), key=key)
            if process.poll() is not None:
                break
            time.sleep(0.05)
        log = self._log(pipeline, key)
        raise ServiceError(
            "the run did not start",
            where=str(log),
            received=f"exit code {process.poll()}: {_last_line(log)}" if process.poll() is not None else "no run yet",
        )

    @override
    def status(self, run_id: str) -> RemoteRun:
        folder = local_runs.find_run(self._root, run_id)
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return self._described(record, folder)

    @override
    def wait(self, run: RemoteRun, watch: Callable[[RemoteRun], None] | None = None) -> RemoteRun:
        return wait_for_end(
            run,
            lambda: dataclasses.replace(self.status(run.run_id), key=run.key, new=run.new),
            poll_seconds=_POLL_SECONDS,
            timeout_seconds=_WAIT_SECONDS,
            watch=watch,
        )

    @override
    def cancel(self, run_id: str) -> RemoteRun:
        folder = local_runs.find_run(self._root, run_id)
        process = local.watcher(folder)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            deadline = time.monotonic() + self._config.stop_seconds + 10
            while local.is_watched(folder) and time.monotonic() < deadline:
                time.sleep(0.05)
        return self.status(folder.name)

    @override
    def outputs(self, run_id: str) -> list[Output]:
        folder = local_runs.find_run(self._root, run_id)
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        found = [Output("", name, value) for name, value in record["outputs"].items()]
        for task in record["tasks"]:
            for part in task.get("iterations") or [task]:
                for name, given in part["outputs"].items():
                    uri = given.get("uri")
                    value = str((folder / uri).resolve()) if uri is not None else given.get("value")
                    kind = given.get("type", "") if uri is not None else ""
                    found.append(Output(label(task, part), name, value, kind, given.get("metadata", {})))
        return found

    @override
    def runs(self, *, limit: int = 20) -> list[RemoteRun]:
        records = local_runs.list_runs(self._root)[: limit or None]
        return [dataclasses.replace(self._described(each, Path(each["folder"])), tasks=()) for each in records]

    @override
    def schedule(self, planned: PlannedSchedule) -> RemoteSchedule:
        # The window is filled in for each run; that it can be is seen now.
        window = planned.schedule.last_window(dt.datetime.now(dt.UTC))
        check_arguments(planned.spec, window.fill(dict(planned.arguments)))
        self.compile(planned.spec)
        folder = self._schedule_folder(planned.name)
        digest = planned.digest(planned.spec, dict(planned.arguments))
        known = read_kept(folder / "schedule.json")
        if known and known["digest"] == digest:
            return self._kept(folder, "unchanged")
        write_text(folder / f"{digest}.yaml", compiling.to_yaml(planned.spec))
        write_json(
            folder / "schedule.json",
            {
                "name": planned.name,
                "digest": digest,
                "pipeline": planned.spec["pipelineInfo"]["name"],
                "arguments": dict(planned.arguments),
                "schedule": planned.schedule.model_dump(),
                "paused": bool(known and known["paused"]) or planned.paused,
                "since": (known or {}).get("since") or dt.datetime.now(dt.UTC).isoformat(),
            },
        )
        return self._kept(folder, "replaced" if known else "created")

    @override
    def schedules(self) -> list[RemoteSchedule]:
        return [self._kept(folder) for folder, _ in self.kept_schedules()]

    def kept_schedules(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Each schedule's folder and what is kept of it, by name."""
        for path in sorted((self._root / "schedules").glob("*/schedule.json")):
            if known := read_kept(path):
                yield path.parent, known

    @override
    def pause(self, name: str) -> RemoteSchedule:
        return self._switch(name, paused=True)

    @override
    def resume(self, name: str) -> RemoteSchedule:
        return self._switch(name, paused=False)

    @override
    def unschedule(self, name: str) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=str(self._root / "schedules"))
        folder = self._schedule_folder(name)
        (folder / "schedule.json").unlink(missing_ok=True)  # first: without it, the rest is none
        for path in folder.glob("*"):
            path.unlink(missing_ok=True)
        folder.rmdir()
        return dataclasses.replace(schedule, state="ended", change="deleted", next_run="")

    def _switch(self, name: str, *, paused: bool) -> RemoteSchedule:
        choose_schedule(name, self.schedules(), where=str(self._root / "schedules"))
        folder = self._schedule_folder(name)
        known = read_kept(folder / "schedule.json") or {}
        # From now on: what was missed meanwhile is not made up for, as on the other platforms.
        since = known["since"] if paused else dt.datetime.now(dt.UTC).isoformat()
        write_json(folder / "schedule.json", {**known, "paused": paused, "since": since})
        return self._kept(folder, "paused" if paused else "resumed")

    def _kept(self, folder: Path, change: str = "") -> RemoteSchedule:
        known = read_kept(folder / "schedule.json") or {}
        schedule = Schedule(**known["schedule"])
        window = schedule.last_window(dt.datetime.now(dt.UTC))
        following = next(schedule.windows(window.end, window.end + dt.timedelta(days=3_660)), None)
        return RemoteSchedule(
            platform=PLATFORM,
            name=known["name"],
            schedule_id=known["name"],
            pipeline=known["pipeline"],
            cron=schedule.cron,
            time_zone=schedule.time_zone,
            state="paused" if known["paused"] else "active",
            next_run=following.end.isoformat() if following and not known["paused"] else "",
            change=change,
        )

    def _schedule_folder(self, name: str) -> Path:
        check_key(name)
        return self._root / "schedules" / name

    def _known(self, known: Mapping[str, Any]) -> RemoteRun | None:
        """The run of a key's note; of one that was cleared away what the note says."""
        folder = self._root / "runs" / str(known["run_id"])
        record = read_kept(folder / "run.json")
        if record:
            return self._described(record, folder)
        if known["state"] != "succeeded":
            return None
        return RemoteRun(PLATFORM, str(known["run_id"]), str(known["pipeline"]), str(known["key"]), "succeeded")

    def _described(self, record: Mapping[str, Any], folder: Path) -> RemoteRun:
        state = local.state_of(record, folder)
        report = folder / "report.html"
        errors = [
            f"{label(each, each)}: {each['error']['message'] if each['error'] else 'failed'}"
            for each in failures(record)
        ]
        return RemoteRun(
            platform=PLATFORM,
            run_id=str(record["run_id"]),
            pipeline=str(record["pipeline"]),
            key=str(record.get("key", "")),
            state=state,
            link=report.resolve().as_uri() if report.is_file() else "",
            error="\n".join(errors) or str(record["error"] or "") if state == "failed" else "",
            started=_moment(record["started"]),
            ended=_moment(record["finished"]),
            tasks=tuple(
                TaskStatus(
                    name=label(task, part),
                    # Where nobody watches any more, nothing runs.
                    state=state if part["state"] == "running" and state != "running" else part["state"],
                    started=_moment(part["started"]),
                    ended=_moment(part["finished"]),
                    error=str(part["error"]["message"]) if part["error"] else "",
                    link=(folder / part["log"]).resolve().as_uri() if part["log"] else "",
                    id=f"{task['id']} {part.get('iteration', '')}",
                )
                for task in record["tasks"]
                if task["kind"] not in GROUPS
                for part in task.get("iterations") or [task]
            ),
        )

    def _start(self, spec: compiling.Spec, arguments: Mapping[str, Any], key: str) -> subprocess.Popen[bytes]:
        """Starts the command that runs it, in a session of its own."""
        pipeline = spec["pipelineInfo"]["name"]
        log = self._log(pipeline, key)
        file, params, settings = (log.with_suffix(f".{part}.yaml") for part in ("pipeline", "params", "settings"))
        write_text(file, compiling.to_yaml(spec))
        write_text(params, yaml.safe_dump({"parameters": dict(arguments)}, allow_unicode=True))
        chosen = {
            **self._config.model_dump(mode="json", exclude_defaults=True),
            "root": str(self._root),
            "open_report": False,
        }
        write_text(settings, yaml.safe_dump(chosen, allow_unicode=True))
        command = [sys.executable, "-m", "pipeparts.cli", "run", str(file), "--params", str(params)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "--target-config", str(settings), "--once", key],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # Where this process lives on, it sees the other's end, and leaves no zombie.
        threading.Thread(target=process.wait, name="watch-run", daemon=True).start()
        return process

    def _log(self, pipeline: str, key: str) -> Path:
        """What the command says; its settings lie beside it."""
        return note_of(self._root, pipeline, key).with_suffix(".log")


def _moment(seconds: float | None) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds") if seconds else ""


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["it said nothing"])[-1]
    return "it said nothing"
