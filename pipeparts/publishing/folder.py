"""Templates in a folder or a bucket, with an index that people and programs can read.

NAME/VERSION/component.yaml (or pipeline.yaml) never changes; NAME/TAG is a text file with a version; index.json and
index.html list it all. The index is written when all that it names is there, so that it never points at nothing.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Sequence

from pipeparts.errors import ContractError, ServiceError
from pipeparts.publishing import index as indexes
from pipeparts.publishing.index import Index
from pipeparts.publishing.stores import Edit, open_store
from pipeparts.publishing.templates import Template, digest_of
from pipeparts.publishing.versions import LATEST, Version
from pipeparts.runtime.sources import public_name

_ATTEMPTS = 10


class Folder:
    """A folder or bucket, by its address.

    Raises:
        InputError: Where nothing can be written there.
    """

    def __init__(self, address: str) -> None:
        self._store = open_store(address)

    @property
    def address(self) -> str:
        """The address, as messages may show it."""
        return public_name(self._store.address)

    def location(self, template: Template) -> str:
        """Where a template is, or will be."""
        return f"{self.address}/{indexes.path_of(template)}"

    def versions(self, template: Template) -> list[Version]:
        """The published versions of a template."""
        entry = self._index.templates.get(template.name)
        return [Version.parse(each.version, parameter=self._index_path) for each in entry.versions] if entry else []

    def read(self, template: Template, version: Version) -> bytes | None:
        """The content of a version; None where there is none.

        Raises:
            ContractError: Where the index has the version, and the file is not what it says.
        """
        entry = self._index.templates.get(template.name)
        published = entry.find(str(version)) if entry else None
        path = published.url if published else f"{template.name}/{version}/{template.file}"
        content = self._store.read(path)
        if published is not None and (content is None or digest_of(content) != published.digest):
            raise ContractError(
                "a published file is not what the index says",
                parameter="--to",
                where=f"{self.address}/{path}",
                allowed=published.digest,
                received="no file" if content is None else digest_of(content),
                hint="put the file back: others rely on it",
            )
        return content

    def publish(self, templates: Sequence[Template], tags: Sequence[str]) -> dict[str, str]:
        """Writes templates, then their pointers, then the index.

        Returns:
            Template name to the digest of its content.

        Raises:
            InputError: Where one is there with another content.
        """
        for template in templates:
            path = indexes.path_of(template)
            if not self._store.create(path, template.content):
                there = self._store.read(path)
                if there != template.content:
                    raise indexes.already_published(template, digest_of(there or b""))
        for template in templates:
            for tag in tags:
                self._store.update(f"{template.name}/{tag}", _exactly(f"{template.version}\n".encode()))
            if not template.version.pre:
                self._store.update(f"{template.name}/{LATEST}", _highest(template.version))
        now = dt.datetime.now(dt.UTC)

        def add(content: bytes | None) -> bytes | None:
            index = Index.parse(content, self._index_path)
            merged = index.with_templates(templates, tags, now).to_json()
            return None if merged == content else merged

        self._store.update(indexes.FILE, add)
        self.__dict__.pop("_index", None)
        self._write_page()
        return {template.name: template.digest for template in templates}

    def _write_page(self) -> None:
        """The page, once more where somebody changed the index meanwhile: whoever is last has seen everything."""
        for _ in range(_ATTEMPTS):
            before = self._store.read(indexes.FILE)
            page = indexes.render(Index.parse(before, self._index_path))
            self._store.update(indexes.PAGE, _exactly(page))
            if self._store.read(indexes.FILE) == before:
                return
        raise ServiceError("others publish to the same place all the time", parameter="--to", where=self.address)

    @functools.cached_property
    def _index(self) -> Index:
        """The index as it was when it was first asked for; what is written is checked against what is there then."""
        return Index.parse(self._store.read(indexes.FILE), self._index_path)

    @property
    def _index_path(self) -> str:
        return f"{self.address}/{indexes.FILE}"


def _exactly(wanted: bytes) -> Edit:
    return lambda there: None if there == wanted else wanted


def _highest(version: Version) -> Edit:
    def edit(there: bytes | None) -> bytes | None:
        known = Version.find((there or b"").decode(errors="replace").strip())
        return None if known is not None and known >= version else f"{version}\n".encode()

    return edit
