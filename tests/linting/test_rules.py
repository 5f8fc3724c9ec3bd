"""Every rule: a pipeline that breaks it, and one near to it that does not."""

from __future__ import annotations

import copy
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts.errors import InputError
from pipeparts.linting import engine
from pipeparts.linting.air_gap import AirGap
from pipeparts.linting.document import Document, Version
from pipeparts.linting.findings import TARGETS, Finding

Spec = dict[str, Any]
Edit = Callable[[Spec], object]


@functools.cache
def compiled(name: str) -> str:
    """One of the pipelines beside this file, compiled by kfp."""
    from kfp import compiler

    from tests.linting import pipelines

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(getattr(pipelines, name), str(path))
        return path.read_text()


def edited(edit: Edit, name: str = "clean") -> str:
    """A compiled pipeline with something in it that kfp does not write, or not here."""
    spec = copy.deepcopy(yaml.safe_load(compiled(name)))
    edit(spec)
    return yaml.safe_dump(spec, sort_keys=False)


def container(spec: Spec, name: str = "number") -> Spec:
    found: Spec = spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return found


def task(spec: Spec, name: str = "number") -> Spec:
    found: Spec = spec["root"]["dag"]["tasks"][name]
    return found


def constant(spec: Spec, value: Any, name: str = "seed") -> None:
    task(spec)["inputs"]["parameters"][name] = {"runtimeValue": {"constant": value}}


def env(spec: Spec, name: str, value: str) -> None:
    container(spec)["env"] = [{"name": name, "value": value}]


def artifact_type(kind: Spec) -> Edit:
    def edit(spec: Spec) -> None:
        spec["components"]["comp-make"]["outputDefinitions"]["artifacts"]["table"]["artifactType"] = kind

    return edit


def parameter(spec: Spec, **facts: Any) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["source"].update(facts)


def executor(spec: Spec, **facts: Any) -> None:
    spec["deploymentSpec"]["executors"]["exec-number"] = facts


def description(spec: Spec, length: int) -> None:
    spec["components"]["comp-number"]["inputDefinitions"]["parameters"]["seed"]["description"] = "x" * length


def large(size: int) -> str:
    return edited(lambda spec: spec["pipelineInfo"].update(note="x" * size))


def rename(spec: Spec, name: str) -> None:
    spec["pipelineInfo"]["name"] = name


CLEAN = functools.partial(compiled, "clean")
_KEY = "AKIA" + "ABCDEFGHIJKLMNOP"

