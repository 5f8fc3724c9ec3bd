"""A diff finds each change of meaning, classes it, and passes over what has no meaning."""

from __future__ import annotations

import copy
import random
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.diffing.changes import Comparison
from pipeparts.diffing.compare import compare
from pipeparts.diffing.reading import Compiled, parse
from pipeparts.errors import InputError

Spec = dict[str, Any]


def diff(old: Spec | str, new: Spec | str) -> Comparison:
    before, after = (
        parse(each, where) if isinstance(each, str) else Compiled(where, each, {})
        for each, where in ((old, "old.yaml"), (new, "new.yaml"))
    )
    return compare(before, after)


def kinds(old: Spec | str, new: Spec | str) -> list[tuple[str, str]]:
    return [(change.kind, change.impact.value) for change in diff(old, new).changes]


# ---- What has no meaning ------------------------------------------------------------------------------------------


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


def renumbered(spec: Spec, chance: random.Random) -> Spec:
    """The same pipeline under other labels, as after a change of the order of its source."""
    text = yaml.dump(spec, Dumper=yaml.CSafeDumper, sort_keys=False)
    labels = [*spec["components"], *spec["deploymentSpec"]["executors"]]
    groups = re.findall(r"^ +((?:condition|for-loop|exit-handler)-\d+):$", text, re.MULTILINE)
    for label in sorted({*labels, *groups}, key=len, reverse=True):
        base = re.sub(r"-\d+$", "", label)
        text = re.sub(rf"(?<![\w-]){re.escape(label)}(?![\w-])", f"{base}-{chance.randrange(100, 10**9)}", text)
    return yaml.load(text, yaml.CSafeLoader)


@pytest.mark.parametrize("name", ["sample", "without_condition", "with_condition", "load"])
def test_a_pipeline_and_itself_differ_in_nothing(compiled: dict[str, Spec], name: str) -> None:
    assert kinds(compiled[name], compiled[name]) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_order_and_labels_are_noise(compiled: dict[str, Spec], seed: int) -> None:
    chance = random.Random(seed)
    spec = renumbered(shuffled(compiled["sample"], chance), chance)
    assert spec.keys() == compiled["sample"].keys()
    assert diff(compiled["sample"], spec).changes == ()


def test_the_sdk_comments_and_descriptions_are_noise(compiled: dict[str, Spec]) -> None:
    text = yaml.safe_dump(compiled["sample"])
    other = text.replace("kfp-2.17.0", "kfp-2.14.3").replace("kfp==2.17.0", "kfp==2.14.3")
    other = other.replace("# A comment.", "# Another.").replace("Loads rows.", "Loads the rows.")
    other = re.sub(r"--component_module_path", "--no-deps --component_module_path", other)
    assert other.count("2.14.3") >= 2
    assert "Loads the rows." in other
    spec = yaml.safe_load(f"# sample, compiled by another\n{other}")
    spec["pipelineInfo"]["description"] = "Something else."
    spec["root"]["inputDefinitions"]["parameters"]["rows"]["description"] = "How many."
    spec["root"]["inputDefinitions"]["parameters"]["rows"]["defaultValue"] = 10
    assert diff(text, spec).changes == ()


def test_resources_in_either_spelling_are_the_same(compiled: dict[str, Spec]) -> None:
    spec = copy.deepcopy(compiled["sample"])
    resources = spec["deploymentSpec"]["executors"]["exec-split"]["container"]["resources"]
    assert resources.pop("resourceCpuLimit") == "2"
    assert resources.pop("resourceMemoryLimit") == "4G"
    assert kinds(compiled["sample"], spec) == []
    resources["resourceCpuLimit"] = "2000m"
    assert kinds(compiled["sample"], spec) == []


# ---- One change, and only that ------------------------------------------------------------------------------------


def tasks(spec: Spec, component: str = "") -> Spec:
    return (spec["components"][component] if component else spec["root"])["dag"]["tasks"]


def container(spec: Spec, name: str) -> Spec:
    return spec["deploymentSpec"]["executors"][f"exec-{name}"]["container"]


def parameters(spec: Spec) -> Spec:
    return spec["root"]["inputDefinitions"]["parameters"]


def outputs(spec: Spec) -> Spec:
    return spec["root"]["outputDefinitions"]["artifacts"]


