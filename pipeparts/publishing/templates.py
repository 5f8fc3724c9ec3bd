"""What is published: a compiled component or pipeline with its version, and what is said of it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeparts import catalog, compiling
from pipeparts.diffing.changes import canonical
from pipeparts.diffing.graph import read_graph
from pipeparts.diffing.interface import is_required, ports, type_name
from pipeparts.diffing.reading import Compiled, parse
from pipeparts.errors import InputError
from pipeparts.publishing.versions import Version

_SUFFIXES = (".yaml", ".yml", ".json")
# What can be a folder, an OCI repository and a package of Artifact Registry.
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


@dataclasses.dataclass(frozen=True)
class Template:
    """A compiled component or pipeline, ready to publish.

    Attributes:
        name: Its name in the catalog; of a file that is not in there, the pipeline's.
        package: The pipeline's own name: Artifact Registry takes no other.
        kind: "component" or "pipeline".
        stage: The stage's folder; "pipelines" for a pipeline; empty for a component that is not in the catalog.
        version: Its version.
        content: The YAML.
        summary: What it does, in a line.
        description: The rest of its documentation.
        images: The images that its steps run in.
        inputs: Its inputs, each with name, type, required, default and description.
        outputs: Its outputs, each with name, type and description.
    """

    name: str
    package: str
    kind: str
    stage: str
    version: Version
    content: bytes
    summary: str
    description: str
    images: tuple[str, ...]
    inputs: tuple[dict[str, Any], ...]
    outputs: tuple[dict[str, Any], ...]

    @property
    def digest(self) -> str:
        """The content's: "sha256:" and 64 hexadecimal digits."""
        return digest_of(self.content)

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.kind}.yaml"

    @property
    def compiled(self) -> Compiled:
        """The content, read."""
        return parse(self.content.decode(), f"{self.name} {self.version}")


def digest_of(content: bytes) -> str:
    """The digest of a template's bytes: "sha256:" and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_templates(
    names: Iterable[str], version: Version, *, images: Mapping[str, str] | None = None, registry: str = ""
) -> list[Template]:
    """Compiles what is to be published.

    Args:
        names: Names of the catalog, compiled files, or `all` for the whole catalog.
        version: The version of all of them.
        images: Family to image reference.
        registry: The registry of the families that have none in `images`.

    Raises:
        InputError: For an unknown name, a file that is no compiled pipeline, two of the same name, and where a step's
            image is still a family's name, which nobody can pull.
    """
    found: dict[str, Template] = {}
    for name in names:
        entries = [*catalog.components(), *catalog.pipelines()] if name == "all" else []
        made = [_from_catalog(entry, version, images or {}, registry) for entry in entries]
        if not entries:
            path = Path(name)
            is_file = path.suffix in _SUFFIXES or path.is_file()
            make = _from_file(path, version, images or {}, registry) if is_file else None
            made = [make or _from_catalog(catalog.find(name), version, images or {}, registry)]
        for template in made:
            if found.setdefault(template.name, template).content != template.content:
                raise InputError(
                    "two different templates of one name",
                    parameter="NAME",
                    allowed="each name once",
                    received=template.name,
                )
    return list(found.values())


def _from_catalog(entry: catalog.Entry, version: Version, images: Mapping[str, str], registry: str) -> Template:
    spec = _with_images(compiling.compile_spec(entry.name), images, registry, entry.name)
    content = compiling.to_yaml(spec).encode()
    return dataclasses.replace(
        _template(content, version, entry.name),
        kind=entry.kind,
        stage=entry.stage,
        summary=entry.summary,
        description=entry.description,
    )


def _from_file(path: Path, version: Version, images: Mapping[str, str], registry: str) -> Template:
    try:
        content = path.read_bytes()
        compiled = parse(content.decode("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the pipeline", parameter="NAME", where=str(path), received=str(error)) from error
    if compiling.image_families(compiled.spec):
        text = compiling.to_yaml(_with_images(compiled.spec, images, registry, str(path)))
        if compiled.platforms:
            text += "---\n" + yaml.safe_dump({"platforms": compiled.platforms}, sort_keys=True, width=120)
        content = text.encode()
    known = {entry.name for entry in [*catalog.components(), *catalog.pipelines()]}
    in_catalog = compiled.name.replace("-", "_")  # KFP writes the catalog's names with hyphens
    return _template(content, version, in_catalog if in_catalog in known else compiled.name)


def _template(content: bytes, version: Version, name: str) -> Template:
    compiled = parse(content.decode(), name)
    kind = "component" if read_graph(compiled).is_component else "pipeline"
    if not _NAME.fullmatch(name):
        raise InputError(
            "a name that cannot be published",
            parameter="NAME",
            allowed="small letters and digits, in parts joined by one of . _ -",
            received=name,
        )
    summary, _, description = str(compiled.spec["pipelineInfo"].get("description") or "").strip().partition("\n")
    images = {container["image"] for _, container in compiling.containers(compiled.spec)}
    return Template(
        name=name,
        package=compiled.name,
        kind=kind,
        stage="pipelines" if kind == "pipeline" else "",
        version=version,
        content=content,
        summary=summary,
        description=description.strip(),
        images=tuple(sorted(images)),
        inputs=tuple(_ports(compiled, "inputDefinitions")),
        outputs=tuple(_ports(compiled, "outputDefinitions")),
    )


def _with_images(spec: compiling.Spec, images: Mapping[str, str], registry: str, name: str) -> compiling.Spec:
    known = {**(compiling.default_images(spec, registry=registry) if registry else {}), **images}
    missing = [family for family in compiling.image_families(spec) if family not in known]
    if missing:
        raise InputError(
            "an image that nobody can pull",
            parameter="--registry or --images",
            where=name,
            allowed="the registry that holds the images, or a file with an image for each family",
            received=f"no image for {', '.join(missing)}",
        )
    return compiling.resolve_images(spec, known)


def _ports(compiled: Compiled, side: str) -> list[dict[str, Any]]:
    """Inputs, those that are required first; or outputs."""
    found = []
    for (kind, name), port in ports(compiled.spec["root"], side).items():
        described = {"name": name, "type": type_name(port), "artifact": kind == "artifact"}
        if side == "inputDefinitions":
            described.update(required=is_required(port), default=canonical(port.get("defaultValue")))
        found.append({**described, "description": " ".join(str(port.get("description") or "").split())})
    return sorted(found, key=lambda port: not port.get("required", True))
