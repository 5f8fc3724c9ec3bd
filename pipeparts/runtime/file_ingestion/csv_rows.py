"""Rows of CSV and TSV, by RFC 4180.

A quote opens a quoted value only at the value's beginning, a doubled quote inside one is a quote, and behind
the closing quote comes the delimiter or the line's end. A quote elsewhere is a character like others. A
quoted value that breaks this rule makes its line a bad row, and reading goes on with the next line.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.file_ingestion.opening import Stream
from pipeparts.runtime.file_ingestion.text_rows import (
    LONGEST_ROW,
    SMALL_WINDOW,
    Chunk,
    Sink,
    TextReader,
    shown,
    why_not_text,
)

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
_Mask = npt.NDArray[np.bool_]

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
#: Their text is not made first: it costs more than the value.
_DIRECT = (pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC"))
#: Bytes at a time: what is worked with in between stays in the processor's cache.
_PIECE = 64 << 10
_OTHER_DELIMITERS = {";": "a semicolon", "\t": "a tab", "|": "a bar", ",": "a comma"}


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a text with delimiters is written.

    Attributes:
        delimiter: One character between values.
        delimiter_given: Whether the caller said so.
        quote: One character, or "" where quotes mean nothing.
        header: Whether the first line holds the names; None: it should, and may not look like data.
        names: The columns' names where there is no header.
        null_values: The spellings of a missing value.
    """

    delimiter: str
    delimiter_given: bool
    quote: str
    header: bool | None
    names: tuple[str, ...] | None
    null_values: tuple[str, ...]


