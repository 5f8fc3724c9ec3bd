"""docs/monitoring.md: its defaults are the code's, its examples are accepted, its schedules are created."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeparts.components.monitoring.decide_retraining.policy import Policy
from pipeparts.components.monitoring.report_performance.judging import Limits
from pipeparts.runtime.drift import DriftLimits, parse_limits
from pipeparts.runtime.params import Params
from tests.guides.test_guides import DOCS, blocks, follow
from tests.targets.kubeflow_server import KubeflowServer, kubeflow_server

GUIDE = "monitoring.md"


def defaults(heading: str) -> dict[str, object]:
    """Key to default, of the table below a heading."""
    section = (DOCS / GUIDE).read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    assert rows
    return {name: yaml.safe_load(text) for name, text in rows}


def plain(values: Params, names: set[str]) -> dict[str, object]:
    found = values.model_dump(mode="json", include=names)
    return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


@pytest.mark.parametrize(
    ("heading", "values", "left_out"),
    [
        ("When a column has drifted", DriftLimits(), {"columns"}),
        (
            "When performance is lost",
            Limits().of_kind("binary"),
            # How it is measured, and what holds only where it is set: in the component's own page.
            {"metric", "relative", "bounds", "judge_slices", "max_unpredicted_share", "loss_bound"}
            | {"bootstrap_samples", "seed"},
        ),
        ("When it is trained again", Policy(), set()),
    ],
    ids=["drift", "performance", "policy"],
)
def test_the_defaults_are_those_of_the_code(heading: str, values: Params, left_out: set[str]) -> None:
    told = defaults(heading)
    assert set(told) == set(type(values).model_fields) - left_out
    assert told == plain(values, set(told))


def test_the_example_of_limits_is_accepted() -> None:
    (example,) = [block for block in blocks(GUIDE, "yaml") if block.startswith("drift_limits:")]
    limits = parse_limits(yaml.safe_load(example)["drift_limits"])
    assert limits.of("distance", "number", "feature")["psi"] == 0.1
    assert "missing_change" not in limits.of("carrier", "category", "feature")


@pytest.fixture
def kubeflow() -> Iterator[KubeflowServer]:
    with kubeflow_server() as server:
        yield server


@pytest.mark.slow
def test_both_schedules_are_created(kubeflow: KubeflowServer, tmp_path: Path) -> None:
    kubeflow.multi_user = True
    kubeflow.token = "the-token"
    replace = {"https://kubeflow.example.org/pipeline": kubeflow.host}
    follow(GUIDE, tmp_path, replace, {"KUBEFLOW_TOKEN": "the-token", "HOME": str(tmp_path)})
    text = json.dumps(list(kubeflow.recurring.values()))
    made = {schedule["display_name"]: schedule for schedule in kubeflow.recurring.values()}
    assert len(made) == 2
    for name in ("predict_batch", "monitor_and_retrain"):
        assert name in text
    assert {schedule["trigger"]["cron_schedule"]["cron"] for schedule in made.values()} == {
        "0 0 5 1 * *",
        "0 0 6 1 * *",
    }
    assert "{start:%Y-%m-16}" in text, "the window of the training is filled in when the schedule's run starts"
    assert "parameters_of" not in text
