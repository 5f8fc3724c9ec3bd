"""A target's settings in a compiled pipeline: the core stays what it is, and each platform gets its own words."""

import copy
import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kfp import compiler, components, dsl

from pipeparts import compiling
from pipeparts.config import KubeflowConfig, LocalConfig, VertexConfig, load_kubeflow
from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime import secret_env
from pipeparts.step_settings import StepNames, StepSettings, settings_for
from pipeparts.targets import local
from pipeparts.targets.binding import ACCELERATORS, Settings, bind
from pipeparts.targets.kubeflow import KubeflowTarget
from pipeparts.targets.local_target import LocalTarget
from pipeparts.targets.vertex import VertexTarget
from tests.targets.kubeflow_server import KubeflowServer
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def show(name: str, folder: str = "") -> str:
    import os
    import time

    if folder:
        with open(os.path.join(folder, "attempts"), "a") as file:  # noqa: PTH123
            file.write("x")
    if name == "sleep":
        time.sleep(60)
    return os.environ[name]


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def train(text: str) -> str:
    return text


@dsl.pipeline(name="bound")
def bound(name: str = "HOME", folder: str = ""):
    shown = show(name=name, folder=folder)
    shown.set_display_name("look")
    with dsl.If(shown.output != ""):
        train(text=shown.output)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bound") / "bound.yaml"
    compiler.Compiler().compile(bound, str(path))
    return compiling.read_yaml(path)


def container(spec: dict[str, Any], name: str = "show") -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def with_steps(platform: str, steps: dict[str, Any] | None = None, **more: Any) -> Settings:
    parsed = {name: StepSettings(**each) for name, each in (steps or {}).items()}
    return Settings(platform, steps=parsed, **more)


PLATFORMS = ["local", "kubeflow", "vertex"]


