"""P: what runs and should not be done all the same; X: what needs a newer backend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeparts.compiling import is_pinned
from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, rule
from pipeparts.linting.images import FAMILY
from pipeparts.linting.reading import Path
from pipeparts.linting.secrets import find_secret

_MOUNTS = re.compile(r"(?:^|[\s'\"=(\[,])(/(?:minio|s3|gcs)/[A-Za-z0-9][\w.-]*)")


@rule(
    "P1",
    "mounted-path",
    "a literal path below `/minio/`, `/s3/` or `/gcs/`, or an `s3://` pipeline root",
    kubeflow="warning",
    vertex="error",
    local="warning",
    why="How a bucket is mounted is the platform's affair: Vertex AI has GCS alone, and a laptop has none of them.",
    fix="Take `artifact.path` in the step, and a URI as a parameter.",
    basis="doc",
)
def mounted_path(document: Document) -> Iterator[Hit]:
    root = document.spec.get("defaultPipelineRoot")
    if isinstance(root, str) and root.startswith(("s3://", "minio://")):
        yield Hit(f"the pipeline root is {root}", ("defaultPipelineRoot",), targets=("vertex", "local"))
    texts = [(document.users(label), text, path) for label, text, path in document.command_texts()]
    texts += [((task.name,), str(value), path) for task, _, value, path in document.constants()]
    texts += [((), str(d.get("defaultValue", "")), path) for _, _, d, path in document.parameters()]
    for tasks, text, path in texts:
        if found := _MOUNTS.search(text):
            is_gcs = found[1].startswith("/gcs/")  # which Vertex AI does mount
            yield Hit(f"the path {found[1]}", path, tasks, severity="warning" if is_gcs else None)


@rule(
    "P2",
    "install-at-start",
    "a step that installs packages when it starts",
    kubeflow="warning",
    vertex="warning",
    local="warning",
    why="It needs a package index at run time, starts slowly, and gets other versions some day.",
    fix="Put the packages into the image, and compile with install_kfp_package=False.",
    basis="run",
)
def install_at_start(document: Document) -> Iterator[Hit]:
    calls: dict[str, list[tuple[str, Path]]] = {}
    for label, seen, path in document.seen():
        if seen.kind == "install":
            calls.setdefault(label, []).append((seen.text, path))
    for label, found in calls.items():
        text, path = found[0]
        yield Hit(f"the command runs `{text}`", path, document.users(label))


@rule(
    "P3",
    "mutable-image",
    "an image tagged `latest`, or with neither tag nor digest",
    kubeflow="error",
    vertex="error",
    why="The caches' keys hold the image's name, not what is in it: changed code gives the old results.",
    fix="Pin a tag that is never used again, or a digest (`pipeparts compile --registry` writes them).",
    basis="doc",
)
def mutable_image(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        image = str(container.get("image", ""))
        if not FAMILY.fullmatch(image) and "{{" not in image and not is_pinned(image):
            yield Hit(f"the image is {image or 'not named'}", (*path, "image"), document.users(label))


@rule(
    "P4",
    "secret",
    "what looks like a secret in the environment, a constant, a default or a command",
    kubeflow="error",
    vertex="error",
    local="error",
    why="A compiled pipeline is read by everybody who sees the run, and is kept for ever.",
    fix="Pass a reference: an environment variable's name, a Kubernetes Secret, Secret Manager.",
    basis="policy",
)
def secret(document: Document) -> Iterator[Hit]:
    for label, name, value, path in document.environment():
        if found := find_secret(name, value):
            yield Hit(f"variable {name}: {found}", path, document.users(label))
    for task, name, value, path in document.constants():
        if found := _anywhere(name, value):
            yield Hit(f"input {name}: {found}", path, (task.name,))
    for where, name, definition, path in document.parameters():
        if found := _anywhere(name, definition.get("defaultValue")):
            yield Hit(f"the default of {name} of {where}: {found}", path)
    for label, text, path in document.command_texts():
        if found := find_secret("", text):
            yield Hit(f"a command: {found}", path, document.users(label))
    for label, seen, path in document.seen():
        if seen.kind == "setting" and (found := find_secret(seen.name, seen.text, is_in_code=True)):
            yield Hit(f"{seen.name} in a command: {found}", path, document.users(label))


@rule(
    "P5",
    "image-family",
    "an image family of pipeparts that no image was written for",
    kubeflow="warning",
    vertex="warning",
    why="`pipeparts-python-data` is the name of a family, not an image that a cluster can pull.",
    fix="Compile with `--registry` or `--images`; `pipeparts submit` does it by itself.",
    basis="run",
)
def image_family(document: Document) -> Iterator[Hit]:
    families: dict[str, list[str]] = {}
    places: dict[str, Path] = {}
    for label, container, path in document.containers():
        image = str(container.get("image", ""))
        if FAMILY.fullmatch(image):
            families.setdefault(image, []).extend(document.users(label))
            places.setdefault(image, (*path, "image"))
    for image, tasks in families.items():
        yield Hit(f"the image is {image}", places[image], tuple(tasks))


@rule(
    "P6",
    "null-default",
    "an optional parameter of the pipeline without a default",
    kubeflow="warning",
    vertex="warning",
    local="warning",
    why="None cannot be passed on to a step on every platform; the step's own default may or may not hold.",
    fix='Give it a default that means "not given": an empty text, list or dictionary.',
    basis="run",
)
def null_default(document: Document) -> Iterator[Hit]:
    for where, name, definition, path in document.parameters():
        if (
            where == "root"
            and not document.is_component
            and definition.get("isOptional")
            and "defaultValue" not in definition
        ):
            yield Hit(f"parameter {name} has no default", path)


@rule(
    "X1",
    "newer-sdk",
    "an SDK that is newer than the backend",
    why="What a newer SDK writes an older backend may not know; where that is certain, the feature's own rule says it.",
    fix="Compile with the SDK of the backend's release, or upgrade the backend.",
    basis="doc",
)
def newer_sdk(document: Document) -> Iterator[Hit]:
    found = re.match(r"kfp-(\d+)\.(\d+)", str(document.spec.get("sdkVersion", "")))
    backend = document.kubeflow_version
    if found and backend and (int(found[1]), int(found[2])) > backend[:2]:
        sdk = str(document.spec["sdkVersion"])
        message = f"compiled with {sdk[:40]}, for Kubeflow {'.'.join(map(str, backend))}"
        if re.match(r"kfp-2\.15\.[01]\b", sdk):  # mended in 2.15.2
            yield Hit(
                f"{message}: what its steps write of their artifacts is refused there",
                ("sdkVersion",),
                severity="error",
            )
        else:
            yield Hit(message, ("sdkVersion",))


def _anywhere(name: str, value: Any) -> str | None:
    """A secret in a value, inside lists and dictionaries too."""
    if isinstance(value, dict):
        return next((found for key, item in value.items() if (found := _anywhere(str(key), item))), None)
    if isinstance(value, list):
        return next((found for item in value if (found := _anywhere(name, item))), None)
    return find_secret(name, value)
