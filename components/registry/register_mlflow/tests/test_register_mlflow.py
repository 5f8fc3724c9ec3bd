"""Tests of the logic of `register_mlflow`, on SQLite, on an MLflow server, and on one with PostgreSQL behind it."""

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pipeparts.components.registry.find_champion_mlflow.logic import find_champion_mlflow
from pipeparts.components.registry.register_mlflow import logic
from pipeparts.components.registry.register_mlflow.logic import register_mlflow
from pipeparts.errors import ContractError, DataError, InputError, ServiceError
from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.mlflow_registry import TURN_PREFIX
from tests.mlflow_services import mlflow_server, write_evaluation, write_model, write_verdict
from tests.services import postgres

ROOT = Path(__file__).parents[4]
PLACES = ["sqlite", "server", "server on postgresql"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory):
    """A SQLite registry, with a space in its path, that is there already."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('regi stry') / 'mlflow.db'}"
    mlflow_registry.connect(uri, create=True)
    return uri


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture(scope="module")
def postgres_uri(tmp_path_factory):
    with postgres() as database, mlflow_server(tmp_path_factory.mktemp("server"), database.url) as uri:
        yield uri


@pytest.fixture(params=PLACES)
def uri(request):
    names = dict(zip(PLACES, ["sqlite_uri", "server_uri", "postgres_uri"], strict=True))
    return request.getfixturevalue(names[request.param])


@pytest.fixture(autouse=True)
def _nothing_in_the_working_folder(tmp_path, monkeypatch):
    """Runs in a folder of its own, and sees that nothing is left there."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    yield
    assert list(work.iterdir()) == []


class Case:
    """A model name of its own in a registry, and what is needed to register under it."""

    def __init__(self, folder, uri):
        self.folder = folder
        self.uri = uri
        self.name = f"late flights {uuid.uuid4().hex[:6]}"
        self.evaluation = write_evaluation(folder)
        self.verdict = write_verdict(folder)

    def model(self, fingerprint="aa" * 16, **changes):
        folder = self.folder / f"model-{uuid.uuid4().hex[:6]}"
        return write_model(folder, fingerprint, **changes)

    def arguments(self, model=None, **arguments):
        return {
            "model_path": model or self.model(),
            "verdict_path": self.verdict,
            "evaluation_path": self.evaluation,
            "registration_path": self.folder / "registration.json",
            "model_name": self.name,
            "tracking_uri": self.uri,
            "run_name": "run-1",
            "pipeline_hash": "abc123",
        } | arguments

    def register(self, model=None, **arguments):
        return register_mlflow(**self.arguments(model, **arguments))

    def find(self, model):
        return find_champion_mlflow(model_path=model, model_name=self.name, tracking_uri=self.uri)

    @property
    def client(self):
        return mlflow_registry.connect(self.uri, create=True).client

    def versions(self):
        found = self.client.search_model_versions(f"name = '{self.name}'")
        return sorted(int(version.version) for version in found)

    def aliased(self):
        return int(self.client.get_registered_model(self.name).aliases["champion"])

    def runs(self):
        experiment = self.client.get_experiment_by_name(self.name)
        return self.client.search_runs([experiment.experiment_id])

    def logged_models(self):
        experiment = self.client.get_experiment_by_name(self.name)
        return self.client.search_logged_models([experiment.experiment_id])


@pytest.fixture
def case(tmp_path, uri):
    return Case(tmp_path, uri)


@pytest.fixture
def sqlite_case(tmp_path, sqlite_uri):
    return Case(tmp_path, sqlite_uri)


# --- What is registered ---------------------------------------------------------------------------------------------


def test_a_version_with_its_lineage_takes_the_alias(case):
    answer = case.register()
    assert json.loads((case.folder / "registration.json").read_text()) == answer
    assert answer["version"] == "1"
    assert answer["uri"] == f"models:/{case.name}/1"
    assert (answer["alias"], answer["promoted"], answer["replaced"]) == ("champion", True, "")
    assert answer["link"] == (
        f"{case.uri}/#/models/{case.name.replace(' ', '%20')}/versions/1" if case.uri.startswith("http") else ""
    )
    assert answer["tags"] == {
        "pipeparts.run": "run-1",
        "pipeparts.pipeline_hash": "abc123",
        "pipeparts.package_version": "0.1.0",
        "pipeparts.data_fingerprint": "dd" * 16,
        "pipeparts.model_fingerprint": "aa" * 16,
        "pipeparts.verdict": "passed 2 of 2 checks of validate_model",
        "pipeparts.compared_with": "",
        "pipeparts.framework": "lightgbm",
        "pipeparts.task": "regression",
        "pipeparts.label": "air_time",
    }
    version = case.client.get_model_version_by_alias(case.name, "champion")
    assert str(version.version) == "1"
    assert version.run_id == answer["run_id"]
    assert version.tags == answer["tags"]
    for text in ("Regression of `air_time`", "300 rows", "all 2 checks of validate_model", "| rmse | 4.25 |", "run-1"):
        assert text in version.description
    assert not [key for key in case.client.get_registered_model(case.name).tags if key.startswith(TURN_PREFIX)]


