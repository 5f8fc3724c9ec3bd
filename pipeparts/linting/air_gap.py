"""The proof that a pipeline runs without the internet: images of allowed registries, nothing fetched at run time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, Rule
from pipeparts.linting.images import is_pinned, repository
from pipeparts.linting.installs import find_fetch

_WEB = re.compile(r"https?://", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class AirGap:
    """What is allowed.

    Attributes:
        registries: Where images may come from: "europe-docker.pkg.dev/project/repository"; all below it.
    """

    registries: tuple[str, ...]

    def rules(self) -> list[Rule]:
        """The rules, which hold for every platform."""
        return [
            _rule(
                "A1",
                "fetches",
                "a command that installs or fetches something when the step starts",
                "There is no index and no network to fetch it from.",
                "Put it into the image.",
                _fetches,
            ),
            _rule(
                "A2",
                "foreign-image",
                "an image that is not of an allowed registry",
                "The cluster cannot pull it.",
                "Copy it into the registry, or build it there, and compile with `--images`.",
                lambda document: _foreign_images(document, self.registries),
            ),
            _rule(
                "A3",
                "unpinned-image",
                "an image with neither a digest nor a tag of its own",
                "What is pulled is not what was checked.",
                "Pin the digest.",
                _unpinned_images,
            ),
            _rule(
                "A4",
                "web-address",
                "an address in the web that a step or an importer reads",
                "It cannot be reached.",
                "Copy the data into a bucket inside.",
                _web_addresses,
            ),
        ]


def summary(document: Document, registries: Sequence[str]) -> str:
    """What a clean document was proved to be, in a line."""
    images = {str(container.get("image")) for _, container, _ in document.containers()}
    commands = sum(1 for _ in document.containers())
    return (
        f"air gap proved: {len(images)} images, all pinned and of {', '.join(registries)}; "
        f"{commands} commands fetch nothing; no constant or importer names a web address"
    )


def _rule(identifier: str, name: str, summary: str, why: str, fix: str, check: object) -> Rule:
    severities = {"kubeflow": "error", "vertex": "error"}
    return Rule(identifier, name, summary, severities, why, fix, "policy", check)  # type: ignore[arg-type]


def _fetches(document: Document) -> Iterator[Hit]:
    for label, text, path in document.command_texts():
        if found := find_fetch(text):
            yield Hit(f"the command runs `{found}`", path, document.users(label))


def _foreign_images(document: Document, registries: Sequence[str]) -> Iterator[Hit]:
    allowed = [repository(f"{registry.rstrip('/')}/x").removesuffix("/x") for registry in registries]
    for label, container, path in document.containers():
        image = str(container.get("image", ""))
        name = repository(image)
        if not any(name == place or name.startswith(f"{place}/") for place in allowed):
            yield Hit(f"the image is {image or 'not named'}", (*path, "image"), document.users(label))


def _unpinned_images(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        image = str(container.get("image", ""))
        if not is_pinned(image):
            yield Hit(f"the image is {image or 'not named'}", (*path, "image"), document.users(label))


def _web_addresses(document: Document) -> Iterator[Hit]:
    for task, name, value, path in document.constants():
        if isinstance(value, str) and _WEB.match(value):
            yield Hit(f"input {name} is {value}", path, (task.name,))
    for where, name, definition, path in document.parameters():
        value = definition.get("defaultValue")
        if isinstance(value, str) and _WEB.match(value):
            yield Hit(f"the default of {name} of {where} is {value}", path)
    for label, executor in document.executors.items():
        importer = executor.get("importer")
        uri = importer.get("artifactUri") if isinstance(importer, dict) else None
        address = str(uri.get("constant", "")) if isinstance(uri, dict) else ""
        if _WEB.match(address):
            path = ("deploymentSpec", "executors", label, "importer", "artifactUri")
            yield Hit(f"an importer reads {address}", path, document.users(label))
