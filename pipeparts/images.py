"""Builds the images of `containers/`: `python -m pipeparts.images` in a checkout, called by `make images`."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeparts import __version__, catalog, compiling
from pipeparts.errors import InputError, PipepartsError, ServiceError, suggest
from pipeparts.runtime.files import write_text

ROOT = catalog.PACKAGE.parent

#: Files that a build may read and that stay out of the image, each from the environment variable's path.
SECRETS = {"ca": "SSL_CERT_FILE", "pip": "PIP_CONFIG_FILE", "uv": "UV_CONFIG_FILE"}
_DOCKER = "DOCKER"


def families() -> list[str]:
    """The image families that have a Dockerfile, sorted."""
    return sorted(path.parent.name for path in (ROOT / "containers").glob("*/Dockerfile"))


def build(
    chosen: Sequence[str] = (), *, registry: str = "", options: Sequence[str] = (), again: bool = False
) -> dict[str, str]:
    """Builds images, one after the other, and pushes them where a registry is named.

    Args:
        chosen: The families; all of them unless given.
        registry: What goes before the names, and where the images are pushed to; empty: they stay here.
        options: More options of `docker build`.
        again: Whether an image that is here already (its tag says what is inside) is built again.

    Returns:
        Family to reference, as `pipeparts compile --images` takes them: with the digest where it was pushed.

    Raises:
        InputError: For a family that does not exist.
        ServiceError: Where docker does not answer, or a build or a push fails.
    """
    for family in chosen:
        if family not in families():
            raise InputError(
                "no image family of this name",
                parameter="FAMILY",
                allowed=families(),
                received=family,
                hint=suggest(family, families()),
            )
    references = {}
    for family in chosen or families():
        name = compiling.image_name(family, registry=registry)
        started = time.monotonic()
        if again or _inspect(name) is None:
            sys.stderr.write(f"{name}: building\n")
            _docker([*_build_command(family, name, options), str(ROOT)])
        image = _inspect(name) or {}
        references[family] = _push(name) if registry else name
        size = f"{image.get('Size', 0) / 1e6:,.0f} MB"
        sys.stderr.write(f"{references[family]}: {size}, {time.monotonic() - started:.0f} s\n")
    return references


def _build_command(family: str, name: str, options: Sequence[str]) -> list[str]:
    command = ["build", "--file", str(ROOT / "containers" / family / "Dockerfile"), "--tag", name]
    for secret, variable in SECRETS.items():
        path = os.environ.get(variable)
        if path and Path(path).is_file():
            command += ["--secret", f"id={secret},src={path}"]
            if secret == "ca":
                command += ["--build-arg", "CA=/run/secrets/ca"]
    for argument, value in {"VERSION": __version__, "REVISION": _revision(), "SOURCE": _source()}.items():
        command += ["--build-arg", f"{argument}={value}"]
    return [*command, *options]


def _docker(arguments: Sequence[str]) -> None:
    """Runs docker with its output on standard error."""
    command = [*_program(), *arguments]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    try:
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    except FileNotFoundError:
        raise _no_docker() from None
    except subprocess.CalledProcessError as error:
        raise ServiceError(
            f"docker {arguments[0]} failed", where=shlex.join(command), received=f"exit code {error.returncode}"
        ) from None


def _program() -> list[str]:
    return shlex.split(os.environ.get(_DOCKER, "")) or ["docker"]


def _no_docker() -> ServiceError:
    return ServiceError(
        "there is no docker",
        parameter=_DOCKER,
        allowed="the command `docker`, or another in this environment variable",
        received=shlex.join(_program()),
    )


def _inspect(name: str) -> dict[str, Any] | None:
    """What docker knows of an image; None where it is not here."""
    try:
        answer = subprocess.run([*_program(), "image", "inspect", name], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise _no_docker() from None
    if answer.returncode == 0:
        found: dict[str, Any] = json.loads(answer.stdout)[0]
        return found
    if "no such image" in answer.stderr.lower():
        return None
    raise ServiceError("docker does not answer", received=answer.stderr.strip())


def _push(name: str) -> str:
    _docker(["push", "--quiet", name])
    repository = name.rpartition(":")[0]
    digests = [d for d in (_inspect(name) or {}).get("RepoDigests", []) if d.rpartition("@")[0] == repository]
    if not digests:
        raise ServiceError("the registry gave no digest", where=name, received="none")
    return str(digests[0])


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _revision() -> str:
    return _git("rev-parse", "HEAD") + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _source() -> str:
    return os.environ.get("SOURCE", "")


def write_references(path: Path, references: Mapping[str, str]) -> None:
    """Writes the file that `pipeparts compile --images` takes."""
    write_text(path, "# Written by `make images`.\n" + yaml.safe_dump(dict(references)))


def main(arguments: list[str] | None = None) -> int:
    """Builds, and writes the file of references; the exit code says whether all went well."""
    parser = argparse.ArgumentParser(prog="python -m pipeparts.images", description=__doc__)
    parser.add_argument("family", nargs="*", help="these families (default: all)")
    parser.add_argument("--registry", default="", help="push them here, and write their digests")
    parser.add_argument("--output", type=Path, default=Path(".pipeparts/images.yaml"), help="the file of references")
    parser.add_argument("--again", action="store_true", help="build also what is here already")
    parser.add_argument("--build-options", default="", help="more options of `docker build`, in one word")
    options = parser.parse_args(arguments)
    try:
        references = build(
            options.family,
            registry=options.registry,
            options=shlex.split(options.build_options),
            again=options.again,
        )
    except PipepartsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_references(options.output, references)
    sys.stderr.write(f"wrote {options.output}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