def rename_a_step(spec: Spec) -> None:
    tasks(spec)["fetch"] = tasks(spec).pop("load")
    tasks(spec)["fetch"]["taskInfo"]["name"] = "fetch"
    for task in tasks(spec).values():
        if "load" in task.get("dependentTasks", []):
            task["dependentTasks"] = ["fetch" if name == "load" else name for name in task["dependentTasks"]]
    inputs = tasks(spec)["split"]["inputs"]["parameters"]
    inputs["pipelinechannel--fetch-Output"] = inputs.pop("pipelinechannel--load-Output")
    inputs["pipelinechannel--fetch-Output"]["taskOutputParameter"]["producerTask"] = "fetch"
    inputs["source"]["runtimeValue"]["constant"] = inputs["source"]["runtimeValue"]["constant"].replace(
        "load-O", "fetch-O"
    )


def rename_a_function(spec: Spec) -> None:
    rename_a_step(spec)
    spec["components"]["comp-fetch"] = spec["components"].pop("comp-load")
    spec["components"]["comp-fetch"]["executorLabel"] = "exec-fetch"
    tasks(spec)["fetch"]["componentRef"]["name"] = "comp-fetch"
    executors = spec["deploymentSpec"]["executors"]
    executors["exec-fetch"] = executors.pop("exec-load")
    code = executors["exec-fetch"]["container"]
    code["args"] = ["fetch" if part == "load" else part for part in code["args"]]
    code["command"][-1] = code["command"][-1].replace("def load(", "def fetch(")


def add_a_step(spec: Spec) -> None:
    tasks(spec)["tell-9"] = {
        "componentRef": {"name": "comp-tell"},
        "inputs": {"parameters": {"text": {"runtimeValue": {"constant": "new"}}}},
        "taskInfo": {"name": "tell-9"},
    }


def move_a_step(spec: Spec) -> None:
    tasks(spec)["shell"] = tasks(spec, "comp-exit-handler-1").pop("shell")
    tasks(spec)["shell"]["inputs"]["parameters"]["text"] = {"componentInputParameter": "label"}
    tasks(spec, "comp-exit-handler-1")["tell"].pop("dependentTasks")
    tasks(spec)["exit-handler-1"]["dependentTasks"] = ["shell"]


def set_path(*path: str) -> Callable[..., Callable[[Spec], None]]:
    def with_value(value: Any) -> Callable[[Spec], None]:
        def plant(spec: Spec) -> None:
            *above, last = path
            place = spec
            for key in above:
                place = place[key]
            place[last] = value

        return plant

    return with_value


PARAMETERS = ("root", "inputDefinitions", "parameters")
TASKS = ("root", "dag", "tasks")
LOAD = ("deploymentSpec", "executors", "exec-load", "container")

