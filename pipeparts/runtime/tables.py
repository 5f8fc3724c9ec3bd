"""The table contract: a folder of `part-*.parquet` with a `_table.json` that says what is in it."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeparts.runtime.errors import ContractError, InputError, suggest
from pipeparts.runtime.files import read_json, whole_folder, write_json
from pipeparts.runtime.hashing import Fingerprint, Hashes

FORMAT = "pipeparts.table/1"
INFO_FILE = "_table.json"

#: The names that a person may give a column's type; Arrow's own names for the rest ("int32", "decimal128(9, 2)").
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamp_utc": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}
_NAMES = {kind: name for name, kind in TYPES.items()}
_DECIMAL = re.compile(r"decimal128\((\d+), ?(\d+)\)")  # Arrow writes this name, but does not read it
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]")

_ROW_GROUP_ROWS = 131_072
_TEXT_BYTES = 4
#: A row group of more bytes, encoded, is not decoded as a whole.
_WHOLE_GROUP_BYTES = 64 << 20


def arrow_type(name: str, *, parameter: str = "columns") -> pa.DataType:
    """The Arrow type behind a type's name.

    Raises:
        InputError: For a name that is neither one of `TYPES` nor an alias that Arrow knows.
    """
    if name in TYPES:
        return TYPES[name]
    try:
        if digits := _DECIMAL.fullmatch(name):
            return pa.decimal128(int(digits[1]), int(digits[2]))
        if moment := _ZONED.fullmatch(name):
            return pa.timestamp(moment[1], tz=moment[2])
        return pa.type_for_alias(name)
    except ValueError:
        raise InputError(
            "a column type that is not known",
            parameter=parameter,
            allowed=list(TYPES),
            received=name,
            hint=suggest(name, TYPES),
        ) from None


def type_name(kind: pa.DataType) -> str:
    """The name of an Arrow type in a table's description."""
    return _NAMES.get(kind, str(kind))


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """What a table says of itself.

    Attributes:
        rows: Number of rows.
        columns: Column name to type name, in order.
        source: Where the data came from, in words or as an address, never with a password.
        fingerprint: Of the content, whatever the order of rows (`runtime.hashing.Fingerprint`).
        extra: What the step that wrote it adds: counts, limits.
    """

    rows: int
    columns: dict[str, str]
    source: str
    fingerprint: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """What goes onto the KFP artifact, and draws in the consoles."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "source": self.source,
            "fingerprint": self.fingerprint,
            **self.extra,
        }


class TableWriter:
    """Writes a table in batches; the folder appears when the block ends well, and only then.

    Args:
        path: The folder to make.
        schema: Columns and types; every batch must have exactly these.
        source: For the table's description.
        rows_per_part: A new part file begins after this many rows.
        fingerprint: Whether to fingerprint the content; only a throw-away table goes without.

    Use it as a context manager; `info` is there once the block has ended.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        schema: pa.Schema,
        *,
        source: str,
        rows_per_part: int = 4_000_000,
        fingerprint: bool = True,
    ) -> None:
        self.schema = schema.remove_metadata()
        self.rows = 0
        self.extra: dict[str, Any] = {}
        self._source = source
        self._rows_per_part = rows_per_part
        self._fingerprint = Fingerprint(self.schema) if fingerprint else None
        self._final = Path(path)
        self._appearing = whole_folder(path)
        self._folder: Path | None = None
        self._writer: pq.ParquetWriter | None = None
        self._parts = 0
        self._rows_in_part = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._info: TableInfo | None = None

    @property
    def info(self) -> TableInfo:
        """The written table's description."""
        if self._info is None:
            raise ContractError("the table is not written yet", where=str(self._final))
        return self._info

    def __enter__(self) -> TableWriter:
        self._folder = self._appearing.__enter__()
        return self

    def write(self, rows: pa.RecordBatch | pa.Table, *, hashes: Hashes | None = None) -> None:
        """Adds rows.

        Args:
            rows: The rows; a column of text may come as a dictionary, and is written as text.
            hashes: Their `hashing.batch_hashes`, where these are known already.

        Raises:
            ContractError: Where their columns or types are not the table's.
        """
        if not rows.schema.equals(self.schema, check_metadata=False) and not _has_dictionaries_of(
            rows.schema, self.schema
        ):
            raise ContractError(
                "rows with other columns than the table's",
                where=str(self._final),
                allowed=", ".join(f"{f.name}: {f.type}" for f in self.schema),
                received=", ".join(f"{f.name}: {f.type}" for f in rows.schema),
            )
        if self._fingerprint is not None and hashes is not None:
            self._fingerprint.update_hashes(hashes)
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
            if batch.num_rows == 0:
                continue
            if self._fingerprint is not None and hashes is None:
                self._fingerprint.update(batch)
            self._pending.append(_decoded(batch, self.schema))
            self._pending_rows += batch.num_rows
            self.rows += batch.num_rows
            if self._pending_rows >= _ROW_GROUP_ROWS:
                self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                if self._parts == 0:
                    self._open_part()
            self._close_part()
            if kind is None:
                self._finish()
        except BaseException:
            self._appearing.__exit__(*sys.exc_info())
            raise
        self._appearing.__exit__(kind, error, trace)

    def _finish(self) -> None:
        assert self._folder is not None
        # As it will be read: Parquet has no timestamp in seconds, for one.
        written = pq.read_schema(self._folder / "part-00000.parquet")
        self._info = TableInfo(
            rows=self.rows,
            columns={field.name: type_name(field.type) for field in written},
            source=self._source,
            fingerprint=self._fingerprint.hexdigest() if self._fingerprint is not None else "",
            extra=dict(self.extra),
        )
        write_json(self._folder / INFO_FILE, {"format": FORMAT, "parts": self._parts, **dataclasses.asdict(self._info)})

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, self.schema)
        self._pending, self._pending_rows = [], 0
        if self._writer is None or self._rows_in_part >= self._rows_per_part:
            self._open_part()
        assert self._writer is not None
        self._writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        self._rows_in_part += table.num_rows

    def _open_part(self) -> None:
        assert self._folder is not None
        self._close_part()
        self._writer = pq.ParquetWriter(self._folder / f"part-{self._parts:05d}.parquet", self.schema)
        self._parts += 1
        self._rows_in_part = 0

    def _close_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Table:
    """A table that is there, held to its contract when it is opened.

    Args:
        path: The table's folder.

    Raises:
        ContractError: Where the folder is missing, has no description, or lacks a part.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ContractError(
                "no table here",
                where=str(path),
                allowed=f"a folder of part-*.parquet with {INFO_FILE}",
                received="a file" if self.path.exists() else "nothing",
            )
        document = read_json(self.path / INFO_FILE, what="a table's description")
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ContractError("not a table", where=str(path), allowed=f"format {FORMAT!r}", received=document)
        self.info = TableInfo(
            **{field.name: document[field.name] for field in dataclasses.fields(TableInfo) if field.name in document}
        )
        self.parts = sorted(self.path.glob("part-*.parquet"))
        if len(self.parts) != document["parts"]:
            raise ContractError(
                "a table that is not whole",
                where=str(path),
                allowed=f"{document['parts']} part files",
                received=f"{len(self.parts)}",
            )
        try:
            self.schema: pa.Schema = pq.read_schema(self.parts[0]).remove_metadata()
        except (pa.ArrowException, OSError) as error:
            raise ContractError("a damaged table", where=str(self.parts[0]), received=str(error)) from error
        # JSON does not keep the order of the columns; the Parquet schema does.
        columns = {field.name: type_name(field.type) for field in self.schema}
        self.info = dataclasses.replace(self.info, columns=columns)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.info.rows

    def require(self, columns: Sequence[str], *, parameter: str) -> None:
        """Checks that columns are there.

        Raises:
            InputError: For the first that is not, with the close match.
        """
        require_columns(self.schema.names, columns, parameter=parameter, where=str(self.path))

    def batches(
        self, columns: Sequence[str] | None = None, *, batch_rows: int = 65_536, dictionaries: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """Streams the table in order, in bounded memory.

        Args:
            columns: The columns to read, in the order wanted; all where None.
            batch_rows: Most rows in a batch.
            dictionaries: Whether columns of text that have few values in a file may come as dictionaries: no value is
                made for each row then. For who takes both forms.

        Yields:
            Record batches with exactly these columns.

        Raises:
            ContractError: For a part that cannot be read, or whose rows are not those described.
        """
        names = list(self.schema.names if columns is None else columns)
        seen = 0
        for part in self.parts:
            try:
                # Not mapped and not read ahead: both would count as resident memory, by the size of a whole part.
                encoded = _encoded_texts(part, names) if dictionaries else None
                with pq.ParquetFile(part, memory_map=False, pre_buffer=False, read_dictionary=encoded) as file:
                    for batch in _batches_of(file, names, batch_rows):
                        seen += batch.num_rows
                        yield batch.select(names) if batch.schema.names != names else batch
            except (pa.ArrowException, OSError) as error:
                raise ContractError("a damaged table", where=str(part), received=str(error)) from error
        if seen != self.info.rows:
            raise ContractError(
                "a table that is not whole", where=str(self.path), allowed=f"{self.info.rows} rows", received=str(seen)
            )

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole table in memory: for small ones, and for a few columns."""
        names = list(self.schema.names if columns is None else columns)
        schema = pa.schema([self.schema.field(name) for name in names])
        return pa.Table.from_batches(self.batches(names), schema=schema)


