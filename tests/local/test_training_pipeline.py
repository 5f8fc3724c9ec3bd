"""The training pipelines, end to end on small real data: the compiled YAML, run here, as `make run` does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.runtime.models import LoadedModel
from pipeparts.runtime.tables import Table
from pipeparts.runtime.verdict import read_verdict
from pipeparts.targets import local
from pipeparts.targets.base import RunResult

pytestmark = pytest.mark.slow

FLIGHTS = Path(__file__).parents[1] / "data" / "flights.csv"
PARAMETERS: dict[str, Any] = {
    "label": "late",
    "model_name": "late-flights",
    "split_method": "time",
    "split_columns": ["time_hour"],
    "split_boundaries": ["2013-08-01", "2013-10-01"],
    "features": {
        "carrier": "category",
        "origin": "category",
        "distance": {"kind": "numeric", "log": True},
        "temp": "numeric",
        "time_hour": {"kind": "time", "parts": ["hour", "weekday"], "time_zone": "America/New_York"},
    },
    "hyperparameters": {"num_iterations": 30, "num_leaves": 7},
    "slices": ["origin"],
    "gate": {"thresholds": {"roc_auc": {"min": 0.5}}, "bootstrap_samples": 100},
}
STEPS = 13


class Place:
    """A root of runs with a source file of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.source = folder / "flights.csv"
        shutil.copyfile(FLIGHTS, self.source)

    def run(self, name: str = "train_and_register", **parameters: Any) -> RunResult:
        yaml = self.root / f"{name}.yaml"
        yaml.parent.mkdir(exist_ok=True)
        yaml.write_text(compiling.to_yaml(compiling.compile_spec(name)))
        arguments = {**PARAMETERS, "source": str(self.source), **parameters}
        return local.run(yaml, arguments, LocalConfig(root=self.root))


def states(result: RunResult) -> dict[str, str]:
    return {task["name"]: task["state"] for task in result.record["tasks"] if task["kind"] == "step"}


def output(result: RunResult, task: str, name: str) -> Any:
    found = next(item for item in result.record["tasks"] if item["name"] == task)["outputs"][name]
    return found["value"] if "value" in found else result.folder / found["uri"]


def champion(place: Place) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    return str(client.get_model_version_by_alias("late-flights", "champion").version)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def first(place: Place) -> RunResult:
    return place.run()


def test_the_first_model_becomes_the_champion(place: Place, first: RunResult) -> None:
    assert first.state == "succeeded", first.record["error"]
    assert set(states(first).values()) == {"succeeded"}
    assert len(states(first)) == STEPS
    assert champion(place) == "1"
    assert output(first, "register-mlflow", "Output") == "1"
    assert read_verdict(output(first, "validate-model", "verdict")).passed


def test_the_splits_are_complete(first: RunResult) -> None:
    rows = Table(output(first, "ingest-files", "table")).rows
    splits = [Table(output(first, "split-table", f"{name}_table")).rows for name in ("train", "validation", "test")]
    assert rows == 2005
    assert sum(splits) == rows
    assert min(splits) > 300


def test_the_model_takes_raw_columns_known_before_departure(first: RunResult) -> None:
    model = LoadedModel(output(first, "train-lightgbm", "model"))
    assert set(model.info.columns) == {"carrier", "origin", "distance", "temp", "time_hour"}
    rows = Table(output(first, "split-table", "test_table")).read(list(model.info.columns)).to_pandas()
    answer = model.predict(rows)
    assert answer["probability"].between(0, 1).all()
    assert answer["probability"].nunique() > 50


def test_lineage_is_on_the_version(place: Place, first: RunResult) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place.root}/mlflow.db")
    tags = client.get_model_version("late-flights", "1").tags
    assert tags["pipeparts.run"] == first.run_id
    assert tags["pipeparts.pipeline_hash"] == first.record["pipeline_hash"]
    train = Table(output(first, "split-table", "train_table"))
    assert tags["pipeparts.data_fingerprint"] == train.info.fingerprint


def test_an_unchanged_run_is_served_from_the_cache(place: Place, first: RunResult) -> None:
    again = place.run()
    assert again.state == "succeeded"
    uncached = {name for name, state in states(again).items() if state != "cached"}
    assert uncached == {"find-champion-mlflow", "register-mlflow", "write-outcome"}, states(again)
    assert champion(place) == "1"
    assert again.record["seconds"] < first.record["seconds"]


