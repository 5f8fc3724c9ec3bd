"""Reading from PostgreSQL: COPY to CSV, which Arrow parses column by column, in one read-only snapshot."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import sqlalchemy as sa

from pipeparts.components.ingestion.ingest_sql.parts import Part
from pipeparts.components.ingestion.ingest_sql.statements import quote
from pipeparts.components.ingestion.ingest_sql.values import (
    TIME,
    cast_array,
    check_names,
    decimal_type,
    exact_float,
    misfit,
)
from pipeparts.runtime.errors import ServiceError

_CHUNK_BYTES = 8_000_000
_CHUNK_ROWS = 65_536

# So that the texts are the same whatever the server, the role and the database are set to.
_SETTINGS = {
    "client_encoding": "UTF8", "datestyle": "ISO, YMD", "timezone": "UTC", "intervalstyle": "iso_8601",
    "bytea_output": "hex", "extra_float_digits": "3",
}  # fmt: skip

# The type codes (pg_type.oid) that never change; any other type comes as the text PostgreSQL writes.
_BYTEA, _NUMERIC = 17, 1700
_TYPES = {
    16: pa.bool_(), 20: pa.int64(), 21: pa.int64(), 23: pa.int64(), 26: pa.int64(), 700: pa.float64(),
    701: pa.float64(), 1082: pa.date32(), 1083: TIME, 1114: pa.timestamp("us"), 1184: pa.timestamp("us", "UTC"),
    _BYTEA: pa.binary(),
}  # fmt: skip


class PostgresReader:
    """Reads a query's rows.

    Args:
        connection: A connection, which becomes read-only, its reads of one snapshot.
        sql: The SELECT.
        overrides: Types for some of the columns.
    """

    def __init__(self, connection: sa.Connection, sql: str, overrides: dict[str, pa.DataType]) -> None:
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.begin()
        driver: Any = connection.connection.driver_connection
        self._db = driver
        for name, value in _SETTINGS.items():
            self._db.execute(f"SET LOCAL {name} = '{value}'".encode())
        self._sql = sql
        # Planned but not run: gives names and types, and refuses what only looks like a SELECT.
        description = self._db.execute(f"SELECT * FROM ({sql}\n) AS pipeparts_query LIMIT 0".encode()).description
        check_names([column.name for column in description], overrides)
        self._columns = [_Column(column, overrides.get(column.name)) for column in description]
        self.schema = pa.schema([(column.name, column.kind) for column in self._columns])
        self._rows = 0

    def bounds(self, column: str) -> tuple[Any, Any]:
        """The lowest and highest value of a column."""
        name = quote(column)
        sql = f"SELECT min({name}), max({name}) FROM ({self._sql}\n) AS pipeparts_query"
        [(low, high)] = self._db.execute(sql.encode()).fetchall()
        return low, high

    def read(self, part: Part | None) -> Iterator[pa.RecordBatch]:
        """The rows, or those of one part.

        Raises:
            DataError: For a value that its column's type does not have.
        """
        sql = self._sql
        if part is not None:
            code = next(column.code for column in self._columns if column.name == part.column)
            condition = part.condition(quote(part.column), timestamps_have_zone=code == 1184)
            sql = f"SELECT * FROM ({sql}\n) AS pipeparts_query WHERE {condition}"
        begun = self._rows
        with self._db.cursor() as cursor:
            with cursor.copy(f"COPY ({sql}\n) TO STDOUT (FORMAT csv)".encode()) as copy:
                for lines in _chunks(copy):
                    yield self._batch(lines)
                    self._rows += len(lines)
            if cursor.rowcount != self._rows - begun:
                raise ServiceError("rows were lost on the way", allowed=cursor.rowcount, received=self._rows - begun)

    def _batch(self, lines: Sequence[bytes]) -> pa.RecordBatch:
        try:
            table = _parse(lines, [column.read_as for column in self._columns])
        except pa.ArrowInvalid:
            self._explain(lines)
            raise
        arrays = []
        for column, values in zip(self._columns, table.columns, strict=True):
            array = pa.concat_arrays(values.chunks) if values.num_chunks != 1 else values.chunk(0)
            arrays.append(column.finish(array, self._rows + 1))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _explain(self, lines: Sequence[bytes]) -> None:
        """Raises the error for the first row that cannot be parsed."""
        kinds = [column.read_as for column in self._columns]
        first, last = 0, len(lines)
        while last - first > 1:  # the first bad row is in [first, last)
            middle = (first + last) // 2
            if _parses(lines[first:middle], kinds):
                first = middle
            else:
                last = middle
        texts = [pa.binary()] * len(kinds)
        for place, column in enumerate(self._columns):
            if not _parses(lines[first:last], [*texts[:place], column.read_as, *texts[place + 1 :]]):
                value = _parse(lines[first:last], texts).column(place)[0].as_py()
                shown = value.decode("utf-8", "backslashreplace") if value is not None else None
                raise misfit(column.name, self._rows + first + 1, shown, column.kind)


class _Column:
    """How one column is read: first by Arrow's CSV parser, then made what it is to be."""

    def __init__(self, description: Any, override: pa.DataType | None) -> None:
        self.name: str = description.name
        self.code: int = description.type_code
        if self.code == _NUMERIC:
            natural = decimal_type(description.precision, description.scale)
        else:
            natural = _TYPES.get(self.code, pa.string())
        self.kind = natural if override is None else override
        self._overridden = override is not None
        self.read_as = self._read_as(natural)

    def finish(self, array: pa.Array, first_row: int) -> pa.Array:
        """The column as it is to be, from what the parser gave."""
        if self.code == _BYTEA and pa.types.is_binary(self.kind):
            texts = array.to_pylist()
            return pa.array([None if text is None else bytes.fromhex(text[2:]) for text in texts], self.kind)
        if self.code == _NUMERIC and self.read_as == pa.string() and pa.types.is_floating(self.kind):
            return self._floats(array, first_row)
        zoned = pa.types.is_timestamp(self.kind) and self.kind.tz is not None
        if zoned and pa.types.is_timestamp(array.type) and array.type.tz is None:
            array = pc.assume_timezone(array, "UTC")  # a person says that these times are UTC
        return cast_array(array, self.kind, column=self.name, first_row=first_row)

    def _read_as(self, natural: pa.DataType) -> pa.DataType:
        if self.code == _BYTEA or (self.code == _NUMERIC and not self._overridden and pa.types.is_floating(natural)):
            return pa.string()
        times = (pa.types.is_temporal(natural) or pa.types.is_boolean(natural)) and not pa.types.is_string(self.kind)
        return natural if times else self.kind

    def _floats(self, texts: pa.Array, first_row: int) -> pa.Array:
        """Numerics without a declared precision; a whole number must not change by becoming a float."""
        array = pc.cast(texts, pa.float64())
        numbers = array.fill_null(0.0).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.abs(numbers) >= 2**53):
            text = texts[int(place)].as_py()
            try:
                exact_float(text)
            except ValueError as error:
                raise misfit(self.name, first_row + int(place), text, self.kind, str(error)) from None
        return cast_array(array, self.kind, column=self.name, first_row=first_row)