def test_the_run_has_parameters_metrics_verdict_and_evaluation(case, tmp_path):
    answer = case.register()
    run = case.client.get_run(answer["run_id"])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run-1"
    assert run.data.params == {
        "framework": "lightgbm",
        "task": "regression",
        "label": "air_time",
        "seed": "7",
        "training_rows": "300",
        "columns": "1",
        "rounds": "12",
        "hyperparameters.learning_rate": "0.1",
        "hyperparameters.leaves": "[31]",
    }
    assert run.data.metrics == {"rmse": 4.25, "r2": 0.9, "rows": 100.0}
    assert run.data.tags["pipeparts.model_fingerprint"] == "aa" * 16
    names = {file.path for file in case.client.list_artifacts(run.info.run_id)}
    assert names == {"verdict.json", "verdict.md", "evaluation.json"}
    (logged,) = case.logged_models()
    assert str(logged.status) == "READY"
    assert logged.source_run_id == run.info.run_id
    assert {metric.key: metric.value for metric in logged.metrics} == run.data.metrics


def test_the_champion_loads_with_mlflow_alone_and_has_its_signature(case, tmp_path):
    case.register()
    code = (
        "import mlflow, pandas, sys\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "assert model.metadata.signature.inputs.input_names() == ['distance']\n"
        "print(model.predict(pandas.DataFrame({'distance': [1.5]}))['prediction'].tolist())\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, f"models:/{case.name}@champion"],
        env={"PATH": os.environ["PATH"], "MLFLOW_TRACKING_URI": case.uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.stdout.strip().endswith("[3.0]"), result.stderr


def test_on_sqlite_the_files_are_beside_the_database(sqlite_case):
    sqlite_case.register()
    database = Path(sqlite_case.uri.removeprefix("sqlite:///"))
    (logged,) = sqlite_case.logged_models()
    found = database.parent / "mlflow-artifacts" / "models" / logged.model_id / "artifacts" / "MLmodel"
    assert found.is_file()


def test_numbers_that_are_none_and_names_that_mlflow_refuses_are_taken_as_far_as_they_go(sqlite_case):
    sqlite_case.evaluation.write_text(
        '{"format": "pipeparts.evaluation/1", "metrics": {"recall@0.5": 0.25, "auc": null, "ok": true, "text": "x",'
        ' "slices": {"JFK": {"rmse": 3}}, "huge": 1e999}}'
    )
    model = sqlite_case.model(extra={"long": "x" * 10_000, "nothing": None, "a|b": [1, {"c": 2}]})
    answer = sqlite_case.register(model)
    run = sqlite_case.client.get_run(answer["run_id"])
    assert run.data.metrics == {"recall_0.5": 0.25, "slices.JFK.rmse": 3.0}
    assert len(run.data.params["long"]) == 6000
    assert run.data.params["a_b"] == '[1, {"c": 2}]'


def test_more_parameters_and_metrics_than_one_request_takes(sqlite_case):
    write_evaluation(sqlite_case.folder, **{f"metric_{number}": number for number in range(1200)})
    model = sqlite_case.model(extra={f"parameter_{number}": number for number in range(250)})
    run = sqlite_case.client.get_run(sqlite_case.register(model)["run_id"])
    assert len(run.data.metrics) == 1200
    assert len(run.data.params) == 256


# --- Again, and against a champion ----------------------------------------------------------------------------------


def test_the_same_model_again_is_the_same_version(case):
    model = case.model()
    first = case.register(model)
    assert case.find(model) == ""
    second = case.register(model, run_name="run-2")
    assert second == first
    assert case.versions() == [1]
    assert len(case.runs()) == len(case.logged_models()) == 1


def test_a_better_model_takes_the_alias_from_the_one_it_was_compared_with(case):
    case.register()
    model = case.model("bb" * 16)
    champion = case.find(model)
    assert champion == f"models:/{case.name}/1"
    answer = case.register(model, champion=champion)
    assert (answer["version"], answer["promoted"], answer["replaced"]) == ("2", True, champion)
    assert answer["tags"]["pipeparts.compared_with"] == champion
    assert case.aliased() == 2
    assert case.find(model) == champion  # the unchanged run: the same verdict as before
    assert case.register(model, champion=champion) == answer | {"replaced": ""}


def test_a_champion_that_changed_meanwhile_keeps_the_alias(case):
    case.register()
    model = case.model("bb" * 16)
    champion = case.find(model)
    case.register(case.model("cc" * 16), champion=champion)  # another pipeline was quicker
    with pytest.raises(ServiceError, match="the champion changed meanwhile") as error:
        case.register(model, champion=champion)
    assert error.value.retryable
    assert f"models:/{case.name}/1" in error.value.facts["allowed"]
    assert error.value.facts["received"] == f"models:/{case.name}/2"
    assert "registered as version 3" in error.value.facts["hint"]
    assert not list(case.folder.glob("*.partial"))
    assert case.aliased() == 2
    # The pipeline runs again: the gate compares with the champion that there is now.
    champion = case.find(model)
    assert champion == f"models:/{case.name}/2"
    answer = case.register(model, champion=champion)
    assert (answer["version"], answer["promoted"], answer["replaced"]) == ("3", True, champion)
    assert answer["tags"]["pipeparts.compared_with"] == champion
    assert case.versions() == [1, 2, 3]
    assert {run.info.status for run in case.runs()} == {"FINISHED"}


def test_a_champion_that_came_or_went_meanwhile_is_a_changed_one(sqlite_case):
    sqlite_case.register()
    with pytest.raises(ServiceError, match="the champion changed meanwhile") as error:
        sqlite_case.register(sqlite_case.model("bb" * 16))
    assert error.value.facts["allowed"].endswith("no version")
    sqlite_case.client.delete_registered_model_alias(sqlite_case.name, "champion")
    with pytest.raises(ServiceError, match="the champion changed meanwhile") as error:
        sqlite_case.register(sqlite_case.model("cc" * 16), champion=f"models:/{sqlite_case.name}/1")
    assert error.value.facts["received"] == "no version"


def test_without_an_alias_nothing_is_promoted(sqlite_case):
    answer = sqlite_case.register(alias="")
    assert (answer["alias"], answer["promoted"]) == ("", False)
    assert sqlite_case.client.get_registered_model(sqlite_case.name).aliases == {}


def test_an_alias_that_was_taken_away_is_set_again(sqlite_case):
    model = sqlite_case.model()
    sqlite_case.register(model)
    sqlite_case.client.delete_registered_model_alias(sqlite_case.name, "champion")
    assert sqlite_case.register(model)["promoted"]
    assert sqlite_case.aliased() == 1
    assert sqlite_case.versions() == [1]


# --- Several at once ------------------------------------------------------------------------------------------------

REGISTER = """
import json, sys
import mlflow
from pipeparts.components.registry.register_mlflow.logic import register_mlflow
from pipeparts.errors import ServiceError
print("ready", flush=True)
sys.stdin.readline()
try:
    print(json.dumps(register_mlflow(**json.loads(sys.argv[1]))))
except ServiceError as error:
    print(json.dumps({"error": str(error)}))
"""


def at_once(case, models):
    """Registers each of the models in a process of its own, all from the same moment, and gives what each said."""
    processes = []
    for number, model in enumerate(models):
        registration = case.folder / f"registration-{number}.json"
        arguments = case.arguments(model, run_name=f"run-{number}", registration_path=registration)
        command = [sys.executable, "-c", REGISTER, json.dumps(arguments, default=str)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, **pipes))
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = []
    for process in processes:
        out, log = process.communicate(timeout=240)
        assert process.returncode == 0, log
        answers.append(json.loads(out.splitlines()[-1]))
    return answers


def test_two_pipelines_at_once_make_two_versions_and_one_champion(case):
    answers = at_once(case, [case.model("bb" * 16), case.model("cc" * 16)])
    (winner,) = [answer for answer in answers if "error" not in answer]
    (loser,) = [answer for answer in answers if "error" in answer]
    assert "the champion changed meanwhile" in loser["error"]
    assert case.versions() == [1, 2]
    assert case.aliased() == int(winner["version"])


def test_the_same_model_from_three_pipelines_at_once_is_one_version(case):
    model = case.model()
    answers = at_once(case, [model, model, model])
    assert [answer.get("version") for answer in answers] == ["1", "1", "1"], answers
    assert case.versions() == [1]
    assert case.aliased() == 1
    (run,) = case.runs()
    assert run.info.status == "FINISHED"
    assert len(case.logged_models()) == 1


def test_a_request_that_mlflow_repeated_leaves_one_version(sqlite_case, monkeypatch):
    from mlflow import MlflowClient

    create = MlflowClient.create_model_version

    def twice(*args, **kwargs):
        create(*args, **kwargs)
        return create(*args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    assert sqlite_case.register()["version"] == "1"
    assert sqlite_case.versions() == [1]


@pytest.mark.parametrize(
    "answer",
    [
        "BAD_REQUEST: (sqlite3.IntegrityError) UNIQUE constraint failed: params.key, params.run_uuid",
        'BAD_REQUEST: (psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "param_pk"',
        "BAD_REQUEST: (pymysql.err.IntegrityError) (1062, \"Duplicate entry 'a-b' for key 'params.PRIMARY'\")",
    ],
)
def test_parameters_that_another_registration_wrote_in_that_moment_are_no_failure(sqlite_case, monkeypatch, answer):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log_batch, refused = MlflowClient.log_batch, []

    def refuse_first(self, run_id, **batch):
        log_batch(self, run_id, **batch)
        if "params" in batch and not refused:
            refused.append(batch)
            raise MlflowException(answer)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse_first)
    assert sqlite_case.register()["version"] == "1"
    (run,) = sqlite_case.runs()
    assert refused
    assert len(run.data.params) == 9


# --- Killed half-way ------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from mlflow import MlflowClient
from pipeparts.components.registry.register_mlflow.logic import register_mlflow

method, when, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
original = getattr(MlflowClient, method)

def killed(*args, **kwargs):
    if when == "after":
        original(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(MlflowClient, method, killed)
register_mlflow(**arguments)
"""


@pytest.mark.parametrize(
    ("method", "when"),
    [
        ("create_run", "after"),
        ("create_logged_model", "after"),
        ("log_model_artifacts", "after"),
        ("log_batch", "after"),
        ("create_model_version", "before"),
        ("create_model_version", "after"),
        ("set_registered_model_alias", "after"),
        ("set_terminated", "before"),
    ],
)
def test_a_retry_completes_what_was_killed(sqlite_case, monkeypatch, method, when):
    arguments = sqlite_case.arguments()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, method, when, json.dumps(arguments, default=str)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (sqlite_case.folder / "registration.json").exists()
    monkeypatch.setattr(mlflow_registry, "_TURN_SECONDS", 4.0)  # a killed turn is passed over after a minute
    answer = register_mlflow(**arguments)
    assert (answer["version"], answer["promoted"]) == ("1", True)
    assert sqlite_case.versions() == [1]
    (run,) = sqlite_case.runs()
    assert run.info.status == "FINISHED"
    assert len(run.data.params) == 9
    assert len(run.data.metrics) == 3
    (logged,) = sqlite_case.logged_models()
    assert str(logged.status) == "READY"
    assert not [k for k in sqlite_case.client.get_registered_model(sqlite_case.name).tags if k.startswith(TURN_PREFIX)]


def test_a_failure_says_so_on_its_run(sqlite_case, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    from mlflow import MlflowClient

    with monkeypatch.context() as context:
        context.setattr(MlflowClient, "log_model_artifacts", full)
        with pytest.raises(OSError, match="No space left"):
            sqlite_case.register()
    (run,) = sqlite_case.runs()
    assert run.info.status == "FAILED"
    assert sqlite_case.versions() == []
    sqlite_case.register()
    (run,) = sqlite_case.runs()
    assert run.info.status == "FINISHED"


# --- The platform's run ---------------------------------------------------------------------------------------------


def test_the_platforms_run_is_joined_and_neither_renamed_nor_ended(case, monkeypatch):
    client = case.client
    mine = client.create_run(client.create_experiment(f"platform {case.name}"), run_name="nightly")
    client.log_param(mine.info.run_id, "seed", "99")
    client.log_metric(mine.info.run_id, "queue_seconds", 3.0)
    monkeypatch.setenv("MLFLOW_RUN_ID", mine.info.run_id)
    model = case.model()
    answer = case.register(model)
    assert answer["run_id"] == mine.info.run_id
    run = client.get_run(mine.info.run_id)
    assert (run.info.run_name, run.info.status, run.info.end_time) == ("nightly", "RUNNING", None)
    assert run.data.params["seed"] == "99"  # MLflow's parameters cannot be changed: what is there stays
    assert run.data.params["rounds"] == "12"
    assert run.data.metrics == {"queue_seconds": 3.0, "rmse": 4.25, "r2": 0.9, "rows": 100.0}
    assert client.get_experiment_by_name(case.name) is None
    assert case.register(model) == answer
    assert case.versions() == [1]
    assert len(client.get_metric_history(mine.info.run_id, "rmse")) == 1


def test_a_model_that_is_registered_already_is_tracked_in_the_platforms_run_too(sqlite_case, monkeypatch):
    model = sqlite_case.model()
    first = sqlite_case.register(model)
    client = sqlite_case.client
    mine = client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", mine.info.run_id)
    assert sqlite_case.register(model) == first
    assert client.get_run(mine.info.run_id).data.metrics["rmse"] == 4.25


@pytest.mark.parametrize("run_id", ["0" * 32, "not a run id"])
def test_a_platforms_run_that_is_not_there_is_an_error(case, monkeypatch, run_id):
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    with pytest.raises(InputError, match="MLFLOW_RUN_ID names a run that is not there") as error:
        case.register()
    assert run_id in str(error.value)


# --- What is refused ------------------------------------------------------------------------------------------------


def test_a_verdict_that_did_not_pass_is_refused_before_anything_is_written(sqlite_case):
    sqlite_case.verdict = write_verdict(sqlite_case.folder, passed=False)
    with pytest.raises(DataError, match="did not pass its gate is not registered") as error:
        sqlite_case.register()
    assert "1 of 2 checks failed: rmse" in error.value.facts["received"]
    assert mlflow_registry.connect(sqlite_case.uri, create=True).registered_model(sqlite_case.name) is None


@pytest.mark.parametrize("champion", ["models:/other/1", "models:/{name}@champion", "{name}", "/some/folder"])
def test_a_champion_that_is_no_version_of_the_model_is_refused(sqlite_case, champion):
    with pytest.raises(InputError, match="no version of the model to register") as error:
        sqlite_case.register(champion=champion.format(name=sqlite_case.name))
    assert f"models:/{sqlite_case.name}/<version>" in error.value.facts["allowed"]


@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("", "an evaluation is not JSON"),
        ("[]", "not an evaluation"),
        ('{"format": "other"}', "not an evaluation"),
        ('{"format": "pipeparts.evaluation/1"}', "a damaged evaluation"),
        ('{"format": "pipeparts.evaluation/1", "metrics": [1]}', "a damaged evaluation"),
    ],
)
def test_what_is_no_evaluation_is_refused(sqlite_case, text, headline):
    sqlite_case.evaluation.write_text(text)
    with pytest.raises(ContractError, match=headline):
        sqlite_case.register()


@pytest.mark.parametrize(
    ("text", "headline"),
    [("flavors: {}\n", "without a signature"), ("", "without a signature"), ("a: [", "a damaged MLmodel")],
)
def test_a_model_without_a_signature_is_refused(sqlite_case, text, headline):
    model = sqlite_case.model()
    (model / "MLmodel").write_text(text)
    with pytest.raises(ContractError, match=headline):
        sqlite_case.register(model)


@pytest.mark.parametrize("fingerprint", ["", "it's"])
def test_a_model_without_a_fingerprint_is_refused(sqlite_case, fingerprint):
    with pytest.raises(ContractError, match="without a fingerprint"):
        sqlite_case.register(sqlite_case.model(fingerprint))


def test_a_deleted_experiment_is_refused(case):
    client = case.client
    client.delete_experiment(client.create_experiment(f"deleted {case.name}"))
    with pytest.raises(InputError, match="the experiment was deleted") as error:
        case.register(experiment=f"deleted {case.name}")
    assert "mlflow experiments restore" in error.value.facts["hint"]


def test_a_server_that_is_not_there_is_explained(sqlite_case):
    with pytest.raises(ServiceError, match="the MLflow server does not answer"):
        sqlite_case.register(tracking_uri="http://127.0.0.1:1")


def test_a_place_that_cannot_be_written_is_explained(sqlite_case):
    with pytest.raises(ServiceError, match="cannot open the registry's database"):
        sqlite_case.register(tracking_uri="sqlite:////proc/nowhere/mlflow.db")


def test_the_description_is_markdown_that_people_read(sqlite_case):
    answer = sqlite_case.register()
    text = sqlite_case.client.get_model_version(sqlite_case.name, answer["version"]).description
    assert re.match(r"Regression of `air_time` with lightgbm, from 1 column, trained on 300 rows", text)
    assert answer["format"] == logic.FORMAT