#: Rule: what breaks it, and what is near to it and does not.
CASES: dict[str, tuple[Callable[[], str], Callable[[], str]]] = {
    "D1": (lambda: compiled("clean") + "---\nplatforms:\n  kubernetes: {}\n", CLEAN),
    "D2": (lambda: "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {}\n", CLEAN),
    "D3": (lambda: edited(lambda s: constant(s, "{{$.workspace_path}}/a")), lambda: compiled("placeholder_alone")),
    "D4": (lambda: edited(lambda s: parameter(s, parameterType="TASK_CONFIG")), CLEAN),
    "D5": (
        lambda: edited(lambda s: task(s, "for-loop-1").update(artifactIterator={"itemInput": "a"}), "loop_over_output"),
        lambda: compiled("loop_over_output"),
    ),
    "D6": (lambda: edited(lambda s: executor(s, resolver={"outputArtifactQueries": {}})), CLEAN),
    "D7": (lambda: edited(lambda s: executor(s, customJob={"customJob": {}})), CLEAN),
    "D8": (
        lambda: edited(lambda s: task(s, "importer").update(triggerPolicy={"condition": "true"}), "imports"),
        lambda: compiled("imports"),
    ),
    "D9": (lambda: edited(lambda s: rename(s, "2-clean")), CLEAN),
    "D10": (lambda: compiled("clean") + "\nschemaVersion: 2.1.0\n", CLEAN),
    "V1": (
        lambda: edited(lambda s: constant(s, "{{$.pipeline_google_cloud_project_id}}")),
        lambda: compiled("placeholder_alone"),
    ),
    "V2": (
        lambda: edited(
            lambda s: container(s)["args"].append("{{$.inputs.artifacts['table'].metadata['rows']}}"),
        ),
        lambda: edited(lambda s: container(s)["args"].append("{{$.inputs.artifacts['table'].path}}")),
    ),
    "V3": (lambda: compiled("joins"), lambda: compiled("container")),
    "V4": (lambda: compiled("asks"), lambda: compiled("container")),
    "V5": (lambda: compiled("root_placeholder"), lambda: compiled("placeholder_alone")),
    "V6": (lambda: compiled("placeholder_in_text"), lambda: compiled("placeholder_alone")),
    "V7": (lambda: compiled("time_placeholder"), lambda: compiled("placeholder_alone")),
    "R1": (lambda: compiled("gpu_of_vertex"), lambda: compiled("small_machine")),
    "R2": (lambda: compiled("sized_by_parameter"), lambda: compiled("small_machine")),
    "R3": (lambda: compiled("large_memory"), lambda: compiled("small_machine")),
    "C1": (lambda: edited(lambda s: task(s)["cachingOptions"].update(cacheKey="k")), CLEAN),
    "C2": (lambda: compiled("handled"), CLEAN),
    "C3": (lambda: compiled("ignores_failures"), lambda: compiled("handled")),
    "C4": (lambda: compiled("loop_in_exit_handler"), lambda: compiled("handled")),
    "C5": (lambda: compiled("collects_many"), lambda: compiled("loop_of_many")),
    "C6": (lambda: compiled("collected"), lambda: compiled("loop_of_many")),
    "C7": (lambda: edited(lambda s: parameter(s, literals=["a", "b"])), CLEAN),
    "T1": (lambda: edited(artifact_type({"schemaTitle": "google.VertexModel"})), CLEAN),
    "T2": (
        lambda: edited(artifact_type({"schemaTitle": "Embedding"})),
        lambda: edited(artifact_type({"schemaTitle": "team.Embedding"})),
    ),
    "T3": (lambda: edited(artifact_type({"schemaUri": "gs://schemas/table.yaml"})), CLEAN),
    "S1": (
        lambda: edited(lambda s: constant(s, "x" * 10_001)),
        lambda: edited(lambda s: constant(s, "x" * 10_000)),
    ),
    "S2": (lambda: large(256_000), lambda: large(200_000)),
    "S3": (lambda: large(600_000), lambda: large(500_000)),
    "S4": (lambda: edited(lambda s: description(s, 1_025)), lambda: edited(lambda s: description(s, 1_024))),
    "S5": (lambda: compiled("takes_an_artifact"), lambda: compiled("imports")),
    "P1": (
        lambda: edited(lambda s: constant(s, "/minio/bucket/table")),
        lambda: edited(lambda s: constant(s, "docs/s3/notes")),
    ),
    "P2": (lambda: compiled("installs"), CLEAN),
    "P3": (lambda: compiled("unpinned_image"), CLEAN),
    "P4": (
        lambda: edited(lambda s: env(s, "DB_PASSWORD", "hunter22")),
        lambda: edited(lambda s: env(s, "DB_PASSWORD", "env:DB_PASSWORD")),
    ),
    "P5": (
        lambda: edited(lambda s: container(s).update(image="pipeparts-python-data")),
        lambda: edited(lambda s: container(s).update(image="registry.example/pipeparts-python-data:0.1.0-abc")),
    ),
    "P6": (lambda: compiled("optional"), CLEAN),
    "X1": (lambda: edited(lambda s: s.update(sdkVersion="kfp-2.99.0")), CLEAN),
    "L1": (lambda: compiled("container"), CLEAN),
    "L2": (lambda: compiled("one_of_artifacts"), lambda: compiled("one_of_parameters")),
    "L3": (lambda: compiled("nested_named_condition"), CLEAN),
    "L4": (lambda: compiled("loop_over_named_output"), lambda: compiled("loop_over_output")),
    "L5": (lambda: compiled("in_an_image"), CLEAN),
    "L6": (lambda: compiled("imports_from_a_bucket"), lambda: compiled("imports")),
    "A1": (
        lambda: edited(lambda s: container(s)["command"].__setitem__(2, "curl -O https://x.example/a && sh a")),
        lambda: edited(lambda s: container(s)["command"].__setitem__(2, "curl http://localhost:8080/health")),
    ),
    "A2": (lambda: edited(lambda s: container(s).update(image="ghcr.io/team/python:1.0")), CLEAN),
    "A3": (lambda: edited(lambda s: container(s).update(image="registry.example/team/python")), CLEAN),
    "A4": (lambda: compiled("imports_from_the_web"), lambda: compiled("imports")),
}

