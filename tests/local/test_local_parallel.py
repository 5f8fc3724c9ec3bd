"""Steps side by side: which, how many, and what happens to the others when one fails or the run is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_record import RunRecord
from pipeparts.targets.progress import NoProgress, failure_text

Go = Callable[..., RunResult]


@pytest.fixture
def go_with(sample: Callable[[str], Path], root: Path) -> Go:
    """Runs a sample with so many steps at a time."""

    def start(name: str, steps: int, /, **arguments: Any) -> RunResult:
        return local.run(sample(name), arguments, LocalConfig(root=root, parallel_steps=steps, stop_seconds=3))

    return start


def states(result: RunResult) -> dict[str, str]:
    return {task["display_name"]: task["state"] for task in result.record["tasks"]}


def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time(
    sample: Callable[[str], Path], root: Path, tmp_path: Path
) -> None:
    class Watch(NoProgress):
        most: set[str] = set()

        def update(self, record: RunRecord) -> None:
            running = {step["display_name"] for step in record.steps if step["state"] == "running"}
            self.most = max(self.most, running, key=len)

    watch = Watch()
    (tmp_path / "there").touch()
    arguments = {"folder": str(tmp_path / "meeting"), "path": str(tmp_path / "there")}
    result = local.run(sample("meeting"), arguments, LocalConfig(root=root, parallel_steps=2), progress=watch)
    assert result.state == "succeeded"
    assert result.outputs == {"Output": "one and two"}
    one, two = (next(t for t in result.record["tasks"] if t["display_name"] == name) for name in ("one", "two"))
    assert one["started"] < two["finished"]
    assert two["started"] < one["finished"]
    assert len(watch.most) <= 2


def test_one_step_at_a_time(go_with: Go, tmp_path: Path) -> None:
    assert go_with("alone_in_all", 1, path=str(tmp_path / "held")).state == "succeeded"


def test_iterations_run_at_the_same_time_within_the_limit_of_their_loop(go_with: Go, tmp_path: Path) -> None:
    result = go_with("loops_side_by_side", 4, folder=str(tmp_path / "meeting"), path=str(tmp_path / "held"))
    assert result.state == "succeeded", result.record


def test_equal_iterations_run_once(go_with: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    result = go_with("twins", 3, marks=str(marks))
    assert len(marks.read_text().splitlines()) == 1
    (each,) = [task for task in result.record["tasks"] if task["kind"] == "step"]
    assert sorted(part["state"] for part in each["iterations"]) == ["cached", "cached", "succeeded"]
    assert {part["cached_from"] for part in each["iterations"]} == {None, result.run_id}


def test_a_failure_stops_only_what_waits_for_it(go_with: Go, tmp_path: Path) -> None:
    arguments = {"folder": str(tmp_path / "meeting"), "path": str(tmp_path / "missing")}
    failed = go_with("meeting", 3, **arguments)
    assert failed.state == "failed"
    assert failed.record["error"] == "step need failed"
    assert states(failed) == {
        "one": "succeeded",
        "two": "succeeded",
        "need": "failed",
        "after one": "succeeded",
        "after need": "not_run",
        "same-3": "succeeded",
    }
    (tmp_path / "missing").touch()
    again = go_with("meeting", 3, **arguments)
    assert again.state == "succeeded"
    assert {name for name, state in states(again).items() if state == "succeeded"} == {"need", "after need"}


def test_what_waits_for_a_skipped_step_is_skipped(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    spec = compiling.read_yaml(sample("skipping"))
    spec["root"]["dag"]["tasks"]["mark-2"]["dependentTasks"] = ["condition-1"]
    result = local.run(spec, {"marks": str(tmp_path / "marks")}, LocalConfig(root=root))
    assert states(result) == {"same": "succeeded", "yes": "skipped", "mark": "skipped", "after": "skipped"}


def test_one_of_two_artifacts(go_with: Go, tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    assert go_with("chosen", 2, marks=marks, which="small").outputs == {"Output": "use read 1"}
    assert go_with("chosen", 2, marks=marks, which="large").outputs == {"Output": "use read 9"}


def test_the_importer_is_in_the_record(go_with: Go, tmp_path: Path) -> None:
    (tmp_path / "table").write_text("xx")
    result = go_with("imported", 2, marks=str(tmp_path / "marks"), path=str(tmp_path / "table"))
    (importer,) = [task for task in result.record["tasks"] if task["kind"] == "importer"]
    artifact = importer["outputs"]["artifact"]
    assert artifact == {
        "type": "system.Dataset",
        "uri": str(tmp_path / "table"),
        "metadata": {"rows": 2.0, "of": "a test"},
    }
    assert result.outputs == {"Output": f"<{tmp_path / 'table'} and 'more'> read 2"}


def test_a_value_that_looks_like_a_placeholder_is_none(go_with: Go) -> None:
    assert go_with("foreigner", 1, text="{{$}} {{$.pipeline_job_name}}").outputs == {
        "Output": "{{$}} {{$.PIPELINE_JOB_NAME}}"
    }


def test_a_condition_that_cannot_be_decided_fails_the_run(
    sample: Callable[[str], Path], root: Path, tmp_path: Path
) -> None:
    spec = compiling.read_yaml(sample("skipping"))
    spec["root"]["dag"]["tasks"]["condition-1"]["triggerPolicy"]["condition"] += " && inputs.parameter_values['x'] < 3"
    result = local.run(spec, {"marks": str(tmp_path / "marks")}, LocalConfig(root=root))
    assert result.state == "failed"
    assert result.record["error"] == "group yes failed"
    assert states(result) == {"same": "succeeded", "yes": "failed", "mark": "not_run", "after": "succeeded"}
    (group,) = [task for task in result.record["tasks"] if task["id"] == "condition-1"]
    text = failure_text(group, result.folder)
    assert text.startswith("yes failed\n  a condition that cannot be decided\n")
    assert "received: parameter 'x' has no value" in text
    assert result.report is not None
    assert "parameter &#x27;x&#x27; has no value" in result.report.read_text()


@pytest.mark.parametrize(
    ("waits", "words"),
    [(["mark"], "tasks that wait for each other"), (["nobody"], "a task that waits for one that is not there")],
)
def test_tasks_that_could_never_begin(
    sample: Callable[[str], Path], root: Path, tmp_path: Path, waits: list[str], words: str
) -> None:
    spec = compiling.read_yaml(sample("slow"))
    spec["root"]["dag"]["tasks"]["mark"]["dependentTasks"] = waits
    result = local.run(spec, {"marks": str(tmp_path / "marks")}, LocalConfig(root=root))
    assert result.state == "failed"
    assert str(result.record["error"]).startswith(words)
    assert {task["state"] for task in result.record["tasks"]} == {"not_run"}


def test_inputs_that_are_too_long_for_a_command(go_with: Go, tmp_path: Path) -> None:
    result = go_with("foreigner", 1, text="x" * 200_000)
    assert result.state == "failed"
    (task,) = result.record["tasks"]
    assert "hand on large values as artifacts" in task["error"]["message"]
    assert "log" not in failure_text(task, result.folder), "there is none"


def test_the_memory_that_steps_needed_is_kept(go_with: Go, root: Path, tmp_path: Path) -> None:
    go_with("basic", 2, marks=str(tmp_path / "marks"))
    kept = root / "cache" / "memory" / "basic.json"
    first = json.loads(kept.read_text())
    assert set(first) == {"make", "use"}
    assert all(size > 1e6 for size in first.values())
    # One that comes from the cache needs none, and leaves what is known.
    second = go_with("basic", 2, marks=str(tmp_path / "marks"), name="else")
    assert json.loads((second.folder / "job.json").read_text())["memory"] == first
    assert json.loads(kept.read_text())["make"] == first["make"]
    kept.write_text("{")
    assert go_with("basic", 2, marks=str(tmp_path / "marks")).state == "succeeded"
