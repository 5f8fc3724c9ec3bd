"""The two kinds of Evidently workspaces: a folder, and a running `evidently ui`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeparts.runtime.errors import InputError, PipepartsError, ServiceError
from pipeparts.runtime.files import read_json, write_text
from pipeparts.runtime.secrets import read_secret
from pipeparts.runtime.state import ROOT_VARIABLE

#: The key in a report's metadata by which it is found again.
FINGERPRINT = "pipeparts_report"

_IDS = uuid.UUID("c2a5a3b0-3a0c-5d53-9d3e-64a1a7d0f2b1")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_APPLICATION = "Evidently UI"
_SECRET_HEADER = "evidently-secret"
_SECONDS = 30
_LONGEST_ANSWER = 300
_ALLOWED = "the http:// or https:// address of a running `evidently ui`, or a folder"
_DESCRIPTION = "Drift reports, by pipeparts."


class Workspace(Protocol):
    """What publishing needs of a workspace."""

    @property
    def place(self) -> str:
        """The address, as messages and receipts may show it."""

    def find_project(self, name: str) -> str | None:
        """The id of the project of that name; of several the oldest."""

    def make_project(self, name: str) -> str:
        """Makes a project. Its id comes from its name: two that make it at the same time make the same one."""

    def has_no_dashboard(self, project_id: str) -> bool:
        """Whether the dashboard has neither tabs nor panels."""

    def write_dashboard(self, project_id: str, dashboard: dict[str, Any]) -> None:
        """Gives the project its dashboard."""

    def find_report(self, project_id: str, fingerprint: str) -> str | None:
        """The id of the report with the fingerprint, or None."""

    def add_report(self, project_id: str, fingerprint: str, snapshot: dict[str, Any]) -> str:
        """Adds a report, and gives its id."""

    def link(self, project_id: str, report_id: str) -> str:
        """Where a person finds the report."""


def open_workspace(workspace: str, secret: str) -> Workspace:
    """The workspace at an address.

    Args:
        workspace: `http(s)://...` or a folder; empty: `evidently` in the folder of local runs.
        secret: Where the server's secret is; empty: it has none.

    Raises:
        InputError: For an address or a secret's reference that cannot be used.
        ServiceError: Where no Evidently answers there.
    """
    address = workspace.strip()
    scheme, found, rest = address.partition("://")
    if found and scheme.lower() in ("http", "https"):
        return Server(_checked(address), read_secret(secret, parameter="secret") if secret.strip() else "")
    if found and scheme.lower() != "file":
        raise InputError("a workspace that cannot be used", parameter="workspace", allowed=_ALLOWED, received=scheme)
    if re.fullmatch(r"[\w.\-]+:\d+(/.*)?", address):
        raise InputError(
            "a workspace that cannot be used",
            parameter="workspace",
            allowed=_ALLOWED,
            received=address,
            hint=f"did you mean 'http://{address}'?",
        )
    return Folder(Path(rest if found else address or _default_folder()).expanduser().absolute())


def _default_folder() -> str:
    root = os.environ.get(ROOT_VARIABLE, "").strip()
    if root:
        return str(Path(root) / "evidently")
    raise InputError(
        "no workspace is given",
        parameter="workspace",
        allowed=_ALLOWED,
        received=f"nothing; looked in: the parameter workspace, the environment variable {ROOT_VARIABLE}",
    )


def _checked(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    shown = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    try:
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "a workspace that cannot be used",
            parameter="workspace",
            allowed="http://HOST:PORT or https://HOST, without user, password, ? and #",
            received=shown,
            hint="give the secret of `evidently ui --secret` by `secret`" if "@" in parts.netloc else None,
        )
    return shown.rstrip("/")


class Folder:
    """A workspace's folder: a folder a project, in it `metadata.json`, `dashboard.json` and `snapshots/ID.json`.

    Files appear whole, and under names that `evidently ui` looks at only when they are: it does not start with a
    damaged one, and a running one sees new ones.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def find_project(self, name: str) -> str | None:
        """See `Workspace`."""
        with self._errors("read"):
            found = sorted(self._folder.glob("*/metadata.json")) if self._folder.is_dir() else []
        for file in found:
            if _UUID.fullmatch(file.parent.name):
                project = read_json(file, what="an Evidently project")
                if isinstance(project, dict) and project.get("name") == name:
                    return file.parent.name
        return None

    def make_project(self, name: str) -> str:
        """See `Workspace`."""
        project = _project(name)
        folder = self._folder / project["id"]
        with self._errors("written"):
            (folder / "snapshots").mkdir(parents=True, exist_ok=True)
            _create(folder / "metadata.json", json.dumps(project, indent=2))
        return str(project["id"])

    def has_no_dashboard(self, project_id: str) -> bool:
        """See `Workspace`."""
        file = self._folder / project_id / "dashboard.json"
        return not file.exists() or _is_empty(read_json(file, what="an Evidently dashboard"))

    def write_dashboard(self, project_id: str, dashboard: dict[str, Any]) -> None:
        """See `Workspace`."""
        with self._errors("written"):
            write_text(self._folder / project_id / "dashboard.json", json.dumps(dashboard))

    def find_report(self, project_id: str, fingerprint: str) -> str | None:
        """See `Workspace`."""
        file = self._report(project_id, _report_id(fingerprint))
        if file.exists():
            return file.stem
        mark = fingerprint.encode()  # a server on the same folder has given an id of its own
        with self._errors("read"):
            others = [path for path in sorted(file.parent.glob("*.json")) if _UUID.fullmatch(path.stem)]
            return next((path.stem for path in others if mark in path.read_bytes()), None)

    def add_report(self, project_id: str, fingerprint: str, snapshot: dict[str, Any]) -> str:
        """See `Workspace`."""
        report_id = _report_id(fingerprint)
        with self._errors("written"):
            _create(self._report(project_id, report_id), json.dumps(snapshot))
        return report_id

    def link(self, project_id: str, report_id: str) -> str:
        """See `Workspace`."""
        return str(self._report(project_id, report_id))

    def _report(self, project_id: str, report_id: str) -> Path:
        return self._folder / project_id / "snapshots" / f"{report_id}.json"

    @contextlib.contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServiceError(
                f"the workspace's folder cannot be {done}",
                where=str(self._folder),
                allowed="a folder that this step's user may write",
                received=str(error),
                hint="is it the folder that `evidently ui --workspace` was given, and is there room?",
            ) from error


