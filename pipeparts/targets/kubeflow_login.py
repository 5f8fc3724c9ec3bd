"""Signs in to a Kubeflow that asks with Dex's form, as a person's browser does, and gives the session's cookie back."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

from pipeparts.errors import InputError, ServiceError

_FORM = re.compile(r"<form\b[^>]*>", re.IGNORECASE)
_ACTION = re.compile(r"\baction=[\"']([^\"']*)[\"']", re.IGNORECASE)
_PASSWORD = re.compile(r"<input\b[^>]*\bname=[\"']password[\"']", re.IGNORECASE)
#: Where Dex asks whether the console may know who one is; an installation can leave that out (skipApprovalScreen).
_APPROVAL = re.compile(r"<input\b[^>]*\bname=[\"']req[\"'][^>]*\bvalue=[\"']([^\"']*)[\"']", re.IGNORECASE)
#: Where Dex has several ways to sign in, those with a name and a password are behind these links.
_LINKS = [re.compile(rf"href=[\"']([^\"']*/auth/{kind}[/?][^\"']*)[\"']", re.IGNORECASE) for kind in ("local", "ldap")]
#: Pages that may come between: a choice of ways, and the approval.
_MOST_PAGES = 4


def session_cookie(host: str, username: str, password: str, *, verify: str | bool = True, seconds: float = 30) -> str:
    """Signs in, and gives the value for a Cookie header.

    Args:
        host: The API's address.
        username: Whom to sign in as.
        password: The password; it is sent to the form's address alone.
        verify: A file with the certificates to trust; true: the machine's.
        seconds: How long one request may take.

    Raises:
        InputError: Where there is no such form, or the name or the password is wrong.
        ServiceError: Where nobody answers.
    """
    import requests

    with requests.Session() as session:
        session.verify = verify
        try:
            page = session.get(f"{host}/", timeout=seconds)
            form = _form_of(session, page, seconds)
            if form is None:
                raise _no_form(host, page)
            answer = session.post(form, data={"login": username, "password": password}, timeout=seconds)
            if answer.status_code < 400 and (approval := _APPROVAL.search(answer.text)):
                agreed = {"req": unescape(approval[1]), "approval": "approve"}
                answer = session.post(_action(answer), data=agreed, timeout=seconds)
        except requests.RequestException as error:
            raise ServiceError(
                "cannot sign in to Kubeflow: the server does not answer",
                parameter="host",
                where=host,
                received=type(error).__name__,
            ) from None  # its text may hold the address with what was sent
        # Dex shows the form again where it was not content.
        if answer.status_code in (401, 403) or _PASSWORD.search(answer.text):
            raise InputError(
                "cannot sign in to Kubeflow: the name or the password is wrong",
                parameter="username, password",
                where=_place(form),
                allowed="a user of Dex's, and that one's password",
                received=f"user {username!r}, and a password of {len(password)} characters",
            )
        cookies = {cookie.name: cookie.value for cookie in session.cookies if _is_for(cookie, host)}
    if answer.status_code >= 400 or not cookies:
        raise ServiceError(
            "cannot sign in to Kubeflow: no session came of it",
            parameter="host",
            where=host,
            received=f"status {answer.status_code}, {len(cookies)} cookies",
        )
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def _form_of(session: Any, page: Any, seconds: float) -> str | None:
    """The address that the form sends to; None where the page has none."""
    for _ in range(_MOST_PAGES):
        if page.status_code >= 400 or _PASSWORD.search(page.text):
            break
        link = next((found for pattern in _LINKS if (found := pattern.search(page.text))), None)
        if link is None:
            return None
        page = session.get(urljoin(page.url, unescape(link[1])), timeout=seconds)
    return _action(page) if page.status_code < 400 and _PASSWORD.search(page.text) else None


def _action(page: Any) -> str:
    """Where the page's form sends to; one without an address sends to the page itself."""
    form = _FORM.search(page.text)
    action = _ACTION.search(form[0]) if form else None
    return urljoin(page.url, unescape(action[1])) if action and action[1] else str(page.url)


def _no_form(host: str, page: Any) -> InputError:
    return InputError(
        "cannot sign in to Kubeflow: it shows no form for a name and a password",
        parameter="username",
        where=host,
        allowed="an installation behind Dex; elsewhere use `token`",
        received=f"status {page.status_code} from {_place(page.url)}",
    )


def _place(url: str) -> str:
    """An address without its query, which holds the state of the signing in."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _is_for(cookie: Any, host: str) -> bool:
    """Whether a cookie belongs to the API's host; Dex may be another one."""
    name = urlsplit(host).hostname or ""
    domain = str(cookie.domain).lstrip(".").removesuffix(".local")
    return name == domain or name.endswith(f".{domain}")
