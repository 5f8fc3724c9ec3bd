"""How a run ended, as an exit handler is told it: read whatever it is told, and written for people."""

from __future__ import annotations

import dataclasses
import datetime
import logging

from pipeparts.runtime.markdown import fenced, inline

logger = logging.getLogger(__name__)

#: What a run is called where nobody says its name.
UNNAMED = "unnamed"

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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: SUCCEEDED, FAILED, CANCELLED, UNKNOWN or whatever else the platform says.
        run: The run's name.
        ended: When, ISO 8601.
        subject: What the pipeline is about; may be empty.
        job: The run as the platform names it, where that is another name.
        task: The group of steps, as the platform names it.
        code: The error's code and what it means; empty where there is none.
        error: What the platform says went wrong; empty where it says nothing.
    """

    state: str
    run: str
    ended: str
    subject: str = ""
    job: str = ""
    task: str = ""
    code: str = ""
    error: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether it did not end as somebody wanted; an end that nobody can name counts as a failure."""
        return self.state not in ("SUCCEEDED", "CANCELLED", "SKIPPED")

    @property
    def headline(self) -> str:
        """What ended how, in one line."""
        return f"{self.subject or self.run} {_HEADLINES.get(self.state, f'ended as {self.state}')}"

    @property
    def facts(self) -> dict[str, str]:
        """What is known, by name; what is empty is left out."""
        facts = {
            "run": self.run,
            "about": self.subject,
            "state": self.state,
            "ended": self.ended,
            "job": self.job,
            "steps": self.task,
            "error code": self.code,
        }
        return {name: value for name, value in facts.items() if value}

    @property
    def explanation(self) -> str:
        """What to say where there is no error text; empty where there is one, or where none is missed."""
        if self.error or self.state != "FAILED":
            return ""
        return "The platform gave no error text: the failed step's log has it."

    def to_markdown(self) -> str:
        """The form for people: a headline, the facts in a table, and the error as it is."""
        lines = [f"# {inline(self.headline)}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {inline(value)} |" for name, value in self.facts.items()]
        if self.error:
            lines += ["", "## The error", "", *fenced(self.error, longest=_LONGEST_ERROR)]
        elif self.explanation:
            lines += ["", self.explanation]
        return "\n".join(lines) + "\n"

    def metadata(self) -> dict[str, str]:
        """What goes onto the artifact: state, run, ended, and error where there is one."""
        metadata = {"state": self.state, "run": self.run, "ended": self.ended}
        if self.error:
            metadata["error"] = self.error[:_LONGEST_METADATA]
        return metadata

    def log(self) -> None:
        """Writes it to the log, as an error where the run failed."""
        log = logger.error if self.state == "FAILED" else logger.info
        log("run %s: %s%s", self.run, self.state, f"\n{self.error}" if self.error else "")


def read_outcome(
    *,
    state: str | None = None,
    job: str | None = None,
    task: str | None = None,
    error_code: float | None = None,
    error_message: str | None = None,
    run_name: str = "",
    subject: str = "",
    now: datetime.datetime | None = None,
) -> Outcome:
    """What an exit handler is told, in order. It never fails over it: an exit handler is there whatever happened.

    Args:
        state: SUCCEEDED, FAILED, CANCELLED or whatever else the platform says; None or empty counts as unknown.
        job: The run, as the platform names it.
        task: The group of steps, as the platform names it.
        error_code: A google.rpc.Code, where there is one.
        error_message: What the platform says went wrong; some platforms say nothing.
        run_name: The run's name; empty: the last part of `job`.
        subject: What the pipeline is about.
        now: When it ended; None: the present.
    """
    known = (state or "").strip().upper().removeprefix("PIPELINE_TASK_STATE_") or "UNKNOWN"
    run = run_name or (job or "").rstrip("/").rpartition("/")[2] or UNNAMED
    return Outcome(
        state=known,
        run=run,
        ended=(now or datetime.datetime.now(datetime.UTC)).isoformat(timespec="seconds"),
        subject=subject,
        job=job if job and job != run else "",
        task=task or "",
        code=_code(error_code, known),
        error=(error_message or "").strip(),
    )


def _code(code: float | None, state: str) -> str:
    """The code and its name; KFP hands it over as a float, and kfp.local says 1 for every failure."""
    if code is None:
        return ""
    number = int(code)
    is_local = number == 1 and state != "CANCELLED"
    return f"{number} ({_CODES[number]})" if number in _CODES and not is_local else str(number)
