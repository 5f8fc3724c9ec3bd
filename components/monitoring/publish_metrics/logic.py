"""The work of `publish_metrics`."""

from __future__ import annotations

import base64
import http.client
import logging
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeparts.components.monitoring.publish_metrics.figures import HELP, Sample, samples
from pipeparts.runtime.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.files import write_json
from pipeparts.runtime.monitoring import Decision, Drift, Performance, read_report
from pipeparts.runtime.secrets import FORMS, read_secret
from pipeparts.runtime.sources import public_name

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.published_metrics/1"

_SECONDS = 30.0
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REFERENCE = re.compile(r"(env|file):")


def publish_metrics(
    *,
    receipt_path: str | os.PathLike[str],
    pushgateway: str = "",
    job: str = "pipeparts",
    labels: Mapping[str, str] | None = None,
    user: str = "",
    password: str = "",
    drift_path: str | os.PathLike[str] | None = None,
    performance_path: str | os.PathLike[str] | None = None,
    decision_path: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Publishes what the reports say in numbers, in place of what was published before under the same labels.

    Args:
        receipt_path: Where to write what was published (JSON).
        pushgateway: The gateway's address; empty: nothing is published.
        job: The label `job`.
        labels: Further labels; `model` is the registered model's name unless it is here.
        user: The user of a login, or a reference to it; empty: no login.
        password: A reference to the password.
        drift_path: The drift report (JSON).
        performance_path: The performance report (JSON).
        decision_path: The decision (JSON).

    Returns:
        For the artifact's metadata: pushgateway, published and left_out (how many values), and the labels.

    Raises:
        InputError: For an address, a job, a label or a login that cannot be used, or where no report is given.
        ServiceError: Where the gateway does not answer, or does not take the metrics.
        ContractError: Where a report is not what it should be, or the reports are of different models.
    """
    drift = read_report(Drift, drift_path) if drift_path is not None else None
    performance = read_report(Performance, performance_path) if performance_path is not None else None
    decision = read_report(Decision, decision_path) if decision_path is not None else None
    if drift is None and performance is None and decision is None:
        raise InputError(
            "nothing to publish", parameter="drift", allowed="a drift report, a performance report or a decision"
        )
    name = _model_name([report.model for report in (drift, performance, decision) if report])
    group = _group(job, {**({"model": name} if name else {}), **(labels or {})})
    found = samples(drift, performance, decision)
    published = [sample for sample in found if sample.is_finite]
    left_out = [sample for sample in found if not sample.is_finite]
    address = _checked_address(pushgateway)
    if address:
        _push(address, group, published, _login(user, password))
        logger.info("%d values published to %s as %s", len(published), address, group)
    else:
        logger.warning("nothing is published, since `pushgateway` is empty")
    receipt = {
        "format": FORMAT,
        "pushgateway": address,
        "labels": group,
        "metrics": [{"name": s.name, "labels": dict(s.labels), "value": s.value} for s in published],
        "left_out": [{"name": s.name, "labels": dict(s.labels)} for s in left_out],
    }
    write_json(receipt_path, receipt)
    return {"pushgateway": address, "published": len(published) if address else 0, "left_out": len(left_out), **group}


def registry_of(published: Sequence[Sample]) -> CollectorRegistry:
    """The samples as the Prometheus client takes them."""
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}
    for sample in published:
        gauge = gauges.get(sample.name)
        if gauge is None:
            gauge = Gauge(sample.name, HELP[sample.name], labelnames=tuple(sample.labels), registry=registry)
            gauges[sample.name] = gauge
        assert sample.value is not None
        (gauge.labels(**sample.labels) if sample.labels else gauge).set(sample.value)
    return registry


def _model_name(models: list[str]) -> str:
    """The registered model's name, which stays where its version changes."""
    names = {model.removeprefix("models:/").split("/")[0].split("@")[0] for model in models if "models:/" in model}
    if len(names) > 1:
        raise ContractError(
            "the reports are of different models", allowed="reports of one model", received=sorted(names)
        )
    return names.pop() if names else ""


def _group(job: str, labels: Mapping[str, str]) -> dict[str, str]:
    """What the metrics are grouped by: what is pushed replaces what the group had."""
    if not job.strip():
        raise InputError("the metrics need a job", parameter="job", allowed="a text", received="an empty text")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or name.startswith("__") or name in _OUR_LABELS:
            raise InputError(
                "a label that cannot be used",
                parameter=f"labels.{name}",
                allowed=f"letters, digits and _, not a digit first, not two _ first, and none of {sorted(_OUR_LABELS)}",
                received=name,
            )
        if not isinstance(value, (str, int, float)):
            raise InputError(
                "a label's value that is no text",
                parameter=f"labels.{name}",
                allowed="a text",
                received=f"{type(value).__name__}: {value!r}",
            )
    return {"job": job, **{name: str(value) for name, value in sorted(labels.items()) if str(value)}}


_OUR_LABELS = {"job", "instance", "column", "role", "metric", "trigger", "guard", "version", "uri"}


def _checked_address(pushgateway: str) -> str:
    address = pushgateway.strip().rstrip("/")
    if not address:
        return ""
    try:
        parts = urlsplit(address)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_usable = urlsplit(""), False
    if parts.password or parts.username:
        raise InputError(
            "an address with a login in it",
            parameter="pushgateway",
            allowed=f"the address alone, `user`, and `password` as a reference: {FORMS}",
            received=public_name(address),
            hint="it would stand in the compiled YAML and in the run's record, for everybody who can see them",
        )
    if not is_usable:
        raise InputError(
            "not the address of a Pushgateway",
            parameter="pushgateway",
            allowed="http://host:9091 or https://host",
            received="an address with an @ (not shown: it may hold a password)" if "@" in address else address,
        )
    return address


def _login(user: str, password: str) -> str:
    """The header of a login; empty where there is none."""
    if not user and not password:
        return ""
    if not user or not password:
        raise InputError(
            "half a login",
            parameter="password" if user else "user",
            allowed=f"both `user` and `password`; the password as a reference: {FORMS}",
            received="nothing",
        )
    name = read_secret(user, parameter="user") if _REFERENCE.match(user) else user
    secret = read_secret(password, parameter="password")
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _push(address: str, group: dict[str, str], published: Sequence[Sample], login: str) -> None:
    from prometheus_client import push_to_gateway

    def put(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        return lambda: _put(url, method, timeout, headers, data, login)

    grouping = {name: value for name, value in group.items() if name != "job"}
    push_to_gateway(
        address, job=group["job"], registry=registry_of(published), grouping_key=grouping, timeout=_SECONDS, handler=put
    )


def _put(url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes, login: str) -> None:
    """What the client's own handler does, but for what it says where it fails: the gateway's words are lost there."""
    request = urllib.request.Request(url, data=data, method=method, headers=dict(headers))
    if login:
        request.add_unredirected_header("Authorization", login)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, _words(error.read(2000))) from None
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ServiceError(
            "the Pushgateway does not answer", parameter="pushgateway", where=_base(url), received=_cause(cause)
        ) from None


def _refused(url: str, status: int, words: str) -> ServiceError:
    headline, hint = "the Pushgateway did not take the metrics", None
    if status in (404, 405):
        headline = "there is no Pushgateway at this address"
        hint = "a Pushgateway listens on port 9091 unless told otherwise; Prometheus itself, on 9090, takes no metrics"
    elif status in (401, 403):
        headline, hint = "the Pushgateway refuses the login", "give `user`, and `password` as a reference"
    elif status == 400:
        hint = "another job may publish a metric of the same name with another type or help text"
    return ServiceError(
        headline, parameter="pushgateway", where=_base(url), received=f"status {status}: {words}".strip(": "), hint=hint
    )


def _base(url: str) -> str:
    return url.partition("/metrics/job")[0]


def _words(body: bytes) -> str:
    """An answer's text without its markup, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace")).split())


def _cause(error: Any) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, TimeoutError):
        return f"no answer within {_SECONDS:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, ssl.SSLError):
        return f"the connection could not be secured: {error.reason}"
    return f"{type(error).__name__}: {error}"
