"""Tests of the logic of `trigger_pipeline`; against Kubeflow and Vertex AI: tests/targets, killed: tests/local."""

import json
import logging
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl

from pipeparts.components.monitoring.trigger_pipeline import logic
from pipeparts.components.monitoring.trigger_pipeline.logic import trigger_pipeline
from pipeparts.errors import ContractError, DataError, InputError, ServiceError
from pipeparts.runtime.monitoring import Decision, write_report


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def note(path: str, text: str, options: dict, number: float, fail: bool) -> str:
    import json

    from pipeparts.runtime.errors import DataError

    with open(path, "a") as file:  # noqa: PTH123
        file.write(json.dumps([text, options, number]) + "\n")
    if fail:
        raise DataError("the rows are not good", where="row 7", allowed="good ones", received="bad ones")
    return text


@dsl.pipeline(name="noting")
def noting(path: str, text: str = "a", options: dict = {}, number: float = 0.0, fail: bool = False) -> str:  # noqa: B006
    return note(path=path, text=text, options=options, number=number, fail=fail).output


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("noting") / "noting.yaml"
    compiler.Compiler().compile(noting, str(path))
    return path


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    """The environment of a step of a local run."""
    monkeypatch.setenv("PIPEPARTS_ROOT", str(tmp_path / "root"))
    for name in ("KFP_POD_NAME", "KFP_RUN_ID", "CLOUD_ML_PROJECT_ID", "CLOUD_ML_JOB_ID", "AIP_MODEL_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trigger(tmp_path, compiled):
    def start(**arguments):
        given = {"pipeline": str(compiled), "key": "k1", "triggered_path": tmp_path / "triggered.json", **arguments}
        given.setdefault("parameters", {"path": str(tmp_path / "notes")})
        return trigger_pipeline(**given)

    return start


def decide(folder, *, retrain=True, name="d1"):
    path = folder / f"{name}.json"
    facts = {"as_of": "2013-09-01T00:00:00Z", "model": "models:/m/1", "batch": "abc", "triggers": (), "guards": ()}
    write_report(path, Decision(id=name, retrain=retrain, reasons=("temp drifted", "cool-down is over"), **facts))
    return path


def notes(folder):
    path = folder / "notes"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_once_per_key_and_the_same_bytes(tmp_path, trigger, caplog):
    caplog.set_level(logging.INFO)
    written = trigger()
    first = (tmp_path / "triggered.json").read_bytes()
    assert json.loads(first) == written
    assert set(written) == {"format", "platform", "run_id", "pipeline", "key", "state", "link"}
    assert (written["platform"], written["pipeline"], written["key"], written["state"]) == (
        "local", "noting", "k1", "succeeded",
    )  # fmt: skip
    assert "started run" in caplog.text
    assert trigger() == written
    assert (tmp_path / "triggered.json").read_bytes() == first
    assert "had been started before run" in caplog.text
    assert len(notes(tmp_path)) == 1
    assert trigger(key="k2")["run_id"] != written["run_id"]


def test_parameters_come_through_as_they_are(tmp_path, trigger):
    options = {"rate": 1e-05, "text": "yes", "number": "2013", "ü": ["ß", {"a": False}, True], "date": "2013-08-01"}
    trigger(parameters={"path": str(tmp_path / "notes"), "text": "1e5: #\n'x'", "options": options, "number": 1e-07})
    assert notes(tmp_path) == [["1e5: #\n'x'", options, 1e-07]]


def test_the_key_is_the_decision_s(tmp_path, trigger):
    assert trigger(key="", decision_path=decide(tmp_path))["key"] == "d1"
    assert trigger(key="mine", decision_path=decide(tmp_path))["key"] == "mine"
    with pytest.raises(InputError, match="nothing says what the run happens once for"):
        trigger(key=" ")


def test_a_decision_that_says_no(tmp_path, trigger):
    with pytest.raises(DataError, match="the decision is not to train again") as caught:
        trigger(decision_path=decide(tmp_path, retrain=False))
    assert caught.value.facts["received"] == "temp drifted; cool-down is over"
    (tmp_path / "other.json").write_text('{"format": "pipeparts.drift/1"}')
    with pytest.raises(ContractError, match="not a decision"):
        trigger(decision_path=tmp_path / "other.json")
    assert not notes(tmp_path)
    assert not (tmp_path / "triggered.json").exists()


def test_a_failed_run_fails_the_step_with_its_error(tmp_path, trigger):
    parameters = {"path": str(tmp_path / "notes"), "fail": True}
    with pytest.raises(ServiceError) as caught:
        trigger(parameters=parameters)
    lines = caught.value.headline.splitlines()
    assert lines[:3] == [
        "the triggered run of noting failed",
        "  note failed",
        "    the rows are not good",
    ]
    assert "      where: row 7" in lines
    assert any(line.strip().startswith("log: ") and line.endswith("/log.txt") for line in lines)
    assert caught.value.facts["where"].startswith(str(tmp_path / "root" / "runs"))
    assert not (tmp_path / "triggered.json").exists()
    assert trigger()["state"] == "succeeded", "the same key, once it is mended"
    assert len(notes(tmp_path)) == 2


@pytest.mark.parametrize(
    ("parameters", "headline", "facts"),
    [
        ({"pth": "x"}, "pipeline 'noting' has no parameter of this name", {"hint": "did you mean 'path'?"}),
        ({}, "pipeline 'noting' needs a parameter that was not given", {"parameter": "path"}),
        ({"path": 3}, "parameter 'path' has a value of the wrong type", {"received": "a whole number: 3"}),
        ({"path": "x", "options": []}, "parameter 'options' has a value of the wrong type", {"received": "a list: []"}),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, trigger, parameters, headline, facts):
    with pytest.raises(InputError) as caught:
        trigger(parameters=parameters)
    assert caught.value.headline == headline
    assert facts.items() <= caught.value.facts.items()
    assert not list((tmp_path / "root").glob("runs/*"))


def test_wrong_settings_are_refused(trigger):
    with pytest.raises(InputError, match="target 'local' has no setting of this name") as caught:
        trigger(settings={"cash": False})
    assert caught.value.facts["hint"] == "did you mean 'cache'?"
    with pytest.raises(InputError, match="a key that no run can have"):
        trigger(key="a b")


def test_settings_for_other_platforms_do_no_harm_and_own_ones_win(tmp_path, trigger, monkeypatch):
    trigger()
    monkeypatch.setenv("PIPEPARTS_CACHE", "true")
    settings = {"cache": False, "registry": "europe-docker.pkg.dev/p/r", "images": {"data": "x:1"}}
    trigger(key="k2", settings=settings)
    assert len(notes(tmp_path)) == 2, "nothing came from the cache"


def test_not_waiting_is_waiting_on_a_laptop(trigger, caplog):
    caplog.set_level(logging.INFO)
    assert trigger(wait=False)["state"] == "succeeded"
    assert "on this machine the run is waited for" in caplog.text


# --- Where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "platform"),
    [
        ({"PIPEPARTS_ROOT": "/x", "KFP_POD_NAME": "a"}, "local"),
        ({"KFP_POD_NAME": "a"}, "kubeflow"),
        ({"KFP_RUN_ID": "a"}, "kubeflow"),
        ({"CLOUD_ML_PROJECT_ID": "123"}, "vertex"),
        ({"AIP_MODEL_DIR": "gs://a"}, "vertex"),
    ],
)
def test_the_platform_is_told_by_the_environment(monkeypatch, environment, platform):
    monkeypatch.delenv("PIPEPARTS_ROOT")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert logic._target("auto") == platform


def test_a_platform_that_cannot_be_told(trigger, monkeypatch):
    monkeypatch.delenv("PIPEPARTS_ROOT")
    with pytest.raises(InputError, match="cannot tell which platform this step runs on") as caught:
        trigger()
    assert caught.value.facts["allowed"] == "local, kubeflow, vertex"
    for name in ("PIPEPARTS_ROOT", "KFP_POD_NAME", "KFP_RUN_ID", "CLOUD_ML_PROJECT_ID"):
        assert name in caught.value.facts["received"]
    with pytest.raises(InputError, match="this step does not run on a laptop"):
        trigger(platform="local")
    with pytest.raises(InputError, match="no platform of this name") as caught:
        trigger(platform="kubflow")
    assert caught.value.facts["hint"] == "did you mean 'kubeflow'?"


# --- What -------------------------------------------------------------------------------------------------------------


def test_pipelines_of_the_library(tmp_path):
    with logic._file_of("train-and-register", tmp_path) as path:
        assert path.name == "compiled.yaml"
        assert yaml.safe_load(path.read_text())["pipelineInfo"]["name"] == "train-and-register"
    with (
        pytest.raises(InputError, match="no pipeline of this name") as caught,
        logic._file_of("train_regster", tmp_path),
    ):
        pass
    assert "train_and_register" in caught.value.facts["allowed"]


def test_a_pipeline_over_http(tmp_path, trigger, compiled):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=compiled.parent))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        assert trigger(pipeline=f"{address}/noting.yaml")["pipeline"] == "noting"
        with pytest.raises(InputError, match="no such file"):
            trigger(pipeline=f"{address}/nothing.yaml")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(ServiceError, match="the server does not answer"):
        trigger(pipeline=f"{address}/noting.yaml")


