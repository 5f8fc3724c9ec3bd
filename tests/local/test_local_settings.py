"""Settings for steps in real local runs: variables, secrets, retries, limits of time, caching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError
from pipeparts.targets import local
from pipeparts.targets.base import RunResult
from pipeparts.targets.local_record import failures
from pipeparts.targets.local_target import LocalTarget

SECRET = "s3cret-of-the-team"


@pytest.fixture
def go(sample: Callable[[str], Path], root: Path) -> Callable[..., RunResult]:
    """Runs a sample pipeline with settings of the test's own."""

    def start(name: str, arguments: dict[str, Any], **settings: Any) -> RunResult:
        config = LocalConfig.model_validate({"root": root, "stop_seconds": 3, **settings})
        return local.run(sample(name), arguments, config)

    return start


Go = Callable[..., RunResult]


def test_a_step_has_its_variables_and_its_secrets(go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", SECRET)
    (tmp_path / "password").write_text("of-a-file\n")
    secrets = {"TOKEN": {"local": "env:TEAM_TOKEN"}, "PASSWORD": {"local": f"file:{tmp_path}/password"}}
    settings = {
        "environment": {"GREETING": "of the run", "OTHER": "of the run"},
        "defaults": {"environment": {"GREETING": "of the step"}, "secrets": secrets, "cpu": 2},
    }
    result = go("told", {"names": ["GREETING", "OTHER", "TOKEN", "PASSWORD"]}, **settings)
    assert result.state == "succeeded", result.record["error"]
    told = result.record["tasks"][0]["outputs"]["Output"]["value"]
    assert told == {"GREETING": "of the step", "OTHER": "of the run", "TOKEN": SECRET, "PASSWORD": "of-a-file"}
    # This step has told what it knows, in its output. What the target itself has written keeps to the references.
    names = ("pipeline.yaml", "local.json", "job.json", "step_settings.json")
    written = {name: (result.folder / name).read_text() for name in names}
    assert "env:TEAM_TOKEN" in written["step_settings.json"]
    assert not [name for name, text in written.items() if SECRET in text or "of-a-file" in text]


def test_a_secret_that_is_not_there_is_said_before_anything_runs(
    go: Go, sample: Callable[[str], Path], tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEAM_TOKEN", raising=False)
    settings = {"steps": {"surroundings": {"secrets": {"TEAM_TOKEN": {}}}}}
    with pytest.raises(InputError, match="the secret is not where its reference says") as caught:
        go("seen", {"marks": str(tmp_path / "marks")}, **settings)
    assert caught.value.facts["parameter"] == "secrets.TEAM_TOKEN of surroundings"
    with pytest.raises(InputError, match="the secret is not where its reference says"):
        config = LocalConfig.model_validate({"root": root, **settings})
        LocalTarget(config).submit(compiling.read_yaml(sample("seen")), {"marks": str(tmp_path / "marks")}, key="k")
    assert not list((root / "runs").glob("*"))


def test_a_step_is_tried_again_as_often_as_the_settings_say(go: Go, tmp_path: Path) -> None:
    path = str(tmp_path / "tries")
    once = go("tried_once", {"path": path})
    assert once.state == "failed"
    again = go("tried_once", {"path": path}, steps={"flaky": {"retries": {"count": 2, "backoff_seconds": 0}}})
    assert again.state == "succeeded"
    assert again.record["tasks"][0]["attempt"] == 2


def test_a_step_that_is_not_cached(go: Go, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    arguments = {"marks": str(marks)}
    go("basic", arguments)
    second = go("basic", arguments, steps={"use": {"cache": False}})
    assert {task["id"]: task["state"] for task in second.record["tasks"]} == {"make": "cached", "use": "succeeded"}


def test_variables_of_a_step_are_a_part_of_the_caches_key_and_limits_of_time_are_not(go: Go, tmp_path: Path) -> None:
    arguments = {"marks": str(tmp_path / "marks")}

    def states(**defaults: Any) -> set[str]:
        return {task["state"] for task in go("basic", arguments, defaults=defaults).record["tasks"]}

    assert states() == {"succeeded"}
    assert states(timeout_seconds=500) == {"cached"}
    assert states(environment={"A": "1"}) == {"succeeded"}


def test_a_step_whose_time_is_over_fails_and_is_tried_again(go: Go) -> None:
    result = go("hanging", {"how": "gently"}, defaults={"timeout_seconds": 1, "retries": 1})
    # Its time may be over before it is at its first line: on a busy machine a second is short.
    assert result.state == "failed"
    (failure,) = failures(result.record)
    assert failure["attempt"] == 2
    assert failure["error"]["message"] == (
        "the step's time is over\n  parameter: timeout_seconds\n  allowed: an end within 1 s\n  received: no end"
    )


@pytest.mark.slow
def test_a_step_whose_time_is_over_can_clean_up(go: Go) -> None:
    result = go("hanging", {"how": "gently"}, defaults={"timeout_seconds": 15})
    (failure,) = failures(result.record)
    assert "cleaned up" in (result.folder / failure["log"]).read_text()


def test_a_step_that_ends_in_time(go: Go, tmp_path: Path) -> None:
    result = go("basic", {"marks": str(tmp_path / "marks")}, defaults={"timeout_seconds": 500})
    assert result.state == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stubborn", "native"])
def test_a_step_that_would_not_stop_is_stopped(go: Go, how: str) -> None:
    result = go("hanging", {"how": how}, defaults={"timeout_seconds": 1})
    assert result.state == "failed"
    (failure,) = failures(result.record)
    assert "the step's time " in failure["error"]["message"]


def test_settings_for_a_step_that_does_not_exist(go: Go, tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="settings for a step that does not exist") as caught:
        go("basic", {"marks": str(tmp_path / "marks")}, steps={"usee": {"cache": False}})
    assert caught.value.facts["hint"] == "did you mean 'use'?"
    assert not (root / "runs").exists()
