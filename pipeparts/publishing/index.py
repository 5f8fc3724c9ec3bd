"""The list of what is published in a folder or bucket: `index.json`, and the same as a page."""

from __future__ import annotations

import datetime as dt
import html
import json
from collections.abc import Iterable
from typing import Any, Literal

import pydantic

from pipeparts.errors import ContractError, InputError
from pipeparts.publishing.templates import Template
from pipeparts.publishing.versions import LATEST, Version, latest

FORMAT = "pipeparts-index/1"
FILE, PAGE = "index.json", "index.html"


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="allow")


class PublishedVersion(_Part):
    """A version of a template.

    Attributes:
        version: The version.
        url: The YAML's address, relative to the index.
        digest: Of the YAML: "sha256:" and 64 hexadecimal digits.
        size_bytes: Its size.
        published: When it was published first, ISO 8601 in UTC.
        images: The images of its steps.
        inputs: Each with name, type, artifact, required, default and description.
        outputs: Each with name, type, artifact and description.
    """

    version: str
    url: str
    digest: str
    size_bytes: int
    published: str
    images: tuple[str, ...] = ()
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()


class Entry(_Part):
    """A component or pipeline and its versions.

    Attributes:
        kind: "component" or "pipeline".
        stage: The stage that a component belongs to.
        summary: What it does, in a line.
        description: The rest of its documentation.
        tags: Tag to version; "latest" is one.
        versions: The versions, the highest first.
    """

    kind: str
    stage: str = ""
    summary: str = ""
    description: str = ""
    tags: dict[str, str] = {}
    versions: tuple[PublishedVersion, ...] = ()

    def find(self, version: str) -> PublishedVersion | None:
        """A version; None where it is not published."""
        return next((each for each in self.versions if each.version == version), None)


class Index(_Part):
    """Everything that is published in one place, by name."""

    format: Literal["pipeparts-index/1"] = "pipeparts-index/1"
    templates: dict[str, Entry] = {}

    @classmethod
    def parse(cls, content: bytes | None, where: str) -> Index:
        """Reads an index; None is an empty one.

        Raises:
            ContractError: For a file that is no index, or one of a newer release.
        """
        if content is None:
            return cls()
        try:
            document = json.loads(content)
            found = document.get("format") if isinstance(document, dict) else type(document).__name__
            if found != FORMAT:
                raise ContractError(
                    "the index is of another kind or version", where=where, allowed=f"format {FORMAT!r}", received=found
                )
            return cls.model_validate(document)
        except ValueError as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(
                "the index is damaged",
                where=where,
                allowed="what `pipeparts publish` has written",
                received=" ".join(str(error).split()),
                hint="put an earlier copy of it back; the versions themselves are all still there",
            ) from error

    def with_templates(self, templates: Iterable[Template], tags: Iterable[str], now: dt.datetime) -> Index:
        """The index with these templates in it; itself where they are there already.

        Raises:
            InputError: Where one of them is there with another content.
        """
        merged = dict(self.templates)
        for template in templates:
            merged[template.name] = _merge(merged.get(template.name), template, tuple(tags), now)
        return self.model_copy(update={"templates": {name: merged[name] for name in sorted(merged)}})

    def to_json(self) -> bytes:
        """The bytes of the file."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def path_of(template: Template) -> str:
    """Where a template's YAML is, from the index."""
    return f"{template.name}/{template.version}/{template.file}"


def _merge(entry: Entry | None, template: Template, tags: tuple[str, ...], now: dt.datetime) -> Entry:
    known = {each.version: each for each in entry.versions} if entry else {}
    text = str(template.version)
    if text in known and known[text].digest != template.digest:
        raise already_published(template, known[text].digest)
    known.setdefault(
        text,
        PublishedVersion(
            version=text,
            url=path_of(template),
            digest=template.digest,
            size_bytes=len(template.content),
            published=now.astimezone(dt.UTC).isoformat(timespec="seconds"),
            images=template.images,
            inputs=template.inputs,
            outputs=template.outputs,
        ),
    )
    ordered = sorted(known, key=Version.parse, reverse=True)
    newest = str(latest(Version.parse(each) for each in known) or "")
    pointers = {**(entry.tags if entry else {}), **dict.fromkeys(tags, text)}
    if newest:
        pointers[LATEST] = newest
    # What is said of it is what its newest version says.
    described = template if entry is None or text == (newest or ordered[0]) else entry
    return Entry(
        kind=described.kind,
        stage=described.stage,
        summary=described.summary,
        description=described.description,
        tags=dict(sorted(pointers.items())),
        versions=tuple(known[each] for each in ordered),
    )


