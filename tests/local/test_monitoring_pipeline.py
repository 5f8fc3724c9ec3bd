"""The loop, end to end on small real data: a batch drifts, somebody is told, a training runs, the next has its model.

By the commands that a person, or `make monitor`, uses; with a real mail server.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml

from pipeparts.runtime.tables import Table
from pipeparts.targets.local_runs import list_runs
from tests.monitoring_services import MailServer, mail_server

pytestmark = pytest.mark.slow

FLIGHTS = Path(__file__).parents[1] / "data" / "flights.csv"
TRAINING: dict[str, Any] = {
    "label": "late",
    "model_name": "late-flights",
    "split_method": "time",
    "split_columns": ["time_hour"],
    "features": {"carrier": "category", "origin": "category", "distance": "numeric", "sched_dep_time": "numeric"},
    "hyperparameters": {"num_iterations": 30, "num_leaves": 7},
    # The challenger learns on what the champion did not see; on so few rows the gate lets any through.
    "gate": {
        "min_gain": -1.0,
        "max_loss": 1.0,
        "slice_margin": 1.0,
        "bootstrap_samples": 100,
        "thresholds": {"roc_auc": {"min": 0.0}},
    },
}


class Loop:
    """A folder with monthly files of flights, the files of parameters, and the commands run in it."""

    def __init__(self, folder: Path, mail: MailServer) -> None:
        self.folder, self.mail = folder, mail
        self.root = folder / ".pipeparts"
        (folder / "flights").mkdir()
        flights = pd.read_csv(FLIGHTS)
        # Real flights with a label that is easy to learn, so that on so few rows the gate decides by more than chance.
        late = (flights["sched_dep_time"] > 1500) ^ (flights.index % 10 == 0)
        flights["late"] = late.astype(int)
        for month, rows in flights.groupby(flights["time_hour"].str[:7]):
            self._write_month(str(month), rows)
        self.write("train.yaml", {"pipeline": "train_and_register", "parameters": self._training("flights/*.csv.gz")})
        self.write(
            "predict.yaml",
            {
                "pipeline": "predict_batch",
                "schedule": {"cron": "0 5 1 * *"},
                "parameters": {
                    "source": "flights/{start:%Y-%m}.csv.gz",
                    "model_name": "late-flights",
                    "keys": ["flight_id"],
                    "destination": "predictions/{start:%Y-%m}",
                    "alert_to": ["env:ALERT_TO"],
                },
            },
        )
        self.write(
            "monitor.yaml",
            {
                "pipeline": "monitor_and_retrain",
                "schedule": {"cron": "0 6 1 * *"},
                "parameters": {
                    "batch": "{start:%Y-%m}",
                    "source": "flights/{start:%Y-%m}.csv.gz",
                    "predictions": "predictions/{start:%Y-%m}",
                    "keys": ["flight_id"],
                    "as_of": "{end:%Y-%m-%d}",
                    "time_column": "time_hour",
                    "window": "week",
                    "slices": ["origin"],
                    "policy": {"min_rows": 50, "on_performance": False, "max_share_drifted": 0.2},
                    "training_parameters": {
                        "parameters_of": "train.yaml",
                        "split_boundaries": ["{start:%Y-%m-01}", "{start:%Y-%m-16}", "{end:%Y-%m-01}"],
                    },
                    "baseline_model": "models:/late-flights/1",
                    "alert_to": ["env:ALERT_TO"],
                    "evidently_workspace": "evidently",
                    "evidently_project": "Late flights",
                },
            },
        )

    def _training(self, source: str) -> dict[str, Any]:
        return {**TRAINING, "source": source, "split_boundaries": ["2013-06-01", "2013-07-01", "2013-08-01"]}

    def _write_month(self, month: str, rows: pd.DataFrame) -> None:
        with gzip.open(self.folder / "flights" / f"{month}.csv.gz", "wt") as file:
            rows.to_csv(file, index=False)

    def shift(self, month: str) -> None:
        """Makes the flights of a month far longer than any before."""
        with gzip.open(self.folder / "flights" / f"{month}.csv.gz", "rt") as file:
            rows = pd.read_csv(file)
        rows["distance"] = rows["distance"] * 2 + 3000
        self._write_month(month, rows)

    def write(self, name: str, document: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(document, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeparts.cli", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "ALERT_TO": self.mail.url(), "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        output = process.communicate(timeout=600)[0]
        assert process.returncode == 0, output
        return output

    def backfill(self, start: str, end: str) -> list[str]:
        return ["backfill", "predict.yaml", "monitor.yaml", "--start", start, "--end", end]

    def runs(self, pipeline: str) -> list[dict[str, Any]]:
        """A pipeline's runs, the oldest first."""
        return [run for run in reversed(list_runs(self.root)) if run["pipeline"] == pipeline]

    def output(self, run: dict[str, Any], task: str, name: str) -> Any:
        found = next(item for item in run["tasks"] if item["name"] == task)["outputs"][name]
        return found["value"] if "value" in found else Path(run["folder"]) / found["uri"]

    def state(self, run: dict[str, Any], task: str) -> str:
        return str(next(item for item in run["tasks"] if item["name"] == task)["state"])

    def champion(self) -> str:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        return str(client.get_model_version_by_alias("late-flights", "champion").version)

    def history(self) -> list[dict[str, Any]]:
        """What the history holds, in order of the batches."""
        newest = self.runs("monitor-and-retrain")[-1]
        document = json.loads(self.output(newest, "record-batch-2", "history").read_text())
        return list(document["batches"])


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, mail: MailServer) -> Loop:
    made = Loop(tmp_path_factory.mktemp("loop"), mail)
    made.shift("2013-09")
    made.run("run", "--params", "train.yaml")
    assert made.champion() == "1"
    return made


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_an_ordinary_month_changes_nothing(loop: Loop) -> None:
    output = loop.run(*loop.backfill("2013-08-01", "2013-09-01"))
    assert "2013-08-01 to 2013-09-01" in output
    assert loop.champion() == "1"
    assert loop.mail.mails == []
    (monitored,) = loop.runs("monitor-and-retrain")
    assert loop.output(monitored, "decide-retraining", "Output") is False
    assert loop.state(monitored, "trigger-pipeline") == "skipped"
    assert loop.state(monitored, "publish-metrics") == "skipped"
    predicted = pd.read_parquet(loop.folder / "predictions" / "2013-08")
    assert set(predicted.columns) == {"flight_id", "prediction", "probability", "model_version"}
    assert set(predicted["model_version"]) == {"models:/late-flights/1"}
    rows = Table(loop.output(monitored, "ingest-files", "table")).rows
    assert len(predicted) == rows > 100


