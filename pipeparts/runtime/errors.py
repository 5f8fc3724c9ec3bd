"""The errors people see: one form for all, with what was allowed and what was received."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_LONGEST_VALUE = 300


class PipepartsError(Exception):
    """An error with a short headline and the facts that help to mend it.

    Args:
        headline: One sentence, without a line break.
        parameter: The parameter or setting concerned.
        where: The place: a file and line, a column, a URL.
        allowed: What would have been accepted.
        received: What came instead. Long values are cut.
        hint: What to do about it.
    """

    #: Whether the same call may succeed later (an unreachable server), or never will (a wrong value).
    retryable = False

    def __init__(
        self,
        headline: str,
        *,
        parameter: str | None = None,
        where: str | None = None,
        allowed: Any = None,
        received: Any = None,
        hint: str | None = None,
    ) -> None:
        self.headline = headline
        self.facts: dict[str, str] = {}
        for name, value in (
            ("parameter", parameter),
            ("where", where),
            ("allowed", allowed),
            ("received", received),
            ("hint", hint),
        ):
            if value is not None:
                self.facts[name] = _shorten(value)
        super().__init__(headline)

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"  {name}: {text}" for name, text in self.facts.items())])


class InputError(PipepartsError, ValueError):
    """A parameter, a setting or a configuration is wrong."""


class DataError(PipepartsError, ValueError):
    """The data is not what the step needs: unreadable, missing columns, too many bad rows."""


class ContractError(DataError):
    """An artifact is not what its contract says: incomplete, damaged, or of another kind."""


class ServiceError(PipepartsError, RuntimeError):
    """Something outside did not answer as it should: a registry, a database, a bucket."""

    retryable = True


def suggest(name: str, allowed: Iterable[str]) -> str | None:
    """Returns "did you mean ...?" for the closest allowed name, whatever its case, or None where nothing is close."""
    names = {each.casefold(): each for each in allowed}
    close = difflib.get_close_matches(name.casefold(), names, n=1, cutoff=0.6)
    return f"did you mean {names[close[0]]!r}?" if close else None


def _shorten(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        text = ", ".join(str(item) for item in value) or "nothing"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}... ({len(text):,} characters)"
