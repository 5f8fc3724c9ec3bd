"""The work of `record_batch`."""

from __future__ import annotations

import logging
import os
import re

from pipeparts.components.monitoring.record_batch.history import Batch, History, kept
from pipeparts.components.monitoring.record_batch.page import write_page
from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.monitoring import (
    Decision,
    Drift,
    Performance,
    history_name,
    moment_text,
    parse_moment,
    read_report,
    registered_name,
)
from pipeparts.runtime.state import State, document_name

logger = logging.getLogger(__name__)

_LONGEST_NAME = 200


def record_batch(
    *,
    drift_path: str | os.PathLike[str],
    decision_path: str | os.PathLike[str],
    history_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    name: str,
    title: str = "",
    as_of: str = "",
    state: str = "",
    performance_path: str | os.PathLike[str] | None = None,
    baseline_path: str | os.PathLike[str] | None = None,
) -> History:
    """Adds a batch to the history, and draws all batches.

    Args:
        drift_path: The drift report (JSON).
        decision_path: The decision (JSON) on the same batch.
        history_path: Where the history (JSON) goes.
        page_path: Where the HTML page goes.
        name: The batch's name; one of the same name is replaced.
        title: The page's heading; empty: the model's name.
        as_of: The batch's place in the order; empty: the moment that was decided for.
        state: Where the history is kept; empty: in the folder of local runs.
        performance_path: The performance report (JSON), where labels have arrived.
        baseline_path: Another model's performance (JSON) on the same rows.

    Returns:
        The history, with the batch.

    Raises:
        InputError: For a name, a moment or a state that is not one.
        ContractError: Where a report or a kept batch is damaged, or the reports are not of the same batch.
        ServiceError: Where the state does not answer.
    """
    name = _checked_name(name)
    drift = read_report(Drift, drift_path)
    decision = read_report(Decision, decision_path)
    _require_same_batch(drift, decision)
    performance = read_report(Performance, performance_path) if performance_path is not None else None
    baseline = read_report(Performance, baseline_path) if baseline_path is not None else None
    moment = moment_text(parse_moment(as_of)) if as_of.strip() else decision.as_of
    batch = kept(name, moment, drift, decision, performance, baseline)
    model = drift.model or decision.model
    place = history_name(model, drift.reference.fingerprint)
    history = _add(State(state), f"history/{place}", batch, title.strip() or _model_title(model))
    write_page(history, page_path)
    write_json(history_path, history.model_dump(mode="json"))
    logger.info("batch %s is one of %s in the history of %s", name, f"{len(history.batches):,}", history.title)
    return history


def _add(state: State, folder: str, batch: Batch, title: str) -> History:
    """Keeps the batch, and reads all that are kept."""
    state.write(f"{folder}/{document_name(batch.name)}", batch.model_dump(mode="json"))
    found = (state.read_as(Batch, document) for document in state.names(folder))
    batches = sorted((item for item in found if item is not None), key=lambda item: (item.as_of, item.name))
    return History(title=title, batches=tuple(batches))


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or re.search(r"[\x00-\x1f\x7f]", name):
        raise InputError(
            "a name that no batch can have",
            parameter="name",
            allowed=f"1 to {_LONGEST_NAME} characters in one line, as 2013-08",
            received=repr(name) if name else "an empty text",
        )
    return name


def _require_same_batch(drift: Drift, decision: Decision) -> None:
    if decision.batch != drift.current.fingerprint:
        raise ContractError(
            "the decision is on another batch than the drift report",
            parameter="decision",
            allowed=f"a decision on the batch {drift.current.fingerprint}",
            received=decision.batch,
        )


def _model_title(model: str) -> str:
    return registered_name(model) or (f"Model {model[:12]}" if model else "Monitoring")
