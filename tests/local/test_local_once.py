"""Runs that happen once for a key: what is given back, what is waited for, what is run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig, load_local
from pipeparts.errors import InputError
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_once import run_once
from pipeparts.targets.local_runs import clean, list_runs

Go = Callable[..., RunResult]


@pytest.fixture
def once(sample: Callable[[str], Path], root: Path) -> Go:
    def start(name: str, /, key: str = "k1", **arguments: Any) -> RunResult:
        spec = compiling.read_yaml(sample(name))
        return run_once(spec, arguments, LocalConfig(root=root, stop_seconds=3), key=key)

    return start


def test_what_succeeded_is_not_run_again(once: Go, root: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first, second = once("basic", marks=str(marks)), once("basic", marks=str(marks), rows=9)
    assert (first.new, second.new) == (True, False)
    assert second.run_id == first.run_id
    assert second.outputs == first.outputs == {"Output": "use read 3"}
    assert second.report == first.report
    assert marks.read_text().split() == ["make", "use"]
    assert [run["key"] for run in list_runs(root)] == ["k1"]
    assert once("basic", "k2", marks=str(marks), rows=9).new
    assert len(list_runs(root)) == 2


def test_it_is_known_after_the_run_is_cleared_away(once: Go, root: Path, tmp_path: Path) -> None:
    first = once("basic", marks=str(tmp_path / "marks"))
    clean(root, 0)
    again = once("basic", marks=str(tmp_path / "marks"))
    assert (again.run_id, again.new, again.outputs) == (first.run_id, False, first.outputs)
    assert not list_runs(root)


def test_what_failed_is_run_again_from_what_had_finished(once: Go, root: Path, tmp_path: Path) -> None:
    marks, path = tmp_path / "marks", tmp_path / "needed"
    assert once("resumed", marks=str(marks), path=str(path)).state == "failed"
    path.touch()
    second = once("resumed", marks=str(marks), path=str(path))
    assert (second.state, second.new) == ("succeeded", True)
    assert [line.split()[0] for line in marks.read_text().splitlines()].count("need") == 2
    assert not once("resumed", marks=str(marks), path=str(path)).new
    assert len(list_runs(root)) == 2


def test_a_process_that_died_after_its_run_had_succeeded(once: Go, root: Path, tmp_path: Path) -> None:
    first = once("basic", marks=str(tmp_path / "marks"))
    note = root / "once" / "basic" / "k1.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "state": "running"}))
    assert first.report is not None
    first.report.unlink()
    again = once("basic", marks=str(tmp_path / "marks"))
    assert (again.run_id, again.new) == (first.run_id, False)
    assert first.report.is_file()
    assert json.loads(note.read_text())["state"] == "succeeded"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_note_is_none(once: Go, root: Path, tmp_path: Path, text: str) -> None:
    note = root / "once" / "basic" / "k1.json"
    note.parent.mkdir(parents=True)
    note.write_text(text)
    assert once("basic", marks=str(tmp_path / "marks")).new


def test_a_run_that_goes_on_is_waited_for(once: Go, root: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    results: list[RunResult] = []
    threads = [
        threading.Thread(target=lambda: results.append(once("slow", marks=str(marks), seconds=1.0))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(result.new for result in results) == [False, False, True]
    assert {result.state for result in results} == {"succeeded"}
    assert [line.split()[0] for line in marks.read_text().splitlines()] == ["quick", "slow"]
    assert len(list_runs(root)) == 1


def test_what_is_wrong_is_said_before(once: Go, root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a key that no run can have"):
        once("basic", "../k", marks="m")
    with pytest.raises(InputError, match="has no parameter of this name"):
        once("basic", mark="m")
    once("basic", marks=str(tmp_path / "marks"))
    with pytest.raises(InputError, match="has no parameter of this name"):
        once("basic", mark="m")


def test_a_run_that_a_step_starts_has_the_settings_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    root = local.root_folder(LocalConfig(root=Path("root")))
    config = LocalConfig(
        root=Path("root"), cache=False, python={"data": Path("python3")}, stop_seconds=8, parallel_steps=3
    )
    environment = local._environment(root, config, {"mine": Path("/opt/mine/bin/python")})
    assert environment["PIPEPARTS_ROOT"] == str(root)
    (root.parent / "empty.yaml").touch()
    inner = load_local(file=root.parent / "empty.yaml", environ=environment)
    assert (inner.root, inner.cache, inner.stop_seconds, inner.parallel_steps) == (root, False, 4.0, 3)
    assert inner.python["data"].is_absolute()
    assert inner.python["tensorflow"] == inner.python["default"] == Path(sys.executable)
    # The other run's own family is none of this one's.
    monkeypatch.setenv("PIPEPARTS_RUN_GROUP", "1")
    assert local._interpreters({"deploymentSpec": {}}, LocalConfig(python={"mine": Path(sys.executable)})) == {}
    monkeypatch.delenv("PIPEPARTS_RUN_GROUP")
    with pytest.raises(InputError, match="an interpreter for an image family that does not exist"):
        local._interpreters({"deploymentSpec": {}}, LocalConfig(python={"mine": Path(sys.executable)}))


def test_the_command_answers_in_json(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    marks, path = tmp_path / "marks", tmp_path / "needed"
    command = [sys.executable, "-m", "pipeparts.cli", "run", str(sample("resumed")), "--once", "k1", "--json"]
    command += ["--root", str(root), "--param", f"marks={marks}", "--param", f"path={path}"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(failed.stdout)
    assert failed.returncode == 1
    assert answer["state"] == "failed"
    assert answer["error"].startswith("need failed\n  the file is not there\n")
    assert "need: failed" in failed.stderr
    path.touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["link"] == (Path(answer["folder"]) / "report.html").as_uri()
    assert {name: answer[name] for name in ("platform", "pipeline", "key", "state", "new", "error")} == {
        "platform": "local", "pipeline": "resumed", "key": "k1", "state": "succeeded", "new": True, "error": "",
    }  # fmt: skip
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["new"] is False
    shown = subprocess.run([part for part in command if part != "--json"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"run {answer['run_id']} has done this already: it is not run again\n")
    assert os.listdir(root / "runs").count(answer["run_id"]) == 1  # noqa: PTH208