class CsvReader(TextReader):
    """Reads CSV; `names` is there before the first row is read."""

    def __init__(self, stream: Stream, sink: Sink, dialect: Dialect) -> None:
        super().__init__(stream, sink)
        self._dialect = dialect
        self._delimiter = dialect.delimiter.encode()
        self._quote = dialect.quote.encode()
        self._edges = np.zeros(256, bool)
        self._edges[[*self._delimiter, *b"\r\n", *self._quote]] = True
        self._nulls = frozenset(value.encode() for value in dialect.null_values)
        self.names = self._read_names()
        self._options = self._arrow_options()

    def cut(self, end: int, last: bool) -> tuple[int | None, bool]:
        """Where the last whole row ends: at a line break outside quotes."""
        start, buffer = self.position, self.buffer
        if not self._quote or buffer.find(self._quote, start, end) < 0:
            return super().cut(end, last)
        data = np.frombuffer(buffer, np.uint8, end - start, start)
        cut = len(data) if last else buffer.rfind(b"\n", start, end) + 1 - start
        if self._is_well_quoted(data, cut):
            return start + cut, True
        quotes, inner, begins, ends = self._find_quotes(data)
        if last:
            if len(quotes) % 2:
                return None, False
        else:
            at = cut - 1
            # A line break behind an odd number of quotes is inside a value: look before that value.
            while at >= 0 and (before := int(np.searchsorted(quotes, at))) % 2:
                at = buffer.rfind(b"\n", start, start + int(quotes[before - 1])) - start
            if at < 0:
                return None, True
            cut = at + 1
        inner = inner[inner < cut]
        # A quote in the middle of a value is a character like others, but not within quotes.
        literal = not (np.searchsorted(quotes, inner) % 2).any()
        # Well quoted: quotes stand only where values begin and end, or doubled inside.
        count = int(np.searchsorted(quotes, cut))
        return start + cut, literal and bool(begins[:count:2].all() and ends[1:count:2].all())

    def read_fast(self, block: bytes) -> bool:
        """Reads whole, well quoted rows with Arrow."""
        direct = self._direct_types()
        batch = self._parse(block, direct) if direct else None
        batch = self._parse(block) if batch is None else batch
        return batch is not None and self.sink.offer(Chunk(self._by_name(batch.columns), batch.num_rows))

    def read_exactly(self, end: int, last: bool) -> bool:
        """Reads rows one by one."""
        rows: list[list[bytes]] = []
        lines: list[int] = []
        raws: list[bytes] = []
        start = self.position
        # No further than a small window: behind the bad row the fast way may do again.
        while self.position < min(end, start + SMALL_WINDOW):
            found = self._next_row(self.position, end, last)
            if found is None:
                break
            values, reason, behind = found
            raw = self.buffer[self.position : behind]
            line = self.line
            self.line += raw.count(b"\n")
            self.position = behind
            if not raw.strip(b"\r\n"):
                continue
            if reason is None and len(values) != len(self.names):
                reason = f"{_count(len(values), 'value')} where there are {_count(len(self.names), 'column')}"
            reason = reason or why_not_text(raw)
            if reason is None:
                rows.append(values)
                lines.append(line)
                raws.append(raw)
            else:
                self.sink.bad(line, reason, shown(raw))
        if rows:
            # Arrow again for the rows that are left: it is only to be spared those that are not well formed.
            batch = self._parse(b"".join(raws))
            columns = batch.columns if batch is not None and batch.num_rows == len(rows) else self._columns(rows)
            text = functools.partial(_shown_at, raws)
            self.sink.offer(Chunk(self._by_name(columns), len(rows), lines=lines, text=text))
        return self.position > start

    def _direct_types(self) -> dict[str, pa.DataType]:
        """The columns whose given type Arrow reads from the bytes as `kinds.convert` does from texts, or refuses."""
        given = {name: self.sink.column(name).given for name in self.names}
        return {name: kind for name, kind in given.items() if kind in _DIRECT}

    def _parse(self, block: bytes, types: dict[str, pa.DataType] | None = None) -> pa.RecordBatch | None:
        """Whole, well quoted rows as texts, but for these types; None where Arrow does not read them as we do."""
        if b"\0" in block or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
            return None
        read, parse, options = self._options
        read.block_size = len(block) + 1
        parse.newlines_in_values = bool(self._quote) and self._quote in block
        options.check_utf8 = not block.isascii()
        options.column_types = dict.fromkeys(self.names, pa.string()) | (types or {})
        try:
            table = pa_csv.read_csv(pa.py_buffer(block), read, parse, options)
        except pa.ArrowInvalid as error:
            if "Empty CSV file" not in str(error):
                return None
            table = pa.table([pa.array([], pa.string())] * len(self.names), self.names)  # blank lines
        batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        return batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # which copies even one

    def _columns(self, rows: list[list[bytes]]) -> list[pa.Array]:
        return [
            pa.array([None if row[i] in self._nulls else row[i].decode() for row in rows], pa.string())
            for i in range(len(self.names))
        ]

    def _by_name(self, columns: list[pa.Array]) -> dict[str, pa.Array]:
        return dict(zip(self.names, columns, strict=True))

    def _next_row(self, start: int, end: int, last: bool) -> tuple[list[bytes], str | None, int] | None:
        """The row's values, why it is bad, and where it ends; None where it is not whole."""
        line_end = self.line_end(start, end)
        if line_end == end and not last:
            return None
        line = self.buffer[start:line_end]
        if not self._quote or self._quote not in line:
            return line.removesuffix(b"\r").split(self._delimiter), None, min(line_end + 1, end)
        return self._next_quoted_row(start, end, last)

    def _next_quoted_row(self, start: int, end: int, last: bool) -> tuple[list[bytes], str | None, int] | None:
        buffer, quote, delimiter = self.buffer, self._quote, self._delimiter
        values: list[bytes] = []
        at = start
        while True:
            line_end = self.line_end(at, end)
            if line_end == end and not last:
                return None
            if buffer[at : at + 1] == quote:
                close = self._closing_quote(at + 1, end)
                if close is None:
                    if not last and end - start < LONGEST_ROW:
                        return None
                    return [], "a quote that is never closed", min(self.line_end(start, end) + 1, end)
                if close + 2 >= end and not last:
                    return None
                values.append(buffer[at + 1 : close].replace(quote + quote, quote))
                at = close + 1
                if buffer[at : at + 2] == b"\r\n":
                    at += 1
                if at < end and buffer[at : at + 1] not in (delimiter, b"\n"):
                    return [], "text behind a closing quote", min(self.line_end(start, end) + 1, end)
            else:
                stop = buffer.find(delimiter, at, line_end)
                at, begin = (line_end if stop < 0 else stop), at
                value = buffer[begin:at]
                values.append(value.removesuffix(b"\r") if stop < 0 else value)
            if at >= end or buffer[at : at + 1] == b"\n":
                return values, None, min(at + 1, end)
            at += 1

    def _closing_quote(self, at: int, end: int) -> int | None:
        quote = self._quote
        while (found := self.buffer.find(quote, at, end)) >= 0:
            if self.buffer[found + 1 : found + 2] != quote or found + 1 >= end:
                return found
            at = found + 2
        return None

    def _is_well_quoted(self, data: Bytes, cut: int) -> bool:
        """Whether quotes stand only where values begin and end, and the cut is outside: so it is nearly everywhere."""
        inside = 0
        for start in range(0, cut, _PIECE):
            quotes = np.flatnonzero(data[start : min(start + _PIECE, cut)] == self._quote[0])
            quotes += start
            opening, closing = quotes[inside::2], quotes[1 - inside :: 2]
            before = data[opening[opening > 0] - 1]
            behind = data[closing[closing + 1 < len(data)] + 1]
            if not (self._edges[before].all() and self._edges[behind].all()):
                return False
            inside = (inside + len(quotes)) % 2
        return cut > 0 and not inside

    def _find_quotes(self, data: Bytes) -> tuple[Places, Places, _Mask, _Mask]:
        """The quotes at a value's beginning or end, or beside another quote; and those in the middle of a value.

        Returns:
            The places of both, and of each of the former whether a value can begin there, and whether one can end.
        """
        quotes = np.flatnonzero(data == self._quote[0])
        begins = self._edges[data[quotes - 1]]
        ends = self._edges[data[np.minimum(quotes + 1, len(data) - 1)]]
        begins[:1] |= quotes[:1] == 0
        ends[-1:] |= quotes[-1:] == len(data) - 1
        at_edge = begins | ends
        if at_edge.all():
            return quotes, quotes[:0], begins, ends
        return quotes[at_edge], quotes[~at_edge], begins[at_edge], ends[at_edge]

    def _read_names(self) -> list[str]:
        if self._dialect.header is False:
            count = len(self._first_row(take=False))
            names = list(self._dialect.names or [f"column_{i + 1}" for i in range(count)])
            if count and len(names) != count:
                raise DataError(
                    "not as many names as columns",
                    where=f"{self.stream.name}:1",
                    allowed=f"{count} columns in the first row",
                    received=f"{len(names)} names in options.names",
                )
            return names
        # An index column often has no name.
        names = [value.decode().strip() for value in self._first_row(take=True)]
        names = [name or f"column_{i + 1}" for i, name in enumerate(names)]
        self._check_names(names)
        return names

    def _check_names(self, names: list[str]) -> None:
        where = f"{self.stream.name}:1"
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError("columns with the same name", where=where, allowed="different names", received=twice)
        numbers = [name for name in names if _NUMBER.fullmatch(name)]
        if numbers and self._dialect.header is None:
            raise DataError(
                "the first line looks like data, not like names of columns",
                where=where,
                allowed="a line with the columns' names",
                received=names,
                hint='options={"header": false} where there is none, {"header": true} where these are names',
            )
        other = next((mark for mark in _OTHER_DELIMITERS if len(names) == 1 and mark in names[0]), None)
        if other and not self._dialect.delimiter_given:
            raise DataError(
                "the delimiter seems to be another one",
                where=where,
                allowed=_OTHER_DELIMITERS.get(self._dialect.delimiter, self._dialect.delimiter),
                received=f"one column, with {_OTHER_DELIMITERS[other]} in its name: {names[0]}",
                hint=f'options={{"delimiter": {other!r}}}'.replace("'", '"'),
            )

    def _first_row(self, *, take: bool) -> list[bytes]:
        """The first row that is not blank."""
        window = SMALL_WINDOW
        while True:
            self.fill(window)
            end = min(self.position + window, len(self.buffer))
            last = self.ended and end == len(self.buffer)
            while self.buffer[self.position : self.position + 1] in (b"\n", b"\r"):
                self.line += self.buffer[self.position] == 10
                self.position += 1
            if self.position >= end and last:
                return []
            found = self._next_row(self.position, end, last)
            if found is not None or window >= LONGEST_ROW:
                break
            window *= 2
        where = f"{self.stream.name}:{self.line}"
        if found is None:
            raise DataError("a first line that does not end", where=where, allowed=f"{LONGEST_ROW:,} bytes at most")
        values, reason, behind = found
        raw = self.buffer[self.position : behind]
        if not take:
            return values
        reason = reason or why_not_text(raw)
        if reason is not None:
            raise DataError(
                "the first line is no text" if "byte" in reason else "the first line cannot be read",
                where=where,
                allowed="a line with the columns' names, as UTF-8 unless options.encoding says otherwise",
                received=f"{reason}: {shown(raw)[:80]}",
                hint='another encoding is said by options={"encoding": "latin-1"}' if "UTF-8" in reason else None,
            )
        self.line += raw.count(b"\n")
        self.position = behind
        return values

    def _arrow_options(self) -> tuple[pa_csv.ReadOptions, pa_csv.ParseOptions, pa_csv.ConvertOptions]:
        return (
            pa_csv.ReadOptions(column_names=self.names, use_threads=False),
            pa_csv.ParseOptions(delimiter=self._dialect.delimiter, quote_char=self._dialect.quote or False),
            # Nearly everything as text: the types are found, or held to, value by value.
            pa_csv.ConvertOptions(null_values=list(self._dialect.null_values), strings_can_be_null=True),
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _shown_at(raws: list[bytes], at: int) -> str:
    return shown(raws[at])
