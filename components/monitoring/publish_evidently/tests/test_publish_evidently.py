from __future__ import annotations

import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeparts.components.monitoring.publish_evidently import logic, workspaces
from pipeparts.components.monitoring.publish_evidently.dashboard import dashboard
from pipeparts.components.monitoring.report_drift.evidently_report import write_evidently
from pipeparts.runtime.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.monitoring import ColumnDrift, Data, Drift
from tests.evidently_services import ask, evidently_ui
from tests.mlflow_services import answering

ROOT = Path(__file__).parents[4]
FLIGHTS = ROOT / "tests" / "data" / "flights.csv"
COLUMNS = ("dep_delay", "distance", "temp", "carrier")


def make_report(folder: Path, batch: int) -> Path:
    rows = pd.read_csv(FLIGHTS)[list(COLUMNS)]
    columns = tuple(
        ColumnDrift(
            name=name,
            role="prediction" if name == "dep_delay" else "feature",
            kind="category" if name == "carrier" else "number",
            drifted=name == "temp",
            score=round(0.1 * (batch + place), 3),
            statistics={"psi": round(0.02 * (batch + place), 4)},
            limits={"psi": 0.2},
        )
        for place, name in enumerate(COLUMNS)
    )
    drift = Drift(
        model="models:/flights/3",
        reference=Data(rows=2005, fingerprint="a" * 64, source="January"),
        current=Data(rows=500, fingerprint=f"{batch:02d}" * 32, source=f"batch {batch}"),
        drifted=False,
        reason="1 of 3 columns drifted (33%; limit 50%).",
        findings=(),
        share_drifted=1 / 3,
        columns=columns,
    )
    current = rows[batch * 100 : batch * 100 + 500]
    path = folder / f"evidently-{batch}"
    write_evidently(
        rows, current, drift, html_path=folder / f"{batch}.html", snapshot_path=path, title=f"Drift of batch {batch}"
    )
    return path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("reports")
    return [make_report(folder, batch) for batch in range(4)]


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server whose thread that watches the folder still lives.

    Where a server makes a project itself, that thread may read the file half-written, and ends (Evidently 0.7.23).
    """
    folder = tmp_path / "ui" / "workspace"
    with evidently_ui(folder) as address:
        yield address, folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("ui") / "workspace"
    with evidently_ui(folder) as address:
        yield address, folder


def publish(report: Path, folder: Path, workspace: str | Path, **changes: Any) -> dict[str, Any]:
    return logic.publish_evidently(
        **{
            "evidently_path": report,
            "receipt_path": folder / "receipt.json",
            "workspace": str(workspace),
            "project": "Late flights",
            "name": "2013-08",
            "as_of": "2013-08-31",
        }
        | changes
    )


def snapshots(workspace: Path) -> list[Path]:
    return sorted(workspace.glob("*/snapshots/*"))


# --- A folder --------------------------------------------------------------------------------------------------------


def test_a_folder_gets_project_dashboard_and_report(reports: list[Path], tmp_path: Path) -> None:
    published = publish(reports[0], tmp_path, tmp_path / "ws", tags=["nightly"])
    assert json.loads((tmp_path / "receipt.json").read_text()) == published
    assert published["added"] is True
    assert published["name"] == "2013-08"
    assert published["as_of"] == "2013-08-31T00:00:00Z"
    file = Path(published["link"])
    assert file == tmp_path / "ws" / published["project_id"] / "snapshots" / f"{published['report_id']}.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    snapshot = json.loads(file.read_text())
    assert snapshot["name"] == "2013-08"
    assert snapshot["timestamp"] == "2013-08-31T00:00:00"
    assert snapshot["tags"] == ["not drifted", "models:/flights/3", "nightly"]
    assert snapshot["metadata"]["batch"] == "2013-08"
    assert len(snapshots(tmp_path / "ws")) == 1
    project = file.parents[1]
    assert json.loads((project / "metadata.json").read_text())["name"] == "Late flights"
    assert json.loads((project / "dashboard.json").read_text()) == dashboard()


def test_the_same_report_is_not_added_twice(reports: list[Path], tmp_path: Path) -> None:
    first = publish(reports[0], tmp_path, tmp_path / "ws")
    again = publish(reports[0], tmp_path, tmp_path / "ws", name="another name", as_of="")
    assert (again["added"], again["report_id"]) == (False, first["report_id"])
    other = publish(reports[1], tmp_path, tmp_path / "ws")
    assert other["added"] is True
    assert other["project_id"] == first["project_id"]
    assert len(snapshots(tmp_path / "ws")) == 2
    elsewhere = publish(reports[0], tmp_path, tmp_path / "ws", project="Another project")
    assert elsewhere["added"] is True


def test_a_projects_own_dashboard_stays(reports: list[Path], tmp_path: Path) -> None:
    first = publish(reports[0], tmp_path, tmp_path / "ws")
    file = tmp_path / "ws" / first["project_id"] / "dashboard.json"
    mine = {"tabs": [{"id": dashboard()["tabs"][0]["id"], "title": "Mine", "panels": []}], "panels": []}
    file.write_text(json.dumps(mine))
    publish(reports[1], tmp_path, tmp_path / "ws")
    assert json.loads(file.read_text()) == mine


def test_a_project_that_somebody_made_is_found_by_its_name(reports: list[Path], tmp_path: Path) -> None:
    own = "01900000-0000-7000-8000-000000000001"
    (tmp_path / "ws" / own).mkdir(parents=True)
    (tmp_path / "ws" / own / "metadata.json").write_text(json.dumps({"id": own, "name": "Late flights"}))
    (tmp_path / "ws" / "notes").mkdir()
    assert publish(reports[0], tmp_path, tmp_path / "ws")["project_id"] == own


def test_the_workspace_of_local_runs(reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPARTS_ROOT", str(tmp_path / "root"))
    assert publish(reports[0], tmp_path, "")["workspace"] == str(tmp_path / "root" / "evidently")
    assert publish(reports[0], tmp_path, f"file://{tmp_path}/root/evidently")["added"] is False


def test_many_at_the_same_time_make_one_report(reports: list[Path], tmp_path: Path) -> None:
    publish(reports[1], tmp_path, tmp_path / "other")  # imports what Evidently needs, once
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(
                publish(reports[0], tmp_path, tmp_path / "ws", receipt_path=tmp_path / f"{n}.json")
            )
        )
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(snapshots(tmp_path / "ws")) == 1
    assert len(list((tmp_path / "ws").iterdir())) == 1


_KILLED = """
import sys, os, signal, warnings
from pipeparts.components.monitoring.publish_evidently import logic, workspaces
step, report, folder = sys.argv[1:]
kept = getattr(workspaces.Folder, step)
def killed(*args, **kwargs):
    if step == "add_report":
        workspaces.os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    else:
        kept(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(*args, **kwargs)
setattr(workspaces.Folder, step, killed)
logic.publish_evidently(evidently_path=report, receipt_path=folder + "/receipt.json", workspace=folder + "/ws",
                        project="Late flights", name="2013-08", as_of="2013-08-31")
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", ["make_project", "write_dashboard", "add_report", "link"])
def test_killed_half_way_and_run_again(step: str, reports: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, step, str(reports[0]), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not (tmp_path / "receipt.json").exists()
    published = publish(reports[0], tmp_path, tmp_path / "ws")
    assert published["added"] is (step != "link")
    whole = [path for path in snapshots(tmp_path / "ws") if not path.name.startswith(".")]
    assert [path.stem for path in whole] == [published["report_id"]]
    assert len([path for path in (tmp_path / "ws").iterdir() if not path.name.startswith(".")]) == 1


def test_a_file_system_without_links(reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(workspaces.os, "link", refuses)
    assert publish(reports[0], tmp_path, tmp_path / "ws")["added"] is True
    assert publish(reports[0], tmp_path, tmp_path / "ws")["added"] is False
    assert len(snapshots(tmp_path / "ws")) == 1


# --- A server --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_servers_history_is_read_back(
    reports: list[Path], server: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address, _ = server
    caplog.set_level(logging.INFO)
    batches = list(zip(reports, ("2013-08", "2013-09", "2013-10"), strict=False))
    published = [
        publish(report, tmp_path, f"{address}/", name=name, as_of=f"{name}-28", project="History")
        for report, name in batches
    ]
    again = [publish(report, tmp_path, address, name=name, project="History") for report, name in batches]
    assert [item["added"] for item in published] == [True] * 3
    assert [item["added"] for item in again] == [False] * 3
    assert [item["link"] for item in again] == [item["link"] for item in published]
    project = published[0]["project_id"]
    assert published[0]["link"] == f"{address}/projects/{project}/reports/{published[0]['report_id']}"
    found = ask(f"{address}/api/projects/{project}/snapshots")
    assert sorted((item["name"], item["timestamp"]) for item in found) == [
        ("2013-08", "2013-08-28T00:00:00"),
        ("2013-09", "2013-09-28T00:00:00"),
        ("2013-10", "2013-10-28T00:00:00"),
    ]
    assert ask(f"{address}/api/v2/dashboards/{project}") == dashboard()
    panels = {panel["title"]: panel["values"] for panel in dashboard()["panels"]}
    assert _series(address, project, panels["Share of columns that drifted"]) == {"": [1 / 3] * 3}
    assert _series(address, project, panels["Number of columns that drifted"]) == {"": [1] * 3}
    assert _series(address, project, panels["Drift of the predictions"]) == {"dep_delay": [0, 0.1, 0.2]}
    columns = _series(address, project, panels["Drift of the columns"])
    assert columns == {"distance": [0.1, 0.2, 0.3], "temp": [0.2, 0.3, 0.4], "carrier": [0.3, 0.4, 0.5]}
    assert "there already" in caplog.text


def _series(address: str, project: str, values: list[dict[str, Any]]) -> dict[str, list[float]]:
    filters = [{key: value[key] for key in ("tags", "metadata", "metric", "metric_labels")} for value in values]
    answer = ask(f"{address}/api/v2/snapshots/{project}/data_series_batch", {"series_filter": filters})
    return {series["params"].get("column", ""): pytest.approx(series["values"]) for series in answer["series"]}


@pytest.mark.slow
def test_a_server_shows_the_report_with_its_plots(
    reports: list[Path], server: tuple[str, Path], tmp_path: Path
) -> None:
    address, _ = server
    published = publish(reports[3], tmp_path, address, project="Shown", name="")
    assert published["name"] == "Drift of batch 3"
    place = f"{address}/api/projects/{published['project_id']}/{published['report_id']}"
    widgets = ask(f"{place}/data")["widgets"]
    table = next(widget for widget in widgets if widget["type"] == "big_table")
    assert [row["name"] for row in table["params"]["data"]] == list(COLUMNS)
    for row in table["params"]["data"]:
        for part in row["details"]["parts"]:
            assert ask(f"{place}/graphs_data/{part['id']}")
    assert "<html" in _text(f"{place}/download?report_format=html")


def _text(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


@pytest.mark.slow
def test_a_running_server_sees_what_is_put_into_its_folder(
    reports: list[Path], new_server: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = new_server
    by_folder = publish(reports[0], tmp_path, folder, project="Both ways")
    until = time.monotonic() + 60
    while not [item for item in ask(f"{address}/api/v2/projects") if item["name"] == "Both ways"]:
        assert time.monotonic() < until, "the server does not see the project"
        time.sleep(0.1)
    while not ask(f"{address}/api/projects/{by_folder['project_id']}/snapshots"):
        assert time.monotonic() < until, "the server does not see the report"
        time.sleep(0.1)
    again = publish(reports[0], tmp_path, address, project="Both ways")
    assert (again["added"], again["report_id"]) == (False, by_folder["report_id"])
    by_server = publish(reports[1], tmp_path, address, project="Both ways")
    back = publish(reports[1], tmp_path, folder, project="Both ways")
    assert (back["added"], back["report_id"]) == (False, by_server["report_id"])


@pytest.mark.slow
def test_two_at_the_same_time_leave_one_report(
    reports: list[Path], server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _ = server
    publish(reports[1], tmp_path, address, project="Race")
    # Both have looked, and neither has found it.
    monkeypatch.setattr(workspaces.Server, "find_report", lambda *_: None)
    first = publish(reports[0], tmp_path, address, project="Race")
    second = publish(reports[0], tmp_path, address, project="Race")
    assert second["report_id"] == first["report_id"]
    assert len(ask(f"{address}/api/projects/{first['project_id']}/snapshots")) == 2


@pytest.mark.slow
def test_a_server_with_a_secret(reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIDENTLY_SECRET", "s3cret-of-the-ui")
    with evidently_ui(tmp_path / "ui" / "ws", secret="s3cret-of-the-ui") as address:
        for secret in ("", "env:WRONG"):
            monkeypatch.setenv("WRONG", "another")
            with pytest.raises(ServiceError) as refused:
                publish(reports[0], tmp_path, address, secret=secret)
            assert refused.value.headline == (
                "cannot make the project 'Late flights': the Evidently workspace wants a secret, or refuses this one"
            )
            assert refused.value.retryable is False
            assert "another" not in str(refused.value)
        published = publish(reports[0], tmp_path, address, secret="env:EVIDENTLY_SECRET")
        assert published["added"] is True
        assert "s3cret" not in (tmp_path / "receipt.json").read_text()


@pytest.mark.slow
def test_a_name_that_would_be_a_path(reports: list[Path], server: tuple[str, Path], tmp_path: Path) -> None:
    address, _ = server
    project = "a/b ?#%2e ü"
    first = publish(reports[0], tmp_path, address, project=project)
    assert publish(reports[0], tmp_path, address, project=project)["project_id"] == first["project_id"]


# --- What goes wrong -------------------------------------------------------------------------------------------------


def test_nobody_answers(reports: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ServiceError) as error:
        publish(reports[0], tmp_path, "http://127.0.0.1:1")
    assert error.value.headline == "the Evidently workspace does not answer"
    assert error.value.facts["where"] == "http://127.0.0.1:1"
    assert "refused" in error.value.facts["received"]
    assert error.value.retryable is True
    assert not (tmp_path / "receipt.json").exists()


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, "Not Found"), (200, "<html>hello</html>"), (200, '{"application": "MLflow"}'), (200, "[]"), (405, "")],
)
def test_something_else_answers(status: int, body: str, reports: list[Path], tmp_path: Path) -> None:
    with answering(status, body) as address, pytest.raises(ServiceError) as error:
        publish(reports[0], tmp_path, address)
    assert error.value.headline == "no Evidently workspace at this address"
    assert error.value.retryable is False
    assert body[:8] in error.value.facts["received"]


@pytest.mark.parametrize(("status", "retryable"), [(500, True), (429, True), (400, False)])
def test_a_server_that_fails(status: int, retryable: bool, reports: list[Path], tmp_path: Path) -> None:
    with answering(status, '{"detail": "broken inside"}') as address, pytest.raises(ServiceError) as error:
        publish(reports[0], tmp_path, address)
    assert error.value.headline == "cannot ask for its version: the Evidently workspace refused it"
    assert "broken inside" in error.value.facts["received"]
    assert error.value.retryable is retryable


@pytest.mark.parametrize(
    ("workspace", "received", "hint"),
    [
        ("s3://bucket/workspace", "s3", None),
        ("localhost:8000", "localhost:8000", "did you mean 'http://localhost:8000'?"),
        ("http://", "http:", None),
        ("http://host:99999", "http://host:99999", None),
        ("http://me:pass@host:1", "http://host:1", "give the secret of `evidently ui --secret` by `secret`"),
        ("http://host:1/?token=pass", "http://host:1/", None),
    ],
)
def test_a_workspace_that_cannot_be_used(
    workspace: str, received: str, hint: str | None, reports: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        publish(reports[0], tmp_path, workspace)
    assert error.value.headline == "a workspace that cannot be used"
    assert error.value.facts["received"].startswith(received)
    assert error.value.facts.get("hint") == hint
    assert "pass" not in str(error.value).replace("password", "")


def test_no_workspace(reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    with pytest.raises(InputError) as error:
        publish(reports[0], tmp_path, " ")
    assert error.value.headline == "no workspace is given"
    assert "PIPEPARTS_ROOT" in error.value.facts["received"]


@pytest.mark.parametrize(
    ("changes", "headline", "parameter"),
    [
        ({"project": " "}, "a name that cannot be used", "project"),
        ({"project": "x" * 201}, "a name that cannot be used", "project"),
        ({"name": "two\nlines"}, "a name that cannot be used", "name"),
        ({"as_of": "yesterday"}, "not a moment", "as_of"),
        ({"tags": "one"}, "`tags` is not a list of texts", "tags"),
        ({"tags": ["a", 3]}, "`tags` is not a list of texts", "tags"),
        ({"secret": "s3cret", "workspace": "http://127.0.0.1:1"}, "not a reference to a secret", "secret"),
    ],
)
def test_wrong_parameters(
    changes: dict[str, Any], headline: str, parameter: str, reports: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        publish(reports[0], tmp_path, changes.pop("workspace", tmp_path / "ws"), **changes)
    assert error.value.headline == headline
    assert error.value.facts["parameter"] == parameter
    assert "s3cret" not in str(error.value)
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("content", "headline"),
    [
        (None, "cannot read an Evidently snapshot"),
        ("", "an Evidently snapshot is not JSON"),
        ("cut", "an Evidently snapshot is not JSON"),
        ("{}", "not a snapshot that this version of Evidently reads"),
        ("[1]", "not a snapshot that this version of Evidently reads"),
        ("type", "not a snapshot that this version of Evidently reads"),
        ("other", "not a snapshot that this version of Evidently reads"),
    ],
)
def test_a_damaged_snapshot(content: str | None, headline: str, reports: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "evidently"
    folder.mkdir()
    good = (reports[0] / logic.SNAPSHOT).read_text()
    if content == "cut":
        content = good[: len(good) // 2]
    elif content == "type":
        content = good.replace("evidently:metric_result_v2:SingleValue", "evidently:metric_result_v2:Unheard")
        assert content != good
    elif content == "other":
        content = json.dumps({"metadata": {"evidently_version": "0.9.9"}})
    if content is not None:
        (folder / logic.SNAPSHOT).write_text(content)
    with pytest.raises(ContractError) as error:
        publish(folder, tmp_path, tmp_path / "ws")
    assert error.value.headline == headline
    assert str(folder) in error.value.facts["where"]
    if "0.9.9" in (content or ""):
        assert "a snapshot of Evidently 0.9.9" in error.value.facts["received"]
    assert not (tmp_path / "ws").exists()


def test_a_folder_that_cannot_be_written(reports: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServiceError) as error:
        publish(reports[0], tmp_path, tmp_path / "file" / "ws")
    assert error.value.headline == "the workspace's folder cannot be written"
    assert error.value.facts["where"] == str(tmp_path / "file" / "ws")
    assert "Not a directory" in error.value.facts["received"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(reports: list[Path], tmp_path: Path) -> None:
    (tmp_path / "ws").mkdir(mode=0o555)
    with pytest.raises(ServiceError, match="cannot be written"):
        publish(reports[0], tmp_path, tmp_path / "ws")


def test_a_damaged_project(reports: list[Path], tmp_path: Path) -> None:
    project = tmp_path / "ws" / "01900000-0000-7000-8000-000000000001"
    project.mkdir(parents=True)
    (project / "metadata.json").write_text("{")
    with pytest.raises(ContractError) as error:
        publish(reports[0], tmp_path, tmp_path / "ws")
    assert error.value.headline == "an Evidently project is not JSON"
