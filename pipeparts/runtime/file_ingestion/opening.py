"""Files opened down to their rows' bytes: archives, compression and encodings undone, formats found."""

from __future__ import annotations

import codecs
import contextlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pipeparts.runtime.errors import DataError, PipepartsError
from pipeparts.runtime.sources import SourceFile, service_errors

FORMATS = ("csv", "tsv", "jsonl", "parquet")

#: What a byte sequence that its encoding does not allow becomes: no valid UTF-8, so that the row is found.
MARK = "\udcff"

_BY_SUFFIX = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_PACKED_SUFFIXES = {".gz": "gzip", ".zst": "zstd", ".zip": "zip"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip"}
_FOREIGN_MAGIC = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}
# Their order counts: the first begins with the second.
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_REMOTE_BLOCK = 8 << 20
_SNIFFED = 1 << 16


class Stream:
    """Bytes in order, with a look ahead, and errors that name the file."""

    def __init__(self, raw: Any, name: str) -> None:
        self.raw = raw
        self.name = name
        self._ahead = b""

    def peek(self, count: int) -> bytes:
        """The next bytes, fewer only at the end, without moving on."""
        while len(self._ahead) < count:
            more = self._read(count - len(self._ahead))
            if not more:
                break
            self._ahead += more
        return self._ahead[:count]

    def read(self, count: int = -1) -> bytes:
        """The next bytes; fewer than asked for does not mean the end, none does."""
        if self._ahead:
            if count < 0:
                taken, self._ahead = self._ahead, b""
                return taken + self._read(-1)
            taken, self._ahead = self._ahead[:count], self._ahead[count:]
            return taken
        return self._read(count)

    # What pyarrow asks of a Python file.
    closed = False

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Never: the look ahead would be lost."""
        return False

    def writable(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Leaves the file open: who opened it closes it."""

    def _read(self, count: int) -> bytes:
        try:
            return bytes(self.raw.read(count))
        except PipepartsError:
            raise
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException) as error:
            raise _damaged(self.name, error) from error


class Member(NamedTuple):
    """A file, or a file in an archive.

    Attributes:
        name: How people know it.
        format: One of `FORMATS`.
        stream: Its bytes, not compressed any more.
        seekable: The file object behind it where that can seek, else None.
    """

    name: str
    format: str
    stream: Stream
    seekable: Any


def open_members(file: SourceFile, given_format: str) -> Iterator[Member]:
    """Opens a file, and each file in it where it is an archive, one after the other.

    Args:
        file: The file.
        given_format: One of `FORMATS`, or "auto".

    Yields:
        Each, to be read before the next is asked for.

    Raises:
        DataError: For a file that is damaged, or whose format cannot be told.
        ServiceError: Where the server does not answer.
    """
    with contextlib.ExitStack() as stack:
        with service_errors(file.name):
            raw = stack.enter_context(_open(file))
        yield from _layers(_Guarded(raw, file.name), file.name, given_format, stack)


def format_of_name(name: str) -> str | None:
    """The format that a name tells, compressed or not; None where it does not."""
    base = name[: -len(_suffix(name))] if _suffix(name) in _PACKED_SUFFIXES else name
    return _BY_SUFFIX.get(_suffix(base))


def decoded(stream: Stream, encoding: str) -> Stream:
    """The stream as UTF-8, without a byte order mark.

    Raises:
        DataError: Where a byte order mark tells of another encoding than the one said.
    """
    head = stream.peek(4)
    for mark, name in _MARKS.items():
        if head.startswith(mark) and not codecs.lookup(encoding).name.startswith(name):
            raise DataError(
                "a file in another encoding", where=stream.name, allowed=encoding,
                received=f"the byte order mark of {name}", hint=f'options={{"encoding": "{name}"}}',
            )  # fmt: skip
    if codecs.lookup(encoding).name in ("utf-8", "utf-8-sig"):
        if head.startswith(codecs.BOM_UTF8):
            stream.read(3)
        return stream
    return Stream(_Decoder(stream, encoding), stream.name)


@contextlib.contextmanager
def seekable(member: Member) -> Iterator[Any]:
    """The member as a file that can seek: itself, or a copy on the local disk."""
    if member.seekable is not None:
        member.seekable.seek(0)
        yield member.seekable
        return
    with _spooled(member.stream) as copy:
        yield copy


def _open(file: SourceFile) -> Any:
    protocol = file.fs.protocol if isinstance(file.fs.protocol, str) else file.fs.protocol[0]
    if protocol == "file":
        return Path(file.path).open("rb", buffering=0)
    if protocol in ("http", "https"):
        return file.fs.open(file.path, "rb", block_size=0)  # one request, read as it comes
    return file.fs.open(file.path, "rb", block_size=_REMOTE_BLOCK)


