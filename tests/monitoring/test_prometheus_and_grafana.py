"""What configs/ ships for Prometheus and Grafana, held against the real programs and what is really published."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeparts.components.monitoring.publish_metrics.figures import HELP
from pipeparts.components.monitoring.publish_metrics.logic import publish_metrics
from pipeparts.runtime.monitoring import Finding
from tests import monitoring_reports as reports
from tests.monitoring_services import Prometheus, program, prometheus, pushgateway

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs"
RULES = CONFIGS / "prometheus" / "pipeparts-rules.yml"
DASHBOARD = CONFIGS / "grafana" / "pipeparts.json"

#: What a Pushgateway adds to each group.
GATEWAY_METRICS = {"push_time_seconds", "push_failure_time_seconds"}
WORDS = {
    "and", "unless", "on", "without", "max", "sum", "topk", "time", "changes",
}  # fmt: skip


def promtool(*arguments: str, folder: Path = CONFIGS) -> str:
    command = [program("promtool"), *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    log = result.stdout + result.stderr
    assert result.returncode == 0, log
    return log


def publish(folder: Path, gateway: str, **changes: dict) -> None:
    given = {name: getattr(reports, name)(**changes.get(name, {})) for name in ("drift", "performance", "decision")}
    paths = reports.write(folder, **given)
    publish_metrics(receipt_path=folder / "receipt.json", pushgateway=gateway, **paths)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Prometheus]]:
    """A Pushgateway with all there is in it, and a Prometheus that scrapes it and evaluates the shipped rules."""
    folder = tmp_path_factory.mktemp("published")
    with pushgateway(folder / "gateway") as gateway, prometheus(folder / "prometheus", gateway, [RULES]) as server:
        publish(folder, gateway)
        server.wait_for("pipeparts_batch_rows")
        yield gateway, server


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    assert "9 rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(CONFIGS / "prometheus" / "prometheus.yml"))


def test_the_rules_do_what_they_are_there_for(tmp_path: Path) -> None:
    tests = Path(__file__).parent / "rules_test.yml"
    for path in (RULES, tests):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml", folder=tmp_path)
    tried = {
        case["alertname"] for test in yaml.safe_load(tests.read_text())["tests"] for case in test["alert_rule_test"]
    }
    assert tried == {rule["alert"] for rule in rules()}


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


def expressions() -> dict[str, str]:
    """Every expression of the dashboard and its variables, as Grafana sends it where all is chosen."""
    board = json.loads(DASHBOARD.read_text())
    found = {f"{p['title']}, {t['refId']}": t["expr"] for p in panels() for t in p.get("targets", [])}
    found |= {f"annotation {a['name']}": a["expr"] for a in board["annotations"]["list"]}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert match, variable["query"]
            found[f"variable {variable['name']}"] = match[1]
    return {name: re.sub(r"\$(job|model|metric)\b", ".*", text) for name, text in found.items()}


@pytest.mark.parametrize("name", expressions())
def test_every_expression_of_the_dashboard_has_a_value(published: tuple[str, Prometheus], name: str) -> None:
    """It parses, and it selects something of what is published. The annotation marks a change, and there was none."""
    _, server = published
    found = server.value(expressions()[name])
    assert found or name.startswith("annotation")


@pytest.mark.parametrize("expression", [*expressions().values(), *(rule["expr"] for rule in rules())])
def test_no_expression_names_what_is_not_published(expression: str) -> None:
    without_texts = re.sub(r'"[^"]*"|\{[^}]*\}|\b(on|without) \([^)]*\)', "", expression)
    names = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.sub(r"\d+[smhd]\b", "", without_texts)))
    assert names - WORDS <= HELP.keys() | GATEWAY_METRICS
    assert names & (HELP.keys() | GATEWAY_METRICS)
    labels = set(re.findall(r"(\w+)\s*=~?\"", expression))
    assert labels <= {"job", "model", "role", "metric"}


def test_every_metric_that_is_published_is_on_the_dashboard_or_in_a_rule() -> None:
    text = DASHBOARD.read_text() + RULES.read_text()
    left_out = {name for name in HELP if not re.search(rf"\b{name}\b", text)}
    assert left_out <= {"pipeparts_drift_reference_rows"}


def test_the_dashboard_can_be_laid_out() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "${datasource}"


def test_the_rules_fire_on_what_is_really_published(published: tuple[str, Prometheus], tmp_path: Path) -> None:
    gateway, server = published
    for alert in ("PipepartsDataDrift", "PipepartsPerformanceDegraded", "PipepartsRetrainingDecided"):
        server.wait_for(f'ALERTS{{alertname="{alert}", alertstate="firing", model="late_flights", job="pipeparts"}}')
    assert not server.firing("PipepartsPredictionDrift")
    assert not server.firing("PipepartsLabelsMissing")
    publish(
        tmp_path,
        gateway,
        drift={"drifted": False, "columns": (reports.column("late", 0.5, role="prediction"),)},
        performance={"degraded": False, "rows_labelled": 2_000},
        decision={"retrain": False, "triggers": (Finding(name="drift", exceeded=False),)},
    )
    for alert in ("PipepartsPredictionDrift", "PipepartsLabelsMissing"):
        server.wait_for(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
    assert not server.firing("PipepartsDataDrift")
    assert not server.firing("PipepartsPerformanceDegraded")
    assert not server.firing("PipepartsRetrainingDecided")
    publish(tmp_path, gateway)  # as the other tests want it
    server.wait_for("pipeparts_drift_detected == 1")
