"""KFP's own samples: what portability.md predicts of them is found, and nothing else of these rules is.

No package of the index carries them, so this runs where somebody has a checkout of github.com/kubeflow/pipelines:
`KFP_SAMPLES=pipelines/test_data python -m pytest tests/linting/test_kfp_samples.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts.linting import engine
from pipeparts.linting.document import Document

VARIABLE = "KFP_SAMPLES"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no folder of KFP's samples"),
]


def places(value: Any, key: str) -> list[Any]:
    """What stands under a key, wherever it is."""
    found = []
    if isinstance(value, dict):
        found += [value[key]] if key in value else []
        value = list(value.values())
    if isinstance(value, list):
        found += [each for item in value for each in places(item, key)]
    return found


def commands(documents: list[Any]) -> str:
    """All commands and arguments, as text."""
    return str([places(documents, "command"), places(documents, "args")])


def ignores_failures(documents: list[Any]) -> bool:
    """Whether a task runs however others end, which are no exit handler's."""
    tasks = [task for group in places(documents, "tasks") for task in group.values()]
    return any(
        task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        and not all(name.startswith("exit-handler") for name in task["dependentTasks"])
        for task in tasks
    )


#: A rule, and whether a sample breaks it: told in another way than the rule's own.
PREDICTED: dict[str, Callable[[list[Any]], bool]] = {
    "D1": lambda documents: len(documents) > 1,
    "D2": lambda documents: not isinstance(documents[0], dict) or "root" not in documents[0],
    "D3": lambda documents: (
        "{{$.workspace_path}}" in str(documents) or True in places(documents, "downloadToWorkspace")
    ),
    "D4": lambda documents: "TASK_CONFIG" in str(documents) or bool(places(documents, "taskConfigPassthroughs")),
    "D5": lambda documents: bool(places(documents, "artifactIterator")),
    "V1": lambda documents: "{{$.pipeline_google_cloud_" in str(documents),
    "V3": lambda documents: '{"Concat"' in commands(documents),
    "V4": lambda documents: '{"IfPresent"' in commands(documents),
    "R2": lambda documents: "{{$" in str([places(documents, "resources"), places(documents, "image")]),
    "C3": ignores_failures,
    "T1": lambda documents: "'schemaTitle': 'google." in str(documents),
    "P2": lambda documents: "pip install" in commands(documents),
}


def test_what_is_predicted_of_the_samples_is_found_and_nothing_else() -> None:
    samples, wrong = 0, []
    met: dict[str, int] = dict.fromkeys(PREDICTED, 0)
    for path in sorted(Path(os.environ[VARIABLE]).rglob("*.yaml")):
        text = path.read_text()
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
        if not documents:
            continue  # one of KFP's own bad inputs
        samples += 1
        found = {finding.rule.id for finding in engine.lint(Document(text, path.name))}
        if PREDICTED["D2"](documents):
            assert "D2" in found, path
            continue
        for rule, breaks in PREDICTED.items():
            met[rule] += breaks(documents)
            if breaks(documents) != (rule in found):
                wrong.append(f"{path.name}: {rule} {'is missing' if breaks(documents) else 'should not be there'}")
    assert wrong == []
    assert samples > 100
    assert [rule for rule, times in met.items() if not times and rule not in ("D2", "D4")] == []
