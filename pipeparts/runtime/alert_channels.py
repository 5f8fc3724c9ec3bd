"""The ways to tell people: mail, and every other service of apprise, by apprise's addresses.

Mail goes out through `smtplib`: apprise gives each mail a random Message-ID, and says of a server's refusal only that
there was one. Here a mail has the same Message-ID whenever it is sent, so that a mail system drops the second of two,
and an error says what the server said. Where a service offers the same (a PagerDuty incident's key, a header for
webhooks), it is used.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import email.message
import email.policy
import email.utils
import hashlib
import logging
import re
import smtplib
import socket
import ssl
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

from pipeparts.runtime.alert_text import Alert
from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.secrets import FORMS, read_secret

_CONNECT_SECONDS = 15.0
_ANSWER_SECONDS = 60.0
_EXAMPLES = "mailtos://smtp.example.com/ops@example.com?from=ml@example.com, slack://..., workflows://..., json://..."
_SECRET_NAME = re.compile(r"auth|token|secret|key|pass|credential|cookie|sign", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Recipient:
    """Somebody who is told by himself.

    Attributes:
        id: Of his receipt: the same from run to run.
        label: As messages show him: no secret is in it.
    """

    id: str
    label: str


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a delivery failed.

    Attributes:
        reason: In words, without secrets.
        is_temporary: Whether another attempt can succeed.
    """

    reason: str
    is_temporary: bool


class Channel(Protocol):
    """A way to tell one or several recipients."""

    recipients: tuple[Recipient, ...]

    def send(self, alert: Alert, key: str, wanted: Sequence[Recipient]) -> Iterable[tuple[Recipient, Failure | None]]:
        """Tells some of its recipients; None where it was delivered, said before the next one is told."""


def open_channels(to: Sequence[str] | None, *, parameter: str = "to") -> tuple[Channel, ...]:
    """The channels that a list of addresses and references names.

    Args:
        to: apprise's URLs, and references `env:NAME` or `file:/path` to texts that hold such URLs, one a line; there,
            empty lines and lines that begin with # do not count.
        parameter: The parameter's name, for messages.

    Raises:
        InputError: For what is no address, for a password in the open, and for a reference to nothing.
    """
    if isinstance(to, str) or not all(isinstance(entry, str) for entry in to or ()):
        raise InputError("not a list of addresses", parameter=parameter, allowed="a list of texts", received=repr(to))
    channels: list[Channel] = []
    for number, entry in enumerate(to or ()):
        place = f"{parameter}[{number}]"
        if re.match(r"(env|file):(?!//)", entry.strip()):
            lines = read_secret(entry.strip(), parameter=place).splitlines()
            named = [(f"{place}, {entry.strip()}, line {i}", line.strip()) for i, line in enumerate(lines, 1)]
            channels += [_open(url, where, is_secret=True) for where, url in named if url and not url.startswith("#")]
        elif entry.strip():
            channels.append(_open(entry.strip(), place, is_secret=False))
    return tuple(channels)


def _open(url: str, where: str, *, is_secret: bool) -> Channel:
    plugin = _load(url, where)
    shown = plugin.url(privacy=True)
    if not is_secret and (plugin.url() != shown or _holds_secret(url)):
        raise InputError(
            "an address with a password or a token in it, written in the open",
            parameter=where,
            allowed=f"an address without one, or a reference to it: {FORMS}",
            received=f"{plugin.schema}://... (not shown: it holds the secret)",
            hint="it would stand in the compiled YAML and in the run's record, for everybody who can see them",
        )
    plugin.socket_connect_timeout = _timeout(plugin, "socket_connect_timeout", _CONNECT_SECONDS)
    plugin.socket_read_timeout = _timeout(plugin, "socket_read_timeout", _ANSWER_SECONDS)
    from apprise.plugins.email import NotifyEmail

    if type(plugin) is NotifyEmail and plugin.pgp_mode == "no":
        return MailChannel(plugin, _secrets(url, plugin))
    return AppriseChannel(plugin, url, where, _secrets(url, plugin))


