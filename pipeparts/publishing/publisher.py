"""Publishing: what is checked before anything is written, whatever the destination."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Protocol

from pipeparts.diffing.compare import interface_only
from pipeparts.diffing.reading import parse
from pipeparts.errors import InputError
from pipeparts.publishing.index import already_published
from pipeparts.publishing.templates import Template, digest_of
from pipeparts.publishing.versions import Version, previous

_ARTIFACT_REGISTRY = re.compile(r"https?://[^/]*kfp\.pkg\.dev(/|$)")


class Destination(Protocol):
    """Where templates are published."""

    @property
    def address(self) -> str:
        """The address, as messages may show it."""

    def location(self, template: Template) -> str:
        """Where a template is, or will be."""

    def versions(self, template: Template) -> list[Version]:
        """The published versions of a template."""

    def read(self, template: Template, version: Version) -> bytes | None:
        """The content of a version; None where there is none."""

    def publish(self, templates: Sequence[Template], tags: Sequence[str]) -> dict[str, str]:
        """Writes what is not there yet, and the tags.

        Returns:
            Template name to the digest under which the destination keeps it.
        """


@dataclasses.dataclass(frozen=True)
class Published:
    """What became of a template.

    Attributes:
        template: The template.
        location: Where it is.
        state: "published", "already there", or in a dry run "to be published".
        digest: What the destination keeps it under; empty in a dry run.
        previous: The version whose interface it was held to; None for the first of its line.
        breaking: What breaks callers of that one; empty unless that was allowed.
    """

    template: Template
    location: str
    state: str
    digest: str
    previous: Version | None
    breaking: tuple[str, ...]


def open_destination(address: str) -> Destination:
    """The destination of an address: a folder, a bucket, Artifact Registry, or an OCI registry.

    Raises:
        InputError: For an address that nothing can be published to.
    """
    if not address.strip():
        raise InputError("no destination is given", parameter="--to", allowed="an address", received="an empty text")
    if address.startswith("oci://"):
        from pipeparts.publishing.oci import OciRegistry

        return OciRegistry(address)
    if _ARTIFACT_REGISTRY.match(address):
        from pipeparts.publishing.artifact_registry import ArtifactRegistry

        return ArtifactRegistry(address)
    from pipeparts.publishing.folder import Folder

    return Folder(address)


def publish(
    destination: Destination,
    templates: Sequence[Template],
    *,
    tags: Sequence[str] = (),
    allow_breaking: bool = False,
    dry_run: bool = False,
) -> list[Published]:
    """Publishes templates; nothing is written where one of them is refused.

    It may be repeated, also after it was stopped half-way: what is there already is left as it is.

    Args:
        destination: Where to.
        templates: What.
        tags: Names that are to point at these versions.
        allow_breaking: Whether an interface may break the one before it in the same line of versions.
        dry_run: Whether only to check.

    Raises:
        InputError: Where a version is there with another content, or an interface breaks the one before.
        ServiceError: Where the destination does not answer.
    """
    planned: list[Published] = []
    refused: list[InputError] = []
    for template in templates:
        try:
            planned.append(_plan(destination, template, allow_breaking, dry_run))
        except InputError as error:
            if len(templates) == 1:
                raise
            refused.append(error)
    if refused:
        raise InputError(
            f"{len(refused)} of {len(templates)} templates cannot be published; nothing was written",
            parameter="--to",
            where=destination.address,
            received="; ".join(f"{error.facts.get('where', '')}: {error.headline}" for error in refused),
            hint=refused[0].facts.get("hint"),
        )
    if dry_run:
        return planned
    digests = destination.publish(templates, tags)
    return [dataclasses.replace(each, digest=digests[each.template.name]) for each in planned]


def _plan(destination: Destination, template: Template, allow_breaking: bool, dry_run: bool) -> Published:
    there = destination.read(template, template.version)
    if there is not None and there != template.content:
        raise already_published(template, digest_of(there))
    before = previous(template.version, destination.versions(template))
    breaking: tuple[str, ...] = ()
    if before is not None:
        content = destination.read(template, before)
        old = parse(
            (content or b"").decode("utf-8", errors="replace"), f"{destination.address}, {template.name} {before}"
        )
        changes = interface_only(old, template.compiled).changes
        breaking = tuple(change.headline for change in changes if change.impact == "breaking")
    if breaking and not allow_breaking and there is None:
        raise _breaks(template, before, breaking)
    state = "already there" if there is not None else "to be published" if dry_run else "published"
    return Published(template, destination.location(template), state, "", before, breaking)


def _breaks(template: Template, before: Version | None, breaking: Sequence[str]) -> InputError:
    line = "major" if template.version.major else "minor"
    next_line = (
        Version(template.version.major + 1, 0, 0) if line == "major" else Version(0, template.version.minor + 1, 0)
    )
    return InputError(
        f"the interface breaks the one of {before}, which has the same {line} version",
        parameter="--version",
        where=f"{template.name} {template.version}",
        allowed=f"the same inputs and outputs as {before}, and more that callers need not give",
        received="; ".join(breaking),
        hint=f"publish it as {next_line}, or with --allow-breaking",
    )
