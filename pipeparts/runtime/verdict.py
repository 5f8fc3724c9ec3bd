"""The verdict: what every gate writes, and what the steps after it read."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from pipeparts.runtime.errors import ContractError
from pipeparts.runtime.files import read_json, write_json, write_text

FORMAT = "pipeparts.verdict/1"


@dataclasses.dataclass(frozen=True)
class Check:
    """One check of a gate.

    Attributes:
        name: What was checked, as one term: "roc_auc", "required:tailnum".
        passed: Whether it held.
        value: What was measured (JSON-able), or None where nothing could be.
        threshold: What it was held against (JSON-able), or None.
        reason: One sentence a person understands without the source.
        samples: A few offending rows, if there are any.
    """

    name: str
    passed: bool
    value: Any = None
    threshold: Any = None
    reason: str = ""
    samples: tuple[dict[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome of a gate: passed where every check passed.

    Attributes:
        gate: The gate's name: the component that judged.
        subject: What was judged, in a few words.
        checks: Every check, passed or not; an empty list is refused, since a gate that checks nothing cannot pass.
    """

    gate: str
    subject: str
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        if not self.checks:
            raise ContractError("a verdict without any check", where=self.gate, allowed="one check at least")

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the contract."""
        return {
            "format": FORMAT,
            "gate": self.gate,
            "subject": self.subject,
            "passed": self.passed,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }

    def to_markdown(self) -> str:
        """The form for people: the outcome, what failed, then every check in a table."""
        lines = [f"# {self.gate}: {'passed' if self.passed else 'not passed'}", "", self.subject, ""]
        for check in self.failures:
            lines.append(f"- **{_cell(check.name)}**: {_cell(check.reason)}")
        if self.failures:
            lines.append("")
        lines += ["| check | passed | value | threshold | reason |", "|---|---|---|---|---|"]
        for check in self.checks:
            cells = (
                check.name,
                "yes" if check.passed else "**no**",
                format_value(check.value),
                format_value(check.threshold),
                check.reason,
            )
            lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
        return "\n".join(lines) + "\n"

    def write(self, json_path: str | os.PathLike[str], markdown_path: str | os.PathLike[str]) -> None:
        """Writes both forms, each whole or not at all."""
        write_json(json_path, self.as_dict())
        write_text(markdown_path, self.to_markdown())

    def metadata(self) -> dict[str, Any]:
        """What goes onto the artifact, and onto a registry's tags."""
        return {
            "passed": self.passed,
            "gate": self.gate,
            "checks": len(self.checks),
            "failed": ", ".join(check.name for check in self.failures),
        }


def read_verdict(path: str | os.PathLike[str]) -> Verdict:
    """Reads a verdict and holds it to its contract.

    Raises:
        ContractError: Where the file is missing, no verdict, or its `passed` is not what its checks say.
    """
    document = read_json(path, what="a verdict")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        received = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ContractError("not a verdict", where=str(path), allowed=f"format {FORMAT!r}", received=received)
    try:
        verdict = Verdict(
            gate=document["gate"],
            subject=document["subject"],
            checks=tuple(Check(**{**check, "samples": tuple(check["samples"])}) for check in document["checks"]),
        )
    except (KeyError, TypeError) as error:
        raise ContractError("a damaged verdict", where=str(path), received=repr(error)) from error
    if document.get("passed") is not verdict.passed:
        raise ContractError(
            "a verdict whose outcome contradicts its checks",
            where=str(path),
            allowed=f"passed: {verdict.passed}",
            received=f"passed: {document.get('passed')}",
        )
    return verdict


def format_value(value: Any) -> str:
    """A value as people read it: four significant digits for fractions, thousands separated."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return str(value)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