def _load(url: str, where: str) -> Any:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    with warnings.catch_warnings(), _apprise_log():
        warnings.simplefilter("ignore")  # apprise imports what Python 3.13 no longer has
        import apprise

        asset = apprise.AppriseAsset(
            app_id="pipeparts", app_desc="pipeparts", app_url="", image_url_mask=None, image_url_logo=None,
            async_mode=False, service_timeout=0,
        )  # fmt: skip
        problem = ""
        plugin = None
        try:
            plugin = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=False)
        except (TypeError, ValueError, apprise.exception.AppriseException) as error:
            problem = _scrubbed(str(error), _tokens(url))
    if plugin is not None:
        return plugin
    schemes = _schemes()
    is_known = scheme in schemes
    if is_known and scheme.startswith("mailto"):
        problem = f"{problem}; a mail needs a sender: ?from=ml@example.com".removeprefix("; ")
    raise InputError(
        "an address that nobody can be told at" if is_known else "an address of a kind that is not known",
        parameter=where,
        allowed=f"an address of apprise: {_EXAMPLES}; or a reference: {FORMS}",
        received=f"{scheme}://... (the rest is not shown: it may hold a secret)" if scheme else "a text without ://",
        hint=problem or (None if is_known else suggest(scheme, schemes)),
    )


def _schemes() -> list[str]:
    import apprise

    manager: Any = apprise.manager_plugins.NotificationManager
    return sorted(manager().schemas())


def _holds_secret(url: str) -> bool:
    """Whether what apprise itself does not hide looks like a secret: a login, a header of a webhook."""
    if re.search(r"://[^/?#@]*:[^/?#@]+@", url):
        return True
    query = url.partition("?")[2]
    names = [unquote(part.partition("=")[0]) for part in query.split("&")]
    return any(name[:1] in "+-:" and _SECRET_NAME.search(name) for name in names if name)


def _timeout(plugin: Any, name: str, default: float) -> float:
    """What the address says (cto, rto), else the default: apprise's own 4 seconds cut slow services off."""
    own = getattr(plugin, name)
    return float(own) if own != getattr(type(plugin), name) else default


def _tokens(text: str) -> set[str]:
    return {part for part in re.split(r"[/:@?&=\s#]+", f"{unquote(text)} {text}") if len(part) > 2}


def _secrets(url: str, plugin: Any) -> frozenset[str]:
    """Every part of an address that apprise does not show."""
    shown = _tokens(plugin.url(privacy=True)) | {str(plugin.host), plugin.schema}
    headers = re.findall(r"[?&](?:\+|%2[bB]|-|:|%3[aA])[^=&]*=([^&]*)", url)
    return frozenset((_tokens(f"{url} {plugin.url()}") - shown) | {unquote(part) for part in headers if len(part) > 2})


