"""The commands for runs and schedules, on this machine and on Kubeflow: what they print, and their exit codes."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeparts.cli import app
from pipeparts.schedules import Schedule
from pipeparts.targets.kubeflow import KubeflowTarget
from pipeparts.targets.local_runs import list_runs
from tests.targets.kubeflow_server import KubeflowServer

PIPELINE = """
from kfp import compiler, dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def say(text: str) -> str:
    return text


@dsl.pipeline(name="talk")
def talk(text: str):
    say(text=text)


compiler.Compiler().compile(talk, "talk.yaml")
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    (folder / "talk.py").write_text(PIPELINE)
    subprocess.run([sys.executable, "talk.py"], cwd=folder, check=True)
    return folder / "talk.yaml"


@pytest.fixture
def here(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.yaml").write_bytes(compiled.read_bytes())
    content = {
        "pipeline": "talk.yaml",
        "schedule": {"cron": "0 5 1 * *", "time_zone": "Europe/Paris"},
        "parameters": {"text": "about {start:%Y-%m}"},
    }
    (tmp_path / "monthly.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def call(*arguments: object, **environment: str) -> Result:
    settings = {"COLUMNS": "170", "NO_COLOR": "1", **environment}
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=settings)


@pytest.mark.slow
def test_a_run_in_the_background_of_this_machine(here: Path) -> None:
    started = call("submit", "talk.yaml", "--target", "local", "-p", "text=hello", "--once", "k1")
    assert started.exit_code == 0, started.output
    assert started.stdout.startswith("started talk as 2")
    (run,) = list_runs(here / ".pipeparts")
    waited = call("wait", run["run_id"])
    assert waited.exit_code == 0
    assert waited.stderr.startswith(f"run {run['run_id']} of talk, 1 steps, on local")
    assert "say: done, " in waited.stderr
    assert waited.stdout.splitlines()[0] == f"found talk as {run['run_id']} on local: succeeded"
    shown = call("status")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"talk  run {run['run_id']} on local: succeeded")
    assert "say" in shown.stdout
    (output,) = json.loads(call("outputs", "--json").stdout)
    assert (output["task"], output["name"], output["value"]) == ("say", "Output", "hello")
    assert "hello" in call("outputs", run["run_id"]).stdout
    again = call("submit", "talk.yaml", "--target", "local", "-p", "text=hello", "--once", "k1", "--wait", "--json")
    answer = json.loads(again.stdout)
    assert (answer["run_id"], answer["new"]) == (run["run_id"], False)
    assert call("cancel", run["run_id"]).stdout == f"talk as {run['run_id']} on local: succeeded\n"
    assert call("wait", "nothing").exit_code == 2


def test_what_would_not_run_is_not_submitted(here: Path, kubeflow: KubeflowServer) -> None:
    text = (here / "talk.yaml").read_text().replace("pipeparts-python-data", "python:latest")
    (here / "talk.yaml").write_text(text)
    environment = {"PIPEPARTS_HOST": kubeflow.host, "HOME": "/nowhere"}
    refused = call("submit", "talk.yaml", "--target", "kubeflow", "-p", "text=a", **environment)
    assert refused.exit_code == 2
    assert "error: the pipeline would not run on kubeflow" in refused.stderr
    assert "P3 say: the image is python:latest" in refused.stderr
    assert not kubeflow.runs
    allowed = call("submit", "talk.yaml", "--target", "kubeflow", "-p", "text=a", "--no-check", **environment)
    assert allowed.exit_code == 0, allowed.output
    assert len(kubeflow.runs) == 1


