"""This machine as a target: what it says of loops, and of a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pipeparts.config import LocalConfig
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_target import LocalTarget


def test_each_iteration_of_a_loop_is_told_apart(go: Callable[..., RunResult], root: Path, tmp_path: Path) -> None:
    there, also, missing = tmp_path / "there", tmp_path / "also", str(tmp_path / "missing")
    there.touch()
    also.touch()
    result = go("looped", marks=str(tmp_path / "marks"), paths=[str(there), missing, str(also)])
    target = LocalTarget(LocalConfig(root=root))
    run = target.status(result.run_id)
    names = [task.name for task in run.tasks]
    assert names == [f"need [iteration {number}]" for number in range(3)]
    assert [task.state for task in run.tasks] == ["succeeded", "failed", "succeeded"]
    assert "the file is not there" in run.tasks[1].error
    assert len({task.id for task in run.tasks}) == len(run.tasks)
    for task in run.tasks:
        log = Path(unquote(urlsplit(task.link).path))
        assert log.is_file(), task
    given = {(each.task, each.name): each.value for each in target.outputs(result.run_id)}
    assert given == {(names[0], "Output"): str(there), (names[2], "Output"): str(also)}


@pytest.mark.slow
def test_nothing_runs_in_a_run_that_was_killed(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    settings = ["--root", str(root), "--param", f"marks={marks}", "--param", "seconds=60"]
    command = [sys.executable, "-m", "pipeparts.cli", "run", str(sample("slow")), *settings]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (marks.exists() and "slow" in marks.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (folder,) = (root / "runs").iterdir()
    while "running" not in [t["state"] for t in json.loads((folder / "run.json").read_text())["tasks"]]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    target = LocalTarget(LocalConfig(root=root))
    run = target.status(folder.name)
    assert run.state == "interrupted"
    assert "running" not in {task.state for task in run.tasks}
    assert local.watcher(folder) is None
    assert target.cancel(folder.name).state == "interrupted"
