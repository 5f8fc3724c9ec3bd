"""The work of `write_outcome`."""

from __future__ import annotations

import datetime
import os

from pipeparts.runtime.files import write_text
from pipeparts.runtime.outcomes import read_outcome


def write_outcome(
    *,
    outcome_path: str | os.PathLike[str],
    state: str | None = None,
    job: str | None = None,
    task: str | None = None,
    error_code: float | None = None,
    error_message: str | None = None,
    run_name: str = "",
    subject: str = "",
    now: datetime.datetime | None = None,
) -> dict[str, str]:
    """Writes how a run ended. It never fails over what it is told: an exit handler is there whatever happened.

    Args:
        outcome_path: Where to write the Markdown.
        state: SUCCEEDED, FAILED, CANCELLED or whatever else the platform says; None or empty counts as unknown.
        job: The run, as the platform names it.
        task: The group of steps, as the platform names it.
        error_code: A google.rpc.Code, where there is one.
        error_message: What the platform says went wrong; some platforms say nothing.
        run_name: The run's name; empty: the last part of `job`.
        subject: What the pipeline is about.
        now: The time to write; None: the present.

    Returns:
        For the artifact's metadata: state, run, ended, and error where there is one.
    """
    outcome = read_outcome(
        state=state,
        job=job,
        task=task,
        error_code=error_code,
        error_message=error_message,
        run_name=run_name,
        subject=subject,
        now=now,
    )
    write_text(outcome_path, outcome.to_markdown())
    outcome.log()
    return outcome.metadata()