def test_a_month_that_drifts_ends_with_a_mail_and_a_new_champion_however_often_it_is_killed(loop: Loop) -> None:
    # Killed while the training runs, once the alert is out.
    process = loop.start(*loop.backfill("2013-08-01", "2013-10-01"))
    until(lambda: len(loop.runs("train-and-register")) == 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until(lambda: not [child for child in psutil.process_iter(["cmdline", "cwd"]) if at_work(child, loop.folder)])
    assert loop.champion() == "1"

    # Killed again, at a time of its own.
    process = loop.start(*loop.backfill("2013-08-01", "2013-10-01"))
    time.sleep(6)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until(lambda: not [child for child in psutil.process_iter(["cmdline", "cwd"]) if at_work(child, loop.folder)])

    output = loop.run(*loop.backfill("2013-08-01", "2013-10-01"))
    assert "has done this already" in output  # August is over and done
    assert loop.champion() == "2"
    assert len(loop.mail.mails) == 1
    assert "distance" in loop.mail.mails[0].message.as_string()
    states = [run["state"] for run in loop.runs("train-and-register")]
    assert states.count("succeeded") == 2  # the first one, and one for September
    monitored = loop.runs("monitor-and-retrain")[-1]
    assert loop.output(monitored, "decide-retraining", "Output") is True
    drift = json.loads(loop.output(monitored, "report-drift", "drift").read_text())
    assert drift["columns"][0]["name"] == "distance"
    assert not list(loop.folder.rglob("*.partial"))


def at_work(process: psutil.Process, folder: Path) -> bool:
    return process.info["cwd"] == str(folder) and "pipeparts" in " ".join(process.info["cmdline"] or [])


def test_the_next_month_is_predicted_by_the_new_champion(loop: Loop) -> None:
    loop.run(*loop.backfill("2013-08-01", "2013-11-01"))
    predicted = pd.read_parquet(loop.folder / "predictions" / "2013-10")
    assert set(predicted["model_version"]) == {"models:/late-flights/2"}
    batches = loop.history()
    assert [batch["name"] for batch in batches] == ["2013-08", "2013-09", "2013-10"]
    assert [batch["model"] for batch in batches] == [f"models:/late-flights/{version}" for version in (1, 1, 2)]
    page = loop.output(loop.runs("monitor-and-retrain")[-1], "record-batch-2", "page").read_text()
    assert "2013-09" in page


def test_all_done_is_not_done_again(loop: Loop) -> None:
    before = len(list_runs(loop.root))
    output = loop.run(*loop.backfill("2013-08-01", "2013-11-01"))
    assert output.count("has done this already") == 6
    assert len(list_runs(loop.root)) == before
    assert len(loop.mail.mails) == 1


def test_a_failure_is_told(loop: Loop) -> None:
    (loop.folder / "flights" / "2013-11.csv.gz").write_bytes(b"this is not gzip")
    process = loop.start(*loop.backfill("2013-11-01", "2013-12-01"))
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1
    assert "ingest-files" in output
    assert len(loop.mail.mails) == 2
    assert "failed" in str(loop.mail.mails[1].message["Subject"]).lower()


def test_a_wrong_schedule_is_refused_before_anything_runs(loop: Loop) -> None:
    before = len(list_runs(loop.root))
    process = loop.start("backfill", "train.yaml", "--start", "2013-08-01", "--end", "2013-10-01")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "the file of parameters has no `schedule:`" in output
    assert len(list_runs(loop.root)) == before
