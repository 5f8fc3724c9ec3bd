from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeparts.components.monitoring.report_drift.evidently_report import RESULTS, SNAPSHOT, write_evidently
from pipeparts.runtime.monitoring import ColumnDrift, Data, Drift, Finding
from pipeparts.runtime.profiles import TopValue
from tests.services import SKIP, MissingServiceError

ROOT = Path(__file__).parents[4]
FLIGHTS = ROOT / "tests" / "data" / "flights.csv"
CATEGORIES = ("carrier", "origin", "dest", "tailnum")
NUMBERS = ("dep_delay", "distance", "temp", "wind_speed")


def column(name: str, kind: str, psi: float | None = 0.05, **changes: Any) -> ColumnDrift:
    facts: dict[str, Any] = {
        "name": name, "role": "feature", "kind": kind, "drifted": (psi or 0) >= 0.2, "score": (psi or 0) / 0.2,
        "statistics": {"psi": psi, "missing_change": 0.0}, "limits": {"psi": 0.2, "missing_change": 0.05},
        "reason": "as it was",
    }  # fmt: skip
    return ColumnDrift(**facts | changes)


def drift_of(*columns: ColumnDrift, **changes: Any) -> Drift:
    ranked = tuple(sorted(columns, key=lambda item: (not item.drifted, -item.score, item.name)))
    features = [item for item in ranked if item.role != "prediction" and item.kind != "unsupported"]
    share = sum(item.drifted for item in features) / len(features) if features else 0.0
    facts: dict[str, Any] = {
        "model": "models:/flights/3",
        "reference": Data(rows=150_000, fingerprint="a" * 64, source="January"),
        "current": Data(rows=28_000, fingerprint="b" * 64, source="August"),
        "drifted": share >= 0.5,
        "reason": f"{share:.0%} of the columns drifted; limit 50%.",
        "findings": (Finding(name="share_drifted", exceeded=share >= 0.5, value=share, limit=0.5),),
        "share_drifted": share,
        "columns": ranked,
    }
    return Drift(**facts | changes)


def flights() -> tuple[pd.DataFrame, pd.DataFrame, Drift]:
    rows = pd.read_csv(FLIGHTS)[[*CATEGORIES, *NUMBERS]]
    columns = [column(name, "category", 0.01 * n) for n, name in enumerate(CATEGORIES)]
    columns += [column(name, "number", 0.1 * n) for n, name in enumerate(NUMBERS)]
    columns += [column("probability", "number", 0.03, role="prediction"), column("face", "vector", None)]
    half = len(rows) // 2
    generator = np.random.default_rng(3)
    reference = rows[:half].assign(probability=generator.beta(2, 5, half)).reset_index(drop=True)
    current = rows[half:].assign(probability=generator.beta(2, 4, len(rows) - half)).reset_index(drop=True)
    return reference, current, drift_of(*columns)


def written(folder: Path, reference: pd.DataFrame, current: pd.DataFrame, drift: Drift, title: str = "Drift") -> Any:
    write_evidently(reference, current, drift, html_path=folder / "r.html", snapshot_path=folder / "e", title=title)
    snapshot = json.loads((folder / "e" / SNAPSHOT).read_text())
    results = json.loads((folder / "e" / RESULTS).read_text())
    return (folder / "r.html").read_text(), snapshot, results


