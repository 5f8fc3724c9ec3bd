"""What may be compared: compiled files, folders of them, names of the catalog, and any of these at a git revision."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeparts import catalog, compiling
from pipeparts.errors import InputError

_SUFFIXES = (".yaml", ".yml", ".json")
_GIT = "git:"
_COMPILED = re.compile(r"(?:^|[\s{,\"'])(?:pipelineInfo|deploymentSpec)[\"']?\s*:", re.MULTILINE)
_ALLOWED = "a compiled YAML or JSON file, a folder of them, a name of the catalog, `all`, or git:REVISION:PATH"


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled pipeline or component.

    Attributes:
        where: The file, for messages.
        spec: The PipelineSpec.
        platforms: Platform to its settings, from the second document.
    """

    where: str
    spec: dict[str, Any]
    platforms: dict[str, Any]

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return str(self.spec["pipelineInfo"]["name"])


@dataclasses.dataclass(frozen=True)
class Templates:
    """What a reference names.

    Attributes:
        reference: The reference, as given.
        several: Whether it names a folder: then templates are compared by their names.
        found: Name to compiled template.
    """

    reference: str
    several: bool
    found: dict[str, Compiled]


def read(reference: str, *, parameter: str) -> Templates:
    """Reads what a reference names.

    Args:
        reference: A file, a folder, a name of the catalog, `all`, or `git:REVISION:PATH`.
        parameter: Where it was given, for messages.

    Raises:
        InputError: Where it names nothing, what cannot be read, or what is no compiled KFP v2 pipeline.
    """
    if not reference.strip():
        raise InputError("nothing to compare", parameter=parameter, allowed=_ALLOWED, received="an empty text")
    if reference.startswith(_GIT):
        return _read_git(reference, parameter)
    path = Path(reference)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
        return _folder(reference, ((str(file), _text(file, parameter, strict=False)) for file in files), parameter)
    if path.suffix in _SUFFIXES or path.is_file():
        return _one(reference, parse(_text(path, parameter), str(path)))
    if reference == "all":
        entries = [*catalog.components(), *catalog.pipelines()]
        return Templates(reference, True, {c.name: c for c in (_from_catalog(entry) for entry in entries)})
    return _one(reference, _from_catalog(catalog.find(reference)))


def parse(text: str, where: str) -> Compiled:
    """Reads a compiled pipeline's text, with its platform settings.

    Raises:
        InputError: For a text that is no YAML, or no compiled KFP v2 pipeline.
    """
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, ValueError) as error:
        raise InputError("the pipeline is not YAML", where=where, received=" ".join(str(error).split())) from error
    documents = [document for document in documents if document is not None]
    spec = documents[0] if documents else None
    info = spec.get("pipelineInfo") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(info, dict) or not info.get("name") or "root" not in spec:
        raise InputError(
            "not a compiled KFP v2 pipeline",
            where=where,
            allowed="a mapping with pipelineInfo, its name, deploymentSpec and root",
            received=sorted(map(str, spec))
            if isinstance(spec, dict)
            else type(spec).__name__
            if documents
            else "an empty file",
        )
    platforms: dict[str, Any] = {}
    for document in documents[1:]:
        if not isinstance(document, dict) or not isinstance(document.get("platforms"), dict):
            raise InputError(
                "a document that is neither the pipeline nor its platform settings",
                where=where,
                allowed="a mapping with `platforms`",
                received=sorted(map(str, document)) if isinstance(document, dict) else type(document).__name__,
            )
        platforms.update(document["platforms"])
    return Compiled(where, spec, platforms)


def _from_catalog(entry: catalog.Entry) -> Compiled:
    return Compiled(f"{entry.name} (compiled)", compiling.compile_spec(entry.name), {})


def _one(reference: str, compiled: Compiled) -> Templates:
    return Templates(reference, False, {compiled.name: compiled})


def _folder(reference: str, files: Iterable[tuple[str, str]], parameter: str) -> Templates:
    found: dict[str, Compiled] = {}
    number = 0
    for where, text in files:
        number += 1
        if not _COMPILED.search(text):
            continue  # files of other kinds lie beside them
        compiled = parse(text, where)
        if compiled.name in found:
            raise InputError(
                "two files of the folder hold a pipeline of the same name",
                parameter=parameter,
                where=f"{found[compiled.name].where} and {where}",
                allowed="each name once",
                received=compiled.name,
            )
        found[compiled.name] = compiled
    if not found:
        raise InputError(
            "the folder has no compiled pipeline",
            parameter=parameter,
            where=reference,
            allowed="files *.yaml, *.yml or *.json with compiled pipelines",
            received=f"{number} such files, none of them a pipeline" if number else "no such file",
        )
    return Templates(reference, True, found)


def _text(path: Path, parameter: str, *, strict: bool = True) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="strict" if strict else "replace")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "cannot read the pipeline", parameter=parameter, where=str(path), received=str(error)
        ) from error


def _read_git(reference: str, parameter: str) -> Templates:
    revision, colon, path = reference.removeprefix(_GIT).partition(":")
    if not revision or not colon or not path or revision.startswith("-"):
        raise InputError(
            "not a file at a git revision",
            parameter=parameter,
            allowed="git:REVISION:PATH, as git:v1.2.0:pipelines/train.yaml (from the repository's top; ./ from here)",
            received=reference,
        )
    place = f"{revision}:{path.rstrip('/')}"
    if _git(reference, parameter, "cat-file", "-t", place).strip() == b"tree":
        listed = _git(reference, parameter, "ls-tree", "-r", "--name-only", "-z", place).decode(errors="replace")
        names = sorted(name for name in listed.split("\0") if PurePosixPath(name).suffix in _SUFFIXES)
        inside = ((f"{_GIT}{place}/{name}", f"{place}/{name}") for name in names)
        files = (
            (where, _decoded(_git(reference, parameter, "show", blob), where, parameter)) for where, blob in inside
        )
        return _folder(reference, files, parameter)
    content = _git(reference, parameter, "show", place)
    return _one(reference, parse(_decoded(content, reference, parameter), reference))


def _decoded(content: bytes, where: str, parameter: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("cannot read the pipeline", parameter=parameter, where=where, received=str(error)) from error


def _git(reference: str, parameter: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise InputError(
            "git is not installed", parameter=parameter, received=reference, hint="give the file's path instead"
        ) from error
    if done.returncode:
        raise InputError(
            "git does not have this file",
            parameter=parameter,
            allowed="a revision of the repository that this folder is in, and a path from its top",
            received=f"{reference}: {' '.join(done.stderr.decode(errors='replace').split())}",
        )
    return done.stdout
