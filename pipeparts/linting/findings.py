"""What a rule is, and what it finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeparts.linting.document import Document, Version
    from pipeparts.linting.reading import Path

Target = Literal["kubeflow", "vertex", "local"]
Severity = Literal["error", "warning"]
#: How sure a rule is: run = executed, src = read in the client's or backend's source, doc = documentation,
#: issue = a report of a user, inferred = not confirmed by a real project yet, policy = a rule of this library.
Basis = Literal["run", "src", "doc", "issue", "inferred", "policy"]

TARGETS: tuple[Target, ...] = ("kubeflow", "vertex", "local")
SEVERITIES: tuple[Severity, ...] = ("error", "warning")


@dataclasses.dataclass(frozen=True)
class Hit:
    """A place where a pipeline breaks a rule.

    Attributes:
        message: What stands there, in a sentence.
        path: Where, in the document.
        tasks: The tasks concerned, each by its path through the groups; empty: the pipeline as a whole.
        targets: Only these of the rule's targets; empty: all of them.
        severity: Where it is another one than the rule's.
    """

    message: str
    path: Path = ()
    tasks: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    severity: Severity | None = None


Check = Callable[["Document"], Iterator[Hit]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """One thing that does not run everywhere.

    Attributes:
        id: A letter for the group and a number: "D1".
        name: Its name, as "several-documents".
        summary: What it looks for, as a noun.
        severities: How bad it is on each target; a target that is not named does not mind.
        why: What happens.
        fix: What to do.
        basis: How it is known.
        check: Finds it.
        kubeflow_from: The first release of Kubeflow Pipelines that does not mind: where the release is known, it is an
            error below it, and nothing from it on.
    """

    id: str
    name: str
    summary: str
    severities: Mapping[Target, Severity]
    why: str
    fix: str
    basis: str
    check: Check
    kubeflow_from: Version | None = None


@dataclasses.dataclass(frozen=True)
class Finding:
    """A rule that a pipeline breaks.

    Attributes:
        rule: The rule.
        severity: The worst of its severities.
        targets: Target to severity, for the targets that mind.
        message: What stands there.
        tasks: The tasks concerned.
        file: The file.
        line: The line, from 1.
    """

    rule: Rule
    severity: Severity
    targets: Mapping[Target, Severity]
    message: str
    tasks: tuple[str, ...]
    file: str
    line: int


#: Every rule by its id; the modules of `pipeparts.linting.rules` fill it when they are imported.
REGISTERED: dict[str, Rule] = {}


def rule(
    id: str,
    name: str,
    summary: str,
    *,
    kubeflow: Severity | None = None,
    vertex: Severity | None = None,
    local: Severity | None = None,
    why: str,
    fix: str,
    basis: str,
    kubeflow_from: Version | None = None,
) -> Callable[[Check], Check]:
    """Makes a rule of a function that finds its hits."""

    def register(check: Check) -> Check:
        assert id not in REGISTERED, f"two rules with the id {id}"
        given: dict[Target, Severity | None] = {"kubeflow": kubeflow, "vertex": vertex, "local": local}
        severities = {target: severity for target, severity in given.items() if severity is not None}
        REGISTERED[id] = Rule(id, name, summary, severities, why, fix, basis, check, kubeflow_from)
        return check

    return register
