"""Kubeflow's metadata store on loopback: ML Metadata's methods for reading, over gRPC-web.

It writes protobuf's wire format by hand, with the numbers of `metadata_store.proto`, so that a wrong number in the
library's own messages does not go unseen.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

PREFIX = "/ml_metadata.MetadataStoreService/"
OUTPUT, INPUT = 4, 3


@dataclasses.dataclass
class MetadataStore:
    """What the store holds.

    Attributes:
        contexts: A run's id to its context's number.
        executions: Number to type and custom properties.
        events: Artifact, execution, type, and the name of the port.
        artifacts: Number to type, address and custom properties.
        status: The status of every answer, where it is to go wrong.
        cut: Whether every answer ends before its end.
    """

    contexts: dict[str, int] = dataclasses.field(default_factory=dict)
    executions: dict[int, tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    events: list[tuple[int, int, int, str]] = dataclasses.field(default_factory=list)
    artifacts: dict[int, tuple[str, str, dict[str, Any]]] = dataclasses.field(default_factory=dict)
    status: int = 0
    cut: bool = False

    def answer(self, method: str, body: bytes) -> bytes:
        """Carries out a call: frames in, frames out."""
        flags, length = struct.unpack_from(">BI", body)
        assert flags == 0
        assert len(body) == 5 + length
        fields = list(read(body[5:]))
        status, content = self.status, b""
        if not status:
            status, content = getattr(self, f"_{method}")(fields)
        trailers = f"grpc-status:{status}\r\ngrpc-message:{'not%20now' if status else ''}\r\n".encode()
        frames = struct.pack(">BI", 0, len(content)) + content if not status else b""
        frames += struct.pack(">BI", 0x80, len(trailers)) + trailers
        return frames[: len(frames) // 2] if self.cut else frames

    def _GetContextByTypeAndName(self, fields: list[tuple[int, Any]]) -> tuple[int, bytes]:
        asked = {number: value.decode() for number, value in fields}
        assert asked[1] == "system.PipelineRun"
        if asked[2] not in self.contexts:
            return 5, b""
        return 0, write(1, write(1, self.contexts[asked[2]]) + write(3, asked[2]))

    def _GetExecutionsByContext(self, fields: list[tuple[int, Any]]) -> tuple[int, bytes]:
        assert next(value for number, value in fields if number == 1) in self.contexts.values()
        return 0, b"".join(
            write(1, write(1, number) + write(7, kind) + properties(custom))
            for number, (kind, custom) in self.executions.items()
        )

    def _GetEventsByExecutionIDs(self, fields: list[tuple[int, Any]]) -> tuple[int, bytes]:
        asked = {value for number, value in fields if number == 1}
        return 0, b"".join(
            write(1, write(1, artifact) + write(2, execution) + write(3, write(1, write(2, port))) + write(4, kind))
            for artifact, execution, kind, port in self.events
            if execution in asked
        )

    def _GetArtifactsByID(self, fields: list[tuple[int, Any]]) -> tuple[int, bytes]:
        asked = {value for number, value in fields if number == 1}
        assert (3, 1) in fields, "the types are asked for"
        kinds = sorted({kind for kind, _, _ in self.artifacts.values()})
        found = [(number, each) for number, each in self.artifacts.items() if number in asked]
        return 0, b"".join(
            write(1, write(1, number) + write(2, kinds.index(kind) + 1) + write(3, uri) + properties(custom))
            for number, (kind, uri, custom) in found
        ) + b"".join(write(2, write(1, number) + write(2, kind)) for number, kind in enumerate(kinds, 1))


def properties(custom: dict[str, Any]) -> bytes:
    """Field 5 of executions and artifacts: a map of names to values."""
    return b"".join(write(5, write(1, name) + write(2, value_of(value))) for name, value in custom.items())


def value_of(value: Any) -> bytes:
    """A Value: an integer, a double, a text, or a struct."""
    if isinstance(value, dict):
        return write(4, struct_of(value))
    if isinstance(value, float):
        return bytes([2 << 3 | 1]) + struct.pack("<d", value)
    return write(1, value) if isinstance(value, int) else write(3, str(value))


def struct_of(values: dict[str, Any]) -> bytes:
    """A google.protobuf.Struct of numbers and texts."""

    def item(value: Any) -> bytes:
        return bytes([2 << 3 | 1]) + struct.pack("<d", value) if isinstance(value, float) else write(3, value)

    return b"".join(write(1, write(1, name) + write(2, item(value))) for name, value in values.items())


def write(number: int, value: int | str | bytes) -> bytes:
    """A field: an integer as a varint, anything else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """An integer, seven bits a byte."""
    found = b""
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def read(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message."""

    def integer() -> int:
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while message:
        key = integer()
        assert key & 7 in (0, 2)
        if key & 7 == 0:
            yield key >> 3, integer()
        else:
            length = integer()
            yield key >> 3, message[:length]
            message = message[length:]
