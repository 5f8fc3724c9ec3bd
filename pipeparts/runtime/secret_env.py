"""Runs a step with its secrets in its environment: `python -m pipeparts.runtime.secret_env kfp.dsl.executor_main ...`.

Vertex AI gives a step no secrets by itself. The compiled pipeline names them, in the variable `PIPEPARTS_STEP_SECRETS`,
and the step reads them from Secret Manager as the account that it works as, before anything else runs in it.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pipeparts.runtime.errors import InputError, ServiceError

logger = logging.getLogger(__name__)

VARIABLE = "PIPEPARTS_STEP_SECRETS"
#: Google's own name for another address of the API, as gcloud reads it.
ENDPOINT_VARIABLE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"

_NAME = re.compile(r"projects/[^/]+(?:/locations/(?P<location>[^/]+))?/secrets/[^/]+/versions/[^/]+")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 30
_RETRIES = 4


def main(argv: list[str]) -> None:
    """Reads the secrets that the environment names into it, and runs a module.

    Args:
        argv: The module to run, then its arguments.
    """
    module, *arguments = argv
    os.environ.update(read_secrets(os.environ.get(VARIABLE, "")))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def read_secrets(names: str, session: Any = None) -> dict[str, str]:
    """Reads secrets from Secret Manager.

    Args:
        names: `VARIABLE=projects/P/secrets/S/versions/V`, a line each.
        session: An authorized session of google-auth; the account of the machine unless given.

    Returns:
        Variable to secret. No secret is ever part of a message or a log.

    Raises:
        InputError: For a line of another form, and for a secret that is not there or may not be read.
        ServiceError: Where Secret Manager does not answer.
    """
    wanted = [line.partition("=") for line in names.splitlines() if line.strip()]
    if not wanted:
        return {}
    session = session or _session()
    return {variable: _read(name, variable, session.get) for variable, _, name in wanted}


def _session() -> Any:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.auth.transport.requests import AuthorizedSession
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except DefaultCredentialsError as error:
        raise InputError(
            "no Google credentials were found to read the step's secrets with",
            where=VARIABLE,
            allowed="the account that the step works as",
            received=str(error),
        ) from error
    session = AuthorizedSession(credentials)
    again = Retry(_RETRIES, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False)
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    return session


def _read(name: str, variable: str, get: Callable[..., Any]) -> str:
    import requests
    from google.auth.exceptions import GoogleAuthError

    found = _NAME.fullmatch(name)
    if not found:
        raise InputError(
            "not the name of a secret",
            parameter=variable,
            allowed="projects/P/secrets/S/versions/V",
            received=f"a text of {len(name)} characters (not shown: it may be the secret)",
        )
    location = found["location"]
    host = (
        f"https://secretmanager.{location}.rep.googleapis.com" if location else "https://secretmanager.googleapis.com"
    )
    base = os.environ.get(ENDPOINT_VARIABLE, host).rstrip("/")
    try:
        answer = get(f"{base}/v1/{name}:access", timeout=_SECONDS)
    except (requests.RequestException, GoogleAuthError) as error:
        raise ServiceError(
            "Secret Manager does not answer", parameter=variable, where=name, received=type(error).__name__
        ) from error
    if answer.status_code != 200:
        kind = InputError if answer.status_code in (400, 401, 403, 404) else ServiceError
        raise kind(
            "cannot read the secret from Secret Manager",
            parameter=variable,
            where=name,
            allowed="a version that is there, for an account with roles/secretmanager.secretAccessor",
            received=f"status {answer.status_code}: {_message(answer)}",
        )
    try:
        return base64.b64decode(answer.json()["payload"]["data"], validate=True).decode("utf-8")
    except (ValueError, KeyError, TypeError):
        raise ServiceError(
            "Secret Manager's answer has no text in it",
            parameter=variable,
            where=name,
            allowed="a secret of UTF-8 text",
            received=f"an answer of {len(answer.content)} bytes",
        ) from None


def _message(answer: Any) -> str:
    try:
        body: Mapping[str, Any] = answer.json()
        return str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return str(answer.reason)


if __name__ == "__main__":
    main(sys.argv[1:])
