"""Text read in windows: a fast way for what is well formed, an exact one for the rows that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeparts.runtime.file_ingestion.kinds import Column
from pipeparts.runtime.file_ingestion.opening import Stream

#: Most bytes read at once the fast way, and fewest: a window shrinks around a bad row.
FULL_WINDOW = 2 << 20
SMALL_WINDOW = 64 << 10
#: A row longer than this is a bad row; what is unclosed is looked for no further.
LONGEST_ROW = 32 << 20
#: Of a bad row's text, as much is kept.
KEPT_TEXT = 2_000


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows, not yet of their final types.

    Attributes:
        columns: Name to values, each of the same length.
        rows: That length.
        learnable: Whether the texts may still teach what type a column has.
        lines: The physical line on which each row begins; None where rows were not looked at one by one.
        text: Gives a row's text for the quarantine.
    """

    columns: dict[str, pa.Array]
    rows: int
    learnable: bool = True
    lines: Sequence[int] | None = None
    text: Callable[[int], str] | None = None


class Sink(Protocol):
    """Where rows go."""

    columns: dict[str, Column]

    def column(self, name: str) -> Column:
        """What is known of a column; made where it is new."""

    def offer(self, chunk: Chunk) -> bool:
        """Takes rows; false, and nothing taken, where they have to be looked at one by one."""

    def bad(self, line: int, reason: str, text: str) -> None:
        """Takes a row that cannot be read."""


class TextReader:
    """Reads rows of text from a stream; a format says where rows end and how they are parsed.

    Args:
        stream: The bytes, UTF-8.
        sink: Where rows go.
    """

    def __init__(self, stream: Stream, sink: Sink) -> None:
        self.stream = stream
        self.sink = sink
        self.buffer = b""
        self.position = 0
        self.line = 1
        self.ended = False
        self._mac = False

    def run(self) -> None:
        """Reads to the end."""
        window, exact = FULL_WINDOW, False
        while True:
            self.fill(window)
            end = min(self.position + window, len(self.buffer))
            if end == self.position:
                return
            last = self.ended and end == len(self.buffer)
            if not exact:
                cut, clean = self.cut(end, last)
                if clean and cut is None and not last and window < LONGEST_ROW:
                    window *= 2
                    continue
                if clean and cut is not None and self._try(cut):
                    window = min(window * 2, FULL_WINDOW)
                    continue
                exact = True
                window = min(window, SMALL_WINDOW)
            elif self.read_exactly(end, last) or (window >= LONGEST_ROW and self._give_up_row(end)):
                exact = False
                window = min(window * 2, FULL_WINDOW)
            else:
                window *= 2

    def cut(self, end: int, last: bool) -> tuple[int | None, bool]:
        """Where the last whole row before `end` ends (None: nowhere), and whether the rows before are well formed."""
        cut = end if last else self.buffer.rfind(b"\n", self.position, end) + 1
        return (cut if cut > self.position else None), True

    def read_fast(self, block: bytes) -> bool:
        """Reads whole rows the fast way; false, and nothing taken, where that does not do."""
        raise NotImplementedError

    def read_exactly(self, end: int, last: bool) -> bool:
        """Reads rows one by one up to `end`; false where not even one is whole."""
        raise NotImplementedError

    def fill(self, wanted: int) -> None:
        """Has this many bytes in the buffer beyond the position, unless the stream ends."""
        missing = wanted - (len(self.buffer) - self.position)
        if missing <= 0 or self.ended:
            return
        # At least a quarter of a window at a time, so that the buffer is not copied for every few bytes.
        missing = max(missing, FULL_WINDOW // 4)
        pieces = [self.buffer[self.position :]]
        self.position = 0
        while missing > 0:
            piece = self.stream.read(missing)
            if not piece:
                self.ended = True
                break
            pieces.append(piece)
            missing -= len(piece)
        first = not self.buffer
        self.buffer = b"".join(pieces)
        if first:
            head = self.buffer[:LONGEST_ROW]
            self._mac = b"\r" in head and b"\n" not in head
        if self._mac:
            self.buffer = self.buffer.replace(b"\r", b"\n")

    def line_end(self, start: int, end: int) -> int:
        """Where the physical line ends, without its line break; `end` where it does not."""
        at = self.buffer.find(b"\n", start, end)
        return end if at < 0 else at

    def _try(self, cut: int) -> bool:
        block = self.buffer[self.position : cut]
        if not self.read_fast(block):
            return False
        self.line += _line_breaks(block)
        self.position = cut
        return True

    def _give_up_row(self, end: int) -> bool:
        """Takes the first physical line of a row that has no end as a bad row, and goes on behind it."""
        start, line = self.position, self.line
        at = self.line_end(start, end)
        reason = f"a row longer than {LONGEST_ROW >> 20} MiB, or a quote that is never closed"
        self.sink.bad(line, reason, shown(self.buffer[start : min(at, start + 4 * KEPT_TEXT)]))
        while at == end and not (self.ended and end == len(self.buffer)):
            # No line break in all of the window: leave out everything up to the next one.
            self.position = end
            self.fill(FULL_WINDOW)
            start, end = self.position, len(self.buffer)
            at = self.line_end(start, end)
        self.position = min(at + 1, len(self.buffer))
        self.line += 1
        return True


def _line_breaks(block: bytes) -> int:
    """How many there are: counted by numpy, since `bytes.count` looks for each of them anew."""
    data, size = np.frombuffer(block, np.uint8), 64 << 10
    return sum(int(np.count_nonzero(data[at : at + size] == ord("\n"))) for at in range(0, len(data), size))


def shown(raw: bytes) -> str:
    """A bad row's text for the quarantine: what is not text shows as an escape."""
    text = raw.rstrip(b"\r\n").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return text[:KEPT_TEXT]


def why_not_text(raw: bytes) -> str | None:
    """Why these bytes are no text; None where they are."""
    if b"\0" in raw:
        return "a NUL byte"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        if raw[error.start : error.start + 3] == b"\xed\xb3\xbf":
            return "bytes that the encoding does not allow"
        return f"not valid UTF-8: byte 0x{raw[error.start]:02x}"
    return None
