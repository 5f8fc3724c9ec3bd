"""KFP's own client, as a command needs it: it signs in, gives up in time, and asks again where that is safe."""

from __future__ import annotations

import datetime as dt
import email.utils
import logging
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeparts.config import KubeflowConfig
from pipeparts.errors import InputError
from pipeparts.runtime.secrets import read_secret

logger = logging.getLogger(__name__)

#: Pauses before a request is sent again that was not answered, or answered with one of these.
_PAUSES = (0.5, 2.0)
_PASSING = (429, 502, 503, 504)
#: The longest time that a server may ask for with Retry-After.
_LONGEST_PAUSE = 60.0
#: What does the same however often it is done, though its method does not say so.
_IDEMPOTENT = re.compile(r":(terminate|enable|disable)$")


def connect(config: KubeflowConfig, host: str) -> Any:
    """KFP's client, which asks once whether the installation is for several users.

    Args:
        config: Who connects, and how long a request may take.
        host: The API's address.

    Raises:
        InputError: Where a secret is not where its reference says, or the name or the password is wrong.
        ServiceError: Where nobody lets sign in.
    """
    import kfp
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = read_secret(config.token, parameter="token") if config.token else None
    cookie = _sign_in(config, host) if config.username else None
    projected = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH)

    class Client(kfp.Client):  # type: ignore[misc]
        multi_user: bool | None = None

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            # KFP's own asks five times; it is the first request, so the first place for a limit on the time, too.
            _guard(self._run_api.api_client, config, host)
            health = self._healthz_api.healthz_service_get_healthz()
            self.multi_user = health.multi_user
            health.multi_user = False  # KFP would write the pod's namespace into the user's home
            return health

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = Client(
            host=host,
            namespace=config.namespace or "kubeflow",
            existing_token=token,
            cookies=cookie,
            credentials=ServiceAccountTokenVolumeCredentials()
            if not token and not cookie and projected.is_file()
            else None,
            ssl_ca_cert=config.ca_cert or None,
        )
    if client.multi_user is None:
        _guard(client._run_api.api_client, config, host)
    return client


def retry_after(error: BaseException | None) -> float | None:
    """How many seconds a server asks to wait, by its Retry-After; None where it does not."""
    said = (getattr(error, "headers", None) or {}).get("Retry-After")
    if not said:
        return None
    if str(said).strip().isdigit():
        return min(float(said), _LONGEST_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(str(said))
    except ValueError:
        return None
    seconds = (moment - dt.datetime.now(moment.tzinfo)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_PAUSE)


def _sign_in(config: KubeflowConfig, host: str) -> str:
    from pipeparts.targets.kubeflow_login import session_cookie

    if config.token or not config.password:
        raise InputError(
            "who signs in is not clear",
            parameter="username",
            allowed="username and password, or token alone",
            received="username and token" if config.token else "username without password",
        )
    password = read_secret(config.password, parameter="password")
    verify: str | bool = config.ca_cert or True
    return session_cookie(host, config.username, password, verify=verify, seconds=config.request_seconds)


def _guard(api_client: Any, config: KubeflowConfig, host: str) -> None:
    """Puts this library's ways before every request of KFP's client.

    Each has a limit on its time: without one, the client waits for ever for a server that does not answer. What may
    be sent twice is sent again where it was not answered. A session that has ended is begun anew, and a token that
    somebody has renewed where it is kept is read again.
    """
    call = api_client.call_api
    limit = (config.request_seconds, config.request_seconds)  # to connect, to read: a single float is ignored
    api_client.rest_client.pool_manager.connection_pool_kw["retries"] = _retries(redirects=not config.username)

    def guarded(path: str, method: str, *args: Any, **options: Any) -> Any:
        options["_request_timeout"] = options.get("_request_timeout") or limit
        safe = method in ("GET", "DELETE") or bool(_IDEMPOTENT.search(path))

        def send() -> Any:
            return call(path, method, *args, **options)

        def signed_in() -> Any:
            try:
                return send()
            except Exception as error:
                status = getattr(error, "status", None)
                # It was turned away at the door, so it was not carried out, whatever it is.
                if config.username and status in (301, 302, 303, 307, 401):
                    logger.info("the session on Kubeflow is over: signing in again")
                    api_client.cookie = _sign_in(config, host)
                elif not (config.token and status == 401 and _renewed(api_client.configuration, config.token)):
                    raise
                return send()

        return _again(signed_in) if safe else signed_in()

    api_client.call_api = guarded


def _renewed(configuration: Any, reference: str) -> bool:
    """Takes the token that is kept now; whether it is another one than before: a run may take longer than one holds."""
    token = read_secret(reference, parameter="token")
    if configuration.api_key.get("authorization") == token:
        return False
    configuration.api_key["authorization"] = token
    return True


def _retries(*, redirects: bool) -> Any:
    """What urllib3 does by itself: nothing but follow redirects, which is no more than one asks for.

    Where there is a session, a redirect is how a browser is sent to the form when it is over: a program must see it.
    """
    import urllib3

    return urllib3.Retry(
        total=5,
        connect=0,
        read=0,
        other=0,
        status=0,
        redirect=5 if redirects else 0,
        raise_on_redirect=False,
        respect_retry_after_header=False,
    )


def _again(send: Callable[[], Any]) -> Any:
    """Sends, and sends again where the trouble may pass."""
    import kfp_server_api
    import urllib3

    for pause in _PAUSES:
        try:
            return send()
        except (kfp_server_api.ApiException, urllib3.exceptions.HTTPError) as error:
            status = getattr(error, "status", None)
            if status and status not in _PASSING:
                raise
            asked = retry_after(error)
            logger.debug("Kubeflow did not answer, asking again: %s", type(error).__name__)
            time.sleep(pause if asked is None else asked)
    return send()