@pytest.mark.parametrize(
    ("content", "headline"),
    [
        (b"", "not a compiled KFP v2 pipeline"),
        (b"a: [", "the pipeline is not YAML"),
        (b"a: 1\n---\nb: 2\n", "the pipeline is not one YAML document"),
        (b"kind: Workflow\n", "not a compiled KFP v2 pipeline"),
        (b"\xff\xfe", "cannot read the pipeline"),
    ],
)
def test_what_is_no_pipeline(tmp_path, trigger, content, headline):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        trigger(pipeline=str(tmp_path / "x.yaml"))
    assert caught.value.headline == headline


def test_addresses_that_name_nothing(tmp_path, trigger, monkeypatch):
    with pytest.raises(InputError, match="no file matches the source"):
        trigger(pipeline=str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="a source with a scheme that is not known"):
        trigger(pipeline="gopher://host/x.yaml")
    with pytest.raises(InputError, match="no source is given"):
        trigger(pipeline=" ")
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").touch()
    with pytest.raises(InputError, match="not one pipeline"):
        trigger(pipeline=str(tmp_path / "*.yaml"))
    monkeypatch.setattr(logic, "_LARGEST", 10)
    (tmp_path / "a.yaml").write_text("x" * 11)
    with pytest.raises(InputError, match="too large for a compiled pipeline"):
        trigger(pipeline=str(tmp_path / "a.yaml"))


# --- The command ------------------------------------------------------------------------------------------------------


def test_a_command_that_dies_without_an_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(logic.sys, "executable", "/bin/false")
    with pytest.raises(ServiceError, match="ended without an answer") as caught:
        logic._ask(logic._Call(["run"], dict(os.environ)))
    assert "it ended with exit code 1" in caught.value.facts["received"]
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(logic.sys, "executable", str(script))
    with pytest.raises(ServiceError) as caught:
        logic._ask(logic._Call(["run"], dict(os.environ)))
    assert "it ended by signal 9" in caught.value.facts["received"]


def test_secrets_stay_out_of_the_command_line(monkeypatch, trigger, tmp_path):
    seen = []
    monkeypatch.setattr(
        logic, "_ask", lambda call: seen.append(call) or {"error": {"type": "X", "headline": "no", "facts": {}}}
    )
    with pytest.raises(ServiceError, match="no"):
        trigger(parameters={"path": "hush"}, settings={"environment": {"A": "hush"}})
    (call,) = seen
    assert "hush" not in " ".join(call.arguments)
    assert "_KFP_RUNTIME" not in call.environment
    assert not Path(call.arguments[call.arguments.index("--params") + 1]).exists(), "the files are gone"