def table_of(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    return next((w["params"]["data"] for w in snapshot["widgets"] if w["type"] == "big_table"), [])


def head_of(snapshot: dict[str, Any]) -> str:
    return str(next(w["params"]["text"] for w in snapshot["widgets"] if w["type"] == "text"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return written(tmp_path_factory.mktemp("report"), *flights())


def test_the_top_says_the_decision_the_rows_and_the_sample(report: Any) -> None:
    _, snapshot, _ = report
    counters = next(w["params"]["counters"] for w in snapshot["widgets"] if w["type"] == "counter")
    assert [(c["value"], c["label"]) for c in counters] == [
        ("No drift", "decision on all rows"),
        ("2 of 9", "columns that drifted"),
    ]
    head = head_of(snapshot)
    assert "28,000 rows (August)" in head
    assert "150,000 rows (models:/flights/3)" in head
    assert "**1,002 reference and 1,003 current rows**" in head
    assert "Not in this report: face (a vector)" in head


def test_the_table_has_our_ranking_and_our_verdicts(report: Any) -> None:
    drift = flights()[2]
    _, snapshot, _ = report
    rows = table_of(snapshot)
    assert [row["name"] for row in rows] == [item.name for item in drift.columns if item.kind != "vector"]
    assert rows[0]["name"] == "wind_speed"
    for row in rows:
        item = drift.column(row["name"])
        assert item is not None
        assert row["drift"] == ("Detected" if item.drifted else "Not detected")
        assert row["score"] == pytest.approx(item.statistics["psi"])
    assert {row["statistic"] for row in rows} == {"PSI, limit 0.2"}
    assert all(float(row["sample"]) >= 0 for row in rows), "Evidently's own, on the sample, beside ours"


def test_evidentlys_results_hold_what_was_decided(report: Any) -> None:
    drift = flights()[2]
    results = report[2]
    values = {metric["metric_name"]: metric["value"] for metric in results["metrics"]}
    assert values["DriftedColumnsCount(drift_share=0.5)"] == {"count": 2, "share": drift.share_drifted}
    assert values["ValueDrift(column=wind_speed,method=psi_all_rows,threshold=0.2)"] == pytest.approx(0.3)
    assert values["DriftScore(column=probability,role=prediction)"] == pytest.approx(0.15)
    assert values["DriftScore(column=face,role=feature)"] == 0
    states = {test["name"]: test["status"] for test in results["tests"]}
    assert len(states) == 9
    failed = sorted(name for name, state in states.items() if state == "FAIL")
    assert failed == ["Value Drift for column temp", "Value Drift for column wind_speed"]


def test_evidently_takes_the_snapshot_back(report: Any) -> None:
    _, snapshot, results = report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently.core.report import Snapshot

        again = Snapshot.load_dict(snapshot)
        assert json.loads(again.json()) == results
        assert "wind_speed" in again.get_html_str(as_iframe=False)


def test_the_page_stands_alone(report: Any) -> None:
    page = report[0]
    assert page.startswith("<!DOCTYPE html>")
    assert "<title>Drift</title>" in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)\s*=\s*[\"']?(https?:)?//", page[:200_000])
    assert not re.search(r"<script[^>]+src=", page)


@pytest.mark.slow
def test_the_page_draws_with_the_network_off(tmp_path: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get(SKIP) == "1":
            pytest.skip("no chromium")
        raise MissingServiceError("this test needs chromium\n  hint: apt-get install chromium")
    written(tmp_path, *flights())
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000", "--dump-dom",
        (tmp_path / "r.html").as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    shown = dom[dom.index('<div id="root_metric_drift">') :]
    assert "decision on all rows" in shown
    assert "wind_speed" in shown
    assert shown.count(">Not detected<") == 7
    assert shown.count("<svg") > 18, "two small histograms a column"


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pathlib, test_evidently_report as t;"
        "t.written(pathlib.Path(sys.argv[2]), *t.flights())"
    )
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        command = [sys.executable, "-c", script, str(Path(__file__).parent), str(folder)]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}", "TZ": f"UTC{seed}"}
        subprocess.run(command, env=environment, check=True)
    for name in ("r.html", f"e/{SNAPSHOT}", f"e/{RESULTS}"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_nothing_is_sent_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuses(*_: Any) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuses)
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    written(tmp_path, *flights())


def test_ids_in_the_data_stay_what_they_are(tmp_path: Path) -> None:
    import uuid6

    values = [str(uuid6.uuid7()) for _ in range(3)]
    frame = pd.DataFrame({"id": values * 5})
    page, snapshot, _ = written(tmp_path, frame, frame, drift_of(column("id", "category")))
    assert all(value in page and value in json.dumps(snapshot) for value in values)


HARD: dict[str, tuple[str, Any, Any, str]] = {
    "nullable integers": ("number", pd.array([1, None, 3, 4], "Int64"), pd.array([1, 2, None, 9], "Int64"), ""),
    "booleans as numbers": ("number", [True, False, True], [False, False, True], ""),
    "nullable booleans": ("category", pd.array([True, None, False], "boolean"), pd.array([True] * 3, "boolean"), ""),
    "one value": ("number", [5.0] * 9, [5.0] * 9, ""),
    "one category": ("category", ["a"] * 9, ["a"] * 9, ""),
    "infinity": ("number", [1.0, math.inf, 3.0, -math.inf], [2.0, 4.0, math.inf, 1.0], ""),
    "infinity alone": ("number", [math.inf] * 3, [1.0, 2.0, 3.0], "no values in the sample of the reference rows"),
    "all null now": ("category", ["a", "b", "c"], [None] * 3, "no values in the sample of the current rows"),
    "all null then": ("number", [math.nan] * 3, [1.0, 2.0, 3.0], "no values in the sample of the reference rows"),
    "strings with nulls": ("category", ["a", None, "b"], ["a", "c", None], ""),
    "mixed types": ("category", ["a", 1, 2.5, True, None], ["b", 1, 1.0, False, None], ""),
    "decimal texts": ("number", ["1.5", "2", "x"], ["1", "2", "3"], ""),
    "huge numbers": ("number", [1e308, -1e308, 5.0], [1e308, 1.0, 2.0], "?"),
    "huge integers": ("number", [2**63, 1, 2], [2**64, 3, 4], ""),
    "tiny numbers": ("number", [1e-300, 2e-300, 3e-320], [1e-300, 5e-300, 0.0], ""),
    "times": ("number", pd.to_datetime(["2013-01-01", "2013-01-02"]), pd.to_datetime(["2013-02-01", "2013-03-02"]), ""),
    "lists": ("number", [[1.0], [2.0]], [[1.0], [3.0]], "?"),
    "bytes": ("category", [b"\xff", b"\x00"], [b"\xff", b"\x01"], ""),
    "an arrow type": ("number", pd.array([1, 2, None], "int32[pyarrow]"), pd.array([1, 2, 3], "int32[pyarrow]"), ""),
    "pandas categories": ("category", pd.Categorical(["a", "b", "a"]), pd.Categorical(["a", "c", "a"]), ""),
    "empty texts": ("category", ["", " ", "a"], ["", "\n", "\t"], ""),
}


@pytest.mark.parametrize("case", HARD)
def test_no_column_makes_evidently_fail(case: str, tmp_path: Path) -> None:
    kind, before, now, why_not = HARD[case]
    reference = pd.DataFrame({"x": pd.Series(before), "good": pd.Series(np.arange(len(before)))})
    current = pd.DataFrame({"x": pd.Series(now), "good": pd.Series(np.arange(len(now)))})
    drift = drift_of(column("x", kind), column("good", "number"))
    _, snapshot, _ = written(tmp_path, reference, current, drift)
    names = {row["name"] for row in table_of(snapshot)}
    assert "good" in names
    if why_not == "?":
        assert ("x" in names) != ("Not in this report: x (" in head_of(snapshot))
    else:
        assert ("x" in names) == (not why_not)
        assert (f"Not in this report: x ({why_not})" in head_of(snapshot)) == bool(why_not)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_table_holds_a_report_is_written(data: st.DataObject, tmp_path: Path) -> None:
    values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4))
    name = data.draw(st.text(min_size=1, max_size=8))
    kind = data.draw(st.sampled_from(["number", "category"]))
    sides = [pd.DataFrame({name: pd.Series(data.draw(st.lists(values, min_size=1, max_size=30)))}) for _ in range(2)]
    statistic = data.draw(st.sampled_from(["psi", "jensen_shannon", "wasserstein", "kolmogorov_smirnov"]))
    item = column(name, kind, statistics={statistic: 0.1}, limits={statistic: 0.2})
    page, snapshot, _ = written(tmp_path, *sides, drift_of(item), title=name)
    assert bool(table_of(snapshot)) != ("Not in this report" in head_of(snapshot))
    assert page.rstrip().endswith("</html>")


