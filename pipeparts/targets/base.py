"""What every target gives back, and what the remote ones share."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pipeparts import compiling
from pipeparts.errors import InputError, ServiceError

logger = logging.getLogger(__name__)

RunState = Literal["running", "succeeded", "failed", "interrupted"]

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@-]{0,127}")
#: A service may be away for a moment while a run that takes hours is waited for.
_MISSED_LOOKS = 10


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended.

    Attributes:
        run_id: The run's name; its folder is called so.
        state: How it ended.
        folder: The run's folder, with `run.json`, the logs and the artifacts.
        report: The HTML report, where one could be written.
        outputs: The pipeline's own outputs: a value, or an artifact's path.
        record: All of `run.json`.
        new: Whether it ran now; false for a run of the same key that had succeeded before.
    """

    run_id: str
    state: RunState
    folder: Path
    report: Path | None
    outputs: dict[str, Any]
    record: dict[str, Any]
    new: bool = True


@dataclasses.dataclass(frozen=True)
class RemoteRun:
    """A run on a platform.

    Attributes:
        platform: "kubeflow" or "vertex".
        run_id: The platform's name for it.
        pipeline: The pipeline's name.
        key: What it runs once for.
        state: How it stands.
        link: Its page in the console; empty where that has no address for people.
        error: Why it failed, as far as the platform says.
        new: Whether this call started it; false for one that was there.
    """

    platform: str
    run_id: str
    pipeline: str
    key: str
    state: RunState
    link: str = ""
    error: str = ""
    new: bool = True


def check_key(key: str) -> None:
    """Refuses what cannot be the key of a run.

    Raises:
        InputError: For a text that is too long, or has other characters.
    """
    if not _KEY.fullmatch(key):
        raise InputError(
            "a key that no run can have",
            parameter="key",
            allowed="1 to 128 letters, digits and . _ = + @ -, a letter or digit first",
            received=key,
        )


def require_images(spec: compiling.Spec, *, registry: str, images: dict[str, str]) -> compiling.Spec:
    """A spec with an image for every family.

    Args:
        spec: The compiled pipeline.
        registry: Where the images of this release are; empty: `images` names them all.
        images: Family to image, over those of the registry.

    Raises:
        InputError: Where a family is left without an image.
    """
    known = {**(compiling.default_images(spec, registry=registry) if registry else {}), **images}
    resolved = compiling.resolve_images(spec, known) if known else spec
    if families := compiling.image_families(resolved):
        raise InputError(
            "the pipeline names image families, and no images are set for them",
            parameter="registry",
            allowed="the registry with this release's images, or an image for each family under `images`",
            received=f"no image for: {', '.join(families)}",
        )
    return resolved


def wait_for_end(
    run: RemoteRun, look: Callable[[], RemoteRun], *, poll_seconds: float, timeout_seconds: float
) -> RemoteRun:
    """Looks at a run until it has ended.

    Args:
        run: The run as it stands.
        look: Asks the platform.
        poll_seconds: The longest pause between two looks; the first ones are shorter.
        timeout_seconds: How long at most; the run itself goes on.

    Raises:
        ServiceError: Where the time is over, or the platform does not answer for long.
    """
    deadline = time.monotonic() + timeout_seconds
    pause, missed = min(1.0, poll_seconds), 0
    while run.state == "running":
        if time.monotonic() >= deadline:
            raise ServiceError(
                "the run has not ended in time; it goes on",
                where=run.link or run.run_id,
                parameter="wait_seconds",
                allowed=f"an end within {timeout_seconds:,.0f} seconds",
                received=f"run {run.run_id} is still running",
                hint="the same command with the same key waits for the same run",
            )
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, poll_seconds)
        try:
            run = look()
            missed = 0
        except ServiceError as error:
            missed += 1
            if missed == _MISSED_LOOKS:
                raise
            logger.warning("cannot see how run %s stands, trying again: %s", run.run_id, error.headline)
    return run