class Server:
    """A running `evidently ui`, by its HTTP API."""

    def __init__(self, address: str, secret: str) -> None:
        self._address = address
        self._secret = secret
        answer = self._call("GET", "/api/version", "ask for its version")
        if not isinstance(answer, dict) or answer.get("application") != _APPLICATION:
            raise self._other(json.dumps(answer))
        self._version = str(answer.get("version", "?"))

    @property
    def place(self) -> str:
        """The address."""
        return self._address

    def find_project(self, name: str) -> str | None:
        """See `Workspace`."""
        # Not by its search: that takes the name as a part of the path.
        projects = self._call("GET", "/api/v2/projects", "list the projects")
        return min((str(project["id"]) for project in projects if project["name"] == name), default=None)

    def make_project(self, name: str) -> str:
        """See `Workspace`."""
        return str(self._call("POST", "/api/v2/projects", f"make the project {name!r}", _project(name)))

    def has_no_dashboard(self, project_id: str) -> bool:
        """See `Workspace`."""
        return _is_empty(self._call("GET", f"/api/v2/dashboards/{project_id}", "read the dashboard"))

    def write_dashboard(self, project_id: str, dashboard: dict[str, Any]) -> None:
        """See `Workspace`."""
        self._call("POST", f"/api/v2/dashboards/{project_id}", "write the dashboard", dashboard)

    def find_report(self, project_id: str, fingerprint: str) -> str | None:
        """See `Workspace`."""
        return min(self._reports(project_id, fingerprint), default=None)

    def add_report(self, project_id: str, fingerprint: str, snapshot: dict[str, Any]) -> str:
        """See `Workspace`. Where another run has added it at the same time, one of the two stays."""
        answer = self._call("POST", f"/api/v2/snapshots/{project_id}", "add the report", snapshot)
        first, *twins = sorted({str(answer["snapshot_id"]), *self._reports(project_id, fingerprint)})
        for twin in twins:
            self._call("DELETE", f"/api/projects/{project_id}/{twin}", "drop the report's twin")
        return first

    def link(self, project_id: str, report_id: str) -> str:
        """See `Workspace`."""
        return f"{self._address}/projects/{project_id}/reports/{report_id}"

    def _reports(self, project_id: str, fingerprint: str) -> list[str]:
        reports = self._call("GET", f"/api/projects/{project_id}/snapshots", "list the reports")
        return [str(report["id"]) for report in reports if report["metadata"].get(FINGERPRINT) == fingerprint]

    def _call(self, method: str, path: str, doing: str, body: Any = None) -> Any:
        request = urllib.request.Request(f"{self._address}{path}", method=method)
        request.add_header("Accept", "application/json")
        if self._secret:
            request.add_header(_SECRET_HEADER, self._secret)
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, doing) from error
        except OSError as error:
            raise ServiceError(
                "the Evidently workspace does not answer",
                where=self._address,
                received=str(getattr(error, "reason", error)),
                hint="is `evidently ui` running, and can this machine reach it?",
            ) from error
        try:
            return json.loads(content) if content.strip() else None
        except ValueError as error:
            raise self._other(content.decode("utf-8", "replace")) from error

    def _refused(self, error: urllib.error.HTTPError, doing: str) -> PipepartsError:
        content = error.read(100_000).decode("utf-8", "replace")
        try:
            detail = str(json.loads(content)["detail"])
        except (ValueError, KeyError, TypeError):
            detail = content
        said = f"{error.code} {error.reason}: {_short(detail)}"
        if error.code in (401, 403):
            problem = ServiceError(
                f"cannot {doing}: the Evidently workspace wants a secret, or refuses this one",
                where=self._address,
                received=said,
                hint="give the secret of `evidently ui --secret` by `secret`: env:NAME or file:/path",
            )
        elif error.code in (404, 405) and doing == "ask for its version":
            return self._other(said)
        else:
            problem = ServiceError(
                f"cannot {doing}: the Evidently workspace refused it",
                where=self._address,
                allowed="a server that takes this report: of the Evidently that made it, or a newer one",
                received=f"{said} (Evidently {getattr(self, '_version', '?')})",
            )
        problem.retryable = error.code >= 500 or error.code == 429
        return problem

    def _other(self, received: str) -> PipepartsError:
        problem = ServiceError(
            "no Evidently workspace at this address",
            where=self._address,
            allowed=f"an answer of {_APPLICATION!r} at {self._address}/api/version",
            received=_short(received),
            hint="something else answers here: is the port right, and the path where a proxy puts it under one?",
        )
        problem.retryable = False
        return problem


def _project(name: str) -> dict[str, Any]:
    identity = str(uuid.uuid5(_IDS, f"project {name}"))
    return {"id": identity, "name": name, "description": _DESCRIPTION, "org_id": None, "version": "2"}


def _report_id(fingerprint: str) -> str:
    return str(uuid.uuid5(_IDS, f"report {fingerprint}"))


def _is_empty(dashboard: Any) -> bool:
    return not (isinstance(dashboard, dict) and (dashboard.get("tabs") or dashboard.get("panels")))


def _create(path: Path, content: str) -> bool:
    """A file that appears whole, and only where there is none.

    By a link and not by a rename, because `evidently ui` watches for the creation of files alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        partial.chmod(0o644)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            partial.replace(path)  # a file system without links
            os.utime(path)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _short(text: str) -> str:
    said = " ".join(text.split())
    return said if len(said) <= _LONGEST_ANSWER else f"{said[:_LONGEST_ANSWER]}..."
