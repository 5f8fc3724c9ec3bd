"""Runs the rules over a document."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Iterable, Sequence

from pipeparts.errors import InputError, suggest
from pipeparts.linting import rules as rule_modules
from pipeparts.linting.air_gap import AirGap
from pipeparts.linting.document import Document, Version
from pipeparts.linting.findings import REGISTERED, TARGETS, Finding, Hit, Rule, Severity, Target
from pipeparts.linting.secrets import redact


def all_rules() -> list[Rule]:
    """Every rule, in the order of the groups and numbers."""
    for module in pkgutil.iter_modules(rule_modules.__path__):
        importlib.import_module(f"{rule_modules.__name__}.{module.name}")
    order = "DVRCTSPXL"
    return sorted(REGISTERED.values(), key=lambda rule: (order.index(rule.id[0]), int(rule.id[1:])))


def listed_rules() -> list[Rule]:
    """Every rule, those that only `--air-gap` asks for among them."""
    return [*all_rules(), *AirGap(()).rules()]


def find_rule(name: str) -> Rule:
    """A rule by its id or its name, those of the air gap too.

    Raises:
        InputError: Where there is none; with the close match.
    """
    rules = listed_rules()
    for rule in rules:
        if name.lower() in (rule.id.lower(), rule.name):
            return rule
    raise InputError(
        "there is no rule of this name",
        parameter="rule",
        allowed=[rule.id for rule in rules],
        received=name,
        hint=suggest(name, [rule.name for rule in rules]),
    )


def lint(
    document: Document,
    *,
    targets: Sequence[Target] = TARGETS,
    ignore: Collection[str] = (),
    kubeflow_version: Version | None = None,
    air_gap: AirGap | None = None,
) -> list[Finding]:
    """Finds what of a pipeline would not run, or not as meant.

    Args:
        document: The pipeline.
        targets: The platforms that it is meant for.
        ignore: Ids or names of rules to leave out.
        kubeflow_version: The release of Kubeflow Pipelines, where known: what it does not have yet is an error.
        air_gap: Asks for the proof that it runs without the internet, too.

    Returns:
        The findings by line, then by rule.

    Raises:
        InputError: For a rule to ignore that does not exist.
    """
    document.kubeflow_version = kubeflow_version
    rules = [*all_rules(), *(air_gap.rules() if air_gap else [])]
    ignored = {find_rule(name).id for name in ignore}
    found: list[Finding] = []
    for rule in rules:
        if rule.id in ignored:
            continue
        severities = _severities(rule, targets, kubeflow_version)
        if severities:
            found += _findings(rule, severities, rule.check(document), document)
    return sorted(found, key=lambda finding: (finding.line, finding.rule.id))


def _severities(rule: Rule, targets: Sequence[Target], version: Version | None) -> dict[Target, Severity]:
    severities = {target: severity for target, severity in rule.severities.items() if target in targets}
    if "kubeflow" in targets:
        if rule.kubeflow_from is not None and version is not None:
            severities.pop("kubeflow", None)
            if version < rule.kubeflow_from:
                severities["kubeflow"] = "error"
        elif rule.id == "X1" and version is not None:
            severities["kubeflow"] = "warning"
    return severities


def _findings(
    rule: Rule, severities: dict[Target, Severity], hits: Iterable[Hit], document: Document
) -> Iterable[Finding]:
    for hit in hits:
        own = {
            target: hit.severity or severity
            for target, severity in severities.items()
            if not hit.targets or target in hit.targets
        }
        if own:
            worst: Severity = "error" if "error" in own.values() else "warning"
            yield Finding(rule, worst, own, redact(hit.message), hit.tasks, document.file, document.line(hit.path))