def _chunks(copy: Any) -> Iterator[list[bytes]]:
    """The rows as CSV lines, some thousands at a time: the server sends each row by itself."""
    lines: list[bytes] = []
    size = 0
    for line in copy:
        lines.append(line)
        size += len(line)
        if size >= _CHUNK_BYTES or len(lines) >= _CHUNK_ROWS:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _parse(lines: Sequence[bytes], kinds: Sequence[pa.DataType]) -> pa.Table:
    data = b"".join(lines)
    names = [str(place) for place in range(len(kinds))]
    table = pacsv.read_csv(
        io.BytesIO(data),
        read_options=pacsv.ReadOptions(column_names=names, block_size=len(data) + 1),
        parse_options=pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types=dict(zip(names, kinds, strict=True)),
            # In PostgreSQL's CSV nothing is null, and nothing in quotes is an empty text.
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
            true_values=["t"], false_values=["f"],
        ),
    )  # fmt: skip
    if table.num_rows != len(lines):
        raise ServiceError("rows were lost on the way", allowed=len(lines), received=table.num_rows)
    return table


def _parses(lines: Sequence[bytes], kinds: Sequence[pa.DataType]) -> bool:
    try:
        _parse(lines, kinds)
    except pa.ArrowInvalid:
        return False
    return True