def test_runs_of_a_platform_are_listed(here: Path, kubeflow: KubeflowServer) -> None:
    environment = {"PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "registry.example/a", "HOME": "/nowhere"}
    call("submit", "talk.yaml", "--target", "kubeflow", "-p", "text=a", "--once", "k1", **environment)
    (run,) = kubeflow.runs
    listed = call("runs", "--target", "kubeflow", **environment)
    assert run in listed.stdout
    assert "talk" in listed.stdout
    (found,) = json.loads(call("runs", "--target", "kubeflow", "--json", **environment).stdout)
    assert (found["pipeline"], found["key"], found["state"]) == ("talk", "k1", "running")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_who_stops_waiting_is_told_that_the_run_goes_on(
    here: Path, kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KubeflowTarget, "wait", interrupted)
    where = {"PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "reg.example.org/ml"}
    stopped = call("submit", "talk.yaml", "--target", "kubeflow", "-p", "text=hello", "--wait", *form, **where)
    assert stopped.exit_code == 130
    (run,) = kubeflow.runs
    assert f"the run goes on: `pipeparts wait {run} --target kubeflow` waits for it" in stopped.stderr


def test_a_run_that_has_given_nothing_yet(here: Path, kubeflow: KubeflowServer) -> None:
    where = {"PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "reg.example.org/ml"}
    assert call("submit", "talk.yaml", "--target", "kubeflow", "-p", "text=hello", **where).exit_code == 0
    asked = call("outputs", "--target", "kubeflow", **where)
    assert (asked.exit_code, asked.stdout) == (0, "no outputs yet\n"), asked.output
    assert json.loads(call("outputs", "--target", "kubeflow", "--json", **where).stdout) == []


def test_schedules_of_this_machine(here: Path) -> None:
    made = call("schedule", "create", "monthly.yaml")
    assert made.exit_code == 0, made.output
    assert "talk-monthly" in made.stdout
    assert "0 5 1 * * Europe/Paris" in made.stdout
    assert "active (created)" in made.stdout
    assert "unchanged" in call("schedule", "create", "monthly.yaml").stdout
    (listed,) = json.loads(call("schedule", "list", "--json").stdout)
    assert (listed["name"], listed["state"], listed["pipeline"]) == ("talk-monthly", "active", "talk")
    assert "paused" in call("schedule", "pause", "talk-monthly").stdout
    assert "resumed" in call("schedule", "resume", "talk-monthly").stdout
    assert call("schedule", "pause", "talk-montly").exit_code == 2
    assert "deleted" in call("schedule", "delete", "talk-monthly").stdout
    assert call("schedule", "list").stdout == "no schedules\n"
    (here / "plain.yaml").write_text("pipeline: talk.yaml\nparameters: {text: a}\n")
    assert "has no `schedule:`" in call("schedule", "create", "plain.yaml").stderr


def test_a_schedule_that_names_the_window_goes_through_run_scheduled(here: Path, kubeflow: KubeflowServer) -> None:
    environment = {
        "PIPEPARTS_HOST": kubeflow.host,
        "PIPEPARTS_REGISTRY": "registry.example/a",
        "PIPEPARTS_SCHEDULE_TIME_ZONE": "Europe/Paris",
        "HOME": "/nowhere",
    }
    refused = call("schedule", "create", "monthly.yaml", "--target", "kubeflow", **environment)
    assert "a pipeline that its step can read" in refused.stderr
    content = yaml.safe_load((here / "monthly.yaml").read_text())
    content["pipeline"] = "predict_batch"
    content["parameters"] = {
        "source": "gs://bucket/{start:%Y-%m}.csv",
        "model_name": "m",
        "keys": ["id"],
        "destination": "gs://bucket/out",
    }
    (here / "monthly.yaml").write_text(yaml.safe_dump(content))
    made = call("schedule", "create", "monthly.yaml", "--target", "kubeflow", **environment)
    assert made.exit_code == 0, made.output
    (stored,) = kubeflow.recurring.values()
    sent = stored["runtime_config"]["parameters"]
    assert stored["trigger"]["cron_schedule"]["cron"] == "0 0 5 1 * *"
    assert sent["pipeline"] == "predict_batch"
    assert sent["parameters"]["source"] == "gs://bucket/{start:%Y-%m}.csv"
    assert sent["schedule"] == {"cron": "0 5 1 * *", "time_zone": "Europe/Paris"}
    assert sent["settings"]["registry"] == "registry.example/a"
    plain = call("schedule", "create", "monthly.yaml", "--plain", "--target", "kubeflow", **environment)
    assert "this one names the window" in plain.stderr
    utc = {**environment, "PIPEPARTS_SCHEDULE_TIME_ZONE": "UTC"}
    assert "has another time zone" in call("schedule", "create", "monthly.yaml", "--target", "kubeflow", **utc).stderr


@pytest.mark.slow
def test_the_scheduler_runs_each_window_once(here: Path) -> None:
    assert call("schedule", "create", "monthly.yaml").exit_code == 0
    assert call("scheduler", "--once").stdout == "nothing is due\n", "what was over before does not count"
    path = here / ".pipeparts" / "schedules" / "talk-monthly" / "schedule.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({**known, "since": "2013-01-01T00:00:00+00:00"}))
    done = call("scheduler", "--once")
    assert done.exit_code == 0, done.output
    (run,) = list_runs(here / ".pipeparts")
    assert run["arguments"]["text"].startswith("about 20")
    assert call("scheduler", "--once").stdout == "nothing is due\n"
    path.write_text(json.dumps({**known, "since": "2013-01-01T00:00:00+00:00", "paused": True}))
    assert call("scheduler", "--once").stdout == "nothing is due\n"
    assert len(list_runs(here / ".pipeparts")) == 1


@pytest.mark.slow
def test_the_scheduler_serves_until_it_is_stopped(here: Path) -> None:
    (here / "often.yaml").write_text("pipeline: talk.yaml\nschedule: {cron: '0 0 * * *'}\nparameters: {text: a}\n")
    assert call("schedule", "create", "often.yaml").exit_code == 0
    path = here / ".pipeparts" / "schedules" / "talk-often" / "schedule.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "since": "2013-01-01T00:00:00+00:00"}))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeparts.cli", "scheduler"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
    )
    deadline = time.monotonic() + 60
    while not any(run["state"] == "succeeded" for run in list_runs(here / ".pipeparts")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "waiting for what is due" in output
    assert len(list_runs(here / ".pipeparts")) == 1


@pytest.mark.slow
def test_missed_windows_are_made_up_for_as_far_as_is_asked(here: Path) -> None:
    content = {
        "pipeline": "talk.yaml",
        "schedule": {"cron": "0 5 1 * *"},
        "parameters": {"text": "about {start:%Y-%m}"},
    }
    (here / "monthly.yaml").write_text(yaml.safe_dump(content))
    call("schedule", "create", "monthly.yaml")
    path = here / ".pipeparts" / "schedules" / "talk-monthly" / "schedule.json"
    now = dt.datetime.now(dt.UTC)
    since = (now - dt.timedelta(days=96)).isoformat()
    path.write_text(json.dumps({**json.loads(path.read_text()), "since": since}))
    months = [
        f"about {window.start:%Y-%m}" for window in itertools.islice(Schedule(cron="0 5 1 * *").past_windows(now), 3)
    ]
    assert call("scheduler", "--once").exit_code == 0
    assert [run["arguments"]["text"] for run in list_runs(here / ".pipeparts")] == months[:1]
    assert call("scheduler", "--once").stdout == "nothing is due\n", "the older ones are left out"
    done = call("scheduler", "--once", "--catch-up", "0")
    assert done.exit_code == 0, done.output
    newest_first = [run["arguments"]["text"] for run in list_runs(here / ".pipeparts")]
    assert newest_first == [months[1], months[2], months[0]], "the earliest first"
    assert call("scheduler", "--once", "--catch-up", "0").stdout == "nothing is due\n"


HOLD = """
from kfp import compiler, dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def hold(folder: str, name: str):
    import os
    import time

    open(os.path.join(folder, f"{name}.began"), "a").close()
    while not os.path.exists(os.path.join(folder, f"{name}.go")):
        time.sleep(0.05)


@dsl.pipeline(name="hold")
def holding(folder: str, name: str):
    hold(folder=folder, name=name).set_caching_options(False)


compiler.Compiler().compile(holding, "hold.yaml")
"""


@pytest.fixture
def serving(here: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the scheduler with two schedules that are due: "one" and "two", whose runs go on until they are let go."""
    (here / "hold.py").write_text(HOLD)
    subprocess.run([sys.executable, "hold.py"], cwd=here, check=True)
    for name in ("one", "two"):
        parameters = {"folder": str(here), "name": name}
        content = {"pipeline": "hold.yaml", "schedule": {"cron": "0 0 * * *"}, "parameters": parameters}
        (here / f"{name}.yaml").write_text(yaml.safe_dump(content))
        assert call("schedule", "create", f"{name}.yaml", "--name", name).exit_code == 0
        path = here / ".pipeparts" / "schedules" / name / "schedule.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "since": "2013-01-01T00:00:00+00:00"}))
    started: list[subprocess.Popen[str]] = []

    def serve() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeparts.cli", "scheduler"],
            cwd=here,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PIPEPARTS_STOP_SECONDS": "3"},
        )
        started.append(process)
        return process

    yield serve
    for name in ("one", "two"):
        (here / f"{name}.go").touch()
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for run in list_runs(here / ".pipeparts"):
        call("cancel", run["run_id"])


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


@pytest.mark.slow
def test_schedules_run_side_by_side_and_a_run_that_is_stopped_stops_no_other(
    here: Path, serving: Callable[[], subprocess.Popen[str]]
) -> None:
    process = serving()
    until(lambda: (here / "one.began").exists() and (here / "two.began").exists())
    runs = {run["arguments"]["name"]: run["run_id"] for run in list_runs(here / ".pipeparts")}
    assert call("cancel", runs["one"]).exit_code == 0
    (here / "two.go").touch()
    folder = here / ".pipeparts" / "schedules"
    until(lambda: list((folder / "one").glob("*.done")) and list((folder / "two").glob("*.done")))
    assert process.poll() is None, "the scheduler goes on"
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert f"hold as {runs['one']}: interrupted" in output
    assert f"hold as {runs['two']}: succeeded" in output
    assert len(list_runs(here / ".pipeparts")) == 2


@pytest.mark.slow
def test_a_scheduler_that_is_stopped_stops_its_runs_and_runs_them_again(
    here: Path, serving: Callable[[], subprocess.Popen[str]]
) -> None:
    process = serving()
    until(lambda: (here / "one.began").exists() and (here / "two.began").exists())
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert {run["state"] for run in list_runs(here / ".pipeparts")} == {"interrupted"}
    (here / "one.go").touch()
    (here / "two.go").touch()
    done = call("scheduler", "--once")
    assert done.exit_code == 0, done.output
    states = sorted(run["state"] for run in list_runs(here / ".pipeparts"))
    assert states == ["interrupted", "interrupted", "succeeded", "succeeded"]


@pytest.mark.slow
def test_a_scheduler_that_was_killed_finds_its_runs(here: Path, serving: Callable[[], subprocess.Popen[str]]) -> None:
    process = serving()
    until(lambda: (here / "one.began").exists() and (here / "two.began").exists())
    process.kill()
    process.communicate()
    (here / "one.go").touch()
    (here / "two.go").touch()
    done = call("scheduler", "--once")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("found run") == 2
    assert [run["state"] for run in list_runs(here / ".pipeparts")] == ["succeeded", "succeeded"]


def test_data_that_changes_goes_through_run_scheduled(here: Path, kubeflow: KubeflowServer) -> None:
    """Its version is looked up by each run; kept from now on, it would have every run take the first one's table."""
    environment = {"PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "registry.example/a", "HOME": "/nowhere"}
    content = {
        "pipeline": "predict_batch",
        "schedule": {"cron": "0 5 * * *"},
        "parameters": {
            "source": "gs://bucket/today.csv",
            "model_name": "m",
            "keys": ["id"],
            "destination": "gs://bucket/out",
        },
    }
    (here / "daily.yaml").write_text(yaml.safe_dump(content))
    plain = call("schedule", "create", "daily.yaml", "--plain", "--target", "kubeflow", **environment)
    assert "the data's version would stay what it is now" in plain.stderr
    made = call("schedule", "create", "daily.yaml", "--target", "kubeflow", **environment)
    assert made.exit_code == 0, made.output
    (stored,) = kubeflow.recurring.values()
    assert stored["runtime_config"]["parameters"]["pipeline"] == "predict_batch"
    assert "source_version" not in stored["runtime_config"]["parameters"]["parameters"]


@pytest.mark.slow
def test_once_per_window(here: Path, kubeflow: KubeflowServer) -> None:
    environment: dict[str, Any] = {
        "PIPEPARTS_HOST": kubeflow.host,
        "PIPEPARTS_REGISTRY": "registry.example/a",
        "HOME": "/nowhere",
    }
    base = ("submit", "--params", "monthly.yaml", "--target", "kubeflow", "--once-per-window")
    for moment in ("2013-09-02", "2013-09-20", "2013-10-02"):
        assert call(*base, "--at", moment, **environment).exit_code == 0
    texts = [run["runtime_config"]["parameters"]["text"] for run in kubeflow.runs.values()]
    assert texts == ["about 2013-08", "about 2013-09"]
    refused = call(*base, "--once", "k1", **environment)
    assert "there is no window to run once for" in refused.stderr
    local = ("run", "--params", "monthly.yaml", "--once-per-window", "--at", "2013-09-02")
    assert call(*local).exit_code == call(*local).exit_code == 0
    assert len(list_runs(here / ".pipeparts")) == 1
