"""What every target gives back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

RunState = Literal["running", "succeeded", "failed", "interrupted"]


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
    """

    run_id: str
    state: RunState
    folder: Path
    report: Path | None
    outputs: dict[str, Any]
    record: dict[str, Any]
