"""Reads a version of a secret from Google's Secret Manager, with the account that the step works as.

It speaks the service's REST API with google-auth, which each image has anyway.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import logging
import os
import re
import time
from typing import Any

from pipeparts.runtime.errors import InputError, ServiceError

logger = logging.getLogger(__name__)

FORM = "projects/PROJECT/secrets/SECRET/versions/VERSION"

#: Another address of the service, as gcloud reads it.
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"

_NAME = re.compile(r"projects/[^/\s]+/(?:locations/([a-z0-9-]+)/)?secrets/[A-Za-z0-9_-]{1,255}/versions/[A-Za-z0-9_-]+")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_REQUEST_SECONDS = 20.0
_PAUSES = (1.0, 4.0)


def access_secret(version: str, *, parameter: str) -> str:
    """Reads a secret.

    Args:
        version: Its version's full name; one with `locations/L` is read in that region.
        parameter: The parameter's name, for the message.

    Returns:
        The secret. It is never part of a message, nor is the answer that it came in.

    Raises:
        InputError: Where the name is wrong, the version is not there or disabled, the account may not read it, or it
            is not text.
        ServiceError: Where the service does not answer; it was asked three times.
    """
    found = _NAME.fullmatch(version)
    if found is None:
        raise InputError("not the name of a secret's version", parameter=parameter, allowed=FORM, received=version)
    host = f"secretmanager.{found[1]}.rep.googleapis.com" if found[1] else "secretmanager.googleapis.com"
    endpoint = os.environ.get(ENDPOINT_VARIABLE) or f"https://{host}/"
    status, body = _ask(f"{endpoint.rstrip('/')}/v1/{version}:access", version, parameter)
    if status != 200:
        raise _explain(status, body, version, parameter)
    return _payload(body, version, parameter)


def _ask(url: str, version: str, parameter: str) -> tuple[int, Any]:
    """The answer's status and body, after up to three attempts."""
    import google.auth
    from google.auth import exceptions
    from google.auth.transport.requests import AuthorizedSession

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except exceptions.DefaultCredentialsError as error:
        raise InputError(
            "no Google credentials were found to read a secret with",
            parameter=parameter,
            where=version,
            allowed="the account of the machine, or GOOGLE_APPLICATION_CREDENTIALS",
            received=" ".join(str(error).split()),
        ) from error
    failure: Exception | None = None
    with AuthorizedSession(credentials) as session:
        for pause in (*_PAUSES, None):
            try:
                answer = session.get(url, timeout=_REQUEST_SECONDS, allow_redirects=False)
            except (OSError, exceptions.GoogleAuthError) as error:  # requests' own errors are OSErrors
                failure = error
                status, body = 0, None
            else:
                status, body = answer.status_code, _json(answer)
            if status != 0 and status != 429 and status < 500:
                return status, body
            if pause is not None:
                logger.warning("Secret Manager did not answer (status %s), trying again", status or "none")
                time.sleep(pause)
    received = f"status {status}" if status else f"{type(failure).__name__}: {failure}"
    raise ServiceError(
        "Secret Manager does not answer", parameter=parameter, where=version, received=" ".join(received.split())
    ) from failure


def _json(answer: Any) -> Any:
    with contextlib.suppress(ValueError):
        return answer.json()
    return None


def _explain(status: int, body: Any, version: str, parameter: str) -> InputError:
    error = body.get("error") if isinstance(body, dict) else None
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    headline, allowed = {
        401: ("Secret Manager does not know the step's account", "an account of Google Cloud"),
        403: ("the step's account may not read a secret", "an account with roles/secretmanager.secretAccessor on it"),
        404: ("a secret is not there", "a version that exists"),
    }.get(status, ("Secret Manager refuses to give a secret out", "a version that is enabled"))
    return InputError(
        headline,
        parameter=parameter,
        where=version,
        allowed=allowed,
        received=f"status {status}: {message}".rstrip(" :"),
    )


def _payload(body: Any, version: str, parameter: str) -> str:
    """The text in an answer, held against its checksum."""
    payload = body.get("payload") if isinstance(body, dict) else None
    try:
        data = base64.b64decode(str(payload["data"]), validate=True)  # type: ignore[index]
    except (TypeError, KeyError, binascii.Error):
        raise ServiceError(
            "Secret Manager's answer is not whole", parameter=parameter, where=version, allowed="payload.data in base64"
        ) from None
    _check(data, payload, version, parameter)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            "a secret is not text, and an environment variable holds nothing else",
            parameter=parameter,
            where=version,
            allowed="UTF-8",
            received=f"{len(data):,} other bytes",
        ) from None
    if not text or "\0" in text:
        raise InputError(
            "a secret that no environment variable can hold",
            parameter=parameter,
            where=version,
            allowed="a text that is not empty, without a zero byte",
            received="it is empty" if not text else "it has a zero byte",
        )
    return text


def _check(data: bytes, payload: Any, version: str, parameter: str) -> None:
    checksum = payload.get("dataCrc32c")
    if checksum is None:
        return
    try:
        import google_crc32c
    except ImportError:
        return  # it comes with google-cloud-storage, which an image of another's may do without
    if str(google_crc32c.value(data)) != str(checksum):
        raise ServiceError(
            "Secret Manager's answer was damaged on its way",
            parameter=parameter,
            where=version,
            allowed="bytes with the checksum that came with them",
            received="another checksum",
        )
