"""The parameter `query`: a table's name, or one statement that only reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from pipeparts.runtime.errors import InputError

_PART = r'(?:[^\W\d]\w*|"(?:[^"]|"")+")'
_NAME = re.compile(rf"{_PART}(?:\s*\.\s*{_PART}){{0,2}}")
_ALLOWED = "a table's name (schema.table), or one SELECT (or WITH ... SELECT)"

# What a statement may begin with after its WITH clauses; the first of these outside of parentheses decides.
_VERBS = {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "VALUES", "TABLE"}

# Quoted texts and comments, in which nothing counts; an unfinished one reaches to the end.
_SKIPPED = re.compile(
    r"""'(?:[^']|'')*(?:'|\Z)|"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)"""
    r"""|(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z)""",
    re.DOTALL,
)
_TOKEN = re.compile(r"[^\W\d]\w*|[();]|\S")


@dataclasses.dataclass(frozen=True)
class Statement:
    """What to read.

    Attributes:
        sql: The SELECT, without a semicolon; empty for a table.
        table: The table's name, without quotes.
        schema: The table's schema; empty where none is named.
    """

    sql: str = ""
    table: str = ""
    schema: str = ""

    def __str__(self) -> str:
        if self.table:
            return f"{self.schema}.{self.table}" if self.schema else self.table
        return " ".join(self.sql.split())


def parse_statement(query: str) -> Statement:
    """Reads the parameter `query`.

    Raises:
        InputError: For what is neither a table's name nor one statement that reads.
    """
    text = query.strip()
    if _NAME.fullmatch(text):
        parts = [_unquote(part) for part in re.findall(_PART, text)]
        return Statement(table=parts[-1], schema=".".join(parts[:-1]))
    # Word by word, outside of quotes and comments; so a semicolon inside a text is no end.
    tokens = list(_tokens(text))
    words = [token for token, depth, _ in tokens if depth == 0]
    if not tokens or tokens[0][0] == ";":
        raise _refuse("`query` is empty", query)
    ends = [number for number, (token, _, _) in enumerate(tokens) if token == ";"]
    if ends and any(token != ";" for token, _, _ in tokens[ends[0] :]):
        raise _refuse("`query` holds more than one statement", query)
    first = next((token for token, _, _ in tokens if token != "("), "")
    verb = first
    if first == "WITH":
        verb = next((word for word in words if word in _VERBS), "")
    if verb != "SELECT":
        raise _refuse("`query` is not a statement that only reads", query)
    if "INTO" in words:
        raise _refuse("`query` writes its rows somewhere (SELECT ... INTO)", query)
    return Statement(sql=text[: tokens[ends[0]][2]].rstrip() if ends else text)


def quote(name: str) -> str:
    """A name as standard SQL quotes it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Each word and sign in capitals, how many parentheses deep, and where."""
    place = depth = 0
    while place < len(text):
        skipped = _SKIPPED.match(text, place)
        if skipped:
            if skipped[0][0] in "'\"`$":
                yield "''", depth, place
            place = skipped.end()
            continue
        token = _TOKEN.match(text, place)
        if token is None:
            place += 1
            continue
        depth -= token[0] == ")"
        yield token[0].upper(), depth, place
        depth += token[0] == "("
        place = token.end()


def _unquote(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _refuse(headline: str, query: str) -> InputError:
    return InputError(headline, parameter="query", allowed=_ALLOWED, received=" ".join(query.split()) or "nothing")