def _scrubbed(text: str, secrets: Collection[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())[:300]


def digest(text: str) -> str:
    """A name for a text: 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class MailChannel:
    """A mail server, and who gets the mail: one mail for all, a receipt for each.

    Args:
        plugin: apprise's reading of the address (`mailto://`, `mailtos://`), with what it knows of the large providers.
        secrets: What no message may show.
    """

    def __init__(self, plugin: Any, secrets: Collection[str]) -> None:
        self._plugin = plugin
        self._secrets = secrets
        server = f"{plugin.smtp_host}:{plugin.port}"
        people = [*(address for _, address in plugin.targets), *sorted(plugin.cc), *sorted(plugin.bcc)]
        self._addresses = {
            Recipient(digest(f"mail {server} {address.lower()}"), f"{address} (mail through {server})"): address
            for address in dict.fromkeys(people)
        }
        self.recipients = tuple(self._addresses)

    def send(self, alert: Alert, key: str, wanted: Sequence[Recipient]) -> Iterable[tuple[Recipient, Failure | None]]:
        """Sends the mail to some of its recipients."""
        addresses = [self._addresses[recipient] for recipient in wanted]
        try:
            refused = self._submit(self.message(alert, key), addresses)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            failure = self._failure(error)
            return [(recipient, failure) for recipient in wanted]
        return [
            (recipient, self._refusal(*refused[address]) if address in refused else None)
            for recipient, address in zip(wanted, addresses, strict=True)
        ]

    def message(self, alert: Alert, key: str) -> email.message.EmailMessage:
        """The mail: the same Message-ID whenever the alert of this key is sent."""
        plugin = self._plugin
        name, sender = plugin.from_addr
        message = email.message.EmailMessage(policy=email.policy.SMTP)
        message["Subject"] = alert.subject
        message["From"] = email.utils.formataddr((name or "pipeparts", sender))
        message["To"] = ", ".join(email.utils.formataddr((name or "", to)) for name, to in plugin.targets)
        if plugin.cc:
            message["Cc"] = ", ".join(self._named(address) for address in sorted(plugin.cc))
        if plugin.reply_to:
            message["Reply-To"] = ", ".join(self._named(address) for address in sorted(plugin.reply_to))
        message["Date"] = email.utils.localtime()
        message["Message-ID"] = f"<pipeparts.{digest(key)}@{sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        if alert.severity == "failure":
            message["X-Priority"] = "1"
        for header, value in plugin.headers.items():
            if header not in message:
                message[header] = value
        message.set_content(alert.to_text(), cte="quoted-printable")
        message.add_alternative(alert.to_html(), subtype="html", cte="quoted-printable")
        return message

    def _named(self, address: str) -> str:
        return email.utils.formataddr((self._plugin.names.get(address) or "", address))

    def _submit(self, message: email.message.EmailMessage, addresses: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        plugin = self._plugin
        context = ssl.create_default_context()
        if not plugin.verify_certificate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        seconds = plugin.socket_connect_timeout
        connection: smtplib.SMTP
        if plugin.secure_mode == "ssl":
            connection = smtplib.SMTP_SSL(plugin.smtp_host, plugin.port, timeout=seconds, context=context)
        else:
            connection = smtplib.SMTP(plugin.smtp_host, plugin.port, timeout=seconds)
        try:
            if connection.sock is not None:
                connection.sock.settimeout(plugin.socket_read_timeout)
            if plugin.secure_mode == "starttls":
                connection.starttls(context=context)
            if plugin.user and plugin.password:
                connection.login(plugin.user, plugin.password)
            refused = connection.send_message(message, plugin.from_addr[1], list(addresses))
        finally:
            # What the server says to a goodbye changes nothing, and it may be gone.
            with contextlib.suppress(smtplib.SMTPException, OSError):
                connection.quit()
            connection.close()
        return {address: (int(code), bytes(text)) for address, (code, text) in refused.items()}

    def _refusal(self, code: int, text: bytes | str) -> Failure:
        words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        return Failure(_scrubbed(f"the server said {code} {words}", self._secrets), is_temporary=400 <= code < 500)

    def _failure(self, error: Exception) -> Failure:
        if isinstance(error, smtplib.SMTPResponseException):
            return self._refusal(error.smtp_code, error.smtp_error)
        if isinstance(error, UnicodeError):  # its words hold the password
            return Failure("the login or an address has characters beyond ASCII", is_temporary=False)
        if isinstance(error, (smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError)):
            return Failure(_scrubbed(str(error), self._secrets), is_temporary=False)
        if isinstance(error, smtplib.SMTPServerDisconnected):
            words = "no answer in time" if "timed out" in str(error) else "the server closed the connection"
            return Failure(words, is_temporary=True)
        return Failure(_cause(error) or _scrubbed(str(error), self._secrets), is_temporary=True)


class AppriseChannel:
    """Any other service of apprise.

    Args:
        plugin: apprise's reading of the address.
        url: The address.
        where: The parameter it came from.
        secrets: What no message may show.
    """

    def __init__(self, plugin: Any, url: str, where: str, secrets: Collection[str]) -> None:
        self._secrets = secrets
        host = f" {plugin.host}" if plugin.host and str(plugin.host) not in secrets else ""
        label = f"{plugin.service_name}{host} ({where})"
        self._plugins = {
            Recipient(_slow_digest(f"{url}\0{name}"), f"{label}{', ' + name if name else ''}"): part
            for name, part in _single_targets(plugin)
        }
        self.recipients = tuple(self._plugins)

    def send(self, alert: Alert, key: str, wanted: Sequence[Recipient]) -> Iterable[tuple[Recipient, Failure | None]]:
        """Hands the alert to the service, in the form that the service shows best."""
        return ((recipient, self._send(self._plugins[recipient], alert, key)) for recipient in wanted)

    def _send(self, plugin: Any, alert: Alert, key: str) -> Failure | None:
        import apprise

        _name_alert(plugin, digest(key))
        form = plugin.resolve_format("markdown")
        body = {"html": alert.to_html, "markdown": alert.to_chat}.get(form.value, alert.to_text)()
        sender = apprise.Apprise(asset=plugin.asset)
        sender.add(plugin)
        with _apprise_log() as log:
            if sender.notify(body=body, title=alert.subject, notify_type=alert.severity, body_format=form.value):
                return None
        return self._failure(log)

    def _failure(self, log: list[logging.LogRecord]) -> Failure:
        """What went wrong, from what apprise wrote to its log: it returns no more than that something did."""
        complaints = [record.getMessage() for record in log if record.levelno >= logging.WARNING]
        status = next((int(m[1]) for text in complaints if (m := re.search(r"error=(\d{3})\b", text))), None)
        if status is not None:
            answer = _between(log, "Response Details:")
            with contextlib.suppress(ValueError):
                answer = f"{HTTPStatus(status).phrase} {answer}"
            words = _scrubbed(f"the service answered {status} {answer}".strip(), self._secrets)
            return Failure(words, is_temporary=status in (408, 425, 429) or status >= 500)
        cause = _between(log, "Socket Exception")
        if cause:
            is_certificate = "CERTIFICATE_VERIFY_FAILED" in cause
            return Failure(_known_cause(cause) or "the connection failed", is_temporary=not is_certificate)
        words = _scrubbed("; ".join(complaints), self._secrets)
        return Failure(words or "apprise did not say why", is_temporary="onnection error" in words)


def _single_targets(plugin: Any) -> Iterator[tuple[str, Any]]:
    """The same service once for each of its targets, where apprise lists them: each gets a receipt of its own."""
    targets = getattr(plugin, "targets", None)
    if not isinstance(targets, list) or len(targets) < 2:
        yield "", plugin
        return
    for number, target in enumerate(targets):
        single = copy.copy(plugin)
        single.targets = [target]
        yield f"target {number + 1}", single


def _name_alert(plugin: Any, name: str) -> None:
    """Gives the service what it can tell a second delivery by, where there is such a thing."""
    if plugin.schema.rstrip("s") in ("json", "xml", "form"):
        plugin.headers.setdefault("Idempotency-Key", name)
    elif hasattr(plugin, "dedup") and not plugin.dedup:
        plugin.dedup = name


def _slow_digest(text: str) -> str:
    """Of an address with a password in it: slow, so that nobody finds the password by trying."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"pipeparts alert", 100_000).hex()[:32]


def _between(log: list[logging.LogRecord], mark: str) -> str:
    """What stands after a mark in the log, the first that there is."""
    for record in log:
        _, found, tail = record.getMessage().partition(mark)
        if found:
            text = tail.lstrip(": \r\n")
            quoted = re.fullmatch(r"""b?(['"])(.*)\1""", text, re.DOTALL)
            return quoted[2] if quoted else text
    return ""


def _cause(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    return "the connection was cut" if isinstance(error, ConnectionError) else ""


_CAUSES = {
    r"CERTIFICATE_VERIFY_FAILED": "the server's certificate is not trusted",
    r"Name or service not known|name resolution|getaddrinfo|NameResolution": "the host's name is not known",
    r"[Cc]onnection refused": "the connection was refused",
    r"timed? ?out": "no answer in time",
    r"[Cc]onnection (was )?(reset|aborted|broken)|RemoteDisconnected|IncompleteRead": "the connection was cut",
    r"SSLError|SSL:": "the connection could not be secured",
}


def _known_cause(text: str) -> str:
    """What a client's message means; the message itself may hold the address, and the secret in it."""
    return next((words for pattern, words in _CAUSES.items() if re.search(pattern, text)), "")


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.DEBUG)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@contextlib.contextmanager
def _apprise_log() -> Iterator[list[logging.LogRecord]]:
    """Collects what apprise logs, and keeps it from going anywhere else: its details hold addresses."""
    log = logging.getLogger("apprise")
    records: list[logging.LogRecord] = []
    handler = _Collector(records)
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield records
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
