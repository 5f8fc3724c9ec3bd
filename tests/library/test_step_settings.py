"""Settings for steps: which holds for a step, which names exist, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils import parse_quantity

from pipeparts.config import KubeflowConfig, load_kubeflow, load_local, load_vertex
from pipeparts.errors import InputError
from pipeparts.step_settings import (
    StepNames,
    StepsConfig,
    StepSettings,
    check_steps,
    cpu_number,
    memory_bytes,
    settings_of,
)

TRAIN = StepNames("train-lightgbm", "train-lightgbm", "train_lightgbm")
TRAIN_2 = StepNames("train-lightgbm-2", "Train the Second", "train_lightgbm")
SPLIT = StepNames("split-table", "split-table", "split_table")


def of(config: dict[str, Any], step: StepNames = TRAIN) -> StepSettings:
    return settings_of(StepsConfig.model_validate(config), step, pipeline="train-and-register")


def test_the_most_specific_holds() -> None:
    steps = {
        "train-lightgbm-2": {"timeout_seconds": 6},
        "train_and_register/train-lightgbm-2": {"cpu": 7},
        "train_lightgbm": {"timeout_seconds": 5, "cpu": 5},
        "train-l*": {"timeout_seconds": 4, "memory": "4G"},
        "t*": {"timeout_seconds": 3, "memory": "3G", "retries": 3},
    }
    config = {"defaults": {"timeout_seconds": 1, "memory": "1G", "retries": 1, "cpu": 1}, "steps": steps}
    second = of(config, TRAIN_2)
    assert (second.timeout_seconds, second.retries.count) == (6, 3)  # type: ignore[union-attr]
    assert (second.cpu.limit, second.memory.limit) == ("7", "4G")  # type: ignore[union-attr]
    first = of(config)
    assert (first.timeout_seconds, first.cpu.limit) == (5, "5")  # type: ignore[union-attr]
    other = of(config, SPLIT)
    assert (other.timeout_seconds, other.retries.count) == (1, 1)  # type: ignore[union-attr]


def test_mappings_are_merged_and_the_rest_is_replaced() -> None:
    found = of(
        {
            "defaults": {"environment": {"A": "1", "B": "1"}, "cpu": {"request": 1, "limit": 2}, "timeout_seconds": 9},
            "steps": {"train-*": {"environment": {"B": "2", "C": "2"}, "cpu": 4, "timeout_seconds": None}},
        }
    )
    assert found.environment == {"A": "1", "B": "2", "C": "2"}
    assert found.cpu is not None
    assert (found.cpu.request, found.cpu.limit) == (None, "4")
    assert found.timeout_seconds is None


def test_a_step_has_its_name_in_the_graph_too() -> None:
    steps = {"Train the Second": {"cpu": 2}, "train_lightgbm": {"cpu": 1}, "* second": {"memory": "1G"}}
    assert of({"steps": steps}, TRAIN_2).cpu.limit == "2"  # type: ignore[union-attr]
    assert of({"steps": steps}, TRAIN_2).memory is not None
    assert of({"steps": steps}).memory is None
    check("Train the Second", "train the *")


def test_a_scope_is_one_pipeline() -> None:
    steps = {"another/train_lightgbm": {"cpu": 9}, "train-and-register/*": {"cpu": 2}}
    assert of({"steps": steps}).cpu.limit == "2"  # type: ignore[union-attr]


def test_a_variable_is_plain_or_secret() -> None:
    secret = {"TOKEN": {"local": "env:OTHER"}}
    with pytest.raises(InputError, match="both in plain text and as a secret") as caught:
        of({"defaults": {"environment": {"TOKEN": "x"}}, "steps": {"train-*": {"secrets": secret}}})
    assert caught.value.facts["received"] == "TOKEN"


KNOWN = [StepNames("ingest-files", "ingest-files", "ingest_files"), TRAIN_2]


def check(*names: str) -> None:
    steps = {name: StepSettings() for name in names}
    check_steps(steps, pipeline="train-and-register", known=KNOWN, others=["publish_metrics", "train_keras"])


def test_names_that_exist() -> None:
    check("ingest-files", "train-lightgbm-2", "train_lightgbm", "train-*", "*", "train_and_register/ingest_files")
    # One file of settings serves several pipelines.
    check("publish_metrics", "publish-*", "another-pipeline/anything")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train-lightgmb", "did you mean 'train-lightgbm'?"),
        ("publish_metric", "did you mean 'publish-metrics'?"),
        ("train-and-register/publish_metrics", "did you mean 'publish-metrics'?"),
        ("trian-*", None),
    ],
)
def test_a_name_that_does_not_exist(name: str, hint: str | None) -> None:
    with pytest.raises(InputError, match="settings for a step that does not exist") as caught:
        check(name)
    assert caught.value.facts["parameter"] == f"steps.{name}"
    assert caught.value.facts["allowed"] == "ingest-files, train the second, train-lightgbm, train-lightgbm-2"
    assert caught.value.facts.get("hint") == hint


def test_a_place_of_a_secret_in_short() -> None:
    version = "projects/p/secrets/s/versions/3"
    short = {"A": "env:B", "B": "file:/b", "C": "mlflow/token", "D": version, "E": "s/versions/3"}
    secrets = StepSettings.model_validate({"secrets": short}).secrets
    assert [secrets[name].local for name in "AB"] == ["env:B", "file:/b"]
    assert secrets["C"].kubernetes is not None
    assert (secrets["C"].kubernetes.secret, secrets["C"].kubernetes.key) == ("mlflow", "token")
    assert [secrets[name].secret_manager for name in "DE"] == [version, "s/versions/3"]


# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "parameter", "allowed"),
    [
        ({"memory": "16GB"}, "defaults.memory.limit", "as 16G or 16Gi"),
        ({"memory": 1.5}, "defaults.memory.limit", "a whole number of bytes"),
        ({"memory": "0"}, "defaults.memory.limit", "a whole number of bytes"),
        ({"memory": {"request": "2Gi", "limit": "2G"}}, "defaults.memory", "a request that is not above the limit"),
        ({"memory": {"limt": "2G"}}, "defaults.memory.limt", "limit, request"),
        ({"cpu": "two"}, "defaults.cpu.limit", "as 2 or 0.5, or thousandths of one, as 500m"),
        ({"cpu": True}, "defaults.cpu.limit", "a number of CPUs"),
        ({"cpu": 0}, "defaults.cpu.limit", "a number of CPUs above 0"),
        (
            {"accelerator": {"type": "nvidia-l4", "count": 0}},
            "defaults.accelerator.count",
            "greater than or equal to 1",
        ),
        ({"retries": -1}, "defaults.retries.count", "greater than or equal to 0"),
        ({"retries": {"backoff_seconds": 3}}, "defaults.retries.count", "a value (required)"),
        ({"timeout_seconds": "1h"}, "defaults.timeout_seconds", "a whole number"),
        ({"cache": True}, "defaults.cache", "False"),
        ({"environment": {"A-B": "x"}}, "defaults.environment.A-B", "the name of an environment variable"),
        ({"environment": {"A": 1}}, "defaults.environment.A", "a string"),
        ({"environment": {"A": "x"}, "secrets": {"A": {}}}, "defaults", "not both: A"),
        ({"secrets": {"A": {"secret_manager": "a/b"}}}, "defaults.secrets.A.secret_manager", "projects/PROJECT/sec"),
        ({"secrets": {"A": {"local": "hunter2"}}}, "defaults.secrets.A.local", "'env:NAME'"),
        (
            {"secrets": {"A": {"kubernetes": {"secret": "S_1", "key": "k"}}}},
            "defaults.secrets.A.kubernetes.secret",
            "sm",
        ),
        ({"secrets": {"A": "hunter2"}}, "defaults.secrets.A", "SECRET/KEY of Kubernetes"),
        (
            {"volumes": [{"mount_path": "/a"}]},
            "defaults.volumes.0",
            "exactly one of pvc, secret, config_map",
        ),
        ({"volumes": [{"mount_path": "a", "pvc": "b"}]}, "defaults.volumes.0.mount_path", "an absolute path"),
        ({"volumes": 2 * [{"mount_path": "/a", "pvc": "b"}]}, "defaults", "volumes at folders of their own"),
        ({"tolerations": [{"operator": "Equal"}]}, "defaults.tolerations.0", "a key, or the operator Exists"),
        ({"pod_labels": {"team": "a b"}}, "defaults.pod_labels.team", "a label's value as Kubernetes has it"),
        ({"node_selector": {"a/b/c": "x"}}, "defaults.node_selector.a/b/c", "a label's name as Kubernetes has it"),
    ],
)
def test_a_wrong_value(settings: dict[str, Any], parameter: str, allowed: str, tmp_path: Path) -> None:
    path = tmp_path / "kubeflow.yaml"
    path.write_text(yaml.safe_dump({"defaults": settings}))
    with pytest.raises(InputError) as caught:
        load_kubeflow(file=path, environ={})
    assert caught.value.facts["parameter"] == parameter
    assert allowed in caught.value.facts["allowed"]
    assert str(path) in caught.value.facts["where"]
    assert "hunter2" not in str(caught.value)


def test_a_wrong_key_of_a_step_suggests_the_close_one(tmp_path: Path) -> None:
    path = tmp_path / "vertex.yaml"
    path.write_text(yaml.safe_dump({"steps": {"train-*": {"memroy": "1G"}}}))
    required = {"project": "p", "location": "l", "pipeline_root": "gs://b"}
    with pytest.raises(InputError, match="target 'vertex' has no setting of this name") as caught:
        load_vertex(file=path, environ={}, overrides=required)
    assert caught.value.facts["parameter"] == "steps.train-*.memroy"
    assert caught.value.facts["hint"] == "did you mean 'memory'?"
    path.write_text(yaml.safe_dump({"steps": {"a/b/c": {}}}))
    with pytest.raises(InputError) as caught:
        load_local(file=path, environ={})
    assert "a step's name, or a pattern" in caught.value.facts["allowed"]


def test_settings_of_steps_come_from_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    path.write_text("defaults: {retries: 2}")
    environ = {"PIPEPARTS_DEFAULTS": "x", "PIPEPARTS_STEPS": "x", "PIPEPARTS_STEPS_TRAIN": "x"}
    config = load_local(file=path, environ=environ)
    assert config.defaults.retries is not None
    assert not config.steps


def test_settings_go_to_a_step_that_submits_and_come_back_the_same() -> None:
    steps = {"train-*": {"timeout_seconds": None, "cpu": 2, "volumes": [{"mount_path": "/a", "empty_dir": {}}]}}
    config = KubeflowConfig.model_validate({"defaults": {"timeout_seconds": 9, "retries": 2}, "steps": steps})
    kept = config.model_dump(mode="json", exclude_defaults=True)
    assert kept["steps"]["train-*"]["timeout_seconds"] is None
    again = KubeflowConfig.model_validate(kept)
    assert again == config
    found = settings_of(again, TRAIN, pipeline="p")
    assert (found.timeout_seconds, found.retries.count) == (None, 2)  # type: ignore[union-attr]
    assert KubeflowConfig().model_dump(mode="json", exclude_defaults=True) == {}


@given(st.integers(1, 10**6), st.sampled_from(["", "M", "Mi", "G", "Gi", "T", "Ti"]))
def test_sizes_are_what_kubernetes_reads(number: int, unit: str) -> None:
    assert memory_bytes(f"{number}{unit}") == parse_quantity(f"{number}{unit}")
    assert cpu_number(f"{number}m") == pytest.approx(float(parse_quantity(f"{number}m")))
