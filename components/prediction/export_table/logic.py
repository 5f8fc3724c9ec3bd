"""The work of `export_table`."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.files import whole_folder, write_json
from pipeparts.runtime.sources import open_filesystem, public_name, service_errors
from pipeparts.runtime.tables import FORMAT as TABLE_FORMAT
from pipeparts.runtime.tables import INFO_FILE, Table

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.export/1"
CHOICES = ("replace", "keep", "fail")

_ALLOWED = ("a folder", "gs://bucket/folder", "s3://bucket/folder")
_PART = re.compile(r"part-\d{5,}\.parquet")  # no more than what this library writes: Spark's names begin alike


class _Place(Protocol):
    """Where a table goes."""

    def files(self) -> dict[str, int]:
        """The names of what is there, with their sizes in bytes; those in folders below with their path."""

    def read(self, name: str) -> bytes:
        """A file's content."""

    def rows(self, name: str) -> int:
        """The rows of a Parquet file, as its end says."""

    def put(self, table: Table, there: dict[str, int]) -> None:
        """Puts the table in the place of what is there."""


def export_table(
    *,
    table_path: str | os.PathLike[str],
    destination: str,
    receipt_path: str | os.PathLike[str],
    if_exists: str = "replace",
) -> dict[str, Any]:
    """Puts a table's Parquet files where they are wanted.

    Args:
        table_path: The table's folder.
        destination: A folder, or an address of fsspec (`gs://`, `s3://`).
        receipt_path: Where to write what is there now (JSON).
        if_exists: "replace", "keep" or "fail".

    Returns:
        What was written: format, destination, rows, bytes, fingerprint, columns.

    Raises:
        InputError: Where the destination is none, or holds files that are no table's.
        DataError: Where another table is there, and `if_exists` is "fail".
        ServiceError: Where the storage does not answer.
        ContractError: Where the artifact is no table.
    """
    if if_exists not in CHOICES:
        raise InputError(
            "not a way to go on where a table is there",
            parameter="if_exists",
            allowed=CHOICES,
            received=if_exists,
            hint=suggest(if_exists, CHOICES),
        )
    table = Table(table_path)
    place = _place(destination)
    with service_errors(destination, parameter="destination", action="write"):
        there = place.files()
        _refuse_foreign(there, destination)
        found = _whole_table(place, there)
        if found is None or (if_exists == "replace" and found["fingerprint"] != table.info.fingerprint):
            if there and found is None:
                logger.warning("what is there is no whole table and is replaced: %s", public_name(destination))
            place.put(table, there)
            logger.info("wrote %s rows to %s", f"{table.rows:,}", public_name(destination))
        elif found["fingerprint"] == table.info.fingerprint:
            logger.info("the table is there already: %s", public_name(destination))
        elif if_exists == "keep":
            logger.warning("another table is there and is kept, nothing is written: %s", public_name(destination))
        else:
            raise DataError(
                "another table is there",
                parameter="destination",
                where=public_name(destination),
                allowed="a place without one, or if_exists: replace",
                received=f"{found['rows']:,} rows with fingerprint {found['fingerprint']}",
            )
        kept, size = json.loads(place.read(INFO_FILE)), sum(place.files().values())
    receipt = {
        "format": FORMAT,
        "destination": public_name(destination.strip()),
        "rows": kept["rows"],
        "bytes": size,
        "fingerprint": kept["fingerprint"],
        "columns": kept["columns"],
    }
    write_json(receipt_path, receipt)
    return receipt


def _place(destination: str) -> _Place:
    text = destination.strip()
    if not text.strip("/") or text.endswith("://"):
        raise InputError(
            "no place to write to",
            parameter="destination",
            allowed=_ALLOWED,
            received=destination or "an empty text",
        )
    if text.lower().startswith(("http://", "https://")):
        raise InputError(
            "cannot write to a web address", parameter="destination", allowed=_ALLOWED, received=public_name(text)
        )
    if "://" not in text or text.startswith("file://"):
        return _Folder(Path(text.removeprefix("file://")).expanduser().resolve())  # a link stays one
    return _Bucket(text.rstrip("/"))


def _refuse_foreign(there: dict[str, int], destination: str) -> None:
    foreign = [name for name in there if name != INFO_FILE and not _PART.fullmatch(name)]
    if foreign:
        raise InputError(
            "the destination holds files that are no table's",
            parameter="destination",
            where=public_name(destination),
            allowed=f"an empty place, or one with nothing but part-00000.parquet, ... and {INFO_FILE}",
            received=sorted(foreign)[:5],
            hint="a table needs a folder of its own: name one below this",
        )


def _whole_table(place: _Place, there: dict[str, int]) -> dict[str, Any] | None:
    """The description of the table that is there; None where none is, or what is there is damaged or not all of it."""
    if INFO_FILE not in there:
        return None
    parts = sorted(there.keys() - {INFO_FILE})
    try:
        described = json.loads(place.read(INFO_FILE))
        whole = (
            described["format"] == TABLE_FORMAT
            and described["parts"] == len(parts)
            and described["rows"] == sum(place.rows(name) for name in parts)
            and {"fingerprint", "columns"} <= described.keys()
        )
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return None
    return described if whole else None


class _Folder:
    """A folder of this machine: a new one takes the place of the old one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self) -> dict[str, int]:
        there = next(place for place in (self._path, *self._path.parents) if place.exists())
        if not there.is_dir():
            raise InputError(
                "the destination is a file" if there == self._path else "the destination is below a file",
                parameter="destination",
                where=str(self._path),
                allowed="a folder, or a path where nothing is yet",
                received=f"{there}, which is a file",
            )
        found = (file for file in self._path.rglob("*") if file.is_file())
        return {str(file.relative_to(self._path)): file.stat().st_size for file in found}

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def rows(self, name: str) -> int:
        return int(pq.read_metadata(self._path / name).num_rows)

    def put(self, table: Table, there: dict[str, int]) -> None:
        with whole_folder(self._path) as folder:
            for file in (*table.parts, table.path / INFO_FILE):
                shutil.copyfile(file, folder / file.name)


class _Bucket:
    """A folder of a bucket: the description goes first and comes last."""

    def __init__(self, address: str) -> None:
        self._files = open_filesystem(address, parameter="destination")
        self._path: str = self._files._strip_protocol(address)

    def files(self) -> dict[str, int]:
        try:
            found = self._files.find(self._path, detail=True)
        except FileNotFoundError:
            return {}
        names = {name.removeprefix(f"{self._path}/"): int(facts["size"] or 0) for name, facts in found.items()}
        return {name: size for name, size in names.items() if name and not name.endswith("/")}

    def read(self, name: str) -> bytes:
        content: bytes = self._files.cat_file(f"{self._path}/{name}")
        return content

    def rows(self, name: str) -> int:
        with self._files.open(f"{self._path}/{name}", "rb") as file:
            return int(pq.read_metadata(file).num_rows)

    def put(self, table: Table, there: dict[str, int]) -> None:
        for name in sorted(there):  # `_table.json` sorts first
            self._files.rm_file(f"{self._path}/{name}")
        for file in (*table.parts, table.path / INFO_FILE):
            self._files.put_file(str(file), f"{self._path}/{file.name}")
