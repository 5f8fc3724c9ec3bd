"""Real local runs of small pipelines: how they end, what they record, what comes from the cache."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_record import RunRecord, failures
from pipeparts.targets.local_runs import clean, find_run, list_runs
from pipeparts.targets.progress import LiveProgress, NoProgress, PlainProgress, failure_text, summary

Go = Callable[..., RunResult]


def states(result: RunResult) -> dict[str, str]:
    return {task["id"]: task["state"] for task in result.record["tasks"]}


def task(result: RunResult, name: str) -> dict[str, Any]:
    (found,) = [task for task in result.record["tasks"] if task["id"] == name]
    return found


def test_a_run_records_what_it_did(go: Go, tmp_path: Path, root: Path) -> None:
    marks = tmp_path / "marks"
    result = go("basic", marks=str(marks), rows=4)
    assert result.state == "succeeded"
    assert result.outputs == {"Output": "use read 4"}
    assert marks.read_text().split() == ["make", "use"]
    record = json.loads((result.folder / "run.json").read_text())
    assert record == json.loads(json.dumps(result.record))
    assert record["run_id"] == result.run_id == result.folder.name
    assert record["pipeline"] == "basic"
    assert record["arguments"] == {"marks": str(marks), "rows": 4, "name": "use"}
    assert record["pipeline_hash"] == compiling.spec_hash(compiling.read_yaml(result.folder / "pipeline.yaml"))
    made = task(result, "make")
    assert made["display_name"] == "Make the table"
    assert made["component"] == "make"
    assert made["family"] == "data"
    assert made["outputs"]["Output"] == {"type": "NUMBER_INTEGER", "value": 4}
    assert made["outputs"]["table"]["metadata"] == {"rows": 4}
    assert (result.folder / made["outputs"]["table"]["uri"]).read_text() == "xxxx"
    assert made["peak_memory_bytes"] > 1e6
    assert made["cpu_seconds"] > 0
    assert 0 < made["seconds"] < 60
    used = task(result, "use")
    assert used["dependencies"] == ["make"]
    assert used["inputs"]["table"] == {"task": "make", "output": "table"}
    assert used["inputs"]["name"] == {"parameter": "name"}
    assert "use" in (result.folder / used["log"]).read_text()
    assert summary(result.record).startswith("basic succeeded in ")
    # Nothing is left behind.
    assert not (result.folder / "workspace").exists()


def test_an_unchanged_run_runs_nothing(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first = go("basic", marks=str(marks))
    second = go("basic", marks=str(marks))
    assert states(second) == {"make": "cached", "use": "cached"}
    assert marks.read_text().split() == ["make", "use"]
    assert second.outputs == first.outputs
    made = task(second, "make")
    assert made["cached_from"] == first.run_id
    assert made["outputs"]["table"]["metadata"] == {"rows": 3}
    assert (second.folder / made["outputs"]["table"]["uri"]).read_text() == "xxx"
    assert (second.folder / made["log"]).is_file()
    third = go("basic", marks=str(marks), name="else")
    assert states(third) == {"make": "cached", "use": "succeeded"}
    assert task(third, "make")["cached_from"] == first.run_id
    fourth = go("basic", marks=str(marks), cache=False)
    assert set(states(fourth).values()) == {"succeeded"}


def test_changed_code_is_not_taken_from_the_cache(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tmp_path / "marks"
    versions = {"make": "1", "use": "1"}
    monkeypatch.setattr(local, "_code_hash", lambda function: versions[function])
    go("basic", marks=str(marks))
    versions["use"] = "2"
    assert states(go("basic", marks=str(marks))) == {"make": "cached", "use": "succeeded"}
    versions["make"] = "2"
    assert states(go("basic", marks=str(marks))) == {"make": "succeeded", "use": "succeeded"}


def test_an_artifact_that_is_gone_is_made_again(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    first = go("basic", marks=str(marks))
    (first.folder / task(first, "make")["outputs"]["table"]["uri"]).unlink()
    assert states(go("basic", marks=str(marks))) == {"make": "succeeded", "use": "succeeded"}


def test_a_failed_run_goes_on_from_what_had_finished(go: Go, tmp_path: Path) -> None:
    marks, path = tmp_path / "marks", tmp_path / "needed"
    failed = go("resumed", marks=str(marks), path=str(path))
    assert failed.state == "failed"
    assert states(failed) == {
        "mark": "succeeded",
        "condition-1": "succeeded",
        "mark-3": "succeeded",
        "need": "failed",
        "mark-2": "not_run",
    }
    assert failed.record["error"] == "step need failed"
    text = failure_text(failures(failed.record)[0], failed.folder)
    assert text.splitlines()[:6] == [
        "need failed",
        "  the file is not there",
        f"    where: {path}",
        "    allowed: a file",
        "    received: nothing",
        "    hint: make it",
    ]
    assert text.splitlines()[-1].endswith("log.txt")
    path.touch()
    again = go("resumed", marks=str(marks), path=str(path))
    assert again.state == "succeeded"
    assert states(again) == {
        "mark": "cached",
        "condition-1": "cached",
        "mark-3": "cached",
        "need": "succeeded",
        "mark-2": "succeeded",
    }


@pytest.mark.parametrize(
    ("how", "kind", "lines"),
    [
        (
            "error",
            "KeyError",
            ["KeyError: 'b'", 'in the component\'s function, line 16, in end_badly: return str(values["b"])'],
        ),
        (
            "killed",
            "ProcessEnded",
            ["the step's process was killed: often the machine ran out of memory", "about to end: killed"],
        ),
        (
            "crashed",
            "ProcessEnded",
            ["the step's process crashed in native code", "Fatal Python error: Segmentation fault"],
        ),
        ("exit", "SystemExit", ["the step ended itself with exit code 3"]),
    ],
)
def test_a_step_that_ends_badly_shows_its_own_error(go: Go, how: str, kind: str, lines: list[str]) -> None:
    result = go("badly", how=how)
    assert result.state == "failed"
    (failure,) = failures(result.record)
    assert failure["error"]["type"] == kind
    text = failure_text(failure, result.folder)
    for line in lines:
        assert line in text
    assert len(text.splitlines()) < 10


def test_a_step_is_tried_again(go: Go, tmp_path: Path) -> None:
    result = go("retried", path=str(tmp_path / "tries"))
    assert result.state == "succeeded"
    assert result.outputs == {"Output": 3}
    assert task(result, "flaky")["attempt"] == 3
    log = (result.folder / task(result, "flaky")["log"]).read_text()
    assert "try 1" in log
    assert "try 2" in log


def test_named_outputs_steer_conditions_and_loops(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    result = go("steered", marks=str(marks), n=2)
    assert result.state == "succeeded"
    assert sorted(line.split()[0] for line in marks.read_text().splitlines()) == ["inside", "name0", "name1"]
    result = go("steered", marks=str(marks), n=1)
    assert {states(result)[name] for name in ("condition-2", "mark")} == {"skipped"}
    assert states(result)["condition-3"] == "succeeded"
    # A loop over nothing is over at once.
    result = go("steered", marks=str(marks), n=0)
    assert result.state == "succeeded"
    assert set(states(result).values()) == {"succeeded", "skipped"}


def test_a_quote_in_a_text_that_is_compared(go: Go, tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    assert states(go("quoted", marks=marks, value="x"))["mark"] == "succeeded"
    assert states(go("quoted", marks=marks, value="it's"))["mark"] == "skipped"


def test_groups_of_every_kind(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    result = go("everything", marks=str(marks))
    assert result.state == "succeeded"
    found = states(result)
    assert found["use"] == "succeeded"
    assert found["use-2"] == "skipped"
    assert found["outcome"] == "succeeded"
    kinds = {task["id"]: task["kind"] for task in result.record["tasks"]}
    assert kinds["exit-handler-1"] == "exit_handler"
    assert set(kinds.values()) == {"step", "condition", "loop", "exit_handler", "pipeline"}
    # The two uses of the inner pipeline are told apart, and so are the iterations of the loop.
    inner_steps = [task for task in result.record["tasks"] if task["parent"] in ("inner", "inner-2")]
    assert sorted(task["outputs"]["Output"]["value"] for task in inner_steps) == [5, 6]
    (looped,) = [task for task in result.record["tasks"] if task.get("iterations")]
    assert [part["outputs"]["Output"]["value"] for part in looped["iterations"]] == [1, 2, 3]
    assert len({part["folder"] for part in looped["iterations"]}) == 3
    # The optional dictionary without a default is left to the component's own default.
    (options,) = [task for task in result.record["tasks"] if task["component"] == "options_of"]
    assert options["outputs"]["Output"]["value"] == "None None"
    assert f"outcome SUCCEEDED {result.run_id}" in marks.read_text()
    # In the order of the flow, each group before its members.
    order = list(found)
    assert order.index("exit-handler-1") < order.index("make") < order.index("use") < order.index("outcome")
    again = go("everything", marks=str(marks))
    assert {state for name, state in states(again).items() if name != "outcome"} == {"cached", "skipped"}


def test_an_exit_handler_runs_after_a_failure(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    result = go("guarded", marks=str(marks), path=str(tmp_path / "missing"))
    assert result.state == "failed"
    assert states(result)["outcome"] == "succeeded"
    assert marks.read_text().split("\n")[1] == f"outcome FAILED {result.run_id}"


def test_a_failed_iteration_is_named(go: Go, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    for name in "ac":
        (tmp_path / name).touch()
    result = go("looped", marks=str(tmp_path / "marks"), paths=paths)
    assert result.state == "failed"
    (failure,) = failures(result.record)
    assert failure["iteration"] == "for-loop-1-iteration-1"
    assert failure_text(failure, result.folder).startswith("need [iteration 1] failed\n")


def test_a_step_sees_the_environment_of_the_command(
    sample: Callable[[str], Path], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = LocalConfig(root=root, environment={"GREETING": "hello"})
    result = local.run(sample("seen"), {"marks": str(tmp_path / "marks")}, config)
    found = result.record["tasks"][0]["outputs"]["Output"]["value"]
    assert found["MLFLOW_TRACKING_URI"] == f"sqlite:///{root}/mlflow.db"
    assert found["TF_CPP_MIN_LOG_LEVEL"] == "2"
    assert found["GREETING"] == "hello"
    assert found["cwd"] == str(Path.cwd())
    assert found["stdin"] == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    result = local.run(sample("seen"), {"marks": str(tmp_path / "other")}, config)
    assert result.record["tasks"][0]["outputs"]["Output"]["value"]["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_another_interpreter_for_a_family(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    import sys

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nGREETING="by another" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    config = LocalConfig(root=root, python={"data": python})
    result = local.run(sample("seen"), {"marks": str(tmp_path / "marks")}, config)
    assert result.record["tasks"][0]["outputs"]["Output"]["value"]["GREETING"] == "by another"


def test_an_interpreter_that_is_not_there(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no interpreter here") as caught:
        local.run(sample("seen"), {"marks": "m"}, LocalConfig(root=root, python={"data": tmp_path / "none"}))
    assert caught.value.facts["parameter"] == "python.data"
    with pytest.raises(InputError, match="image family that does not exist") as caught:
        local.run(sample("seen"), {"marks": "m"}, LocalConfig(root=root, python={"dada": Path("/bin/sh")}))
    assert caught.value.facts["hint"] == "did you mean 'data'?"


def test_a_pipeline_of_another_library_runs(go: Go) -> None:
    assert go("foreigner", text="abc").outputs == {"Output": "ABC"}


def test_python3_in_a_value_or_a_path_stays_as_it_is(sample: Callable[[str], Path], tmp_path: Path) -> None:
    # kfp.local writes its own interpreter's path over it.
    config = LocalConfig(root=tmp_path / "python3.11 of mine")
    result = local.run(sample("typed"), {"text": "python3 and 'quotes' and $HOME"}, config)
    assert result.state == "succeeded"
    assert result.outputs == {"Output": "python3 and 'quotes' and $HOME"}
    marks = tmp_path / "marks"
    result = local.run(sample("basic"), {"marks": str(marks)}, config)
    assert result.outputs == {"Output": "use read 3"}


def test_a_run_outlives_a_reader_that_goes_away(sample: Callable[[str], Path], root: Path) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    result = local.run(sample("foreigner"), {}, LocalConfig(root=root), progress=PlainProgress(Closed()))
    assert result.state == "succeeded"


def test_progress_that_fails_stops_the_run(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    class Broken(NoProgress):
        def update(self, record: RunRecord) -> None:
            if record.steps[-1]["state"] == "running":
                raise RuntimeError("the screen is broken")

    with pytest.raises(RuntimeError, match="the screen is broken"):
        local.run(
            sample("slow"),
            {"marks": str(tmp_path / "marks")},
            LocalConfig(root=root, stop_seconds=3),
            progress=Broken(),
        )
    assert list_runs(root)[0]["state"] == "interrupted"
    assert [step["state"] for step in list_runs(root)[0]["tasks"]] == ["succeeded", "interrupted"]


def test_the_live_table(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30, color_system=None)
    arguments = {"marks": str(tmp_path / "marks"), "path": str(tmp_path / "none"), "seconds": 0.1}
    local.run(sample("demo"), arguments, LocalConfig(root=root), progress=LiveProgress(console))
    last = screen.getvalue().rpartition("\x1b[2K")[2]
    whole = screen.getvalue()
    assert "demo  run 2" in whole
    assert "\u2717  need" in whole
    assert "the file is not there" in whole
    assert "3 of 3 iterations" in whole
    assert whole.count("skipped: its condition was not met") >= 1
    assert "outcome" in last


def test_a_container_component_is_refused_before_anything_runs(go: Go, root: Path) -> None:
    with pytest.raises(InputError, match="its code is in its image") as caught:
        go("contained")
    assert caught.value.facts["parameter"] == "container"
    assert "alpine" in caught.value.facts["received"]
    assert not root.exists()


def test_a_root_that_cannot_be_written(sample: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to the root folder"):
        local.run(sample("foreigner"), {}, LocalConfig(root=tmp_path / "file"))


def test_two_runs_at_once_do_not_disturb_each_other(sample: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> RunResult:
        arguments = {"marks": str(tmp_path / f"marks{number % 2}"), "rows": 2 + number % 2}
        return local.run(sample("basic"), arguments, LocalConfig(root=root))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))
    assert [result.state for result in results] == ["succeeded"] * 4
    assert [result.outputs["Output"] for result in results] == ["use read 2", "use read 3"] * 2
    assert len({result.folder for result in results}) == 4


def test_runs_are_listed_found_and_cleared_away(go: Go, root: Path, tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    first = go("basic", marks=marks)
    second = go("foreigner", text="abc")
    third = go("basic", marks=marks)
    assert [run["run_id"] for run in list_runs(root)] == [third.run_id, second.run_id, first.run_id]
    assert find_run(root, None) == Path(list_runs(root)[0]["folder"])
    assert find_run(root, "foreigner") == second.folder
    with pytest.raises(InputError, match="several runs have this in their name"):
        find_run(root, "basic")
    with pytest.raises(InputError, match="no run of this name"):
        find_run(root, "nothing")
    # The second goes; the first stays, since the newest took its artifacts.
    removed, freed = clean(root, keep=1)
    if list_runs(root)[0]["run_id"] == third.run_id:
        assert removed == [second.run_id]
        assert freed > 0
        assert first.folder.exists()
    assert states(go("foreigner", text="abc"))["foreign"] == "succeeded"
    assert states(go("basic", marks=marks)) == {"make": "cached", "use": "cached"}


def test_a_run_whose_record_was_left_running_counts_as_interrupted(go: Go, root: Path) -> None:
    result = go("foreigner")
    record = json.loads((result.folder / "run.json").read_text())
    (result.folder / "run.json").write_text(json.dumps({**record, "state": "running", "seconds": None}))
    assert list_runs(root)[0]["state"] == "interrupted"


def test_many_steps_come_from_the_cache(go: Go, tmp_path: Path) -> None:
    assert set(states(go("many", marks=str(tmp_path / "marks"))).values()) == {"succeeded"}
    assert set(states(go("many", marks=str(tmp_path / "marks"))).values()) == {"cached"}