#: The newest release that a rule minds, for those that mind old ones alone.
OLD = (2, 10)


def findings(text: str, *, kubeflow_version: Version | None = OLD) -> list[Finding]:
    gap = AirGap(("registry.example",))
    return engine.lint(Document(text, "p.yaml"), kubeflow_version=kubeflow_version, air_gap=gap)


def test_every_rule_has_a_pipeline_that_breaks_it_and_one_that_does_not() -> None:
    assert sorted(CASES) == sorted(rule.id for rule in engine.listed_rules())


@pytest.mark.parametrize("rule", CASES)
def test_what_breaks_a_rule_is_found(rule: str) -> None:
    text = CASES[rule][0]()
    found = [finding for finding in findings(text) if finding.rule.id == rule]
    assert found
    for finding in found:
        assert finding.message
        assert finding.targets
        assert 1 <= finding.line <= text.count("\n") + 1


@pytest.mark.parametrize("rule", CASES)
def test_what_is_near_breaks_nothing(rule: str) -> None:
    version = (2, 99) if rule == "X1" else OLD
    assert rule not in [finding.rule.id for finding in findings(CASES[rule][1](), kubeflow_version=version)]


def test_what_a_component_on_its_own_takes_comes_from_the_pipeline_that_uses_it() -> None:
    for name in ("use", "make"):
        document = Document(compiled(name), "component.yaml")
        assert document.is_component
        assert engine.lint(document, kubeflow_version=(2, 17)) == []
    for name in ("clean", "takes_an_artifact", "optional", "container"):
        assert not Document(compiled(name), "pipeline.yaml").is_component


def test_the_clean_pipeline_is_clean() -> None:
    assert engine.lint(Document(compiled("clean"), "p.yaml"), kubeflow_version=(2, 17)) == []


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule[0] != "A"])
def test_one_target_alone_is_told_what_concerns_it(rule: str) -> None:
    text = CASES[rule][0]()
    for target in TARGETS:
        for finding in engine.lint(Document(text, "p.yaml"), targets=[target], kubeflow_version=OLD):
            assert set(finding.targets) == {target}
            assert finding.severity == finding.targets[target]


def test_the_line_and_the_task_are_those_of_the_place() -> None:
    text = compiled("placeholder_in_text")
    (finding,) = [f for f in findings(text) if f.rule.id == "V6"]
    assert "run-{{$.pipeline_job_name}}" in text.splitlines()[finding.line - 1]
    assert finding.tasks == ("say",)
    (nested,) = [f for f in findings(compiled("nested_named_condition")) if f.rule.id == "L3"]
    assert nested.tasks == ("condition-1/condition-2",)
    assert "ok of two" in nested.message


def test_where_two_platforms_want_two_names_each_is_told_of_the_other_s() -> None:
    for name, target in (("gpu_of_vertex", "kubeflow"), ("gpu_of_kubernetes", "vertex")):
        (finding,) = [f for f in findings(compiled(name)) if f.rule.id == "R1"]
        assert set(finding.targets) == {target}


def test_cpus_and_memory_are_read_with_their_units() -> None:
    assert "128" in next(f.message for f in findings(compiled("large_machine")) if f.rule.id == "R3")
    for value, is_too_large in (("640Gi", True), ("581Gi", False), ("624G", False), ("640000M", True)):
        text = edited(lambda s, v=value: container(s)["resources"].update(resourceMemoryLimit=v), "small_machine")
        assert any(f.rule.id == "R3" for f in findings(text)) == is_too_large, value


