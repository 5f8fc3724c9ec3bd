"""Image references."""

from __future__ import annotations

import re

#: The name of a family, before an image is written for it.
FAMILY = re.compile(r"pipeparts-python-[a-z0-9_]+")


def repository(image: str) -> str:
    """A reference without its tag and digest, with the registry that a bare name means: "docker.io/library/python"."""
    name = image.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    name = head if colon and "/" not in tail else name
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
