"""The work of `write_outcome`."""

from __future__ import annotations

import datetime
import logging
import os
import re

from pipeparts.runtime.files import write_text

logger = logging.getLogger(__name__)

# The codes that pipelines end with, from google.rpc.Code.
_CODES = {
    1: "cancelled",
    2: "unknown",
    3: "invalid argument",
    4: "deadline exceeded",
    5: "not found",
    6: "already exists",
    7: "permission denied",
    8: "resource exhausted",
    9: "failed precondition",
    10: "aborted",
    11: "out of range",
    12: "unimplemented",
    13: "internal",
    14: "unavailable",
    15: "data loss",
    16: "unauthenticated",
}
_HEADLINES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELLED": "was cancelled", "SKIPPED": "was skipped"}
_LONGEST_ERROR = 20_000
_LONGEST_METADATA = 500


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
    known = (state or "").strip().upper().removeprefix("PIPELINE_TASK_STATE_") or "UNKNOWN"
    run = run_name or (job or "").rstrip("/").rpartition("/")[2] or "unnamed"
    ended = (now or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds")
    error = (error_message or "").strip()
    rows = {
        "run": run,
        "about": subject,
        "state": known,
        "ended": ended,
        "job": job if job and job != run else "",
        "steps": task or "",
        "error code": _code(error_code, known),
    }
    lines = [f"# {_inline(subject or run)} {_HEADLINES.get(known, f'ended as {known}')}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_inline(value)} |" for name, value in rows.items() if value]
    if error:
        lines += ["", "## The error", "", *_fenced(error)]
    elif known == "FAILED":
        lines += ["", "The platform gave no error text: the failed step's log has it."]
    write_text(outcome_path, "\n".join(lines) + "\n")
    metadata = {"state": known, "run": run, "ended": ended}
    if error:
        metadata["error"] = error[:_LONGEST_METADATA]
    log = logger.error if known == "FAILED" else logger.info
    log("run %s: %s%s", run, known, f"\n{error}" if error else "")
    return metadata


def _code(code: float | None, state: str) -> str:
    """The code and its name; KFP hands it over as a float, and kfp.local says 1 for every failure."""
    if code is None:
        return ""
    number = int(code)
    is_local = number == 1 and state != "CANCELLED"
    return f"{number} ({_CODES[number]})" if number in _CODES and not is_local else str(number)


def _inline(text: str) -> str:
    """Text as it is, in one line, whatever Markdown or HTML is in it."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> list[str]:
    """A code block with a fence that is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    cut = text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}\n... ({len(text):,} characters)"
    return [f"{fence}text", *cut.splitlines(), fence]