# --- The core -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", PLATFORMS)
def test_without_settings_a_pipeline_stays_as_it_is(spec: dict[str, Any], platform: str) -> None:
    before = copy.deepcopy(spec)
    document, beside = bind(spec, Settings(platform))
    assert compiling.to_yaml(document) == compiling.to_yaml(before) == compiling.to_yaml(spec)
    assert beside is None


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_the_platforms_share_is_in_the_pipeline(small: dict[str, Any], platform: str) -> None:
    steps = {
        "show": {
            "retries": 3,
            "retry_wait_seconds": 5,
            "environment": {"LOG_LEVEL": "debug"},
            "cache": False,
            "cpu": "500m",
            "memory": "8Gi",
            "memory_request": "4G",
        }
    }
    before = copy.deepcopy(small)
    document, beside = bind(small, with_steps(platform, steps))
    assert small == before, "what was given is left as it is"
    assert beside is None
    task = document["root"]["dag"]["tasks"]["show"]
    assert task["retryPolicy"] == {
        "maxRetryCount": 3,
        "backoffDuration": "5s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert task["cachingOptions"] == {}
    assert container(document)["env"] == [{"name": "LOG_LEVEL", "value": "debug"}]
    if platform != "local":
        assert container(document)["resources"] == {
            "cpuLimit": 0.5,
            "resourceCpuLimit": "500m",
            "memoryLimit": pytest.approx(8.589934592),
            "resourceMemoryLimit": "8Gi",
            "memoryRequest": 4.0,
            "resourceMemoryRequest": "4G",
        }
    assert container(document, "train") == container(before, "train")
    twice, _ = bind(document, with_steps(platform, steps))
    assert twice == document


def test_what_kubernetes_alone_has_is_beside_the_pipeline(small: dict[str, Any]) -> None:
    steps = {
        "train": {
            "secrets": {"TOKEN": "mlflow/token"},
            "node_selector": {"pool": "ml"},
            "tolerations": [{"key": "ml", "value": "yes", "effect": "NoSchedule"}],
            "volumes": [
                {"mount_path": "/data", "pvc": "shared"},
                {"mount_path": "/keys", "secret": "keys"},
                {"mount_path": "/settings", "config_map": "settings"},
                {"mount_path": "/scratch", "empty_dir": "10Gi"},
            ],
            "image_pull_secrets": ["registry"],
            "pod_labels": {"team": "ml"},
            "pod_annotations": {"cost": "1"},
            "timeout_seconds": 600,
        }
    }
    document, beside = bind(small, with_steps("kubeflow", steps))
    assert compiling.to_yaml(document) == compiling.to_yaml(small)
    assert beside is not None
    written = beside["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]
    assert written["secretAsEnv"][0]["keyToEnv"] == [{"secretKey": "token", "envVar": "TOKEN"}]
    assert written["nodeSelector"] == {"labels": {"pool": "ml"}}
    assert written["tolerations"] == [
        {"key": "ml", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
    ]
    assert written["pvcMount"][0]["mountPath"] == "/data"
    assert written["secretAsVolume"][0]["secretName"] == "keys"
    assert written["configMapAsVolume"][0]["configMapName"] == "settings"
    assert written["emptyDirMounts"][0]["sizeLimit"] == "10Gi"
    assert written["activeDeadlineSeconds"] == "600"
    assert written["podMetadata"] == {"labels": {"team": "ml"}, "annotations": {"cost": "1"}}


def test_the_second_document_is_what_kfp_kubernetes_writes(small: dict[str, Any], tmp_path: Path) -> None:
    from kfp import kubernetes

    @dsl.pipeline(name="bound")
    def by_kfp(name: str = "HOME", folder: str = ""):
        shown = show(name=name, folder=folder)
        shown.set_display_name("look")
        kubernetes.use_secret_as_env(shown, secret_name="mlflow", secret_key_to_env={"token": "TOKEN"})
        kubernetes.add_node_selector(shown, label_key="pool", label_value="ml")
        kubernetes.add_toleration(shown, key="ml", operator="Equal", value="yes", effect="NoSchedule")
        kubernetes.mount_pvc(shown, pvc_name="shared", mount_path="/data")
        kubernetes.set_timeout(shown, seconds=600)
        kubernetes.add_pod_label(shown, label_key="team", label_value="ml")
        kubernetes.set_image_pull_secrets(shown, ["registry"])
        with dsl.If(shown.output != ""):
            train(text=shown.output)

    compiler.Compiler().compile(by_kfp, str(tmp_path / "kfp.yaml"))
    core, expected = yaml.safe_load_all((tmp_path / "kfp.yaml").read_text())
    settings = {
        "secrets": {"TOKEN": "mlflow/token"},
        "node_selector": {"pool": "ml"},
        "tolerations": [{"key": "ml", "value": "yes", "effect": "NoSchedule"}],
        "volumes": [{"mount_path": "/data", "pvc": "shared"}],
        "timeout_seconds": 600,
        "pod_labels": {"team": "ml"},
        "image_pull_secrets": ["registry"],
    }
    document, beside = bind(small, with_steps("kubeflow", {"show": settings}))
    assert document == core
    assert beside == expected


def test_an_accelerator_has_each_platform_s_own_name(small: dict[str, Any]) -> None:
    steps = {"train": {"accelerator": "nvidia-l4", "accelerator_count": 2}}
    vertex, nothing = bind(small, with_steps("vertex", steps))
    assert nothing is None
    assert container(vertex, "train")["resources"]["accelerator"] == {
        "type": "NVIDIA_L4",
        "resourceType": "NVIDIA_L4",
        "count": "2",
        "resourceCount": "2",
    }
    kubeflow, beside = bind(small, with_steps("kubeflow", steps, accelerator_label="gpu"))
    assert container(kubeflow, "train")["resources"]["accelerator"]["type"] == "nvidia.com/gpu"
    assert beside is not None
    executors = beside["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["nodeSelector"] == {"labels": {"gpu": "nvidia-l4"}}
    own = with_steps("vertex", {"train": {"accelerator": "tpu"}}, accelerators={"tpu": "TPU_V5_LITEPOD"})
    assert container(bind(small, own)[0], "train")["resources"]["accelerator"]["type"] == "TPU_V5_LITEPOD"
    with pytest.raises(InputError, match="no accelerator of this name") as caught:
        bind(small, with_steps("vertex", {"train": {"accelerator": "nvidia-l5"}}))
    assert "nvidia-l4" in caught.value.facts["hint"]


def test_the_accelerators_are_those_that_vertex_knows() -> None:
    from google.cloud.aiplatform_v1.types import AcceleratorType

    for vertex, _ in ACCELERATORS.values():
        assert vertex in AcceleratorType.__members__


def test_what_vertex_does_not_have_is_refused(small: dict[str, Any]) -> None:
    for name, value in (("timeout_seconds", 60), ("node_selector", {"a": "b"}), ("pod_labels", {"a": "b"})):
        with pytest.raises(InputError, match="Vertex AI does not have this for a step") as caught:
            bind(small, with_steps("vertex", {"train": {name: value}}))
        assert caught.value.facts["parameter"] == name


# --- Which step -----------------------------------------------------------------------------------------------------

STEP = StepNames(task="ingest-files-2", shown="ingest-predictions", component="ingest_files")


def test_the_most_specific_name_wins() -> None:
    steps = {
        "ingest-predictions": StepSettings(cpu="4"),
        "ingest-files-2": StepSettings(cpu="3", memory="3G"),
        "ingest_files": StepSettings(cpu="2", memory="2G", retries=2),
        "ingest-*": StepSettings(cpu="1", memory="1G", retries=1, environment={"A": "pattern", "B": "pattern"}),
        "*": StepSettings(timeout_seconds=5),
    }
    found = settings_for(STEP, StepSettings(environment={"A": "default", "C": "default"}), steps)
    assert (found.cpu, found.memory, found.retries, found.timeout_seconds) == ("4", "3G", 2, 5)
    assert found.environment == {"A": "pattern", "B": "pattern", "C": "default"}


def test_a_step_that_is_not_there_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="pipeline 'bound' has no step of this name") as caught:
        bind(small, with_steps("kubeflow", {"trian": {"cpu": "2"}}))
    assert caught.value.facts["hint"] == "did you mean 'train'?"
    assert caught.value.facts["parameter"] == "steps.trian"
    bind(small, with_steps("kubeflow", {"train_keras": {"cpu": "2"}, "no-such-*": {"cpu": "2"}}))


NAMES = st.sampled_from(["show", "look", "train", "s*", "*", "train_keras"])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from(["1", "250m", "2.5"]),
        "memory": st.sampled_from(["1G", "512Mi"]),
        "retries": st.integers(0, 3),
        "environment": st.dictionaries(st.sampled_from(["A", "B"]), st.text("xyz", max_size=3)),
    },
)


@given(st.dictionaries(NAMES, VALUES), VALUES, st.sampled_from(PLATFORMS))
def test_binding_twice_is_binding_once(steps: dict[str, Any], defaults: dict[str, Any], platform: str) -> None:
    path = Path(__file__).parents[1] / "targets"
    assert path.is_dir()
    spec = {
        "pipelineInfo": {"name": "bound"},
        "deploymentSpec": {
            "executors": {
                f"exec-{name}": {"container": {"image": "i:1", "args": ["--function_to_execute", name]}}
                for name in ("show", "train")
            }
        },
        "components": {f"comp-{name}": {"executorLabel": f"exec-{name}"} for name in ("show", "train")},
        "root": {
            "dag": {
                "tasks": {
                    "show": {"componentRef": {"name": "comp-show"}, "taskInfo": {"name": "look"}},
                    "train": {"componentRef": {"name": "comp-train"}},
                }
            }
        },
    }
    settings = Settings(
        platform, StepSettings(**defaults), {name: StepSettings(**each) for name, each in steps.items()}
    )
    once, _ = bind(spec, settings)
    assert bind(once, settings)[0] == once


# --- Wrong settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parameter", "allowed"),
    [
        ({"memory": "16GB"}, "memory", "16G"),
        ({"memory": "16"}, "memory", "unit of Kubernetes"),
        ({"cpu": "two"}, "cpu", "number of cores"),
        ({"cpus": "2"}, "cpus", ""),
        ({"retries": -1}, "retries", ""),
        ({"cache": True}, "cache", ""),
        ({"environment": {"A-B": "x"}}, "environment", "letters, digits"),
        ({"volumes": [{"mount_path": "/a", "pvc": "a", "secret": "b"}]}, "volumes", "one of pvc"),
        ({"volumes": [{"mount_path": "a", "pvc": "a"}]}, "volumes", ""),
        ({"tolerations": [{"operator": "Equals"}]}, "tolerations", ""),
    ],
)
def test_wrong_settings_name_the_key_and_the_file(
    tmp_path: Path, settings: dict[str, Any], parameter: str, allowed: str
) -> None:
    file = tmp_path / "kubeflow.yaml"
    file.write_text(yaml.safe_dump({"steps": {"train": settings}}))
    with pytest.raises(InputError) as caught:
        load_kubeflow(file=file, environ={})
    assert parameter in caught.value.facts["parameter"]
    assert str(file) in str(caught.value)
    assert allowed in str(caught.value)