PLANTED: dict[str, tuple[Callable[[Spec], Any], str, str]] = {
    "pipeline name": (set_path("pipelineInfo", "name")("other"), "pipeline-renamed", "breaking"),
    "optional parameter": (
        set_path(*PARAMETERS, "seed")({"parameterType": "NUMBER_INTEGER", "defaultValue": 1.0, "isOptional": True}),
        "input-added",
        "compatible",
    ),
    "required parameter": (set_path(*PARAMETERS, "seed")({"parameterType": "STRING"}), "input-added", "breaking"),
    "parameter gone": (lambda spec: parameters(spec).pop("options"), "input-removed", "breaking"),
    "parameter type": (set_path(*PARAMETERS, "rows", "parameterType")("NUMBER_DOUBLE"), "input-retyped", "breaking"),
    "default": (set_path(*PARAMETERS, "rows", "defaultValue")(11.0), "default-changed", "compatible"),
    "default of another kind": (
        set_path(*PARAMETERS, "options", "defaultValue")({"a": 1}),
        "default-changed",
        "compatible",
    ),
    "required now": (
        lambda spec: [parameters(spec)["rows"].pop(key) for key in ("defaultValue", "isOptional")],
        "input-required",
        "breaking",
    ),
    "optional now": (set_path(*PARAMETERS, "source", "defaultValue")("here"), "input-optional", "compatible"),
    "fewer values": (set_path(*PARAMETERS, "label", "literals")(["x", "y"]), "values-changed", "breaking"),
    "input artifact": (
        set_path("root", "inputDefinitions", "artifacts")({"base": {"artifactType": {"schemaTitle": "system.Model"}}}),
        "input-added",
        "breaking",
    ),
    "output gone": (lambda spec: outputs(spec).pop("Model"), "output-removed", "breaking"),
    "output added": (
        set_path("root", "outputDefinitions", "parameters")({"Rows": {"parameterType": "NUMBER_INTEGER"}}),
        "output-added",
        "compatible",
    ),
    "output type": (
        set_path("root", "outputDefinitions", "artifacts", "Model", "artifactType", "schemaTitle")("system.Dataset"),
        "output-retyped",
        "breaking",
    ),
    "output of any type": (
        set_path("root", "outputDefinitions", "artifacts", "Model", "artifactType", "schemaTitle")("system.Artifact"),
        "output-retyped",
        "compatible",
    ),
    "output from elsewhere": (
        lambda spec: spec["root"]["dag"]["outputs"]["artifacts"]["Model"].update(
            artifactSelectors=[{"outputArtifactKey": "train", "producerSubtask": "split"}]
        ),
        "output-from-elsewhere",
        "internal",
    ),
    "pipeline root": (set_path("defaultPipelineRoot")("gs://other"), "setting-changed", "internal"),
    "name shown of the pipeline": (set_path("pipelineInfo", "displayName")("Mine"), "setting-changed", "internal"),
    "passthrough": (
        set_path("components", "comp-load", "taskConfigPassthroughs")([{"field": "RESOURCES"}]),
        "setting-changed",
        "internal",
    ),
    "step added": (add_a_step, "step-added", "internal"),
    "step gone": (lambda spec: tasks(spec).pop("score-2"), "step-removed", "internal"),
    "step renamed": (rename_a_step, "step-renamed", "internal"),
    "function renamed": (rename_a_function, "step-renamed", "internal"),
    "step moved": (move_a_step, "step-moved", "internal"),
    "image": (set_path(*LOAD, "image")("registry.example/team/python:1.1"), "image-changed", "internal"),
    "code": (
        lambda spec: container(spec, "load")["command"].append(
            container(spec, "load")["command"].pop().replace("rows + len", "rows - len")
        ),
        "code-changed",
        "internal",
    ),
    "packages": (
        lambda spec: container(spec, "split").update(
            command=[part.replace("polars==1.30.0", "polars==1.31.0") for part in container(spec, "split")["command"]]
        ),
        "packages-changed",
        "internal",
    ),
    "command": (lambda spec: container(spec, "shell")["command"].append("-n"), "command-changed", "internal"),
    "a value": (
        set_path(*TASKS, "condition-2", "triggerPolicy", "strategy")("ALL_UPSTREAM_TASKS_COMPLETED"),
        "setting-changed",
        "internal",
    ),
    "edge": (
        lambda spec: tasks(spec)["train"]["inputs"]["artifacts"]["table"]["taskOutputArtifact"].update(
            outputArtifactKey="test"
        ),
        "edge-changed",
        "internal",
    ),
    "constant": (
        lambda spec: tasks(spec, "comp-condition-2")["tell-2"]["inputs"]["parameters"]["text"].update(
            runtimeValue={"constant": "better"}
        ),
        "edge-changed",
        "internal",
    ),
    "edge into a group": (
        lambda spec: tasks(spec)["condition-2"]["inputs"]["artifacts"]["pipelinechannel--split-test"].update(
            taskOutputArtifact={"outputArtifactKey": "train", "producerTask": "split"}
        ),
        "edge-changed",
        "internal",
    ),
    "default of a nested pipeline": (
        set_path("components", "comp-scoring", "inputDefinitions", "parameters", "depth", "defaultValue")(6.0),
        "edge-changed",
        "internal",
    ),
    "default of a step": (
        set_path("components", "comp-train", "inputDefinitions", "parameters", "depth", "defaultValue")(4.0),
        "step-interface-changed",
        "internal",
    ),
    "output of a step": (
        set_path("components", "comp-load", "outputDefinitions", "parameters", "Output", "parameterType")("STRING"),
        "step-interface-changed",
        "internal",
    ),
    "order": (lambda spec: tasks(spec)["score-2"]["dependentTasks"].append("train"), "order-changed", "internal"),
    "condition": (
        set_path(*TASKS, "condition-2", "triggerPolicy", "condition")(
            "inputs.parameter_values['pipelinechannel--scoring-Output'] > 0.8"
        ),
        "condition-changed",
        "internal",
    ),
    "loop": (
        lambda spec: tasks(spec, "comp-condition-2")["for-loop-3"]["parameterIterator"].update(items={"raw": '["b"]'}),
        "items-changed",
        "internal",
    ),
    "parallelism": (
        lambda spec: tasks(spec, "comp-condition-2")["for-loop-3"].pop("iteratorPolicy"),
        "parallelism-changed",
        "internal",
    ),
    "caching": (lambda spec: tasks(spec)["load"].pop("cachingOptions"), "caching-changed", "internal"),
    "retries": (set_path(*TASKS, "load", "retryPolicy", "maxRetryCount")(4), "retries-changed", "internal"),
    "name shown": (
        set_path("components", "comp-exit-handler-1", "dag", "tasks", "shell", "taskInfo", "name")("Tell all"),
        "label-changed",
        "internal",
    ),
    "resources": (
        lambda spec: container(spec, "split")["resources"].update(cpuLimit=3.0, resourceCpuLimit="3"),
        "resources-changed",
        "internal",
    ),
    "accelerator": (
        lambda spec: container(spec, "split")["resources"].update(accelerator={"count": "1", "type": "NVIDIA_L4"}),
        "resources-changed",
        "internal",
    ),
    "environment": (
        lambda spec: container(spec, "split").update(env=[{"name": "MODE", "value": "slow"}]),
        "environment-changed",
        "internal",
    ),
    "environment of a first variable": (
        lambda spec: container(spec, "load").update(env=[{"name": "MODE", "value": "slow"}]),
        "environment-changed",
        "internal",
    ),
    "importer": (
        set_path("deploymentSpec", "executors", "exec-importer", "importer", "reimport")(True),
        "importer-changed",
        "internal",
    ),
    "lifecycle": (set_path(*LOAD, "lifecycle")({"preCacheCheck": {"command": ["x"]}}), "setting-changed", "internal"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_one_change_is_found_alone(compiled: dict[str, Spec], name: str) -> None:
    plant, kind, impact = PLANTED[name]
    spec = copy.deepcopy(compiled["sample"])
    plant(spec)
    assert kinds(compiled["sample"], spec) == [(kind, impact)]
    assert [change.kind for change in diff(spec, compiled["sample"]).changes] != []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(PLANTED)))
