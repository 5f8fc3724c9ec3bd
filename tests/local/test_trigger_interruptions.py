"""A run that a step of another run starts: whatever is killed, nothing is left running, and it happens once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeparts.targets.local_runs import list_runs

pytestmark = pytest.mark.slow


class Outer:
    """A pipeline whose one step triggers the sample `slow`, by the command, as a person would run it."""

    def __init__(self, folder: Path, compiled: Path, inner: Path) -> None:
        self.root, self.marks = folder / "root", folder / "marks"
        self._compiled, self._params = compiled, folder / "parameters.yaml"
        self._started: list[subprocess.Popen[str]] = []
        inside = {"marks": str(self.marks), "seconds": 3.0}
        self._params.write_text(yaml.safe_dump({"parameters": {"pipeline": str(inner), "parameters": inside}}))

    def start(self) -> subprocess.Popen[str]:
        """Starts it, and waits until the inner pipeline's slow step runs."""
        before = self.count("slow")
        process = self._begin()
        until(lambda: self.count("slow") > before or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        return process

    def finish(self) -> str:
        """Runs it to its end."""
        process = self._begin()
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
        return output

    def count(self, name: str) -> int:
        """How many times a step of the inner pipeline began."""
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        return sum(line.startswith(f"{name} ") for line in lines)

    def states(self, pipeline: str) -> list[str]:
        """The states of a pipeline's runs, the oldest first."""
        return [run["state"] for run in reversed(list_runs(self.root)) if run["pipeline"] == pipeline]

    def close(self) -> None:
        for process in self._started:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                child.kill()
            process.kill()
            process.communicate()

    def _begin(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeparts.cli", "run", str(self._compiled)]
        process = subprocess.Popen(
            [*command, "--params", str(self._params), "--root", str(self.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PIPEPARTS_STOP_SECONDS": "6"},
        )
        self._started.append(process)
        return process


@pytest.fixture
def outer(tmp_path: Path, sample: Callable[[str], Path]) -> Iterator[Outer]:
    started = Outer(tmp_path, sample("outer"), sample("slow"))
    yield started
    started.close()


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def members(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Who is who below the command, by what they run and in whose name."""
    found = {"outer command": psutil.Process(process.pid)}
    for child in found["outer command"].children(recursive=True):
        line = " ".join(child.cmdline())
        inner = "inner command" in found and child.pid != found["inner command"].pid
        if "pipeparts.targets.local_worker" in line:
            found["inner worker" if inner else "outer worker"] = child
        elif "-m pipeparts.runtime.local_step" in line and "sh" not in child.name():
            found["inner step" if inner else "outer step"] = child
        elif "-m pipeparts.cli run" in line:
            found["inner command"] = child
    assert len(found) == 6, found
    return found


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def check_that_it_happened_once(outer: Outer) -> None:
    """Runs it again, and once more: one training comes to its end, from the steps that had finished."""
    outer.finish()
    assert outer.states("slow").count("succeeded") == 1
    assert outer.count("quick") == 1, "its finished step comes from the cache"
    slow = outer.count("slow")
    outer.finish()
    assert outer.states("slow").count("succeeded") == 1
    assert outer.count("slow") == slow
    assert not list((outer.root / "runs").glob("*/workspace"))


def test_the_inner_run_is_found_from_the_outer_one(outer: Outer) -> None:
    outer.finish()
    first = list_runs(outer.root)
    assert [run["pipeline"] for run in first] == ["slow", "outer"]
    inner, outside = first
    assert outside["outputs"]["Output"] == inner["run_id"]
    task = outside["tasks"][0]
    log = (Path(outside["folder"]) / task["log"]).read_text()
    assert f"run {inner['run_id']} of slow, 2 steps" in log
    written = json.loads((Path(outside["folder"]) / task["outputs"]["triggered"]["uri"]).read_text())
    assert written == {
        "format": "pipeparts.triggered/1",
        "platform": "local",
        "run_id": inner["run_id"],
        "pipeline": "slow",
        "key": "k1",
        "state": "succeeded",
        "link": (Path(inner["folder"]) / "report.html").as_uri(),
    }
    assert task["outputs"]["triggered"]["metadata"] == written
    outer.finish()
    again = list_runs(outer.root)
    assert [run["pipeline"] for run in again] == ["outer", "slow", "outer"]
    second = Path(again[0]["folder"]) / again[0]["tasks"][0]["outputs"]["triggered"]["uri"]
    assert json.loads(second.read_text()) == written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_outer_run_stops_the_inner_one(outer: Outer, number: signal.Signals) -> None:
    process = outer.start()
    family = members(process)
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    # A busy machine needs a moment for the last of them; what goes on by itself is there for ever.
    until(lambda: all(is_gone(member) for member in family.values()), seconds=15)
    assert outer.states("slow") == ["interrupted"]
    assert outer.states("outer") == ["interrupted"]
    # It was told to stop, and was not killed: its step could clean up.
    (inner,) = [run for run in list_runs(outer.root) if run["pipeline"] == "slow"]
    step = json.loads((Path(inner["folder"]) / inner["tasks"][1]["folder"] / "step.json").read_text())
    assert step["state"] == "interrupted"
    check_that_it_happened_once(outer)


@pytest.mark.parametrize(
    "victims",
    [
        ("inner step",),
        ("inner worker",),
        ("inner command",),
        ("outer step",),
        ("outer worker",),
        ("outer command",),
        ("outer command", "outer worker", "outer step"),
        ("inner command", "inner worker"),
        ("outer command", "outer worker", "outer step", "inner command", "inner worker"),
    ],
    ids=" and ".join,
)
def test_whoever_is_killed(outer: Outer, victims: tuple[str, ...]) -> None:
    process = outer.start()
    family = members(process)
    for victim in victims:
        family[victim].suspend()
    for victim in victims:
        family[victim].kill()
    output = process.communicate(timeout=30)[0]
    assert process.returncode != 0, output
    until(lambda: all(is_gone(member) for member in family.values()), seconds=15)
    assert outer.states("slow") in (["failed"], ["interrupted"])
    check_that_it_happened_once(outer)


def test_the_trigger_s_process_group_is_killed(outer: Outer) -> None:
    process = outer.start()
    family = members(process)
    os.killpg(os.getpgid(family["outer step"].pid), signal.SIGKILL)
    process.communicate(timeout=30)
    until(lambda: all(is_gone(member) for member in family.values()), seconds=15)
    check_that_it_happened_once(outer)


def test_two_outer_runs_at_once_share_the_inner_one(outer: Outer) -> None:
    first, second = outer.start(), outer._begin()
    assert first.communicate(timeout=60)[0]
    assert second.communicate(timeout=60)[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outer.states("slow") == ["succeeded"]
    assert outer.count("slow") == 1
