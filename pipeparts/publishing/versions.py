"""Semantic versions (semver.org, 2.0.0): their order, and which of them promise the same interface."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable

from pipeparts.errors import InputError

_PART = r"(?:0|[1-9]\d*)"
_PRE = r"(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"({_PART})\.({_PART})\.({_PART})(?:-({_PRE}(?:\.{_PRE})*))?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

#: The tag that publishing keeps by itself: the highest version that is no pre-release.
LATEST = "latest"


@functools.total_ordering
@dataclasses.dataclass(frozen=True)
class Version:
    """A semantic version, in the order that the specification gives."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, *, parameter: str = "--version") -> Version:
        """Reads a version.

        Raises:
            InputError: For a text that is none.
        """
        found = cls.find(text)
        if found is None:
            bare = cls.find(text.removeprefix("v"))
            raise InputError(
                "not a semantic version",
                parameter=parameter,
                allowed="MAJOR.MINOR.PATCH, as 1.4.0, or 1.4.0-rc.1 before it is released",
                received=text,
                hint=f"did you mean {bare}?" if bare else None,
            )
        return found

    @classmethod
    def find(cls, text: str) -> Version | None:
        """The version that a text is; None for other texts."""
        found = _VERSION.fullmatch(text)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), int(found[3]), tuple(found[4].split(".")) if found[4] else ())

    @property
    def line(self) -> tuple[int, ...]:
        """What versions with the same interface share: the major version; before 1.0.0, where that is 0, the minor."""
        return (self.major,) if self.major else (0, self.minor)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{'.'.join(self.pre)}" if self.pre else "")

    def __lt__(self, other: Version) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[object, ...]:
        numbers = self.major, self.minor, self.patch
        # A release comes after its pre-releases; in these, numbers come before words.
        return (*numbers, not self.pre, tuple((not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in self.pre))


def previous(version: Version, published: Iterable[Version]) -> Version | None:
    """The version whose interface a new one has to keep: the highest lower release that makes the same promise."""
    promised = (each for each in published if not each.pre and each < version and each.line == version.line)
    return max(promised, default=None)


def latest(published: Iterable[Version]) -> Version | None:
    """The highest version that is no pre-release."""
    return max((each for each in published if not each.pre), default=None)


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags, each once.

    Raises:
        InputError: For a tag that cannot be one, that looks like a version, or that is kept by publishing itself.
    """
    for tag in tags:
        if not _TAG.fullmatch(tag) or Version.find(tag.removeprefix("v")) or tag == LATEST:
            raise InputError(
                "a tag that cannot be given",
                parameter="--tag",
                allowed=f"letters, digits and . _ -, no version, and not {LATEST!r}, which follows the highest release",
                received=tag,
            )
    return tuple(dict.fromkeys(tags))
