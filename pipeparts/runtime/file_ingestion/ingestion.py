"""Files of CSV, TSV, JSON Lines or Parquet, read in bounded memory into a writer of typed rows, and a quarantine."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pydantic

from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.file_ingestion import csv_rows, kinds, parquet_rows
from pipeparts.runtime.file_ingestion.json_rows import JsonReader
from pipeparts.runtime.file_ingestion.opening import (
    FORMATS,
    Member,
    Stream,
    decoded,
    format_of_name,
    open_members,
)
from pipeparts.runtime.file_ingestion.text_rows import Chunk
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.sources import SourceFile, expand, public_name
from pipeparts.runtime.tables import TableInfo, TableWriter, arrow_type, type_name

logger = logging.getLogger(__name__)

#: What counts as missing in CSV and TSV unless `null_values` says otherwise, in quotes or not.
NULL_VALUES = ("", "NA", "N/A", "null", "NULL", "None")

QUARANTINE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])

_REASONS_SHOWN = 5
#: So many bad rows beyond the limit are counted before the reading stops.
_COUNTED_BEYOND = 1_000
_BATCHES_AHEAD = 2
_BATCH_BYTES = 8 << 20
_SECONDS_BETWEEN_LINES = 10.0


class Options(Params):
    """How the files are written.

    Attributes:
        delimiter: The character between values of CSV; a comma, or a tab for TSV, unless said.
        quote: The character around values that hold delimiters or line breaks; "" where there is none.
        encoding: Of text files: "utf-8", "latin-1", "cp1252", "utf-16" or another that Python knows.
        header: Whether the first line of CSV holds the names. Unsaid, it has to, and a first line with
            numbers in it is refused, because it is data more often than not.
        names: The columns' names for files without a header; `column_1` and so on unless said.
        null_values: The spellings of a missing value in CSV, in quotes or not. NaN is a number, not missing.
        missing_columns: What a column means that other files have and one lacks: "error", or "null".
        allow_empty: Whether files without rows, and a table without rows, are right.
    """

    delimiter: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    header: bool | None = None
    names: tuple[str, ...] | None = None
    null_values: tuple[str, ...] = NULL_VALUES
    missing_columns: Literal["error", "null"] = "error"
    allow_empty: bool = False

    @pydantic.field_validator("delimiter", "quote")
    @classmethod
    def _one_character(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        if value is None or (value == "" and info.field_name == "quote"):
            return value
        if len(value) != 1 or not value.isascii() or value in "\r\n":
            raise ValueError("one ASCII character that is no line break")
        return value

    @pydantic.field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "".encode(value)
            codecs.getincrementaldecoder(value)
        except LookupError:
            raise ValueError("an encoding that Python knows, such as utf-8, latin-1, cp1252 or utf-16") from None
        return value

    @pydantic.model_validator(mode="after")
    def _agree(self) -> Options:
        if self.names is not None and self.header is not False:
            raise ValueError("`names` together with `header: false` only")
        if self.names is not None and len(set(self.names)) != len(self.names):
            raise ValueError("`names` that differ")
        if self.quote and self.quote == self.delimiter:
            raise ValueError("a `quote` that is not the `delimiter`")
        return self


class RowWriter(Protocol):
    """Where typed rows go: `tables.TableWriter`, for one."""

    rows: int
    extra: dict[str, Any]

    def write(self, rows: pa.RecordBatch) -> None:
        """Takes rows."""


Writer = TypeVar("Writer", bound=RowWriter)


def ingest(
    *,
    source: str,
    open_writer: Callable[[pa.Schema, str], AbstractContextManager[Writer]],
    quarantine_path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    source_version: str = "",
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    max_bad_rows: int = 0,
) -> tuple[Writer, TableInfo]:
    """Reads files into a writer, and the rows that cannot be read into a quarantine table.

    The types of columns that are not given are found from every value of every file. Reading starts with
    the types that the first rows show; where a later value does not fit, the types are widened up to the
    end of the input, and then reading starts anew. Rows keep their order; files follow by name.

    Args:
        source: A path, a folder, a glob, or an address (gs://, s3://, https://).
        open_writer: Makes the writer, from the rows' schema and the source's name without secrets. It is
            made anew where reading starts anew, after the one before was left with an error.
        quarantine_path: The folder of the quarantine table to write; it is there even where too many bad
            rows fail the run.
        columns: Column name to type name, for some columns or all.
        source_version: The source's version when the run was submitted, for the record.
        format: One of csv, tsv, jsonl, parquet; "auto": by each file's name, else its content.
        options: See `Options`.
        max_bad_rows: The run fails with more bad rows than this.

    Returns:
        The writer, closed, and the description of the quarantine.

    Raises:
        InputError: For wrong parameters, or a source that is not there.
        DataError: For a file that cannot be read as a whole, or too many rows that cannot.
        ServiceError: Where a server does not answer.
    """
    if format not in ("auto", *FORMATS):
        raise InputError(
            "a format that is not known", parameter="format", allowed=["auto", *FORMATS], received=format,
            hint=suggest(format, FORMATS),
        )  # fmt: skip
    if max_bad_rows < 0:
        raise InputError("a limit below zero", parameter="max_bad_rows", allowed="0 or more", received=max_bad_rows)
    given = _given_types(columns)
    settings = parse_params(Options, options, parameter="options")
    files = expand(source)
    logger.info("reading %d files, %s", len(files), _megabytes(files))
    job = _Job(source, files, format, settings, given)
    while True:
        try:
            writer, quarantine = _write(job, open_writer, quarantine_path, source_version, max_bad_rows)
            break
        except _TypesChangedError:
            logger.info("values did not fit the types of the first rows; reading anew as %s", _types(job.columns))
    logger.info("read %s rows, %s bad", f"{writer.rows:,}", f"{quarantine.rows:,}")
    return writer, quarantine


class _TypesChangedError(Exception):
    """Rows were written with types that later values did not fit."""


class _StoppedError(Exception):
    """Nobody reads any more."""


@dataclasses.dataclass(frozen=True)
class _BadRow:
    file: str
    line: int
    reason: str
    text: str


class _Job:
    """What is to be read, and what is known of its columns, from one pass to the next."""

    def __init__(
        self,
        source: str,
        files: list[SourceFile],
        format: str,
        options: Options,
        given: dict[str, pa.DataType],
    ) -> None:
        self.source = source
        self.files = files
        self.options = options
        self.given = given
        self.columns: dict[str, kinds.Column] = {}
        self.found_format = ""
        self._format = format
        self._first_file = ""
        self._prepared = False

    def members(self) -> Iterator[Member]:
        """Opens every file in turn; all have to be of one format."""
        for file in self.files:
            for member in open_members(file, self._format):
                if not member.stream.peek(1):
                    if self.options.allow_empty:
                        continue
                    raise DataError(
                        "an empty file", where=member.name, allowed="a file with rows", received="0 bytes",
                        hint='options={"allow_empty": true} leaves such files out',
                    )  # fmt: skip
                if self.found_format not in ("", member.format):
                    raise DataError(
                        "files of different formats", where=member.name, allowed=self.found_format,
                        received=member.format, hint="a glob can choose those of one format",
                    )  # fmt: skip
                self.found_format = member.format
                yield member

    def prepare(self) -> None:
        """Looks at every file's columns first, where they decide about the table's."""
        if self._prepared:
            return
        self._prepared = True
        fill_in = self.options.missing_columns == "null"
        if not fill_in and all(format_of_name(file.name) in ("csv", "tsv", "jsonl") for file in self.files):
            return
        for member in self.members():
            if member.format == "parquet":
                self._prepare_parquet(member)
            elif not fill_in or member.format == "jsonl":
                return
            else:
                for name in csv_rows.CsvReader(self.text(member), _NoRows(), self.dialect(member)).names:
                    self.column(name)
        for column in self.columns.values():
            if column.given is not None and pa.types.is_null(column.given):
                column.given = pa.string()
        if self.columns:
            self.check_given()

    def column(self, name: str) -> kinds.Column:
        """What is known of a column; made where it is new."""
        if name not in self.columns:
            self.columns[name] = kinds.Column(name, self.given.get(name))
        return self.columns[name]

    def check_given(self) -> None:
        """Refuses given types for columns that are not there."""
        for name in self.given:
            if name not in self.columns:
                raise InputError(
                    "a type is given for a column that is not there", parameter="columns",
                    where=self._first_file or None, allowed=list(self.columns), received=name,
                    hint=suggest(name, self.columns),
                )  # fmt: skip

    def check_names(self, names: list[str], file: str) -> None:
        """Holds a file's columns to those of the files before."""
        if not self.columns:
            for name in names:
                self.column(name)
            self._first_file = file
            self.check_given()
        expected = set(self.columns)
        missing, extra = [n for n in self.columns if n not in names], [n for n in names if n not in expected]
        if self.options.missing_columns == "null":
            missing = []
        if missing or extra:
            parts = [f"lacks {', '.join(missing)}"] if missing else []
            parts += [f"has {', '.join(extra)} more"] if extra else []
            raise DataError(
                "a file with other columns than the first one", where=file,
                allowed=f"the columns of {self._first_file}: {', '.join(self.columns)}",
                received=" and ".join(parts), hint='options={"missing_columns": "null"} fills missing ones with null',
            )  # fmt: skip

    def text(self, member: Member) -> Stream:
        """The member's text as UTF-8."""
        return decoded(member.stream, self.options.encoding)

    def dialect(self, member: Member) -> csv_rows.Dialect:
        """How the member's text is written."""
        return csv_rows.Dialect(
            delimiter=self.options.delimiter or ("\t" if member.format == "tsv" else ","),
            delimiter_given=self.options.delimiter is not None,
            quote=self.options.quote,
            header=self.options.header,
            names=self.options.names,
            null_values=self.options.null_values,
        )

    def _prepare_parquet(self, member: Member) -> None:
        schema = parquet_rows.read_schema(member)
        self.check_names_of_parquet(schema, member.name)
        for name, kind in schema.items():
            column = self.column(name)
            if name in self.given:
                continue
            common = kind if column.given is None else parquet_rows.common_kind(column.given, kind)
            if common is None:
                raise DataError(
                    f"the column {name!r} has another type than in the files before", where=member.name,
                    allowed=str(column.given), received=str(kind),
                    hint=f'columns={{"{name}": ...}} says the type to read all of them as',
                )  # fmt: skip
            column.given = common

    def check_names_of_parquet(self, schema: dict[str, pa.DataType], file: str) -> None:
        """As `check_names`; a column that the first files lack may come later where nulls are filled in."""
        if self.options.missing_columns == "error":
            self.check_names(list(schema), file)
        else:
            for name in schema:
                self.column(name)


class _NoRows:
    """A sink for a reader that is only asked for its names."""

    def __init__(self) -> None:
        self.columns: dict[str, kinds.Column] = {}

    def column(self, name: str) -> kinds.Column:
        return self.columns.setdefault(name, kinds.Column(name))

    def offer(self, chunk: Chunk) -> bool:
        return True

    def bad(self, line: int, reason: str, text: str) -> None:
        return None


class _Pass:
    """One reading of all files: takes the readers' rows, gives them their types, and hands them on."""

    def __init__(self, job: _Job, emit: Callable[[pa.RecordBatch | _BadRow], None]) -> None:
        self.columns = job.columns
        self._job = job
        self._emit = emit
        self._file = ""
        self._written: pa.Schema | None = None
        self._changed = False
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0

    def run(self) -> None:
        """Reads everything.

        Raises:
            _TypesChangedError: Once at the end, where the types at the end are not those of the rows handed on.
        """
        self._job.prepare()
        for member in self._job.members():
            self._file = member.name
            if member.format == "parquet":
                check = functools.partial(self._job.check_names_of_parquet, file=member.name)
                parquet_rows.read_rows(member, self, check)
            elif member.format == "jsonl":
                JsonReader(self._job.text(member), self).run()
            else:
                reader = csv_rows.CsvReader(self._job.text(member), self, self._job.dialect(member))
                self._job.check_names(reader.names, member.name)
                reader.run()
        self._job.check_given()
        if self._changed:
            raise _TypesChangedError
        self._flush()

    def column(self, name: str) -> kinds.Column:
        """What is known of a column; made where it is new."""
        return self._job.column(name)

    def bad(self, line: int, reason: str, text: str) -> None:
        """Hands on a row that cannot be read."""
        if not self._changed:
            self._emit(_BadRow(self._file, line, reason, text))

    def offer(self, chunk: Chunk) -> bool:
        """Gives rows their types and hands them on."""
        values, misfits = self._given_values(chunk)
        if misfits:
            if chunk.lines is None or chunk.text is None:
                return False
            bad = np.logical_or.reduce(list(misfits.values()))
            keep = pa.array(~bad)
            self._report(chunk, misfits, np.flatnonzero(bad).tolist())
            values = {name: array.filter(keep) for name, array in values.items()}
            columns = {name: array.filter(keep) for name, array in chunk.columns.items()}
            chunk = dataclasses.replace(chunk, columns=columns, rows=int((~bad).sum()), lines=None)
        for name, array in chunk.columns.items():
            if name in values:
                continue
            found = self._inferred_values(self.column(name), array, chunk.learnable)
            if found is None:
                return False
            values[name] = found
        self._hand_on(values, chunk.rows)
        return True

    def _given_values(self, chunk: Chunk) -> tuple[dict[str, pa.Array], dict[str, kinds.Mask]]:
        """The values of columns whose type is given, and by column a mask of those that do not fit."""
        values: dict[str, pa.Array] = {}
        misfits: dict[str, kinds.Mask] = {}
        for name, array in chunk.columns.items():
            kind = self.column(name).given
            if kind is not None:
                try:
                    values[name], bad = kinds.convert(array, kind)
                except pa.ArrowNotImplementedError:
                    raise InputError(
                        "a column cannot be read as the type given", parameter=f"columns.{name}", where=self._file,
                        allowed=f"what {type_name(array.type)} can be turned into", received=type_name(kind),
                    ) from None  # fmt: skip
                if bad is not None:
                    misfits[name] = bad
        return values, misfits

    def _report(self, chunk: Chunk, misfits: dict[str, kinds.Mask], rows: list[int]) -> None:
        assert chunk.lines is not None
        assert chunk.text is not None
        for at in rows:
            name = next(name for name, bad in misfits.items() if bad[at])
            value = kinds.describe(chunk.columns[name][at].as_py())
            kind = type_name(self.column(name).kind)
            self.bad(chunk.lines[at], f"column {name!r}: {value} is no {kind}", chunk.text(at))

    def _inferred_values(self, column: kinds.Column, values: pa.Array, learnable: bool) -> pa.Array | None:
        if column.seen or values.null_count == len(values):
            found = kinds.find(values, column.kind)
            if found is not None:
                return found
        if not learnable:
            return None
        column.learn(values)
        return kinds.find(values, column.kind)

    def _hand_on(self, values: dict[str, pa.Array], rows: int) -> None:
        schema = pa.schema([(column.name, column.kind) for column in self.columns.values()])
        if self._written is None:
            self._written = schema
        self._changed = self._changed or schema != self._written
        if self._changed or not rows:
            return
        arrays = [values[f.name] if f.name in values else pa.nulls(rows, f.type) for f in schema]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes
        if self._waiting_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Hands on what waits as one batch: many small ones cost more than they hold."""
        if self._waiting and not self._changed:
            self._emit(self._waiting[0] if len(self._waiting) == 1 else pa.concat_batches(self._waiting))
        self._waiting.clear()
        self._waiting_bytes = 0


def _write(
    job: _Job,
    open_writer: Callable[[pa.Schema, str], AbstractContextManager[Writer]],
    quarantine_path: str | os.PathLike[str],
    source_version: str,
    max_bad_rows: int,
) -> tuple[Writer, TableInfo]:
    """Reads everything once and writes it."""
    source = public_name(job.source)
    with TableWriter(quarantine_path, QUARANTINE, source=source) as quarantine:
        counts = _Quarantine(quarantine, os.fspath(quarantine_path), max_bad_rows)
        failure: DataError | None = None
        try:
            writer = _write_rows(job, open_writer, source, source_version, counts)
        except _TooManyBadRowsError as stop:
            counts.flush()
            failure = stop.error
        else:
            counts.flush()
        quarantine.extra["max_bad_rows"] = max_bad_rows
    if failure is not None:
        raise failure
    return writer, quarantine.info


def _write_rows(
    job: _Job,
    open_writer: Callable[[pa.Schema, str], AbstractContextManager[Writer]],
    source: str,
    source_version: str,
    counts: _Quarantine,
) -> Writer:
    progress = _Progress()
    with contextlib.ExitStack() as stack:
        writer: Writer | None = None
        events = stack.enter_context(contextlib.closing(_in_background(lambda emit: _Pass(job, emit).run())))
        for event in events:
            if isinstance(event, _BadRow):
                counts.add(event, writer.rows if writer else 0)
                continue
            if writer is None:
                writer = stack.enter_context(open_writer(event.schema, source))
            writer.write(event)
            progress.rows(writer.rows)
        counts.check(writer.rows if writer else 0)
        if writer is None:
            writer = stack.enter_context(open_writer(_empty_schema(job, source), source))
        _check_unchanged(job)
        inferred = [column.name for column in job.columns.values() if column.given is None]
        writer.extra.update(
            files=len(job.files),
            format=job.found_format,
            bad_rows=counts.count,
            max_bad_rows=counts.limit,
            columns_inferred=inferred,
            source_version=source_version,
        )
    return writer


def _empty_schema(job: _Job, source: str) -> pa.Schema:
    if not job.options.allow_empty:
        raise DataError(
            "no rows", where=source, allowed="at least one row that can be read",
            received=f"files: {len(job.files)}, columns: {', '.join(job.columns) or 'unknown'}, rows: 0",
            hint='options={"allow_empty": true} where a table without rows is right',
        )  # fmt: skip
    if not job.columns:
        for name, kind in job.given.items():
            job.columns[name] = kinds.Column(name, kind)
    if not job.columns:
        raise DataError("no columns", where=source, allowed="at least one", received="none")
    return pa.schema([(column.name, column.kind) for column in job.columns.values()])


class _TooManyBadRowsError(Exception):
    def __init__(self, error: DataError) -> None:
        self.error = error
        super().__init__(str(error))


class _Quarantine:
    """Counts the bad rows, and writes them to their table."""

    def __init__(self, writer: TableWriter, path: str, limit: int) -> None:
        self.count = 0
        self.limit = limit
        self._writer = writer
        self._path = path
        self._first: list[_BadRow] = []
        self._waiting: list[_BadRow] = []

    def add(self, row: _BadRow, good_rows: int) -> None:
        self.count += 1
        if len(self._first) < _REASONS_SHOWN:
            self._first.append(row)
        self._waiting.append(row)
        if len(self._waiting) >= 1_000:
            self.flush()
        if self.count >= self.limit + _COUNTED_BEYOND:
            self._fail(good_rows, "at least ")

    def check(self, good_rows: int) -> None:
        if self.count > self.limit:
            self._fail(good_rows, "")

    def flush(self) -> None:
        rows = [dataclasses.asdict(row) for row in self._waiting]
        self._waiting.clear()
        if rows:
            self._writer.write(pa.RecordBatch.from_pylist(rows, schema=QUARANTINE))

    def _fail(self, good_rows: int, at_least: str) -> None:
        reasons = [f"{row.file}:{row.line}: {row.reason}" for row in self._first]
        if self.count > len(reasons):
            reasons.append(f"and {at_least}{self.count - len(reasons):,} more")
        rows = "row" if self.count == 1 and not at_least else "rows"
        headline = "\n  - ".join([f"{at_least}{self.count:,} {rows} cannot be read", *reasons])
        raise _TooManyBadRowsError(
            DataError(
                headline[0].upper() + headline[1:],
                parameter="max_bad_rows",
                allowed=f"{self.limit:,} bad rows",
                received=f"{at_least}{self.count:,}, beside {good_rows:,} that can be read",
                hint=f"each is in the quarantine table, with its text: {self._path}",
            )
        )


class _Progress:
    """A line in the log now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def rows(self, count: int) -> None:
        if time.monotonic() >= self._next:
            logger.info("%s rows so far", f"{count:,}")
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES


def _in_background(produce: Callable[[Callable[[Any], None]], None]) -> Generator[Any, None, None]:
    """What a function emits, while it runs on in a thread of its own, a few items ahead.

    Reading and parsing release the interpreter's lock most of the time, as writing does.
    """
    items: queue.Queue[Any] = queue.Queue(_BATCHES_AHEAD)
    stop = threading.Event()
    end = object()
    failure: list[BaseException] = []

    def emit(item: Any) -> None:
        while not stop.is_set():
            try:
                items.put(item, timeout=0.5)
                return
            except queue.Full:
                continue
        raise _StoppedError

    def run() -> None:
        try:
            produce(emit)
        except _StoppedError:
            return
        except BaseException as error:
            failure.append(error)
        with contextlib.suppress(_StoppedError):
            emit(end)

    thread = threading.Thread(target=run, name="ingest", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not end:
            yield item
        if failure:
            raise failure[0]
    finally:
        stop.set()
        thread.join()


def _given_types(columns: Mapping[str, str] | None) -> dict[str, pa.DataType]:
    if columns is not None and not isinstance(columns, Mapping):
        raise InputError(
            "`columns` is not a dictionary", parameter="columns", allowed="column name to type name", received=columns
        )
    given = {}
    for name, text in (columns or {}).items():
        if not isinstance(text, str):
            raise InputError(
                "a column type that is no text", parameter=f"columns.{name}", allowed="a type's name", received=text
            )
        given[name] = arrow_type(text, parameter=f"columns.{name}")
        kinds.check_castable(name, given[name])
    return given


def _check_unchanged(job: _Job) -> None:
    """A source that changed while it was read is no version of itself."""
    before, after = _versions(job.files), _versions(expand(job.source))
    if before != after:
        names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        raise DataError(
            "the source changed while it was read", where=public_name(job.source),
            allowed="the same files at the end as at the beginning", received=f"changed: {', '.join(names)}",
        )  # fmt: skip


def _versions(files: list[SourceFile]) -> dict[str, tuple[int | None, str]]:
    # A web server without etags may give the time of the answer as the time of the file.
    return {file.name: (file.size, "" if file.version.startswith("Last-Modified") else file.version) for file in files}


def _megabytes(files: list[SourceFile]) -> str:
    sizes = [file.size for file in files]
    known = [size for size in sizes if size is not None]
    return f"{sum(known) / 1e6:,.1f} MB" if len(known) == len(sizes) else "of unknown size"


def _types(columns: Mapping[str, kinds.Column]) -> str:
    return ", ".join(f"{column.name}: {type_name(column.kind)}" for column in columns.values())
