"""Compiling to KFP v2 YAML, and the images that a compiled YAML names."""

from __future__ import annotations

import copy
import difflib
import functools
import hashlib
import os
import re
import shlex
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeparts import __version__, catalog
from pipeparts.errors import InputError, suggest

Spec = dict[str, Any]

#: What an image reference must end with: a digest (a whole one), or a tag.
_PINNED = re.compile(r"(@sha256:[0-9a-f]{64}|(?<!@sha256):[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$")

#: Where a step runs that installs the package itself. LightGBM needs OpenMP, which the slim image lacks.
_PUBLIC_IMAGE = "python:3.11-slim-bookworm"
_PUBLIC_IMAGES = {"tensorflow": "python:3.11-bookworm", "tfx": "python:3.13-slim-trixie"}
_PIP = "python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location"


def compile_spec(name: str) -> Spec:
    """Compiles a component or pipeline of the catalog.

    Args:
        name: Its name.

    Returns:
        The PipelineSpec, with image families ("pipeparts-python-data") for images.

    Raises:
        InputError: Where there is none of this name, or where it needs more than one YAML document.
    """
    from kfp import compiler

    component = catalog.find(name).load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "compiled.yaml"
        compiler.Compiler().compile(component, str(path))
        return read_yaml(path)


def read_yaml(path: str | os.PathLike[str]) -> Spec:
    """Reads a compiled pipeline.

    Raises:
        InputError: For a file that cannot be read, is not YAML, is no KFP v2 pipeline, or is of several
            documents (platform settings of kfp-kubernetes), which runs on Kubeflow alone.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot read the pipeline", where=str(path), received=str(error)) from error
    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise InputError("the pipeline is not YAML", where=str(path), received=" ".join(str(error).split())) from error
    if len(documents) > 1:
        raise InputError(
            "the pipeline is not one YAML document",
            where=str(path),
            allowed="one document",
            received=f"{len(documents)} documents",
            hint="a variant for Kubeflow? Name the pipeline itself: its settings are bound as it is submitted",
        )
    spec = documents[0] if documents else None
    if not isinstance(spec, dict) or not {"root", "pipelineInfo", "deploymentSpec"} <= spec.keys():
        raise InputError(
            "not a compiled KFP v2 pipeline",
            where=str(path),
            allowed="a mapping with pipelineInfo, deploymentSpec and root",
            received=sorted(spec) if isinstance(spec, dict) else type(spec).__name__,
        )
    return spec


def to_yaml(spec: Spec, *beside: Spec) -> str:
    """A PipelineSpec as YAML: the same bytes for the same spec.

    Args:
        spec: The pipeline.
        beside: Documents beside it: the settings of Kubernetes.
    """
    info = spec["pipelineInfo"]
    lines = [f"# {info['name']}, compiled by pipeparts {__version__}"]
    for line in info.get("description", "").splitlines():
        lines.append(f"# {line}".rstrip())
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    bodies = [yaml.dump(document, Dumper=dumper, sort_keys=True, width=120) for document in (spec, *beside)]
    return "\n".join(lines) + "\n" + "---\n".join(bodies)


def spec_hash(spec: Spec) -> str:
    """The hash of a PipelineSpec that goes into the lineage: 64 hexadecimal digits of SHA-256."""
    return hashlib.sha256(to_yaml(spec).encode()).hexdigest()


def containers(spec: Spec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each executor's label and container, of those that are containers."""
    for label, executor in spec["deploymentSpec"].get("executors", {}).items():
        if "container" in executor:
            yield label, executor["container"]


def image_families(spec: Spec) -> list[str]:
    """The families that a spec names, sorted; empty once its images are resolved."""
    images = {container["image"] for _, container in containers(spec)}
    return sorted(
        i.removeprefix(catalog.FAMILY_PREFIX) for i in images if i.startswith(catalog.FAMILY_PREFIX) and ":" not in i
    )


def is_pinned(image: str) -> bool:
    """Whether a reference has a digest, or a tag other than `latest`."""
    return bool(_PINNED.search(image)) and not image.endswith(":latest")