def test_the_statistic_shown_is_the_one_that_decided(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0], "z": [1.0, 2.0, 3.0], "free": [1.0, 2.0, 3.0]})
    lost = column(
        "x", "number", 0.01, drifted=True, score=4.0, statistics={"psi": 0.01, "missing_change": 0.2},
        reference_missing_share=0.0, current_missing_share=0.2,
    )  # fmt: skip
    far = column(
        "y", "number", drifted=True, score=2, statistics={"psi": None, "wasserstein": 0.9}, limits={"wasserstein": 0.45}
    )
    tested = column("z", "number", statistics={"kolmogorov_smirnov": 0.1}, limits={"kolmogorov_smirnov": 0.2})
    free = column("free", "number", limits={})
    _, snapshot, _ = written(tmp_path, frame, frame, drift_of(lost, far, tested, free))
    rows = {row["name"]: row for row in table_of(snapshot)}
    assert (rows["x"]["statistic"], rows["x"]["score"]) == ("change of the missing share, limit 0.05", 0.2)
    assert rows["x"]["missing"] == "0.0% → 20.0%"
    assert (rows["x"]["sample"], rows["z"]["sample"]) == ("", ""), "Evidently has no such statistic"
    assert (rows["y"]["statistic"], rows["y"]["sample"]) == ("Wasserstein distance (normed), limit 0.45", "0.000")
    assert "free (no statistic with a limit)" in head_of(snapshot)


