"""Reads YAML or JSON with the line of everything in it; whatever the text is, it cannot take the linter down."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import yaml

from pipeparts.errors import InputError

#: The keys and positions that lead to a place, from the first document's top.
Path = tuple[str | int, ...]

#: No pipeline comes near to these; a text that goes beyond is refused, before it takes the memory or the stack.
LARGEST_FILE_BYTES = 50_000_000
_DEEPEST = 200
_MOST_VALUES = 5_000_000

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NO_KEY = object()
#: How JSON escapes an emoji: as two halves, which YAML's parser refuses.
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Parsed:
    """What a text holds.

    Attributes:
        documents: The documents, as plain values; the empty ones are left out.
        lines: Place to line, from 1, for the first document.
        duplicates: The keys that stand twice in one mapping, each by its place.
    """

    documents: list[Any]
    lines: dict[Path, int]
    duplicates: list[Path]


def parse(text: str, file: str) -> Parsed:
    """Reads all documents of a text.

    Raises:
        InputError: For what is not YAML, or is too deep, too large or tied in a knot.
    """
    try:
        return _Reader(file).read(_PAIR.sub(_joined, text) if text.lstrip().startswith("{") else text)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-13-45, which YAML takes for a date
        received = " ".join(str(error).split()).replace(' in "<unicode string>"', "")
        raise InputError("the pipeline is not YAML", where=file, received=received) from error


def _joined(found: re.Match[str]) -> str:
    high, low = int(found[2], 16), int(found[3], 16)
    return f"{found[1]}{chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))}"


@dataclasses.dataclass
class _Open:
    """A mapping or a list that has not ended yet."""

    value: Any
    path: Path
    before: int
    anchor: str | None
    key: Any = _NO_KEY
    key_line: int = 0
    merged: list[Any] = dataclasses.field(default_factory=list)


class _Reader:
    """Makes values of a parser's events: without recursion, which a text of brackets alone would exhaust."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.parsed = Parsed([], {}, [])
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.values = 0
        self.scalars: dict[str, Any] = {}
        self.constructor = yaml.SafeLoader("")

    def read(self, text: str) -> Parsed:
        loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
        for event in yaml.parse(text, Loader=loader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._start({} if isinstance(event, yaml.MappingStartEvent) else [], event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor, line)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.anchors = {}
        return self.parsed

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        value: Any = event.value
        is_merge = False
        if event.tag not in (None, "!") or event.implicit[0]:
            tag = event.tag
            if tag in (None, "!"):
                tag = self.constructor.resolve(yaml.ScalarNode, value, event.implicit)
            is_merge = tag == _MERGE
            if tag != _TEXT and not is_merge:
                value = self._construct(tag, event)
        self._add(_Merge if is_merge and self._wants_key() else value, line, size=1)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1)

    def _construct(self, tag: str, event: yaml.ScalarEvent) -> Any:
        key = f"{tag} {event.value}"
        if key not in self.scalars:
            node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark)
            self.scalars[key] = self.constructor.construct_object(node)
        return self.scalars[key]

    def _start(self, value: Any, event: Any, line: int) -> None:
        if self._wants_key():
            raise InputError("a key that is a list or a mapping", where=f"{self.file}, line {line}", allowed="a text")
        if len(self.stack) >= _DEEPEST:
            raise InputError(
                "the pipeline is nested too deeply",
                where=f"{self.file}, line {line}",
                allowed=f"{_DEEPEST} levels",
                received="more",
            )
        path = self._next_path()
        self._add(value, line, size=1, is_container=True)
        self.stack.append(_Open(value, path, self.values - 1, event.anchor))
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)

    def _end(self) -> None:
        ended = self.stack.pop()
        for merged in ended.merged:
            for mapping in merged if isinstance(merged, list) else [merged]:
                for key, value in mapping.items() if isinstance(mapping, dict) else ():
                    ended.value.setdefault(key, value)
        if ended.anchor is not None:
            self.anchors[ended.anchor] = (ended.value, self.values - ended.before)
        if self.stack and isinstance(self.stack[-1].value, dict):
            self.stack[-1].key = _NO_KEY

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self.anchors:
            raise InputError(
                "an alias of nothing, or of what it stands in",
                where=f"{self.file}, line {line}",
                allowed="the name of an anchor above that has ended",
                received=f"*{anchor}",
            )
        value, size = self.anchors[anchor]
        if self._wants_key() and isinstance(value, (dict, list)):
            raise InputError("a key that is a list or a mapping", where=f"{self.file}, line {line}", allowed="a text")
        self._add(value, line, size=size)

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is _NO_KEY

    def _next_path(self) -> Path:
        if not self.stack:
            return ()
        top = self.stack[-1]
        return (*top.path, len(top.value) if isinstance(top.value, list) else str(top.key))

    def _add(self, value: Any, line: int, *, size: int, is_container: bool = False) -> None:
        self.values += size
        if self.values > _MOST_VALUES:
            raise InputError(
                "the pipeline is too large",
                where=f"{self.file}, line {line}",
                allowed=f"{_MOST_VALUES:,} values, those behind aliases counted each time",
                received="more",
            )
        if not self.stack:
            if value is not None:
                self.parsed.documents.append(value)
            return
        top = self.stack[-1]
        first = len(self.parsed.documents) == 1
        if isinstance(top.value, list):
            if first:
                self.parsed.lines[*top.path, len(top.value)] = line
            top.value.append(value)
        elif top.key is _NO_KEY:
            top.key, top.key_line = value if value is _Merge else str(value), line
        elif top.key is _Merge:
            top.merged.append(value)
            top.key = top.key if is_container else _NO_KEY
        else:
            path = (*top.path, top.key)
            if top.key in top.value:
                self.parsed.duplicates.append(path)
            top.value[top.key] = value
            if first:
                self.parsed.lines[path] = top.key_line
            top.key = top.key if is_container else _NO_KEY  # a container's key is wanted until it ends


class _Merge:
    """The key `<<`, which takes another mapping's entries in."""
