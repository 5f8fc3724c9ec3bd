"""Rows of JSON Lines: one object a line, by RFC 8259."""

from __future__ import annotations

import decimal
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.file_ingestion.kinds import INT64, Column
from pipeparts.runtime.file_ingestion.text_rows import (
    SMALL_WINDOW,
    Chunk,
    TextReader,
    shown,
    why_not_text,
)

_FLOAT_EXACT = 2**53
_TIMES = ("date", "timestamp", "timestamp_utc")


class _Real(float):
    """A number with a fraction or an exponent, and how it was written."""

    text: str

    def __new__(cls, text: str) -> _Real:
        number = super().__new__(cls, text)
        number.text = text
        return number


class JsonReader(TextReader):
    """Reads JSON Lines; a key that a line lacks is null there."""

    def read_fast(self, block: bytes) -> bool:
        """Reads lines with Arrow, where all columns are known and of types that it reads as we do."""
        schema = self._schema()
        if schema is None or not _is_text(block):
            return False
        try:
            table = pa_json.read_json(
                pa.BufferReader(block),
                pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            )
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return False
        if table.num_rows != sum(1 for line in block.split(b"\n") if line.strip()):
            return False  # several objects on a line, or one on several
        for batch in table.combine_chunks().to_batches():
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            if any(_may_be_inexact(values) for values in columns.values()):
                return False
            if not self.sink.offer(Chunk(columns, batch.num_rows, learnable=False)):
                return False
        return True

    def read_exactly(self, end: int, last: bool) -> bool:
        """Reads lines one by one."""
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        raws: list[bytes] = []
        start = self.position
        while self.position < min(end, start + SMALL_WINDOW):
            line_end = self.line_end(self.position, end)
            if line_end == end and not last:
                break
            raw, line = self.buffer[self.position : line_end], self.line
            self.position = min(line_end + 1, end)
            self.line += 1
            if not raw.strip():
                continue
            if line == 1 and raw.lstrip().startswith(b"["):
                raise DataError(
                    "a JSON array, not JSON Lines", where=f"{self.stream.name}:1",
                    allowed="one JSON object a line", received=shown(raw)[:80],
                )  # fmt: skip
            row = _parse(raw)
            if isinstance(row, str):
                self.sink.bad(line, row, shown(raw))
            else:
                rows.append(row)
                lines.append(line)
                raws.append(raw)
        if rows:
            names = dict.fromkeys(name for row in rows for name in row)
            columns = {name: _column(self.sink.column(name), [row.get(name) for row in rows]) for name in names}
            self.sink.offer(Chunk(columns, len(rows), learnable=False, lines=lines, text=lambda at: shown(raws[at])))
        return self.position > start

    def _schema(self) -> pa.Schema | None:
        fields = []
        for column in self.sink.columns.values():
            kind = column.kind
            if pa.types.is_integer(kind):
                kind = pa.int64()
            elif pa.types.is_temporal(kind):
                kind = pa.string()
            elif kind not in (pa.bool_(), pa.float64(), pa.string()):
                return None
            fields.append(pa.field(column.name, kind))
        return pa.schema(fields) if fields else None


def _parse(raw: bytes) -> dict[str, Any] | str:
    """The line's object, or why there is none."""
    reason = why_not_text(raw)
    if reason is not None:
        return reason
    try:
        row = json.loads(raw, parse_float=_Real, parse_constant=_Real, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.colno}"
    except RecursionError:
        return "not JSON: nested too deeply"
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return f"not a JSON object but {_KINDS.get(type(row), 'a number')}"
    for value in row.values():
        if isinstance(value, str) and not _encodable(value):
            return "half of a surrogate pair in a text"
    return row


_KINDS = {list: "an array", str: "a text", bool: "a truth value", type(None): "null"}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} twice")
    return row


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _column(column: Column, values: list[Any]) -> pa.Array:
    """The values of one key as the type that the column has, once it has learned from them."""
    if column.given is None:
        _learn(column, values)
    kind = column.kind
    if column.given is not None or pa.types.is_string(kind) or pa.types.is_temporal(kind):
        return pa.array([None if value is None else _as_text(value) for value in values], pa.string())
    if pa.types.is_floating(kind):  # Arrow takes no whole number above 2^53 for a float, however exact it is
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)


def _learn(column: Column, values: list[Any]) -> None:
    present = [value for value in values if value is not None]
    if not present:
        return
    kinds = {type(value) for value in present}
    if kinds == {bool}:
        column.keep(["bool"])
    elif kinds <= {int, _Real}:
        fitting = ["float64"] if all(_is_exact(value) for value in present) else []
        if kinds == {int} and all(value in INT64 for value in present):
            fitting.append("int64")
        column.keep(fitting)
    elif kinds == {str}:
        # A text is never a number, but it may be a date: JSON has no other way to write one.
        texts = pa.array(present, pa.string())
        column.keep(_TIMES)
        column.learn(texts)
    else:
        column.keep([])


def _is_exact(value: int | _Real) -> bool:
    """Whether the number survives as a float: whole numbers keep every digit, and none becomes infinite."""
    if isinstance(value, int):
        return value in INT64 and int(float(value)) == value
    return not np.isinf(value) or not decimal.Decimal(value.text).is_finite()


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, _Real):
        return value.text
    return json.dumps(value, ensure_ascii=not _plain(value))


def _plain(value: Any) -> bool:
    return _encodable(json.dumps(value, ensure_ascii=False))


def _may_be_inexact(values: pa.Array) -> bool:
    """Whether a float is so large that a whole number may have lost digits."""
    if not pa.types.is_float64(values.type) or values.null_count == len(values):
        return False
    low, high = pc.min_max(values).as_py().values()
    return bool(max(abs(low), abs(high)) >= _FLOAT_EXACT)


def _is_text(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