def test_a_secret_itself_is_refused_and_not_shown(small: dict[str, Any]) -> None:
    for platform in ("kubeflow", "vertex"):
        with pytest.raises(InputError) as caught:
            bind(small, with_steps(platform, {"train": {"secrets": {"TOKEN": "hunter2 is the password"}}}, project="p"))
        assert "hunter2" not in str(caught.value)


# --- Submitted ------------------------------------------------------------------------------------------------------


def test_kubeflow_takes_both_documents(
    kubeflow: KubeflowServer, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    config = KubeflowConfig(
        host=kubeflow.host,
        registry="registry.example/a",
        defaults=StepSettings(cpu="1"),
        steps={"train": StepSettings(secrets={"TOKEN": "mlflow/token"})},
    )
    target = KubeflowTarget(config)
    target.submit(small, {}, key="k1")
    (run,) = kubeflow.runs.values()
    sent = run["pipeline_spec"]
    assert sent["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train"]["secretAsEnv"]
    assert container(sent["pipeline_spec"])["resources"]["cpuLimit"] == 1.0
    (tmp_path / "two.yaml").write_text(compiling.to_yaml(*target.compile(small)))
    loaded = components.load_component_from_file(str(tmp_path / "two.yaml"))
    assert loaded.platform_spec.platforms["kubernetes"]


def test_vertex_takes_resources_and_the_names_of_secrets(vertex: VertexServer, small: dict[str, Any]) -> None:
    config = VertexConfig(
        project=PROJECT,
        location=LOCATION,
        pipeline_root=f"gs://{BUCKET}/root",
        endpoint=vertex.endpoint,
        registry="registry.example/a",
        network="projects/1/global/networks/ml",
        encryption_key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
        labels={"team": "ml"},
        experiment="flights",
        steps={"train": StepSettings(memory="16G", secrets={"TOKEN": "mlflow-token", "KEY": "key/versions/3"})},
    )
    vertex.experiments["flights"] = []
    VertexTarget(config).submit(small, {}, key="k1")
    (job,) = vertex.jobs.values()
    spec = json.loads(json.dumps(type(job).to_dict(job)["pipeline_spec"]))
    assert container(spec, "train")["resources"]["memoryLimit"] == 16.0
    (variable,) = container(spec, "train")["env"]
    assert variable["value"].splitlines() == [
        f"KEY=projects/{PROJECT}/secrets/key/versions/3",
        f"TOKEN=projects/{PROJECT}/secrets/mlflow-token/versions/latest",
    ]
    assert "pipeparts.runtime.secret_env kfp.dsl.executor_main" in container(spec, "train")["command"][2]
    assert "secret_env" not in container(spec)["command"][2]
    assert job.network == "projects/1/global/networks/ml"
    assert job.encryption_spec.kms_key_name.endswith("/cryptoKeys/k")
    assert job.labels["team"] == "ml"
    assert len(vertex.experiments["flights"]) == 1


# --- On this machine ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_settings_hold_on_this_machine(small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_TOKEN", "a-secret-value")
    config = LocalConfig(
        root=tmp_path / "root",
        secrets={"TOKEN": "env:THE_TOKEN"},
        defaults=StepSettings(environment={"COLOUR": "green"}, cpu="2"),
        steps={"show": StepSettings(retries=2, retry_wait_seconds=0, timeout_seconds=1)},
    )
    assert local.run(small, {"name": "COLOUR"}, config).state == "succeeded"
    result = local.run(small, {"name": "TOKEN"}, config)
    assert result.state == "succeeded"
    for path in result.folder.rglob("*"):
        if path.is_file() and path.name in ("local.yaml", "pipeline.yaml", "job.json"):
            assert "a-secret-value" not in path.read_text()
    (tmp_path / "marks").mkdir()
    late = local.run(small, {"name": "sleep", "folder": str(tmp_path / "marks")}, config)
    assert late.state == "failed"
    assert "was not done after 1 seconds" in str(late.record["tasks"][0]["error"])
    assert (tmp_path / "marks" / "attempts").read_text() == "xxx", "it was tried three times"
    monkeypatch.delenv("THE_TOKEN")
    with pytest.raises(InputError, match="the secret is not where its reference says"):
        LocalTarget(config).submit(small, {"name": "TOKEN"}, key="k1")


# --- Secret Manager -------------------------------------------------------------------------------------------------


class Manager:
    """Secret Manager's REST API on loopback."""

    def __init__(self) -> None:
        self.host = ""
        self.secrets = {"projects/p/secrets/token/versions/latest": b"the value\xe2\x82\xac"}
        self.answers: list[int] = []
        self.asked: list[str] = []


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    state = Manager()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Google's token endpoint: it gives a token for what the account's key has signed."""
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert "assertion=" in form
            self._send(200, {"access_token": "t0ken", "expires_in": 3600, "token_type": "Bearer"})

        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "Bearer t0ken"
            state.asked.append(self.path)
            status = state.answers.pop(0) if state.answers else 200
            name = self.path.removeprefix("/v1/").removesuffix(":access")
            if status == 200 and name not in state.secrets:
                status = 404
            body: dict[str, Any] = {"error": {"code": status, "message": f"told {status}"}}
            if status == 200:
                body = {"name": name, "payload": {"data": b64encode(state.secrets[name]).decode()}}
            self._send(status, body)

        def _send(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.host = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv(secret_env.ENDPOINT_VARIABLE, state.host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


Read = Callable[[str], dict[str, str]]


@pytest.fixture
def account(manager: Manager, vertex: VertexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account that the step works as; it gets its tokens from the same server."""
    key = json.loads(Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    (tmp_path / "account.json").write_text(json.dumps({**key, "token_uri": f"{manager.host}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))


@pytest.fixture
def read(account: None) -> Read:
    """Reads secrets as a step does: with the account of the environment."""
    return secret_env.read_secrets


def test_secrets_are_read_as_the_step_s_account(read: Read, manager: Manager) -> None:
    found = read("TOKEN=projects/p/secrets/token/versions/latest\n")
    assert found == {"TOKEN": "the value€"}
    assert read("") == {}
    manager.answers = [503, 429, 200]
    assert read("TOKEN=projects/p/secrets/token/versions/latest") == found


@pytest.mark.parametrize(("status", "kind"), [(403, InputError), (404, InputError), (401, InputError)])
def test_a_secret_that_cannot_be_read(read: Read, manager: Manager, status: int, kind: type[Exception]) -> None:
    manager.answers = [status] * 10
    with pytest.raises(kind, match="cannot read the secret from Secret Manager") as caught:
        read("TOKEN=projects/p/secrets/token/versions/latest")
    assert f"status {status}: told {status}" in str(caught.value)


def test_what_is_no_secret(read: Read, manager: Manager) -> None:
    with pytest.raises(InputError, match="not the name of a secret") as caught:
        read("TOKEN=hunter2")
    assert "hunter2" not in str(caught.value)
    manager.secrets["projects/p/secrets/b/versions/1"] = b"\xff\xfe"
    with pytest.raises(ServiceError, match="has no text in it"):
        read("TOKEN=projects/p/secrets/b/versions/1")


@pytest.mark.slow
def test_a_step_finds_its_secrets_in_its_environment(account: None, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text("import os, sys\nprint(os.environ['TOKEN'], sys.argv[1:])\n")
    done = subprocess.run(
        [sys.executable, "-m", "pipeparts.runtime.secret_env", "show", "--executor_input", "{}"],
        env={**os.environ, secret_env.VARIABLE: "TOKEN=projects/p/secrets/token/versions/latest"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the value€ ['--executor_input', '{}']\n"