@pytest.mark.parametrize(
    ("image", "pinned"),
    [(f"a.example/b@sha256:{'0' * 64}", True), ("a.example/b@sha256:0123", False), ("a.example:5000/b", False)],
)
def test_half_a_digest_pins_nothing(image: str, pinned: bool) -> None:
    text = edited(lambda s: container(s).update(image=image))
    assert any(f.rule.id == "P3" for f in findings(text)) != pinned


@pytest.mark.parametrize(("version", "rules"), [((2, 10), {"C2"}), ((2, 13), {"C2"}), ((2, 14), set()), (None, set())])
def test_what_an_old_kubeflow_lacks_is_an_error_there(version: Version | None, rules: set[str]) -> None:
    found = findings(compiled("handled"), kubeflow_version=version)
    assert {f.rule.id for f in found if f.severity == "error"} == rules


@pytest.mark.parametrize(
    ("version", "severity"),
    [(None, "warning"), ((2, 16), "error"), ((2, 16, 0), "error"), ((2, 16, 1), None), ((2, 17), None)],
)
def test_where_the_release_is_known_a_rule_is_certain(version: Version | None, severity: str | None) -> None:
    (finding,) = [f for f in findings(compiled("asks"), kubeflow_version=version) if f.rule.id == "V4"]
    assert finding.targets.get("kubeflow") == severity


def test_a_newer_sdk_that_is_known_to_break_is_an_error() -> None:
    for sdk, severity in (("kfp-2.15.1", "error"), ("kfp-2.15.2", "warning")):
        text = edited(lambda spec, sdk=sdk: spec.update(sdkVersion=sdk))
        (finding,) = [f for f in findings(text, kubeflow_version=(2, 14)) if f.rule.id == "X1"]
        assert finding.severity == severity


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("train-2", None),
        ("Clean_Pipeline", "warning"),
        ("Train every week", "warning"),
        ("2-train", "error"),
        ("t" * 113, None),
        ("t" * 114, "error"),
        ("___", "error"),
    ],
)
def test_a_name_is_judged_by_the_id_that_vertex_ai_s_client_makes_of_it(name: str, severity: str | None) -> None:
    found = [f for f in findings(edited(lambda s: rename(s, name))) if f.rule.id == "D9"]
    assert [f.targets for f in found] == ([{"vertex": severity}] if severity else [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anything", "-----BEGIN RSA PRIVATE KEY-----\nMII..."),
        ("anything", _KEY),
        ("anything", "ghp_" + "a" * 36),
        ("anything", "postgresql://team:s3cretpass@db.example/x"),
        ("anything", "xoxb-1234567890-abcdef"),
        ("MLFLOW_TRACKING_TOKEN", "0123456789abcdef"),
        ("api_key", "0123456789abcdef"),
    ],
)
def test_secrets_are_found_and_never_shown_whole(name: str, value: str) -> None:
    (finding,) = [f for f in findings(edited(lambda s: env(s, name, value))) if f.rule.id == "P4"]
    assert value not in finding.message
    assert value[8:] not in finding.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "env:KUBEFLOW_TOKEN"),
        ("password", "projects/p/secrets/s/versions/latest"),
        ("SECRET_KEY", "{{$.inputs.parameters['key']}}"),
        ("DB_PASSWORD", ""),
        ("tokens", "the number of tokens in a text"),
        ("address", "postgresql://db.example:5432/x"),
        ("address", "postgresql://team:$PASSWORD@db.example/x"),
        ("tokenizer", "wordpiece-v2"),
        ("max_tokens", "123456789"),
    ],
)
def test_what_is_no_secret_is_left_alone(name: str, value: str) -> None:
    assert "P4" not in [f.rule.id for f in findings(edited(lambda s: env(s, name, value)))]


