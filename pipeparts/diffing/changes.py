"""What a comparison finds: changes, each with whom it concerns and why."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable
from typing import Any

_LONGEST_VALUE = 160


class Impact(enum.StrEnum):
    """Whom a change concerns, the worst first.

    A caller is who submits the pipeline, or uses it as a component, by its name, inputs and outputs.
    """

    BREAKING = "breaking"
    COMPATIBLE = "compatible"
    INTERNAL = "internal"

    @property
    def bump(self) -> str:
        """The part of a semantic version that it asks to raise."""
        return {"breaking": "major", "compatible": "minor", "internal": "patch"}[self.value]


@dataclasses.dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        kind: What it is, for programs: "input-removed", "image-changed".
        impact: Whom it concerns.
        subject: What changed: "parameter 'source'", "the image".
        text: What happened to it: "was removed".
        why: Why it has this impact.
        before: The old value, as text; empty where there was none.
        after: The new value, as text; empty where there is none.
        steps: The steps where it is found, where it is in steps.
        detail: Lines that show it at length, such as a diff of code.
    """

    kind: str
    impact: Impact
    subject: str
    text: str
    why: str
    before: str = ""
    after: str = ""
    steps: tuple[str, ...] = ()
    detail: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The change in one line."""
        where = f" in {named(self.steps)}" if self.steps else ""
        values = f": {self.before or 'nothing'} → {self.after or 'nothing'}" if self.before or self.after else ""
        return f"{self.subject}{where} {self.text}{values}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What changed between two versions of one pipeline or component.

    Attributes:
        name: Its name.
        changes: The changes, the worst first.
    """

    name: str
    changes: tuple[Change, ...]

    @property
    def impact(self) -> Impact | None:
        """The worst impact; None where nothing changed."""
        return worst(self.changes)


def worst(changes: Iterable[Change]) -> Impact | None:
    """The worst impact of some changes; None for none."""
    found = {change.impact for change in changes}
    return next((impact for impact in Impact if impact in found), None)


def merged(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Changes, the worst first; one that is the same in several steps is one change."""
    together: dict[Change, list[str]] = {}
    for change in changes:
        together.setdefault(dataclasses.replace(change, steps=()), []).extend(change.steps)
    order = list(Impact)
    found = [dataclasses.replace(change, steps=tuple(steps)) for change, steps in together.items()]
    return tuple(sorted(found, key=lambda change: order.index(change.impact)))


def named(steps: tuple[str, ...]) -> str:
    """Steps as a sentence names them; of many, the first."""
    shown = ", ".join(steps[:4]) + (f" and {len(steps) - 4} more" if len(steps) > 4 else "")
    return f"step{'' if len(steps) == 1 else 's'} {shown}"


def canonical(value: Any) -> Any:
    """A value with whole numbers as such: KFP writes 3 as 3.0."""
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def dumped(value: Any) -> str:
    """A value as JSON, the same text for the same value."""
    return json.dumps(canonical(value), ensure_ascii=False, sort_keys=True, default=str)


def shown(value: Any) -> str:
    """A value as one line of JSON, cut where it is long."""
    return cut(dumped(value))


def cut(text: str) -> str:
    """A text, cut where it is long."""
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"


def difference(kind: str, subject: str, before: Any, after: Any, steps: tuple[str, ...] = ()) -> Change:
    """A changed value that callers do not see."""
    words = ["" if value is None or value == {} else shown(value) for value in (before, after)]
    if words[0] == words[1]:  # the same as far as it is shown
        words = ["", ""]
    return internal(kind, subject, "changed", before=words[0], after=words[1], steps=steps)


def internal(
    kind: str, subject: str, text: str, *, before: str = "", after: str = "", steps: tuple[str, ...] = ()
) -> Change:
    """A change that callers do not see."""
    why = "callers see the same inputs and outputs"
    return Change(kind, Impact.INTERNAL, subject, text, why, before=before, after=after, steps=steps)


def without(value: Any, *known: str) -> dict[str, Any]:
    """A mapping without some of its keys; empty where it is none."""
    return {key: item for key, item in value.items() if key not in known} if isinstance(value, dict) else {}
