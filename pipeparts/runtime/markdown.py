"""Text from outside as part of Markdown: shown as it is, whatever is in it."""

from __future__ import annotations

import re

_MARKUP = re.compile(r"[\\`*\[\]<>|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def inline(text: str) -> str:
    """Text as it is, in one line, whatever Markdown or HTML is in it.

    An underscore inside a word stays: it means nothing there, and column names are full of them.
    """
    return _MARKUP.sub(lambda match: f"\\{match[0]}", " ".join(text.split()))


def fenced(text: str, *, longest: int) -> list[str]:
    """The lines of a code block whose fence is longer than any in the text.

    Args:
        text: What to show.
        longest: Characters that are shown; the rest is cut, and the cut is said.
    """
    runs = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, runs + 1)
    return [f"{fence}text", *cut(text, longest).splitlines(), fence]


def cut(text: str, longest: int) -> str:
    """Text of at most so many characters, with a last line that says what it was where it is longer."""
    return text if len(text) <= longest else f"{text[:longest]}\n... ({len(text):,} characters)"