def test_evidentlys_own_statistics_are_those_of_its_library(tmp_path: Path) -> None:
    from scipy.spatial.distance import jensenshannon

    before, now = pd.Series(["a"] * 60 + ["b"] * 40), pd.Series(["a"] * 30 + ["b"] * 70)
    item = column("x", "category", statistics={"jensen_shannon": 0.2}, limits={"jensen_shannon": 0.1})
    _, snapshot, _ = written(tmp_path, before.to_frame("x"), now.to_frame("x"), drift_of(item))
    assert table_of(snapshot)[0]["sample"] == f"{jensenshannon([0.6, 0.4], [0.3, 0.7]):.3f}"


def test_many_categories_are_drawn_together(tmp_path: Path) -> None:
    values = pd.DataFrame({"x": [f"v{n % 9_000}" for n in range(10_000)]})
    _, snapshot, _ = written(tmp_path, values, values, drift_of(column("x", "category")))
    marks = table_of(snapshot)[0]["current"]["x"]
    assert len(marks) == 21
    assert marks[-1] == "(other values)"
    assert len(json.dumps(snapshot)) < 100_000


def test_what_the_data_says_stays_text(tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script>"
    frame = pd.DataFrame({name: ["<!--<script>", "**b**", "[l](javascript:x)"], "p|q": [1.0, 2.0, 3.0]})
    item = column(name, "category", new_categories=(TopValue(value="<img src=x onerror=y>", count=2),))
    drift = drift_of(item, column("p|q", "number"), column("*bold*", "number"), model="models:/<b>/1")
    page, snapshot, _ = written(tmp_path, frame, frame, drift, title="<i>title</i> & more")
    head = page[: page.index('<div id="root_')]
    assert head.count("<script>") == 1
    assert "alert(1)</script>" not in page
    assert "<title>&lt;i&gt;title&lt;/i&gt; &amp; more</title>" in page
    said = head_of(snapshot)
    assert r"\*bold\* (not in the sample of the reference rows)" in said
    assert r"models:/\<b\>/1" in said


def test_nothing_is_left_to_show(tmp_path: Path) -> None:
    frame = pd.DataFrame({"other": [1]})
    page, snapshot, results = written(tmp_path, frame, frame, drift_of(column("face", "vector", 0.5)))
    assert not table_of(snapshot)
    assert results["tests"] == []
    assert "face (a vector)" in head_of(snapshot)
    assert "decision on all rows" in page


def test_no_half_written_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, current, drift = flights()
    written(tmp_path, reference, current, drift)
    before = (tmp_path / "e" / SNAPSHOT).read_bytes()
    module = "pipeparts.components.monitoring.report_drift.evidently_report"

    def fails(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(f"{module}.write_json", fails)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path, reference, current, drift_of(column("distance", "number")))
    assert (tmp_path / "e" / SNAPSHOT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "r.html"]
