"""Our runner and kfp.local give the same: outputs, states, and each takes from its cache what the other made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeparts.config import LocalConfig
from pipeparts.targets import local
from pipeparts.targets.base import RunResult

pytestmark = pytest.mark.slow

RUNNER = Path(__file__).with_name("kfp_local.py")

#: The sample pipelines that kfp.local runs right, with their arguments. `{tmp}` is the test's folder.
SAMPLES: dict[str, dict[str, Any]] = {
    "basic": {"rows": 4},
    "everything": {"rows": 2},
    "foreigner": {"text": "python3 of mine"},
    "gathered": {"sizes": [3, 1]},
    "guarded": {"path": "{tmp}/there"},
    "imported": {"path": "{tmp}/there"},
    "looped": {"paths": ["{tmp}/there", "{tmp}"]},
    "many": {},
    "resumed": {"path": "{tmp}/there"},
    "retried": {"path": "{tmp}/tries"},
    "typed": {"text": "x", "names": ["a", 1], "options": {"deep": [1, 2.5, None, True]}},
}


class KfpLocal:
    """Runs by kfp.local what a run of ours ran."""

    def __init__(self, folder: Path) -> None:
        self.steps = folder / "steps"
        self.cache = folder / "cache"
        self._folder = folder

    def run(self, ours: RunResult) -> dict[str, Any]:
        self._folder.mkdir(exist_ok=True)
        shutil.rmtree(self.steps, ignore_errors=True)
        arguments = json.loads((ours.folder / "job.json").read_text())["arguments"]
        paths = {"pipeline": ours.folder / "local.json", "steps": self.steps, "cache": self.cache}
        job = {**{name: str(path) for name, path in paths.items()}, "arguments": arguments}
        (self._folder / "job.json").write_text(json.dumps({**job, "result": str(self._folder / "result.json")}))
        variables = {f"PIPEPARTS_PYTHON_{family}": sys.executable for family in ("DATA", "DEFAULT")}
        done = subprocess.run(
            [sys.executable, str(RUNNER), str(self._folder / "job.json")],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        result: dict[str, Any] = json.loads((self._folder / "result.json").read_text())
        return result


def what_ran(steps: Path) -> dict[str, Any]:
    """The state and the outputs of each step that ran, by its folder below the run's."""
    (run,) = steps.iterdir() if steps.exists() else [steps / "none"]
    found = {}
    for record in run.rglob("step.json"):
        outputs = record.with_name("executor_output.json")
        text = outputs.read_text().replace(str(run), "<run>") if outputs.exists() else "{}"
        name = str(record.parent.relative_to(run))
        found[name] = (json.loads(record.read_text())["state"], json.loads(text))
    return found


def filled(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return dict(json.loads(json.dumps(arguments).replace("{tmp}", str(folder))))


@pytest.fixture
def kfp_local(tmp_path: Path) -> KfpLocal:
    return KfpLocal(tmp_path / "kfp")


@pytest.fixture
def prepared(sample: Callable[[str], Path], tmp_path: Path) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """The YAML and the arguments of a sample."""
    (tmp_path / "there").write_text("xx")

    def prepare(name: str) -> tuple[Path, dict[str, Any]]:
        arguments = filled(SAMPLES[name], tmp_path)
        if "marks" in sample(name).read_text():
            arguments["marks"] = str(tmp_path / "marks")
        return sample(name), arguments

    return prepare


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_outputs_states_and_cache(
    name: str, prepared: Callable[[str], tuple[Path, dict[str, Any]]], kfp_local: KfpLocal, tmp_path: Path
) -> None:
    yaml, arguments = prepared(name)
    ours = local.run(yaml, arguments, LocalConfig(root=tmp_path / "root", parallel_steps=3))
    (tmp_path / "tries").unlink(missing_ok=True)
    theirs = kfp_local.run(ours)
    assert ours.state == theirs["state"] == "succeeded"
    assert ours.outputs == theirs["outputs"]
    # The steps that kfp.local runs are those that we run, and each gives the same.
    mine, others = what_ran(ours.folder / "steps"), what_ran(kfp_local.steps)
    assert mine.keys() == others.keys()
    for step in mine:
        assert mine[step] == others[step], step
    # Each takes from its cache what the other made.
    uncached = {task["id"] for task in ours.record["tasks"] if task["component"] == "outcome"}
    again = KfpLocal(tmp_path / "kfp again")
    again.cache = tmp_path / "root" / "cache"
    assert again.run(ours)["outputs"] == ours.outputs
    assert set(what_ran(again.steps)) <= uncached
    shutil.copytree(kfp_local.cache, tmp_path / "other root" / "cache")
    after = local.run(yaml, arguments, LocalConfig(root=tmp_path / "other root"))
    assert after.outputs == ours.outputs
    states = {t["id"]: t["state"] for t in after.record["tasks"] if t["kind"] == "step" and t["id"] not in uncached}
    assert set(states.values()) <= {"cached", "skipped"}


def test_the_same_where_a_step_fails(
    prepared: Callable[[str], tuple[Path, dict[str, Any]]], kfp_local: KfpLocal, tmp_path: Path
) -> None:
    yaml, arguments = prepared("guarded")
    arguments["path"] = str(tmp_path / "missing")
    ours = local.run(yaml, arguments, LocalConfig(root=tmp_path / "root"))
    assert ours.state == kfp_local.run(ours)["state"] == "failed"
    assert what_ran(ours.folder / "steps").keys() == what_ran(kfp_local.steps).keys() == {"need", "outcome"}
    assert "outcome FAILED" in (tmp_path / "marks").read_text().splitlines()[-1]