def test_a_change_is_found_through_the_noise(compiled: dict[str, Spec], seed: int, name: str) -> None:
    chance = random.Random(seed)
    plant, kind, impact = PLANTED[name]
    spec = copy.deepcopy(compiled["sample"])
    plant(spec)
    spec = renumbered(shuffled(spec, chance), chance)
    assert kinds(compiled["sample"], spec) == [(kind, impact)]


def test_a_condition_around_a_step_is_one_change(compiled: dict[str, Spec]) -> None:
    assert kinds(compiled["without_condition"], compiled["with_condition"]) == [("condition-added", "internal")]
    (change,) = diff(compiled["with_condition"], compiled["without_condition"]).changes
    assert change.headline == ("a condition was removed from around tell: int({load.Output}) > 3 → nothing")


def test_a_change_in_many_steps_is_said_once(compiled: dict[str, Spec]) -> None:
    text = yaml.safe_dump(compiled["sample"]).replace("python:1.0", "python:1.1")
    (change,) = diff(compiled["sample"], text).changes
    assert change.kind == "image-changed"
    assert len(change.steps) > 8
    assert "in steps " in change.headline
    assert "more changed: registry.example/team/python:1.0 → registry.example/team/python:1.1" in change.headline


def test_an_edge_from_a_step_of_the_same_name_that_is_another_one(compiled: dict[str, Spec]) -> None:
    """`tell` goes, `shell` takes its name: who waited for the one waits for another one now."""
    spec = copy.deepcopy(compiled["with_condition"])
    spec["root"]["dag"]["tasks"]["last"] = {
        "componentRef": {"name": "comp-load"},
        "inputs": {"parameters": {"source": {"componentInputParameter": "source"}}},
        "dependentTasks": ["tell-2"],
        "taskInfo": {"name": "last"},
    }
    changed = copy.deepcopy(spec)
    del tasks(changed)["load"], tasks(changed)["condition-1"]
    tasks(changed)["tell-2"]["dependentTasks"] = []
    tasks(changed)["load"] = tasks(changed).pop("last")  # the same code and inputs, another place
    found = {(change.kind, change.steps) for change in diff(spec, changed).changes}
    assert ("order-changed", ("tell-2",)) in found
    assert ("condition-removed", ()) in found