def test_a_challenger_that_is_not_better_does_not_take_the_alias(place: Place, first: RunResult) -> None:
    gate = {**PARAMETERS["gate"], "min_gain": 0.2}
    challenger = place.run(hyperparameters={"num_iterations": 3, "num_leaves": 3}, gate=gate)
    assert challenger.state == "succeeded"
    assert states(challenger)["ingest-files"] == "cached"
    assert states(challenger)["train-lightgbm"] == "succeeded"
    assert states(challenger)["register-mlflow"] == "skipped"
    assert not read_verdict(output(challenger, "validate-model", "verdict")).passed
    assert champion(place) == "1"


def test_a_challenger_that_passes_takes_the_alias_and_keeps_it(place: Place, first: RunResult) -> None:
    gate = {**PARAMETERS["gate"], "min_gain": -1.0, "max_loss": 1.0, "slice_margin": 1.0}
    challenger = place.run(seed=5, hyperparameters={"num_iterations": 60, "num_leaves": 15}, gate=gate)
    assert states(challenger)["register-mlflow"] == "succeeded", output(
        challenger, "validate-model", "verdict"
    ).read_text()
    assert champion(place) == "2"
    again = place.run(seed=5, hyperparameters={"num_iterations": 60, "num_leaves": 15}, gate=gate)
    assert states(again)["validate-model"] == "cached", "the champion it was compared with is the one it replaced"
    assert champion(place) == "2"


def test_a_source_that_changed_under_its_name_is_read_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    stops_early = {"schema": {"max_rows": 10}}
    place.run(**stops_early)
    assert states(place.run(**stops_early))["ingest-files"] == "cached"
    lines = place.source.read_text().splitlines(keepends=True)
    place.source.write_text("".join(lines[:-1]))
    again = place.run(**stops_early)
    assert states(again)["ingest-files"] == "succeeded"
    assert Table(output(again, "ingest-files", "table")).rows == 2004


def test_bad_data_stops_the_run_with_its_reasons(tmp_path: Path) -> None:
    place = Place(tmp_path)
    result = place.run(schema={"columns": {"distance": {"type": "int64", "max": 1000}}})
    assert result.state == "failed"
    found = states(result)
    assert found["validate-table"] == "succeeded"
    assert found["require-verdict"] == "failed"
    assert found["split-table"] == "not_run"
    assert found["write-outcome"] == "succeeded"
    error = next(task for task in result.record["tasks"] if task["name"] == "require-verdict")["error"]
    assert "distance" in error["message"]
    assert "distance" in (result.folder / "report.html").read_text()


def test_the_keras_pipeline_makes_a_model_with_a_saved_model(tmp_path: Path) -> None:
    place = Place(tmp_path)
    result = place.run("train_and_register_keras", hyperparameters={"epochs": 2, "hidden_units": [16]})
    assert result.state == "succeeded", result.record["error"]
    checks = {check.name: check for check in read_verdict(output(result, "validate-model", "verdict")).checks}
    assert checks["serving:loads"].passed
    assert checks["serving:answers"].passed
    assert list(output(result, "train-keras", "model").rglob("saved_model.pb"))


def test_the_report_in_a_browser(place: Place, first: RunResult) -> None:
    browser = shutil.which("chromium")
    assert browser, "the report is looked at in a real browser: apt-get install chromium"
    assert first.report is not None
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        f"--user-data-dir={place.root}/chromium",
    ]
    command += ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", first.report.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in shown.stderr, "the page logs errors"
    page = shown.stdout
    for text in ("late-flights version 1", "champion", "Verdict of validate-model", "ingest-files", "roc auc"):
        assert text in page
    assert page.count("<svg") >= 3, "the graph, the ROC curve and the confusion matrix"
    links = [link for link in re.findall(r'href="([^"#]+)"', page) if not link.startswith(("http", "data:"))]
    assert len(links) > 20
    missing = [link for link in links if not (first.folder / link).exists()]
    assert not missing, "links that lead nowhere"
    anchors = re.findall(r'href="#([^"]+)"', page)
    assert anchors
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert not re.findall(r'(?:src|href)="https?:', page), "the report stands alone"


def test_the_records_paths_do_not_name_this_machine(first: RunResult) -> None:
    record = json.loads((first.folder / "run.json").read_text())
    for task in record["tasks"]:
        for found in task["outputs"].values():
            assert not str(found.get("uri", "")).startswith("/"), found
