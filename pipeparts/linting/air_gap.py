"""The proof that a pipeline runs without the internet: images of allowed registries, nothing fetched at run time."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from pipeparts.compiling import is_pinned
from pipeparts.linting.commands import Seen, addresses_in, is_inside
from pipeparts.linting.document import Document
from pipeparts.linting.findings import Check, Hit, Rule
from pipeparts.linting.images import repository
from pipeparts.linting.reading import Path


@dataclasses.dataclass(frozen=True)
class AirGap:
    """What is allowed.

    Attributes:
        registries: Where images may come from: "europe-docker.pkg.dev/project/repository"; all below it.
        hosts: Hosts that can be reached from inside: "mlflow.corp.example"; all below them. Loopback, private networks
            and the cluster's own names are known without.
    """

    registries: tuple[str, ...]
    hosts: tuple[str, ...] = ()

    def rules(self) -> list[Rule]:
        """The rules, which hold for every platform."""
        return [
            _rule(
                "A1",
                "fetches",
                "a command that installs or fetches something when the step starts",
                "There is no index and no network to fetch it from.",
                "Put it into the image.",
                lambda document: _fetches(document, self.hosts),
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
                "an address outside, in a constant, a default, a variable, a command or an importer",
                "It cannot be reached.",
                "Copy the data into a bucket inside, or name the host with `--allow-host` where it is inside.",
                lambda document: _addresses(document, self.hosts),
            ),
        ]


def is_proved(document: Document, gap: AirGap) -> bool:
    """Whether no rule of the air gap is broken, those that were left out of the findings among them."""
    return document.is_pipeline and not any(hit for rule in gap.rules() for hit in rule.check(document))


def summary(document: Document, gap: AirGap) -> str:
    """What a clean document was proved to be, in a line."""
    images = {image for _, image, _ in document.images()}
    containers = sum(1 for _ in document.containers())
    return (
        f"air gap: proved. {_number(len(images), 'image')}, pinned and of {', '.join(gap.registries)}; "
        f"{_number(containers, 'command')} with no install and no download; no constant, default, variable, command "
        "or importer names an address outside. Not seen: what the images themselves do, and values given at run time"
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _rule(identifier: str, name: str, summary: str, why: str, fix: str, check: Check) -> Rule:
    return Rule(identifier, name, summary, {"kubeflow": "error", "vertex": "error"}, why, fix, "policy", check)


def _fetches(document: Document, hosts: Collection[str]) -> Iterator[Hit]:
    calls: dict[str, list[tuple[Seen, Path]]] = {}
    for label, seen, path in document.seen():
        is_near = seen.kind == "fetch" and seen.addresses and all(is_inside(a, hosts) for a in seen.addresses)
        if seen.kind in ("install", "fetch") and not is_near:
            calls.setdefault(label, []).append((seen, path))
    for label, found in calls.items():
        first, path = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        yield Hit(f"the command runs `{first.text}`{more}", path, document.users(label))


def _foreign_images(document: Document, registries: Sequence[str]) -> Iterator[Hit]:
    allowed = [repository(f"{registry.rstrip('/')}/x").removesuffix("/x") for registry in registries]
    for label, image, path in document.images():
        name = repository(image)
        if not any(name == place or name.startswith(f"{place}/") for place in allowed):
            yield Hit(f"the image is {image or 'not named'}", path, document.users(label))


def _unpinned_images(document: Document) -> Iterator[Hit]:
    for label, image, path in document.images():
        if not is_pinned(image):
            yield Hit(f"the image is {image or 'not named'}", path, document.users(label))


def _addresses(document: Document, hosts: Collection[str]) -> Iterator[Hit]:
    for tasks, what, value, path in _named(document):
        for address in addresses_in(value):
            if not is_inside(address, hosts):
                yield Hit(f"{what} is {address}", path, tasks)
                break
    for label, seen, path in document.seen():
        if seen.kind == "address" and not is_inside(seen.text, hosts):
            yield Hit(f"the command names {seen.text}", path, document.users(label))


def _named(document: Document) -> Iterator[tuple[tuple[str, ...], str, object, Path]]:
    """Each value that a run begins with: the tasks, what it is, the value and its place."""
    for task, name, value, path in document.constants():
        yield (task.name,), f"input {name}", value, path
    for where, name, definition, path in document.parameters():
        yield (), f"the default of {name} of {where}", definition.get("defaultValue"), path
    for label, name, value, path in document.environment():
        yield document.users(label), f"variable {name}", value, path
    for label, executor in document.executors.items():
        importer = executor.get("importer")
        uri = importer.get("artifactUri") if isinstance(importer, dict) else None
        path = ("deploymentSpec", "executors", label, "importer", "artifactUri")
        yield (
            document.users(label),
            "the importer's address",
            uri.get("constant") if isinstance(uri, dict) else None,
            path,
        )
