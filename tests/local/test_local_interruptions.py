"""What happens to a run that is stopped or killed, and to what it had started."""

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

from pipeparts.config import LocalConfig
from pipeparts.targets import local
from pipeparts.targets.local_runs import list_runs

Start = Callable[..., subprocess.Popen[str]]

#: Two steps side by side.
WIDE: dict[str, Any] = {"pipeline": "wide", "steps": ("left", "right")}


@pytest.fixture
def start(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a pipeline by the command, as a person would, and waits until its slow steps are at work."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        *, seconds: float = 60, wait: bool = True, pipeline: str = "slow", steps: tuple[str, ...] = ("slow",)
    ) -> subprocess.Popen[str]:
        marks = tmp_path / "marks"
        settings = ["--root", str(root), "--param", f"marks={marks}", "--param", f"seconds={seconds}"]
        settings += ["--parallel", "2"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeparts.cli", "run", str(sample(pipeline)), *settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PIPEPARTS_STOP_SECONDS": "3"},
        )
        started.append(process)
        until(lambda: not wait or all(name in text_of(marks) for name in steps) or process.poll() is not None)
        return process

    yield begin
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.communicate()


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def family_of(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The worker and the step's process below a command."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        command = " ".join(child.cmdline())
        if "local_worker" in command:
            found["worker"] = child
        elif "-m pipeparts.runtime.local_step" in command and "sh" not in child.name():
            found["step"] = child
    assert set(found) == {"worker", "step"}
    return found


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def newest(root: Path) -> dict[str, Any]:
    return list_runs(root)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_leaves_nothing_running_and_goes_on_later(
    start: Start, root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start()
    family = family_of(process)
    process.send_signal(number)
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert all(is_gone(member) for member in family.values())
    assert "slow was interrupted after" in output
    assert "run the same command again: it goes on from the steps that finished" in output
    assert "Traceback" not in output
    record = newest(root)
    assert record["state"] == "interrupted"
    assert {task["id"]: task["state"] for task in record["tasks"]} == {"mark": "succeeded", "mark-2": "interrupted"}
    step = json.loads((Path(record["folder"]) / record["tasks"][1]["folder"] / "step.json").read_text())
    assert step["state"] == "interrupted"


def test_a_killed_run_goes_on_from_the_steps_that_had_finished(start: Start, root: Path, tmp_path: Path) -> None:
    process = start(seconds=3)
    family = family_of(process)
    family["worker"].kill()
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 1
    until(lambda: is_gone(family["step"]))
    assert "the process that runs the pipeline ended by signal 9 (Killed)" in output
    assert newest(root)["state"] == "failed"
    process = start(seconds=3, wait=False)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert {task["id"]: task["state"] for task in newest(root)["tasks"]} == {"mark": "cached", "mark-2": "succeeded"}


def test_a_command_that_is_killed_takes_its_steps_along(start: Start, root: Path) -> None:
    process = start()
    family = family_of(process)
    process.kill()
    process.wait()
    until(lambda: all(is_gone(member) for member in family.values()), seconds=10)
    assert newest(root)["state"] == "interrupted"  # its record still says running


def test_a_step_ends_when_command_and_worker_are_killed_at_once(start: Start) -> None:
    process = start()
    family = family_of(process)
    family["worker"].suspend()
    process.kill()
    family["worker"].kill()
    process.wait()
    until(lambda: is_gone(family["step"]), seconds=10)


def test_a_step_that_is_killed_is_said_to_be(start: Start, root: Path) -> None:
    process = start()
    family_of(process)["step"].kill()
    output = process.communicate(timeout=20)[0]
    assert process.returncode == 1
    assert "error: slow failed\n  the step's process was killed: often the machine ran out of memory\n" in output


def test_both_steps_of_a_stopped_run_end(start: Start, root: Path) -> None:
    process = start(**WIDE)
    below = psutil.Process(process.pid).children(recursive=True)
    assert sum("local_step" in " ".join(child.cmdline()) for child in below) >= 2
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "2 interrupted" in output
    until(lambda: all(is_gone(child) for child in below))
    record = list_runs(root)[0]
    assert {task["state"] for task in record["tasks"]} == {"interrupted"}


@pytest.mark.parametrize("victim", ["command", "worker"])
def test_both_steps_of_a_killed_run_end(start: Start, root: Path, victim: str) -> None:
    process = start(**WIDE)
    below = psutil.Process(process.pid).children(recursive=True)
    (worker,) = [child for child in below if "local_worker" in " ".join(child.cmdline())]
    (process if victim == "command" else worker).kill()
    process.wait(60)
    until(lambda: all(is_gone(child) for child in below))


def test_a_killed_run_with_two_steps_at_work_goes_on(
    sample: Callable[[str], Path], root: Path, tmp_path: Path, start: Start
) -> None:
    process = start(seconds=1.5, **WIDE)
    until(lambda: any(t["state"] == "succeeded" for t in list_runs(root)[0]["tasks"]) or process.poll() is not None)
    process.kill()
    process.wait(60)
    arguments = {"marks": str(tmp_path / "marks"), "seconds": 1.5}
    result = local.run(sample("wide"), arguments, LocalConfig(root=root, parallel_steps=2))
    assert result.state == "succeeded"
    assert "cached" in {task["state"] for task in result.record["tasks"]}


def test_a_worker_that_cannot_start(sample: Callable[[str], Path], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_environment", lambda *_: {"PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"})
    result = local.run(sample("foreigner"), {}, LocalConfig(root=root))
    assert result.state == "failed"
    assert (
        result.record["error"]
        == "the process that runs the pipeline ended with exit code 1; worker.log has its last words"
    )


def test_a_step_that_is_told_to_stop_many_times_still_says_so(tmp_path: Path) -> None:
    """The command tells it, and so does the thread that sees the worker go: the second may come while it writes."""
    (tmp_path / "sleeper.py").write_text("import time\nprint('at work', flush=True)\ntime.sleep(60)\n")
    output = {"outputs": {"outputFile": str(tmp_path / "step" / "output.json")}}
    command = [sys.executable, "-m", "pipeparts.runtime.local_step", "sleeper", "--executor_input", json.dumps(output)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())])},
    )
    until(lambda: "at work" in text_of(tmp_path / "step" / "log.txt") or process.poll() is not None)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0002)
    process.communicate()
    assert json.loads((tmp_path / "step" / "step.json").read_text())["state"] == "interrupted"