def already_published(template: Template, digest: str) -> InputError:
    """The error for a version that is there with another content."""
    return InputError(
        "this version is published already, with another content",
        parameter="--version",
        where=f"{template.name} {template.version}",
        allowed=f"the same content ({digest}), or a version that is new",
        received=template.digest,
        hint="versions never change: give the next one",
    )


def render(index: Index) -> bytes:
    """The index as a page: it can be read without scripts, and filtered with them."""
    from pipeparts.runtime.pages import Html, Page

    versions = sum(len(entry.versions) for entry in index.templates.values())
    page = Page("Components and pipelines", f"{len(index.templates)} templates in {versions} versions")
    page.html(
        '<p>Use one in a pipeline: <code>kfp.components.load_component_from_url("...")</code>, '
        "with the address of a version. What an address holds never changes. "
        f'For programs: <a href="{FILE}">{FILE}</a>.</p>'
        '<p><input id="filter" type="search" placeholder="filter" aria-label="Filter" hidden></p>'
    )
    for name, entry in sorted(index.templates.items(), key=lambda item: (item[1].kind, item[1].stage, item[0])):
        newest = entry.find(entry.tags.get(LATEST, "")) or entry.versions[0]
        page.html(
            f'<section class="template" data-text="{_attribute(f"{name} {entry.stage} {entry.summary}".lower())}">'
        )
        page.heading(name, anchor=name)
        stage = f", stage {entry.stage.replace('_', ' ')}" if entry.kind == "component" and entry.stage else ""
        page.html(f'<p class="subtitle">{html.escape(entry.kind + stage)}</p>')
        page.text(entry.summary)
        page.html(f"<pre>load_component_from_url({_link(newest.url, quoted=True)})</pre>")
        page.html(f"<details><summary>interface of {html.escape(newest.version)}, and all versions</summary>")
        if entry.description:
            page.text(entry.description)
        if newest.inputs:
            page.heading("Inputs", level=3)
            page.table([_input(port) for port in newest.inputs], columns=["name", "type", "default", "description"])
        if newest.outputs:
            page.heading("Outputs", level=3)
            rows = [[str(port[key]) for key in ("name", "type", "description")] for port in newest.outputs]
            page.table(rows, columns=["name", "type", "description"])
        page.heading("Versions", level=3)
        tags = {
            each.version: [tag for tag, version in entry.tags.items() if version == each.version]
            for each in entry.versions
        }
        page.table(
            [
                [
                    Html(_link(each.url, text=each.version)),
                    ", ".join(tags[each.version]),
                    each.published,
                    Html(f"<code>{html.escape(each.digest[:19])}</code>"),
                    ", ".join(each.images),
                ]
                for each in entry.versions
            ],
            columns=["version", "tags", "published", "digest", "images"],
        )
        page.html("</details></section>")
    page.html(f"<script>{_SCRIPT}</script>")
    return page.render().encode()


#: Shows whole addresses, which only the browser knows, and the filter.
_SCRIPT = """
for (const link of document.querySelectorAll("a.url")) link.textContent = link.href;
const filter = document.getElementById("filter");
filter.hidden = false;
filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase().split(/\\s+/);
  for (const section of document.querySelectorAll("section.template"))
    section.hidden = !wanted.every((word) => section.dataset.text.includes(word));
});
"""


def _input(port: dict[str, Any]) -> list[str]:
    default = json.dumps(port["default"], ensure_ascii=False) if port["default"] is not None else ""
    return [str(port["name"]), str(port["type"]), "required" if port["required"] else default, str(port["description"])]


def _link(url: str, *, text: str = "", quoted: bool = False) -> str:
    link = f'<a{"" if text else " class=url"} href="{_attribute(url)}">{html.escape(text or url)}</a>'
    return f"&quot;{link}&quot;" if quoted else link


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)