def resolve_images(spec: Spec, images: Mapping[str, str]) -> Spec:
    """Writes each family's image into a spec.

    Args:
        spec: A compiled spec; it is left as it is.
        images: Family to image reference, with a tag or a digest.

    Returns:
        A new spec. Images that are no family's stay as they are.

    Raises:
        InputError: For a family without an image, for an image that can change under its name, and for a name that is
            a family's but for a slip: the image meant for it would be left out without a word.
    """
    families = sorted({*_recipes(), *image_families(spec)})
    for family, image in images.items():
        # Another pipeline may have families of its own, so it must be near to be a slip.
        if family not in families and (near := difflib.get_close_matches(family, families, n=1, cutoff=0.8)):
            raise InputError(
                "no image family of this name",
                parameter=f"images.{family}",
                allowed=families,
                received=family,
                hint=f"did you mean {near[0]!r}?",
            )
        if not is_pinned(image):
            raise InputError(
                "an image that can change under its name; caches would serve stale results",
                parameter=f"images.{family}",
                allowed="a reference with a tag other than latest, or with a digest",
                received=image,
            )
    resolved = copy.deepcopy(spec)
    for family in image_families(spec):
        if family not in images:
            raise InputError(
                "no image for this family",
                parameter="images",
                allowed=image_families(spec),
                received=sorted(images),
                hint=suggest(family, images),
            )
    for _, container in containers(resolved):
        family = container["image"].removeprefix(catalog.FAMILY_PREFIX)
        if container["image"].startswith(catalog.FAMILY_PREFIX) and family in images:
            container["image"] = images[family]
    return resolved


def default_images(spec: Spec, *, registry: str = "") -> dict[str, str]:
    """The image that `make images` builds, for each family of a spec.

    Args:
        spec: A compiled spec.
        registry: What goes before the name: "europe-docker.pkg.dev/project/repository".
    """
    return {family: image_name(family, registry=registry) for family in image_families(spec)}


def image_name(family: str, *, registry: str = "") -> str:
    """A family's image: its tag is the release, plus a hash of what is inside (code, lock and Dockerfile).

    Args:
        family: "data", "tensorflow", ...
        registry: What goes before the name.
    """
    prefix = f"{registry.rstrip('/')}/" if registry else ""
    recipe = _recipes().get(family, "")
    content = hashlib.sha256(f"{package_hash()} {recipe}".encode()).hexdigest()
    return f"{prefix}{catalog.FAMILY_PREFIX}{family}:{__version__}-{content[:12]}"


@functools.cache
def _recipes() -> dict[str, str]:
    """A hash of each family's folder in `containers/`, which the installed package does not carry."""
    found: dict[str, str] = yaml.safe_load((catalog.PACKAGE / "image_recipes.yaml").read_text(encoding="utf-8"))
    return found


def pip_images(spec: Spec, *, package: str = "") -> Spec:
    """Has each step of ours run in the public Python image, and install the package when it starts.

    It is for a first try, where no image is built: slow to start, and nothing without an index of packages.

    Args:
        spec: A compiled spec; it is left as it is.
        package: What pip installs, with "{family}" for the extra; the release of this package unless given.

    Returns:
        A new spec. Steps in others' images stay as they are.
    """
    requirement = package or f"pipeparts[{{family}}]=={__version__}"
    resolved = copy.deepcopy(spec)
    for _, container in containers(resolved):
        family = container["image"].removeprefix(catalog.FAMILY_PREFIX)
        if container["image"].startswith(catalog.FAMILY_PREFIX) and ":" not in family:
            install = shlex.quote(requirement.replace("{family}", family))
            container["image"] = _PUBLIC_IMAGES.get(family, _PUBLIC_IMAGE)
            container["command"] = ["sh", "-c", f'{_PIP} {install} && exec "$0" "$@"', *container.get("command", [])]
    return resolved


def package_hash() -> str:
    """A hash of all the code that an image carries: changed code is a changed tag."""
    folders = [catalog.PACKAGE, *(catalog.PACKAGE / name for name in ("components", "pipelines"))]
    return _hash_files(sorted({path for folder in folders for path in _code(folder)}))


def component_hash(name: str) -> str:
    """A hash of what a component's step runs: its folder, the runtime, and the versions installed here.

    Raises:
        InputError: Where there is no component of this name.
    """
    entry = catalog.find(name)
    files = [*_code(entry.folder), *_code(catalog.PACKAGE / "runtime")]
    # A folder a distribution, named with its version: reading the names is a thousand times quicker than the metadata.
    installed = sorted(path.name for path in Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info"))
    return _hash_files(files, *installed)


def _code(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in ("tests", "__pycache__"))
        found += [Path(root) / name for name in names if name.endswith(".py")]
    return found


def _hash_files(files: list[Path], *more: str) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(catalog.PACKAGE)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    total.update("\n".join(more).encode())
    return total.hexdigest()
