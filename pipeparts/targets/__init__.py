"""The platforms that pipelines run on, behind one interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeparts.errors import InputError, suggest

if TYPE_CHECKING:
    from pipeparts.targets.base import Target

PLATFORMS = ("local", "kubeflow", "vertex")


def get_target(
    name: str,
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Target:
    """A platform with its configuration.

    Args:
        name: "local", "kubeflow" or "vertex".
        file: The file of settings; without one, the target's own; see `pipeparts.config.load`.
        overrides: Settings over those of the file and the environment.
        environ: The environment; the process's own unless given.

    Raises:
        InputError: Where there is no such platform, or a setting is wrong.
    """
    from pipeparts import config

    # Each imports its platform's client when it is used first.
    if name == "local":
        from pipeparts.targets.local_target import LocalTarget

        return LocalTarget(config.load_local(file=file, overrides=overrides, environ=environ))
    if name == "kubeflow":
        from pipeparts.targets.kubeflow import KubeflowTarget

        return KubeflowTarget(config.load_kubeflow(file=file, overrides=overrides, environ=environ))
    if name == "vertex":
        from pipeparts.targets.vertex import VertexTarget

        return VertexTarget(config.load_vertex(file=file, overrides=overrides, environ=environ))
    raise InputError(
        "no platform of this name",
        parameter="target",
        allowed=PLATFORMS,
        received=name,
        hint=suggest(name, PLATFORMS),
    )
