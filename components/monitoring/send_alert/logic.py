"""The work of `send_alert`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from pipeparts.runtime.alert_channels import digest, open_channels
from pipeparts.runtime.alert_text import Alert, alert_on_reports, one_line
from pipeparts.runtime.alerting import Delivery, Receipts, deliver
from pipeparts.runtime.files import write_text
from pipeparts.runtime.monitoring import Decision, Drift, Performance, read_report
from pipeparts.runtime.state import State

logger = logging.getLogger(__name__)


def send_alert(
    *,
    alert_path: str | os.PathLike[str],
    to: Sequence[str] | None = None,
    subject: str = "",
    text: str = "",
    links: Mapping[str, str] | None = None,
    key: str = "",
    state: str = "",
    decision_path: str | os.PathLike[str] | None = None,
    drift_path: str | os.PathLike[str] | None = None,
    performance_path: str | os.PathLike[str] | None = None,
) -> Delivery:
    """Writes an alert, and tells everybody who has not been told yet.

    Args:
        alert_path: Where to write it as Markdown; it is there even where nobody can be told.
        to: Addresses of apprise, and references to such.
        subject: The first line; empty: made from what is given.
        text: What else to say.
        links: Title to address.
        key: What makes it this alert; empty: the decision's id with the subject, else of all that it says.
        state: Where the receipts are kept; empty: in the folder of local runs.
        decision_path: The decision (JSON).
        drift_path: The drift report (JSON).
        performance_path: The performance report (JSON).

    Returns:
        Who was told.

    Raises:
        InputError: For an alert that says nothing, an address that is none, or a password in the open.
        ServiceError: Naming everybody who could not be told, and why.
        ContractError: Where an input is not what it should be.
    """
    decision = read_report(Decision, decision_path) if decision_path is not None else None
    alert = alert_on_reports(
        subject=subject,
        text=text,
        links=links,
        decision=decision,
        drift=read_report(Drift, drift_path) if drift_path is not None else None,
        performance=read_report(Performance, performance_path) if performance_path is not None else None,
    )
    write_text(alert_path, alert.to_markdown())
    key = key.strip() or _key(alert, decision, subject)
    channels = open_channels(to)
    if not channels:
        logger.warning("nobody is told, since `to` is empty: %s", alert.subject)
        return Delivery(key)
    return deliver(alert, channels, Receipts(key, State(state)))


def _key(alert: Alert, decision: Decision | None, subject: str) -> str:
    """A decision may be told of twice, with subjects of their own: that it was taken, and what came of it."""
    if decision is None:
        return alert.fingerprint
    return f"{decision.id}-{digest(one_line(subject))[:8]}" if subject.strip() else decision.id
