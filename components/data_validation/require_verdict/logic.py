"""The work of `require_verdict`."""

from __future__ import annotations

import logging
import os

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.verdict import read_verdict

logger = logging.getLogger(__name__)

_REASONS_SHOWN = 20


def require_verdict(*, verdict_path: str | os.PathLike[str]) -> bool:
    """Returns true for a verdict that has passed, and raises for one that has not.

    Args:
        verdict_path: The verdict's JSON file.

    Raises:
        DataError: Naming the gate and each check that failed, with its reason.
        ContractError: Where the file is no verdict.
    """
    verdict = read_verdict(verdict_path)
    if verdict.passed:
        logger.info("%s passed all %d checks", verdict.gate, len(verdict.checks))
        return True
    failures = verdict.failures
    reasons = [f"{check.name}: {check.reason}" for check in failures[:_REASONS_SHOWN]]
    if len(failures) > _REASONS_SHOWN:
        reasons.append(f"and {len(failures) - _REASONS_SHOWN} more")
    headline = f"{verdict.gate} did not pass: {len(failures)} of {len(verdict.checks)} checks failed"
    raise DataError("\n  - ".join([headline, *reasons]), where=verdict.subject)