def test_a_component_s_own_parameter_is_said_once(compiled: dict[str, Spec]) -> None:
    spec = copy.deepcopy(compiled["load"])
    parameters(spec)["rows"]["defaultValue"] = 20.0
    spec["components"]["comp-load"]["inputDefinitions"]["parameters"]["rows"]["defaultValue"] = 20.0
    assert kinds(compiled["load"], spec) == [("default-changed", "compatible")]
    del parameters(spec)["rows"]
    del spec["components"]["comp-load"]["inputDefinitions"]["parameters"]["rows"]
    del tasks(spec)["load"]["inputs"]["parameters"]["rows"]
    assert kinds(compiled["load"], spec) == [("input-removed", "breaking")]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, (dict, list)) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, item in items for found in leaves(item, (*path, key))]
    return [(path, value)]


def test_no_change_of_a_value_goes_by_unseen(compiled: dict[str, Spec]) -> None:
    """Whatever is changed anywhere in the tasks, the interface or the containers is found, or is a damage."""
    spec = compiled["sample"]
    seen = 0
    for path, value in leaves(spec):
        if path[0] not in ("root", "deploymentSpec", "pipelineInfo"):
            continue
        if {"cpuLimit", "memoryLimit", "isOptional", "description", "dependentTasks", "schemaVersion"} & {*path}:
            continue  # what is written a second time; an order that is implied; of a version, the first number counts
        if ("command" in path and "def " not in str(value)) or value in ("--executor_input", "{{$}}"):
            continue  # what KFP puts around a function
        changed = copy.deepcopy(spec)
        place: Any = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = f"{value}x" if isinstance(value, (str, dict)) else not value if value in (0, 1) else value + 1
        seen += 1
        try:
            found = len(diff(spec, changed).changes)
        except InputError as error:
            found = "damaged" in error.headline
        assert found, path
    assert seen > 80


# ---- Settings of one platform -------------------------------------------------------------------------------------

PLATFORM = """
platforms:
  kubernetes:
    deploymentSpec:
      executors:
        exec-load:
          nodeSelector: {labels: {pool: small}}
"""


def test_settings_of_a_platform(compiled: dict[str, Spec]) -> None:
    core = yaml.safe_dump(compiled["sample"])
    bound = f"{core}---\n{textwrap.dedent(PLATFORM)}"
    assert kinds(bound, bound) == []
    assert ("platform-added", "breaking") in kinds(core, bound)
    assert ("platform-removed", "internal") in kinds(bound, core)
    assert kinds(bound, bound.replace("small", "large")) == [("platform-changed", "internal")]
    secret = "          secretAsEnv: [{secretName: s, keyToEnv: [{secretKey: k, envVar: E}]}]\n"
    assert kinds(bound, bound + secret) == [("platform-changed", "breaking")]
    assert kinds(bound, bound + secret.replace("secretName: s", "optional: true, secretName: s")) == [
        ("platform-changed", "internal")
    ]


# ---- What is no pipeline ------------------------------------------------------------------------------------------


def damage(spec: Spec, *path: str) -> Callable[[Any], Spec]:
    def with_value(value: Any) -> Spec:
        damaged = copy.deepcopy(spec)
        set_path(*path)(value)(damaged)
        return damaged

    return with_value


def test_a_damaged_pipeline_is_an_error(compiled: dict[str, Spec]) -> None:
    spec = compiled["sample"]
    for damaged in (
        damage(spec, "components")([1]),
        damage(spec, "components", "comp-load")("text"),
        damage(spec, "deploymentSpec")({}),
        damage(spec, "root", "dag", "tasks")(["a"]),
        damage(spec, "root", "dag", "tasks", "load", "componentRef", "name")("comp-none"),
        damage(spec, "root", "dag", "tasks", "load", "dependentTasks")(["none"]),
        damage(spec, "root", "dag", "tasks", "load", "dependentTasks")("finish"),
        damage(spec, "root", "dag", "outputs", "artifacts", "Model", "artifactSelectors")([{}]),
        damage(spec, "root")({"executorLabel": "x"}),
    ):
        with pytest.raises(InputError) as error:
            diff(spec, damaged)
        assert "new.yaml" in error.value.facts["where"]


def test_a_pipeline_that_contains_itself_is_an_error(compiled: dict[str, Spec]) -> None:
    spec = copy.deepcopy(compiled["sample"])
    tasks(spec, "comp-scoring")["again"] = {"componentRef": {"name": "comp-scoring"}}
    with pytest.raises(InputError, match="contains itself"):
        diff(spec, spec)