def require_columns(names: Sequence[str], wanted: Sequence[str], *, parameter: str, where: str) -> None:
    """Checks that a table has columns.

    Args:
        names: Those that it has.
        wanted: Those that it has to have.
        parameter: The parameter that names them.
        where: The table, for the message.

    Raises:
        InputError: For the first that is not there, with the close match.
    """
    for name in wanted:
        if name not in names:
            raise InputError(
                "the table has no such column", parameter=parameter, where=where, allowed=list(names), received=name,
                hint=suggest(name, names),
            )  # fmt: skip


def _has_dictionaries_of(schema: pa.Schema, wanted: pa.Schema) -> bool:
    """Whether these are the wanted columns, but that some are dictionaries of the wanted type."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
    return bool(schema.names == wanted.names and kinds == wanted.types)


def _decoded(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with a value for each row where it has a dictionary, and its table none."""
    if batch.schema.equals(schema, check_metadata=False):
        return batch
    arrays = [
        column if column.type == field.type else column.dictionary_decode()
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _batches_of(file: pq.ParquetFile, names: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of a part file; none goes beyond a row group."""
    for group in range(file.num_row_groups):
        if file.metadata.row_group(group).total_byte_size > _WHOLE_GROUP_BYTES:
            yield from file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=names)
        else:
            # A fifth cheaper than to decode it a batch at a time.
            yield from file.read_row_group(group, columns=names).to_batches(max_chunksize=batch_rows)


def _encoded_texts(part: Path, names: Sequence[str]) -> list[str]:
    """The columns of text that a part file holds as dictionaries, all or most of it."""
    metadata = pq.read_metadata(part)
    sizes = dict.fromkeys(names, 0)
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(place)
            if chunk.path_in_schema in sizes:
                sizes[chunk.path_in_schema] += chunk.total_uncompressed_size
    # A text on its own takes 4 bytes for its length alone.
    few = {name for name, size in sizes.items() if size < _TEXT_BYTES * metadata.num_rows}
    return [
        field.name for field in metadata.schema.to_arrow_schema() if field.name in few and field.type == pa.string()
    ]


def write_table(path: str | os.PathLike[str], table: pa.Table, *, source: str) -> TableInfo:
    """Writes an Arrow table that is in memory as a table of the contract."""
    with TableWriter(path, table.schema, source=source) as writer:
        writer.write(table)
    return writer.info
