"""Telling people once: receipts outlive a run, so that one that starts again tells nobody twice."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeparts.runtime.alert_channels import Channel, Failure, Recipient, digest
from pipeparts.runtime.alert_text import Alert
from pipeparts.runtime.errors import PipepartsError, ServiceError
from pipeparts.runtime.monitoring import moment_text, parse_moment
from pipeparts.runtime.state import State

logger = logging.getLogger(__name__)

#: Between the attempts to deliver: for what is over in a moment. A step that is retried covers longer ones.
WAITS_SECONDS = (2.0, 8.0, 30.0)


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What became of an alert.

    Attributes:
        key: What makes it this alert and no other.
        told: Labels of the recipients that were told now.
        told_before: Labels of those that had been told by an earlier attempt.
    """

    key: str
    told: tuple[str, ...] = ()
    told_before: tuple[str, ...] = ()

    def metadata(self) -> dict[str, Any]:
        """What goes onto the artifact."""
        return {"key": self.key, "told": list(self.told), "told_before": list(self.told_before)}


class Receipts:
    """Who has got an alert, kept where the next run finds it.

    Args:
        key: The alert's.
        state: Where they outlive the run; None: nowhere.
        is_required: Whether it is an error where they cannot be kept; else the alert goes out all the same.
    """

    def __init__(self, key: str, state: State | None, *, is_required: bool = True) -> None:
        self.key = key
        self._state = state
        self._is_required = is_required

    def has(self, recipient: Recipient) -> bool:
        """Whether a recipient has got it."""
        if self._state is not None:
            with self._leniently("read"):
                return self._state.read(self._name(recipient)) is not None
        return False

    def note(self, recipient: Recipient) -> None:
        """Notes that a recipient has got it."""
        if self._state is not None:
            document = {"alert": self.key, "recipient": recipient.label, "delivered": moment_text(parse_moment(""))}
            with self._leniently("written"):
                self._state.write(self._name(recipient), document)

    def _name(self, recipient: Recipient) -> str:
        return f"alerts/{digest(self.key)}/{recipient.id}"

    @contextlib.contextmanager
    def _leniently(self, what: str) -> Iterator[None]:
        try:
            yield
        except PipepartsError as error:
            if self._is_required:
                raise
            logger.warning("an alert's receipt could not be %s, so it may be sent twice: %s", what, error)


def deliver(
    alert: Alert, channels: Sequence[Channel], receipts: Receipts, *, waits: Sequence[float] | None = None
) -> Delivery:
    """Tells everybody who has not been told yet. A channel that fails keeps no other from being told.

    Args:
        alert: What to say.
        channels: Whom.
        receipts: Who has been told.
        waits: Seconds between the attempts; None: `WAITS_SECONDS`.

    Raises:
        ServiceError: Naming each recipient that could not be told, and why; the others have been told, and have
            their receipts. Also where a receipt could not be read (then nobody is told) or kept.
    """
    everybody: dict[str, tuple[Recipient, Channel]] = {}
    for channel in channels:
        for recipient in channel.recipients:  # who is named twice is told once
            everybody.setdefault(recipient.id, (recipient, channel))
    before = [recipient for recipient, _ in everybody.values() if receipts.has(recipient)]
    waiting = {recipient: channel for recipient, channel in everybody.values() if recipient not in before}
    told: list[Recipient] = []
    failed: dict[Recipient, Failure] = {}
    unkept: PipepartsError | None = None
    for wait in (0.0, *(WAITS_SECONDS if waits is None else waits)):
        if not waiting:
            break
        time.sleep(wait)
        for recipient, failure in _attempts(alert, receipts.key, waiting):
            if failure is not None:
                logger.warning("could not tell %s: %s", recipient.label, failure.reason)
                failed[recipient] = failure
                continue
            failed.pop(recipient, None)
            told.append(recipient)
            logger.info("told %s: %s", recipient.label, alert.subject)
            try:
                receipts.note(recipient)
            except PipepartsError as error:  # the next recipient is told first
                unkept = unkept or error
        waiting = {r: waiting[r] for r, failure in failed.items() if failure.is_temporary and r in waiting}
    if failed:
        raise _undelivered(failed, told=len(told) + len(before))
    if unkept:
        raise unkept
    return Delivery(receipts.key, tuple(r.label for r in told), tuple(r.label for r in before))


def _attempts(
    alert: Alert, key: str, waiting: Mapping[Recipient, Channel]
) -> Iterator[tuple[Recipient, Failure | None]]:
    for channel in dict.fromkeys(waiting.values()):
        wanted = [recipient for recipient, its in waiting.items() if its is channel]
        answered: set[Recipient] = set()
        try:
            for recipient, failure in channel.send(alert, key, wanted):
                answered.add(recipient)
                yield recipient, failure
        except Exception as error:  # a service's client may raise whatever it likes: the other channels come first
            logger.debug("unexpected", exc_info=True)
            unexpected = Failure(f"unexpected {type(error).__name__}", is_temporary=False)
            yield from ((recipient, unexpected) for recipient in wanted if recipient not in answered)


def _undelivered(failed: Mapping[Recipient, Failure], *, told: int) -> ServiceError:
    count, total = len(failed), len(failed) + told
    lines = [f"{recipient.label}: {failure.reason}" for recipient, failure in failed.items()]
    hints = []
    if not any(failure.is_temporary for failure in failed.values()):
        hints.append("a retry cannot help: correct the address, the login or the service's settings")
    if told:
        hints.append("the others have been told, and are not told again when this step is retried")
    headline = f"the alert did not reach {count} of {total} recipient{'s' if total > 1 else ''}"
    return ServiceError("\n  - ".join([headline, *lines]), hint="; ".join(hints) or None)
