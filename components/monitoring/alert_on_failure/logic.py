"""The work of `alert_on_failure`."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeparts.runtime.alert_channels import open_channels
from pipeparts.runtime.alert_text import Alert, Figure, checked_links, one_line
from pipeparts.runtime.alerting import Receipts, deliver
from pipeparts.runtime.errors import InputError
from pipeparts.runtime.files import write_text
from pipeparts.runtime.outcomes import UNNAMED, Outcome, read_outcome
from pipeparts.runtime.state import State

logger = logging.getLogger(__name__)


def alert_on_failure(
    *,
    outcome_path: str | os.PathLike[str],
    ended_as: str | None = None,
    job: str | None = None,
    task: str | None = None,
    error_code: float | None = None,
    error_message: str | None = None,
    to: Sequence[str] | None = None,
    run_name: str = "",
    subject: str = "",
    links: Mapping[str, str] | None = None,
    state: str = "",
    now: datetime.datetime | None = None,
) -> dict[str, Any]:
    """Writes how a run ended, and tells everybody where it failed. What it is told of the run never makes it fail.

    Args:
        outcome_path: Where to write the Markdown; it is there even where nobody can be told.
        ended_as: SUCCEEDED, FAILED, CANCELLED or whatever else the platform says; None or empty counts as unknown.
        job: The run, as the platform names it.
        task: The group of steps, as the platform names it.
        error_code: A google.rpc.Code, where there is one.
        error_message: What the platform says went wrong; some platforms say nothing.
        to: Addresses of apprise, and references to such.
        run_name: The run's name; empty: the last part of `job`.
        subject: What the pipeline is about.
        links: Title to address.
        state: Where the receipts are kept; empty: in the folder of local runs.
        now: The time to write; None: the present.

    Returns:
        For the artifact's metadata: state, run, ended, error where there is one, and who was told.

    Raises:
        InputError: For an address that is none, or a password in the open.
        ServiceError: Naming everybody who could not be told, and why.
    """
    outcome = read_outcome(
        state=ended_as,
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
    if not outcome.is_failure:
        _try_addresses(to)
        return outcome.metadata()
    channels = open_channels(to)
    if not channels:
        logger.warning("nobody is told, since `to` is empty: %s", outcome.headline)
        return outcome.metadata()
    receipts = Receipts(f"run {outcome.run}", _state(state, outcome), is_required=False)
    return {**outcome.metadata(), **deliver(_alert(outcome, links), channels, receipts).metadata()}


def _try_addresses(to: Sequence[str] | None) -> None:
    """Says of a wrong address while all is well, and not only when somebody has to be told."""
    try:
        open_channels(to)
    except InputError as error:
        logger.warning("nobody could be told if this run had failed\n%s", error)


def _alert(outcome: Outcome, links: Mapping[str, str] | None) -> Alert:
    return Alert(
        subject=one_line(outcome.headline),
        severity="failure",
        text=outcome.explanation,
        figures=tuple(Figure(name, value) for name, value in outcome.facts.items() if name != "about"),
        details=outcome.error,
        links=checked_links(links),
    )


def _state(state: str, outcome: Outcome) -> State | None:
    """Where the receipts are; None where there is no such place: that somebody is told comes first."""
    if outcome.run == UNNAMED:
        logger.warning("the run has no name to keep receipts by: if this step is retried, people are told again")
        return None
    try:
        return State(state)
    except InputError as error:
        logger.warning("no receipts are kept: if this step is retried, people are told again\n%s", error)
        return None
