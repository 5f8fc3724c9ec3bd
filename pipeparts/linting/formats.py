"""Findings as JSON and as SARIF, for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeparts import __version__
from pipeparts.linting.engine import all_rules
from pipeparts.linting.findings import Finding, Rule, Target

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_HOME = "https://pypi.org/project/pipeparts/"


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """A dictionary for each finding."""
    return [
        {
            "rule": finding.rule.id,
            "name": finding.rule.name,
            "severity": finding.severity,
            "targets": dict(finding.targets),
            "message": finding.message,
            "tasks": list(finding.tasks),
            "file": finding.file,
            "line": finding.line,
            "why": finding.rule.why,
            "fix": finding.rule.fix,
            "basis": finding.rule.basis,
        }
        for finding in findings
    ]


def as_sarif(findings: Iterable[Finding]) -> dict[str, Any]:
    """A SARIF 2.1.0 log: GitHub's and GitLab's code scanning, and editors, show it beside the lines."""
    findings = list(findings)
    known = {rule.id: rule for rule in all_rules()} | {finding.rule.id: finding.rule for finding in findings}
    order = list(known)
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pipeparts lint",
                        "semanticVersion": __version__,
                        "informationUri": _HOME,
                        "rules": [_sarif_rule(rule) for rule in known.values()],
                    }
                },
                "columnKind": "utf16CodeUnits",
                "results": [_sarif_result(finding, order.index(finding.rule.id)) for finding in findings],
            }
        ],
    }


def message_of(finding: Finding) -> str:
    """The finding and the tasks that it is about, in a sentence."""
    return f"{_tasks(finding)}{finding.message}"


def severity_text(rule: Rule, target: Target) -> str:
    """How a target takes what a rule is about: "error", "ok", "ok from 2.14"."""
    if target in rule.severities and (target != "kubeflow" or rule.kubeflow_from is None):
        return rule.severities[target]
    if target == "kubeflow" and rule.kubeflow_from is not None:
        return f"ok from {'.'.join(map(str, rule.kubeflow_from))}"
    return "warning, where older" if target == "kubeflow" and rule.id == "X1" else "ok"


def _tasks(finding: Finding) -> str:
    if not finding.tasks:
        return ""
    more = len(finding.tasks) - 1
    return f"{finding.tasks[0]}{f' and {more} more' if more else ''}: "


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    minds = ", ".join(f"{target}: {severity}" for target, severity in rule.severities.items())
    worst = "error" if "error" in rule.severities.values() else "warning"
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.name.split("-")),
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.why} {rule.fix} (basis: {rule.basis}; {minds or 'older backends'})"},
        "defaultConfiguration": {"level": worst},
        "properties": {"tags": [*rule.severities, rule.basis]},
    }


def _sarif_result(finding: Finding, index: int) -> dict[str, Any]:
    minds = ", ".join(f"{target}: {severity}" for target, severity in finding.targets.items())
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.severity,
        "message": {"text": f"{message_of(finding)} ({minds}). {finding.rule.fix}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(finding.file)},
                    "region": {"startLine": finding.line},
                },
                "logicalLocations": [{"fullyQualifiedName": task, "kind": "function"} for task in finding.tasks],
            }
        ],
    }


def _uri(file: str) -> str:
    """A file's address: seen from the working directory where it lies below it, as code scanning wants it."""
    path = Path(os.path.relpath(file))
    if path.parts[:1] == ("..",):
        return Path(file).resolve().as_uri()
    from urllib.parse import quote

    return quote(path.as_posix())
