"""The work of `publish_evidently`.

Each step finds what an earlier attempt has done: the project by its name, the dashboard by not being empty, the report
by the fingerprint of its snapshot, which it carries in its metadata.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeparts.components.monitoring.publish_evidently.dashboard import dashboard
from pipeparts.components.monitoring.publish_evidently.workspaces import FINGERPRINT, open_workspace
from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.monitoring import moment_text, parse_moment

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.evidently_publication/1"
SNAPSHOT = "snapshot.json"

_LONGEST_NAME = 200


def publish_evidently(
    *,
    evidently_path: str | os.PathLike[str],
    receipt_path: str | os.PathLike[str],
    workspace: str,
    project: str,
    name: str = "",
    as_of: str = "",
    tags: Sequence[str] | None = None,
    secret: str = "",
) -> dict[str, Any]:
    """Adds a report to a workspace, unless it is there.

    Args:
        evidently_path: The snapshot: a folder with `snapshot.json`, or the file.
        receipt_path: Where to write what was published (JSON).
        workspace: The `http(s)://` address of an `evidently ui`, or a folder; empty: `evidently` in PIPEPARTS_ROOT.
        project: The project's name.
        name: The report's name; empty: the one that it has.
        as_of: When the rows are from (ISO 8601); empty: now.
        tags: Further tags.
        secret: `env:NAME` or `file:/path` of the server's secret; empty: none.

    Returns:
        What was written: format, workspace, project, project_id, report_id, name, as_of, added, link.

    Raises:
        InputError: For a workspace, a name or a moment that cannot be used.
        ContractError: Where the snapshot is damaged, or not one of this version of Evidently.
        ServiceError: Where the workspace does not answer or refuses, or the folder cannot be written.
    """
    project = _name(project, "project")
    name = _name(name, "name") if name.strip() else ""
    moment = parse_moment(as_of)
    extra = _tags(tags)
    snapshot, fingerprint = _read(Path(evidently_path))
    place = open_workspace(workspace, secret)
    project_id = place.find_project(project) or place.make_project(project)
    if place.has_no_dashboard(project_id):
        place.write_dashboard(project_id, dashboard())
    report_id = place.find_report(project_id, fingerprint)
    added = report_id is None
    if report_id is None:
        labelled = _labelled(snapshot, fingerprint, name, moment, extra)
        report_id = place.add_report(project_id, fingerprint, labelled)
    link = place.link(project_id, report_id)
    logger.info("%s: %s", "added" if added else "there already", link)
    receipt = {
        "format": FORMAT,
        "workspace": place.place,
        "project": project,
        "project_id": project_id,
        "report_id": report_id,
        "name": name or snapshot["name"] or "",
        "as_of": moment_text(moment),
        "added": added,
        "link": link,
    }
    write_json(receipt_path, receipt)
    return receipt


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The snapshot, once Evidently has read it: one that it cannot read would stop its UI from starting."""
    file = path / SNAPSHOT if path.is_dir() else path
    document = read_json(file, what="an Evidently snapshot")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Evidently and what it imports
        import evidently
        from evidently.core.serialization import SnapshotModel

        try:
            SnapshotModel.parse_obj(document)
        except Exception as error:  # its types come from the file: the errors are of many kinds
            made_by = document.get("metadata") if isinstance(document, dict) else None
            version = made_by.get("evidently_version") if isinstance(made_by, dict) else None
            raise ContractError(
                "not a snapshot that this version of Evidently reads",
                where=str(file),
                allowed=f"what report_drift writes, for Evidently {evidently.__version__}",
                received=f"{f'a snapshot of Evidently {version}: ' if version else ''}{_first_line(error)}",
                hint="let report_drift and publish_evidently run in the same image",
            ) from error
    return document, hashlib.sha256(file.read_bytes()).hexdigest()[:32]


def _labelled(
    snapshot: dict[str, Any], fingerprint: str, name: str, moment: dt.datetime, tags: Sequence[str]
) -> dict[str, Any]:
    model = snapshot["metadata"].get("model_id", "")
    return snapshot | {
        "name": name or snapshot["name"],
        # Without a zone, as Evidently's own: it compares them with each other.
        "timestamp": moment.replace(tzinfo=None).isoformat(),
        "tags": list(dict.fromkeys([*snapshot["tags"], *([model] if model else []), *tags])),
        "metadata": snapshot["metadata"] | {FINGERPRINT: fingerprint} | ({"batch": name} if name else {}),
    }


def _name(text: str, parameter: str) -> str:
    said = text.strip()
    if not said or len(said) > _LONGEST_NAME or not said.isprintable():
        raise InputError(
            "a name that cannot be used",
            parameter=parameter,
            allowed=f"1 to {_LONGEST_NAME} characters on one line",
            received=text if said else "an empty text",
        )
    return said


def _tags(tags: Any) -> list[str]:
    found = tags or []
    if not isinstance(found, (list, tuple)) or not all(isinstance(tag, str) and tag.strip() for tag in found):
        raise InputError(
            "`tags` is not a list of texts", parameter="tags", allowed="a list of texts", received=repr(tags)
        )
    return [tag.strip() for tag in found]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
