"""The same settings bound for each target, held against what KFP's own compiler and kfp-kubernetes write."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kfp import compiler, components, dsl, kubernetes
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeparts import compiling
from pipeparts.config import KubeflowConfig, LocalConfig, VertexConfig
from pipeparts.errors import InputError
from pipeparts.linting.document import Document
from pipeparts.linting.engine import lint
from pipeparts.linting.findings import Target
from pipeparts.step_settings import StepNames
from pipeparts.targets.binding import ACCELERATORS, LAUNCHER, Bound, bind, bind_variant, local_steps
from pipeparts.targets.kubeflow import KubeflowTarget
from pipeparts.targets.vertex import VertexTarget
from tests.targets.conftest import COMPILED
from tests.targets.kubeflow_server import KubeflowServer, check_platform
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer

IMAGE = "pipeparts-python-data"
GOLDEN = sorted(COMPILED.parents[1].glob("*/compiled.yaml"))
VERSION = "projects/p/secrets/mlflow/versions/3"
#: What each platform can keep.
SHARED: dict[str, Any] = {
    "cpu": {"request": "500m", "limit": 4},
    "memory": "16Gi",
    "accelerator": {"type": "nvidia-l4", "count": 2},
    "retries": {"count": 3, "backoff_seconds": 30, "backoff_factor": 2, "backoff_max_seconds": 600},
    "timeout_seconds": 60,
    "cache": False,
    "environment": {"LEVEL": "debug"},
    "secrets": {
        "MLFLOW_TRACKING_TOKEN": {
            "local": "env:TOKEN",
            "kubernetes": {"secret": "mlflow", "key": "token"},
            "secret_manager": VERSION,
        }
    },
}
#: What Kubernetes alone has.
CLUSTER: dict[str, Any] = {
    "node_selector": {"pool": "training"},
    "tolerations": [{"key": "dedicated", "value": "training", "effect": "NoSchedule"}],
    "image_pull_secrets": ["registry"],
    "pod_labels": {"team": "forecasting"},
    "pod_annotations": {"sidecar.istio.io/inject": "false"},
}
VOLUMES: dict[str, Any] = {
    "volumes": [
        {"mount_path": "/data", "pvc": "data", "sub_path": "2013"},
        {"mount_path": "/scratch", "empty_dir": {"medium": "Memory", "size": "1Gi"}},
        {"mount_path": "/keys", "secret": "keys"},
        {"mount_path": "/etc/app", "config_map": "app"},
    ]
}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_model(rows: int) -> int:
    return rows


@dsl.component(base_image="python:3.12-slim", install_kfp_package=False)
def of_another(rows: int) -> int:
    return rows


@dsl.pipeline(name="inner")
def inner(rows: int) -> None:
    train_model(rows=rows)


@dsl.pipeline(name="sample")
def sample(rows: int = 1) -> None:
    first = train_model(rows=rows)
    train_model(rows=first.output)
    with dsl.ParallelFor([1, 2]) as item:
        of_another(rows=item)
    inner(rows=rows)


def compiled(pipeline: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    compiler.Compiler().compile(pipeline, str(path))
    spec, *rest = yaml.safe_load_all(path.read_text())
    return spec, rest[0] if rest else None


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return compiled(sample, tmp_path_factory.mktemp("sample") / "sample.yaml")[0]


def for_kubeflow(**given: Any) -> KubeflowConfig:
    return KubeflowConfig.model_validate(given)


def for_vertex(**given: Any) -> VertexConfig:
    return VertexConfig.model_validate({"project": "p", "location": "l", "pipeline_root": "gs://b", **given})


def container(spec: compiling.Spec, name: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return found


def resource(kind: str, count: int) -> dict[str, Any]:
    return {"type": kind, "count": str(count), "resourceType": kind, "resourceCount": str(count)}


# --- The three targets ----------------------------------------------------------------------------------------------


def test_kubeflow_gets_what_kfps_compiler_and_kfp_kubernetes_write(plain: dict[str, Any], tmp_path: Path) -> None:
    @dsl.pipeline(name="sample")
    def by_hand(rows: int = 1) -> None:
        first = train_model(rows=rows)
        second = train_model(rows=first.output)
        second.set_cpu_request("500m").set_cpu_limit("4").set_memory_limit("16Gi")
        second.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(2)
        second.set_retry(3, backoff_duration="30s", backoff_factor=2, backoff_max_duration="600s")
        second.set_caching_options(False).set_env_variable("LEVEL", "debug")
        kubernetes.use_secret_as_env(second, "mlflow", {"token": "MLFLOW_TRACKING_TOKEN"})
        kubernetes.mount_pvc(second, "data", "/data", "2013")
        kubernetes.empty_dir_mount(second, "empty-2", "/scratch", medium="Memory", size_limit="1Gi")
        kubernetes.use_secret_as_volume(second, "keys", "/keys")
        kubernetes.use_config_map_as_volume(second, "app", "/etc/app")
        kubernetes.add_node_selector(second, "pool", "training")
        kubernetes.add_node_selector(second, "cloud.google.com/gke-accelerator", "nvidia-l4")
        kubernetes.add_toleration(second, "dedicated", "Equal", "training", "NoSchedule")
        kubernetes.set_image_pull_secrets(second, ["registry"])
        kubernetes.set_timeout(second, 60)
        kubernetes.add_pod_label(second, "team", "forecasting")
        kubernetes.add_pod_annotation(second, "sidecar.istio.io/inject", "false")
        with dsl.ParallelFor([1, 2]) as item:
            of_another(rows=item)
        inner(rows=rows)

    spec, platform = compiled(by_hand, tmp_path / "by_hand.yaml")
    bound = bind(plain, for_kubeflow(steps={"train-model-2": {**SHARED, **CLUSTER, **VOLUMES}}))
    assert bound.spec == spec
    assert bound.platform == platform
    assert not bound.notes


def test_vertex_gets_the_same_in_its_own_words(plain: dict[str, Any]) -> None:
    bound = bind(plain, for_vertex(steps={"train-model-2": {**SHARED, **CLUSTER}}))
    assert bound.platform is None
    found = container(bound.spec, "train-model-2")
    assert found["resources"] == {
        "cpuLimit": 4.0,
        "resourceCpuLimit": "4",
        "memoryLimit": 17.179869184,
        "resourceMemoryLimit": "16Gi",
        "accelerator": resource("NVIDIA_L4", 2),
    }
    assert found["env"] == [{"name": "LEVEL", "value": "debug"}]
    assert found["command"] == [
        *LAUNCHER,
        "--timeout-seconds=60",
        f"--secret=MLFLOW_TRACKING_TOKEN={VERSION}",
        "--",
        *container(plain, "train-model-2")["command"],
    ]
    assert found["args"] == container(plain, "train-model-2")["args"]
    task = bound.spec["root"]["dag"]["tasks"]["train-model-2"]
    assert task["retryPolicy"]["maxRetryCount"] == 3
    assert task["cachingOptions"] == {}
    assert [note.split(":")[0] for note in bound.notes] == [
        f"Vertex AI has no use for the setting {name}"
        for name in ("node_selector", "tolerations", "image_pull_secrets", "pod_labels", "pod_annotations")
    ]
    assert all(note.endswith("left out of train-model-2") for note in bound.notes)


def test_a_local_run_gets_what_it_can_keep(plain: dict[str, Any]) -> None:
    config = LocalConfig.model_validate({"steps": {"train-model-2": {**SHARED, **CLUSTER}}})
    bound = bind(plain, config)
    found = container(bound.spec, "train-model-2")
    assert found == {**container(plain, "train-model-2"), "env": [{"name": "LEVEL", "value": "debug"}]}
    task = bound.spec["root"]["dag"]["tasks"]["train-model-2"]
    assert task["retryPolicy"]["backoffDuration"] == "30s"
    assert task["cachingOptions"] == {}
    assert "a local run has no use for the setting cpu: left out of train-model-2" in bound.notes
    tasks = {name: StepNames(name, name, "train_model") for name in ("train-model", "train-model-2")}
    given = {"timeout_seconds": 60, "secrets": {"MLFLOW_TRACKING_TOKEN": "env:TOKEN"}}
    assert local_steps(plain, config, tasks) == {"train-model-2": given}


def test_a_secret_is_its_own_variable_on_this_machine_unless_said(plain: dict[str, Any]) -> None:
    config = LocalConfig.model_validate({"defaults": {"secrets": {"TOKEN": {}}}})
    assert local_steps(plain, config, {"a": StepNames("x", "x", "x")}) == {"a": {"secrets": {"TOKEN": "env:TOKEN"}}}


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ({"secret_manager": "mlflow"}, "projects/p/secrets/mlflow/versions/latest"),
        ("mlflow/versions/7", "projects/p/secrets/mlflow/versions/7"),
        ("projects/q/secrets/mlflow/versions/7", "projects/q/secrets/mlflow/versions/7"),
    ],
)
def test_a_secret_of_the_targets_own_project(plain: dict[str, Any], given: Any, full: str) -> None:
    bound = bind(plain, for_vertex(steps={"train-model": {"secrets": {"TOKEN": given}}}))
    assert f"--secret=TOKEN={full}" in container(bound.spec, "train-model")["command"]


# --- The core -------------------------------------------------------------------------------------------------------


def test_what_kubernetes_alone_has_leaves_the_core_as_it_is(spec: dict[str, Any]) -> None:
    own = {name: SHARED[name] for name in ("timeout_seconds", "secrets")}
    bound = bind(spec, for_kubeflow(defaults={**CLUSTER, **VOLUMES, **own}))
    assert compiling.to_yaml(bound.spec) == compiling.to_yaml(spec)
    assert bound.platform is not None
    executors = bound.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == {label for label, _ in compiling.containers(spec)}


def test_steps_of_loops_and_inner_pipelines_are_found(plain: dict[str, Any]) -> None:
    bound = bind(plain, for_kubeflow(steps={"of_another": {"cpu": 2}, "train_model": {"cpu": 3}}))
    limits = {label: found["resources"]["cpuLimit"] for label, found in compiling.containers(bound.spec)}
    assert limits == {
        "exec-of-another": 2.0,
        "exec-train-model": 3.0,
        "exec-train-model-2": 3.0,
        "exec-train-model-3": 3.0,
    }


SOME = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from(["500m", 2, {"request": 1, "limit": 3}]),
        "memory": st.sampled_from(["512M", "4Gi", {"request": "1Gi"}]),
        "accelerator": st.sampled_from(sorted(ACCELERATORS)),
        "retries": st.integers(0, 5),
        "timeout_seconds": st.integers(1, 1000),
        "environment": st.dictionaries(st.sampled_from("ABC"), st.text(max_size=3)),
        "secrets": st.just(SHARED["secrets"]),
        "pod_labels": st.just(CLUSTER["pod_labels"]),
    },
)
STEPS = st.dictionaries(st.sampled_from(["train-*", "train_lightgbm", "profile-table-2", "*"]), SOME, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(defaults=SOME, steps=STEPS)
def test_binding_again_changes_nothing(spec: dict[str, Any], defaults: Any, steps: Any) -> None:
    before = copy.deepcopy(spec)
    for config in (
        for_kubeflow(defaults=defaults, steps=steps),
        for_vertex(defaults=defaults, steps=steps),
        LocalConfig(defaults=defaults, steps=steps),
    ):
        once = bind(spec, config)
        again = bind(once.spec, config)
        assert again == once
        json_format.ParseDict(once.spec, pipeline_spec_pb2.PipelineSpec())
        if once.platform is not None:
            check_platform(once.platform, set(spec["components"]))
    assert spec == before


@pytest.mark.parametrize(
    "config", [for_kubeflow(), for_vertex(), LocalConfig()], ids=lambda config: type(config).__name__
)
def test_no_settings_change_nothing(spec: dict[str, Any], config: Any) -> None:
    assert bind(spec, config) == Bound(spec)


# --- What reads the variants ----------------------------------------------------------------------------------------


def test_kfp_loads_the_two_documents(tmp_path: Path, spec: dict[str, Any]) -> None:
    bound = bind_variant(spec, for_kubeflow(registry="reg.example.org/ml", defaults={**CLUSTER, **VOLUMES}))
    path = tmp_path / "variant.yaml"
    path.write_text(compiling.to_yaml(*bound.documents))
    loaded = components.load_component_from_file(str(path))
    assert json_format.MessageToDict(loaded.platform_spec) == bound.platform
    assert loaded.pipeline_spec.pipeline_info.name == "train-and-register"
    assert path.read_text() == compiling.to_yaml(*bound.documents)


def test_vertexs_client_loads_its_variant(tmp_path: Path, spec: dict[str, Any], arguments: dict[str, Any]) -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    bound = bind_variant(spec, for_vertex(registry="reg.example.org/ml", defaults={"cpu": 2, "timeout_seconds": 60}))
    path = tmp_path / "variant.yaml"
    path.write_text(compiling.to_yaml(*bound.documents))
    job = aiplatform.PipelineJob(
        display_name="x",
        template_path=str(path),
        pipeline_root="gs://b",
        parameter_values=arguments,
        project="p",
        location="europe-west4",
        credentials=AnonymousCredentials(),
    )
    command = container(job.pipeline_spec, "train-lightgbm")["command"]
    assert tuple(command)[:3] == LAUNCHER
    assert json.loads(json.dumps(bound.spec)) == yaml.safe_load(path.read_text())


def test_kubeflow_is_sent_both_documents(
    kubeflow: KubeflowServer, spec: dict[str, Any], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")  # KFP keeps a context there
    config = for_kubeflow(
        host=kubeflow.host, registry="reg.example.org/ml", defaults={**CLUSTER, **VOLUMES, **SHARED, "cache": None}
    )
    KubeflowTarget(config).submit(spec, arguments, key="d1")
    (run,) = kubeflow.runs.values()
    assert run["pipeline_spec"]["platform_spec"] == bind_variant(spec, config).platform
    sent = run["pipeline_spec"]["pipeline_spec"]
    assert container(sent, "train-lightgbm")["env"] == [{"name": "LEVEL", "value": "debug"}]
    assert container(sent, "train-lightgbm")["resources"]["resourceMemoryLimit"] == "16Gi"


def test_vertex_is_sent_its_variant(
    vertex: VertexServer, spec: dict[str, Any], arguments: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = for_vertex(
        project=PROJECT,
        location=LOCATION,
        pipeline_root=f"gs://{BUCKET}/root",
        endpoint=vertex.endpoint,
        registry="reg.example.org/ml",
        steps={"train-*": {**SHARED, **CLUSTER}},
    )
    VertexTarget(config).submit(spec, arguments, key="settings")
    (job,) = vertex.jobs.values()
    sent = container(job.pipeline_spec, "train-lightgbm")
    assert sent["resources"]["accelerator"]["type"] == "NVIDIA_L4"
    assert f"--secret=MLFLOW_TRACKING_TOKEN={VERSION}" in list(sent["command"])
    assert "Vertex AI has no use for the setting node_selector: left out of train-lightgbm" in caplog.messages


# --- Accelerators ---------------------------------------------------------------------------------------------------


def test_vertex_knows_each_accelerator() -> None:
    assert {words[1] for words in ACCELERATORS.values()} <= {kind.name for kind in types.AcceleratorType}


def test_a_cluster_has_words_of_its_own(plain: dict[str, Any]) -> None:
    own = {"node_selector": {"nvidia.com/gpu.product": "NVIDIA-L4"}, "tolerations": [{"key": "gpu", "value": "l4"}]}
    config = for_kubeflow(accelerators={"nvidia-l4": own}, steps={"train-model-2": {"accelerator": "nvidia-l4"}})
    bound = bind(plain, config)
    assert bound.platform is not None
    found = bound.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-train-model-2"]
    assert found["nodeSelector"] == {"labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    assert found["tolerations"] == [{"key": "gpu", "operator": "Equal", "value": "l4"}]
    other = for_kubeflow(
        accelerator_label="nvidia.com/gpu.product",
        accelerators={"nvidia-l4": "NVIDIA-L4"},
        steps={"train-model-2": {"accelerator": "nvidia-l4"}},
    )
    labelled = bind(plain, other).platform
    assert labelled is not None
    executors = labelled["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train-model-2"]["nodeSelector"] == {"labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    whichever = bind(plain, for_kubeflow(defaults={"accelerator": "nvidia-gpu"}))
    assert whichever.platform is None
    assert container(whichever.spec, "train-model")["resources"] == {"accelerator": resource("nvidia.com/gpu", 1)}
    on_vertex = bind(plain, for_vertex(accelerators={"tpu": "TPU_V5_LITEPOD"}, defaults={"accelerator": "tpu"}))
    assert container(on_vertex.spec, "train-model")["resources"]["accelerator"]["type"] == "TPU_V5_LITEPOD"


# --- What cannot be kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "headline", "parameter"),
    [
        (for_kubeflow(defaults={"accelerator": "nvidia-l5"}), "no such accelerator on this target", "accelerator"),
        (for_vertex(defaults={"accelerator": "nvidia-gpu"}), "no such accelerator on this target", "accelerator"),
        (for_vertex(defaults={"cpu": 97}), "no machine of Vertex AI is this large", "cpu"),
        (for_vertex(defaults={"memory": "582Gi"}), "no machine of Vertex AI is this large", "memory"),
        (for_vertex(defaults=VOLUMES), "volumes are Kubernetes' alone", "volumes"),
        (LocalConfig(defaults=VOLUMES), "volumes are Kubernetes' alone", "volumes"),
        (for_vertex(steps={"of_another": {"timeout_seconds": 5}}), "Vertex AI has neither secrets", "timeout_seconds"),
        (for_vertex(defaults={"secrets": {"A": {}}}), "where a secret is on this target", "secrets.A.secret_manager"),
        (for_kubeflow(defaults={"secrets": {"A": {}}}), "where a secret is on this target", "secrets.A.kubernetes"),
        (for_kubeflow(steps={"train-modle": {}}), "settings for a step that does not exist", "steps.train-modle"),
    ],
)
def test_what_a_target_cannot_keep(plain: dict[str, Any], config: Any, headline: str, parameter: str) -> None:
    with pytest.raises(InputError, match=headline) as caught:
        bind(plain, config)
    assert caught.value.facts["parameter"] == parameter


def test_the_largest_machine_of_vertex_is_allowed(plain: dict[str, Any]) -> None:
    bound = bind(plain, for_vertex(defaults={"cpu": 96, "memory": "624G"}))
    assert container(bound.spec, "train-model")["resources"]["memoryLimit"] == 624.0


def test_a_secret_that_the_pipeline_has_in_plain_text(plain: dict[str, Any]) -> None:
    spec = copy.deepcopy(plain)
    container(spec, "train-model")["env"] = [{"name": "MLFLOW_TRACKING_TOKEN", "value": "hunter2"}]
    with pytest.raises(InputError, match="in plain text that the settings have as a secret") as caught:
        bind(spec, for_kubeflow(defaults={"secrets": SHARED["secrets"]}))
    assert "hunter2" not in str(caught.value)


def test_a_secret_in_plain_text_is_refused(plain: dict[str, Any]) -> None:
    for config in (for_kubeflow, for_vertex, LocalConfig):
        with pytest.raises(InputError, match="looks like a secret") as caught:
            bind(plain, config(defaults={"environment": {"DB_PASSWORD": "correct-horse-battery"}}))
        assert caught.value.facts["parameter"] == "environment.DB_PASSWORD"
        assert "correct-horse" not in str(caught.value)


def test_tasks_that_share_an_executor(plain: dict[str, Any]) -> None:
    spec = copy.deepcopy(plain)
    spec["root"]["dag"]["tasks"]["train-model-2"]["componentRef"]["name"] = "comp-train-model"
    assert bind(spec, for_kubeflow(steps={"train_model": {"cpu": 2}})).spec != spec
    with pytest.raises(InputError, match="two tasks share one executor, and their settings differ"):
        bind(spec, for_kubeflow(steps={"train-model-2": {"cpu": 2}}))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
@pytest.mark.parametrize(("platform", "target"), [("kubeflow", for_kubeflow), ("vertex", for_vertex)])
def test_a_variant_lints_as_well_as_its_core(path: Path, platform: Target, target: Callable[..., Any]) -> None:
    spec = compiling.read_yaml(path)
    defaults = {name: value for name, value in SHARED.items() if name != "cache"} | {"cpu": 96, "memory": "624G"}
    bound = bind_variant(spec, target(registry="reg.example.org/ml", defaults=defaults))
    assert not compiling.image_families(bound.spec)
    core = compiling.resolve_images(spec, compiling.default_images(spec, registry="reg.example.org/ml"))
    found, known = (
        {finding.rule.id for finding in lint(Document(text, "pipeline.yaml"), targets=[platform])}
        for text in (compiling.to_yaml(*bound.documents), compiling.to_yaml(core))
    )
    assert found <= known