@pytest.mark.parametrize(
    "words",
    [
        ["tool", "--password", "hunter22"],
        ["tool", "--password=hunter22"],
        ["docker", "run", "--env", "DB_PASSWORD=hunter22", "image"],
        ["sh", "-c", "export DB_PASSWORD=hunter22 && tool"],
        ["python", "-c", "connect(password='hunter22')"],
        ["sh", "-ec", "x", "\ndef f():\n    api_key = 'hunter22'\n"],
        ["sh", "-c", "psql postgresql://team:hunter22@db.example/x"],
    ],
)
def test_a_secret_in_a_command_is_found_and_not_shown(words: list[str]) -> None:
    found = findings(edited(lambda s: container(s).update(command=words)))
    assert "P4" in [f.rule.id for f in found]
    assert not [f for f in found if "hunter22" in f.message]


@pytest.mark.parametrize(
    "words",
    [
        ["tool", "--token", "{{$.inputs.parameters['token']}}"],
        ["tool", "--token", "--verbose"],
        ["tool", "--secret=TOKEN=projects/p/secrets/token/versions/1"],
        ["sh", "-c", "TOKEN=$(cat /run/token) tool --password $PASSWORD"],
        [
            "sh",
            "-ec",
            "x",
            "\ndef f(tokenizer):\n    tokenizer(pad_token='<pad>', sep_token='[SEP] 1', secret='my-secret')\n",
        ],
    ],
)
def test_a_reference_in_a_command_is_no_secret(words: list[str]) -> None:
    assert "P4" not in [f.rule.id for f in findings(edited(lambda s: container(s).update(command=words)))]


def test_no_message_shows_a_secret_that_stands_in_what_it_quotes() -> None:
    address = "https://team:hunter22@index.example/simple"
    text = edited(lambda s: container(s).update(command=["pip", "install", "--index-url", address, "x"]))
    found = findings(text)
    assert {"P2", "P4", "A1"} <= {f.rule.id for f in found}
    assert not [f for f in found if "hunter22" in f.message]


def test_the_image_of_a_custom_job_is_proved_as_well() -> None:
    job = {"workerPoolSpecs": [{"containerSpec": {"imageUri": "gcr.io/other/trainer"}}]}
    found = findings(edited(lambda s: executor(s, customJob=job)))
    assert {("A2", "the image is gcr.io/other/trainer"), ("A3", "the image is gcr.io/other/trainer")} <= {
        (f.rule.id, f.message) for f in found
    }


def test_a_secret_deep_in_a_default_is_found() -> None:
    text = edited(lambda s: parameter(s, parameterType="STRUCT", defaultValue={"db": [{"password": "hunter22"}]}))
    assert "P4" in [f.rule.id for f in findings(text)]


def test_rules_are_left_out_by_id_or_name() -> None:
    document = Document(compiled("unpinned_image"), "p.yaml")
    assert "P3" in [f.rule.id for f in engine.lint(document)]
    for name in ("P3", "p3", "mutable-image"):
        assert "P3" not in [f.rule.id for f in engine.lint(document, ignore=[name])]
    with pytest.raises(InputError, match="no rule of this name") as caught:
        engine.lint(document, ignore=["mutabel-image"])
    assert "mutable-image" in caught.value.facts["hint"]


@pytest.mark.parametrize("path", [(), ("root",), ("deploymentSpec",), ("components",), ("root", "dag", "tasks")])
@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [{}], {"x": None}, {"x": {"container": 3}}])
def test_a_damaged_document_gets_findings_and_no_traceback(path: tuple[str, ...], value: Any) -> None:
    spec = yaml.safe_load(compiled("nested_named_condition"))
    place = spec
    for key in path[:-1]:
        place = place[key]
    if path:
        place[path[-1]] = value
    else:
        spec = {"x": value}
    findings(json.dumps(spec))


def test_json_is_read_too() -> None:
    text = json.dumps(yaml.safe_load(compiled("unpinned_image")), indent=1)
    (finding,) = [f for f in findings(text) if f.rule.id == "P3"]
    assert "python:latest" in text.splitlines()[finding.line - 1]
