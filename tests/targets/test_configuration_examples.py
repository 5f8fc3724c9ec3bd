"""What the page about configuration and the files of settings show is what works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts.config import KubeflowConfig, LocalConfig, VertexConfig
from pipeparts.step_settings import StepSettings
from pipeparts.targets.binding import ACCELERATORS, bind

HERE = Path(__file__).parents[2]
PAGE = (HERE / "docs" / "configuration.md").read_text(encoding="utf-8")
VERTEX = {"project": "p", "location": "l", "pipeline_root": "gs://b"}


def examples_of_the_page() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL):
        named = re.match(r"# configs/(\w+)\.yaml\n", block)
        found += [
            (target, yaml.safe_load(block)) for target in ([named[1]] if named else ["kubeflow", "vertex", "local"])
        ]
    return found


def commented(target: str) -> dict[str, Any]:
    """The example in a file of settings: its comments from a key on, until the key itself."""
    text = (HERE / "configs" / f"{target}.yaml").read_text(encoding="utf-8")
    blocks = [re.search(rf"^# {key}:\n(?:#.*\n)+", text, re.MULTILINE) for key in ("defaults", "accelerators")]
    lines = [line.removeprefix("# ") for block in blocks if block for line in block[0].splitlines()]
    return dict(yaml.safe_load("\n".join(lines)))


def check(target: str, example: dict[str, Any], spec: dict[str, Any]) -> None:
    models = {"kubeflow": KubeflowConfig, "vertex": VertexConfig, "local": LocalConfig}
    given = {**(VERTEX if target == "vertex" else {}), **example}
    bound = bind(spec, models[target].model_validate(given))  # type: ignore[arg-type]
    assert bound.spec != spec or bound.platform or "secrets" in example.get("defaults", {})


@pytest.mark.parametrize(("target", "example"), examples_of_the_page())
def test_the_examples_of_the_page(target: str, example: dict[str, Any], spec: dict[str, Any]) -> None:
    check(target, example, spec)


@pytest.mark.parametrize("target", ["kubeflow", "vertex", "local"])
def test_the_examples_in_the_files(target: str, spec: dict[str, Any]) -> None:
    example = commented(target)
    assert {"defaults", "steps"} <= set(example)
    check(target, example, spec)


def test_the_page_names_every_setting_and_every_accelerator() -> None:
    assert not [name for name in StepSettings.model_fields if f"`{name}`" not in PAGE]
    table = re.findall(r"^\| `(nvidia-\S+)` \| `(\S+)` \| `(\S+)` \|$", PAGE, re.MULTILINE)
    assert {name: (label, word) for name, label, word in table} == ACCELERATORS