class _Guarded:
    """A file of a filesystem, whose client's errors become this library's."""

    def __init__(self, raw: Any, name: str) -> None:
        self.raw = raw
        self.name = name
        try:
            self.can_seek = bool(raw.seekable()) and type(raw).__name__ != "HTTPStreamFile"
        except (AttributeError, ValueError):
            self.can_seek = False

    closed = False

    def read(self, count: int = -1) -> bytes:
        with service_errors(self.name):
            return bytes(self.raw.read(count))

    def seek(self, offset: int, whence: int = 0) -> int:
        with service_errors(self.name):
            return int(self.raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self.raw.tell())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.can_seek

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Leaves it open: who opened it closes it."""


def _layers(raw: Any, name: str, given_format: str, stack: contextlib.ExitStack) -> Iterator[Member]:
    stream = Stream(raw, name)
    head = stream.peek(8)
    packed = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    said = _PACKED_SUFFIXES.get(_suffix(name))
    foreign = next((kind for magic, kind in _FOREIGN_MAGIC.items() if head.startswith(magic)), None)
    if foreign or (said and head and packed != said):
        raise DataError(
            "a file that is not compressed as its name says" if said else "a compression that is not read",
            where=name, allowed=said or list(_PACKED_SUFFIXES.values()),
            received=foreign or packed or f"bytes that begin with {head!r}",
        )  # fmt: skip
    if packed == "zip":
        yield from _zip_members(raw, stream, name, given_format, stack)
    elif packed:
        inner = pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), packed)
        unpacked = Stream(inner, name)
        unpacked.peek(1)  # a damaged beginning shows here
        yield _member(unpacked, name, given_format, None)
    else:
        can_seek = hasattr(raw, "seekable") and raw.seekable()
        yield _member(stream, name, given_format, raw if can_seek else None)


def _zip_members(
    raw: Any, stream: Stream, name: str, given_format: str, stack: contextlib.ExitStack
) -> Iterator[Member]:
    file = raw if raw.seekable() else stack.enter_context(_spooled(stream))
    try:
        archive = stack.enter_context(zipfile.ZipFile(file))
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise _damaged(name, error) from error
    inside = sorted(
        (entry for entry in archive.infolist() if not entry.is_dir() and _is_data(entry.filename)),
        key=lambda entry: entry.filename,
    )
    if not inside:
        raise DataError("an archive without files", where=name, allowed="at least one file", received="none")
    for entry in inside:
        label = f"{name}/{entry.filename}"
        if _suffix(entry.filename) == ".zip":
            raise DataError("an archive within an archive", where=label, allowed=[*FORMATS, "gzip", "zstd"])
        try:
            opened = archive.open(entry)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
            raise _damaged(label, error) from error
        with opened:
            yield from _layers(_Unseekable(opened), label, given_format, stack)


class _Unseekable:
    """A file in an archive: its own seek reads everything again."""

    def __init__(self, raw: Any) -> None:
        self.read = raw.read

    def seekable(self) -> bool:
        return False


def _member(stream: Stream, name: str, given_format: str, seekable: Any) -> Member:
    kind = given_format
    if kind == "auto":
        kind = format_of_name(name) or _sniff(stream)
    looks_like_parquet = stream.peek(4) == b"PAR1"
    if looks_like_parquet and kind != "parquet":
        raise DataError(
            "a Parquet file under another format's name", where=name, allowed=kind, received="parquet",
            hint='format="parquet"',
        )  # fmt: skip
    if kind == "parquet" and not looks_like_parquet and stream.peek(1):
        raise DataError(
            "not a Parquet file",
            where=name,
            allowed="bytes that begin with b'PAR1'",
            received=f"bytes that begin with {stream.peek(8)!r}",
        )
    return Member(name, kind, stream, seekable)


def _sniff(stream: Stream) -> str:
    """The format by the content, for a name that does not tell."""
    head = stream.peek(_SNIFFED)
    if head.startswith(b"PAR1"):
        return "parquet"
    first = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]
    if b"\0" not in first:
        if first.startswith(b"{"):
            return "jsonl"
        if b"\t" in first:
            return "tsv"
        if b"," in first:
            return "csv"
    raise DataError(
        "neither the name nor the content tells the format",
        where=stream.name,
        allowed=f"names that end in {', '.join(_BY_SUFFIX)} (and .gz, .zst, .zip)",
        received=f"content that begins with {head[:40]!r}" if head else "an empty file",
        hint=f"say it: format is one of {', '.join(FORMATS)}",
    )


class _Decoder:
    """Bytes in an encoding, read as UTF-8; what is not valid becomes `MARK`, which is not valid either."""

    def __init__(self, stream: Stream, encoding: str) -> None:
        self._stream = stream
        codecs.register_error("pipeparts-mark", _mark)
        self._decode = codecs.getincrementaldecoder(encoding)("pipeparts-mark").decode
        self._ended = False

    def read(self, count: int) -> bytes:
        while not self._ended:
            taken = self._stream.read(count)
            self._ended = not taken
            text = self._decode(taken, final=self._ended)
            if text:
                return text.encode("utf-8", "surrogatepass").removeprefix(codecs.BOM_UTF8)
        return b""


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return MARK, error.end


@contextlib.contextmanager
def _spooled(stream: Stream) -> Iterator[Any]:
    """A copy on the local disk, for what has to seek in a stream that cannot."""
    with tempfile.TemporaryFile(prefix="pipeparts-") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        yield copy


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2].lower()
    return f".{last.rpartition('.')[2]}" if "." in last else ""


def _is_data(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/"))


def _damaged(name: str, error: Exception) -> DataError:
    words = str(error) or type(error).__name__
    short = "runcated" in words or "ended before" in words or "not a zip file" in words
    return DataError(
        "a compressed file that is damaged or cut short" if short else "a compressed file that is damaged",
        where=name,
        allowed="a whole file",
        received=words,
    )
