"""Pipelines in containers: no network, no root, a read-only file system; and how such runs fail and stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from tests.docker import docker

pytestmark = pytest.mark.slow

FLIGHTS = Path(__file__).parents[1] / "data" / "flights.csv"
TRAINING: dict[str, Any] = {
    "label": "late",
    "model_name": "late-flights",
    "split_method": "time",
    "split_columns": ["time_hour"],
    "split_boundaries": ["2013-06-01", "2013-08-01"],
    "features": {"carrier": "category", "origin": "category", "distance": "numeric", "temp": "numeric"},
    "hyperparameters": {"num_iterations": 30, "num_leaves": 7},
    "gate": {"thresholds": {"roc_auc": {"min": 0.0}}, "bootstrap_samples": 100},
}
SLEEPER = """
from kfp import dsl

@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def wait_long(seconds: float) -> str:
    import time
    try:
        time.sleep(seconds)
    finally:
        print("cleaned up", flush=True)
    return "done"

@dsl.pipeline(name="waiting")
def waiting(seconds: float = 600.0):
    wait_long(seconds=seconds).set_caching_options(False)
"""
COMPILE = "import sleeper; from kfp import compiler; compiler.Compiler().compile(sleeper.waiting, 'waiting.yaml')"


class Place:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.source = self.root / "flights.csv"
        shutil.copyfile(FLIGHTS, self.source)

    def config(self, **settings: Any) -> LocalConfig:
        fixed = {"root": self.root, "runner": "docker", "docker_network": "none", "docker_volumes": ()}
        return LocalConfig(**{**fixed, **settings})

    def run(self, name: str, arguments: dict[str, Any], **settings: Any) -> RunResult:
        return local.run(compiling.compile_spec(name), arguments, self.config(**settings))

    def train(self, **arguments: Any) -> RunResult:
        return self.run("train_and_register", {**TRAINING, "source": str(self.source), **arguments})


def states(result: RunResult) -> dict[str, str]:
    return {task["name"]: task["state"] for task in result.record["tasks"] if task["kind"] == "step"}


def containers(run_id: str) -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", f"label=io.pipeparts.run={run_id}").split()


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("docker"))


@pytest.fixture(scope="module")
def trained(place: Place) -> RunResult:
    result = place.train()
    assert result.state == "succeeded", json.dumps(result.record["tasks"], indent=1)
    return result


def test_training_runs_to_its_end_without_a_network(place: Place, trained: RunResult) -> None:
    assert set(states(trained).values()) == {"succeeded"}
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    assert str(client.get_model_version_by_alias("late-flights", "champion").version) == "1"
    assert trained.report is not None
    assert containers(trained.run_id) == []


def test_no_step_was_root(trained: RunResult) -> None:
    written = list((trained.folder / "steps").rglob("step.json"))
    assert len(written) == len(states(trained))
    assert 0 not in {path.stat().st_uid for path in written}


def test_steps_that_did_not_change_come_from_the_cache(place: Place, trained: RunResult) -> None:
    again = place.train()
    assert again.state == "succeeded"
    assert states(again)["train-lightgbm"] == "cached"
    assert states(again)["ingest-files"] == "cached"


def test_a_batch_is_predicted_and_watched_without_a_network(place: Place, trained: RunResult) -> None:
    predicted = place.run(
        "predict_batch",
        {
            "source": str(place.source),
            "model_name": "late-flights",
            "keys": ["flight_id"],
            "destination": str(place.root / "predictions"),
        },
    )
    assert predicted.state == "succeeded", predicted.record["error"]
    assert list((place.root / "predictions").glob("*.parquet"))
    watched = place.run(
        "monitor_and_retrain",
        {
            "batch": "2013",
            "source": str(place.source),
            "predictions": str(place.root / "predictions"),
            "keys": ["flight_id"],
            "as_of": "2014-01-01",
            "time_column": "time_hour",
            "policy": {"min_rows": 50, "on_performance": False, "max_share_drifted": 0.0},
            "training_parameters": {**TRAINING, "source": str(place.source)},
        },
    )
    assert watched.state == "succeeded", watched.record["error"]
    # The year as a whole is not the months that the model was trained on; the training ran in containers, too.
    assert states(watched)["trigger-pipeline"] == "succeeded"
    newest = max(json.loads(path.read_text())["started"] for path in place.root.glob("runs/*train*/run.json"))
    assert newest > trained.record["started"]


def test_data_is_held_against_a_reference_by_tfx_without_a_network(place: Place) -> None:
    arguments = {"source": str(place.source), "reference_source": str(place.source)}
    held = place.run("validate_with_tfx", arguments)
    assert held.state == "succeeded", held.record["error"]
    wrong = place.run("validate_with_tfx", {**arguments, "rules": {"distance": {"max": 2_000}}})
    assert states(wrong)["validate-statistics-tfdv"] == "succeeded"
    assert states(wrong)["require-verdict"] == "failed"


def test_what_a_step_says_when_it_fails_is_in_the_record(place: Place) -> None:
    broken = place.root / "broken.csv"
    broken.write_text("a,b\n1,2\n3\n")
    failed = place.run("train_and_register", {**TRAINING, "source": str(broken)})
    assert failed.state == "failed"
    (task,) = [task for task in failed.record["tasks"] if task["name"] == "ingest-files"]
    assert task["error"]["type"] == "DataError"
    assert "broken.csv" in task["error"]["message"]
    assert containers(failed.run_id) == []


def test_a_folder_that_is_not_given_is_not_seen(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "flights.csv"
    shutil.copyfile(FLIGHTS, outside)
    arguments = {**TRAINING, "source": str(outside)}
    assert states(place.run("train_and_register", arguments))["ingest-files"] == "failed"
    tmp_path.chmod(0o700)
    with pytest.raises(InputError, match="a folder that the steps' user cannot enter"):
        place.run("train_and_register", arguments, docker_volumes=(str(tmp_path),))
    tmp_path.chmod(0o755)
    given = place.run("train_and_register", arguments, docker_volumes=(str(tmp_path),))
    assert states(given)["ingest-files"] == "succeeded"


def test_without_its_image_a_pipeline_does_not_begin(place: Place, tmp_path: Path) -> None:
    spec = compiling.compile_spec("train_and_register")
    images = {family: f"127.0.0.1:9/pipeparts-python-{family}:none" for family in compiling.image_families(spec)}
    resolved = compiling.resolve_images(spec, images)
    with pytest.raises(InputError, match="there is no such image here"):
        local.run(resolved, {**TRAINING, "source": "x"}, place.config(root=tmp_path / "r"))
    assert not (tmp_path / "r").exists()


def test_without_docker_a_pipeline_does_not_begin(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    with pytest.raises(ServiceError, match="docker does not answer"):
        place.train()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServiceError, match="there is no docker on this machine"):
        place.train()


class Waiting:
    """A run of the command whose one step waits."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        (folder / "sleeper.py").write_text(SLEEPER)
        subprocess.run([sys.executable, "-c", COMPILE], cwd=folder, check=True)
        self.root = folder / "root"
        settings = {"runner": "docker", "docker_network": "none", "stop_seconds": 30}
        (folder / "local.yaml").write_text(yaml.safe_dump(settings))
        command = ["run", "waiting.yaml", "--root", "root", "--target-config", "local.yaml"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeparts.cli", *command],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        until(lambda: list(self.root.glob("runs/*/steps/**/step.json")) or self.process.poll() is not None)
        assert self.process.poll() is None
        self.run_id = next(self.root.glob("runs/*")).name
        (self.log,) = self.root.glob("runs/*/steps/**/log.txt")

    def cleaned_up(self) -> bool:
        return "cleaned up" in self.log.read_text()


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


def test_a_stopped_run_lets_its_step_clean_up_and_leaves_no_container(waiting: Waiting) -> None:
    assert containers(waiting.run_id)
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.process.wait(120) == 130
    assert waiting.cleaned_up()
    assert containers(waiting.run_id) == []


def test_a_killed_command_takes_its_containers_with_it(waiting: Waiting) -> None:
    waiting.process.kill()
    waiting.process.wait(30)
    until(lambda: not containers(waiting.run_id))
    assert waiting.cleaned_up()


def test_a_killed_container_is_a_failed_step(waiting: Waiting) -> None:
    docker("kill", *containers(waiting.run_id))
    assert waiting.process.wait(120) == 1
    record = json.loads((waiting.root / "runs" / waiting.run_id / "run.json").read_text())
    assert record["state"] == "failed"
    (task,) = record["tasks"]
    assert "killed" in task["error"]["message"]
