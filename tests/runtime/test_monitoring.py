"""The contracts between the monitoring steps."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import ContractError, InputError
from pipeparts.runtime.monitoring import (
    Decision,
    Drift,
    Finding,
    Performance,
    history_name,
    moment_text,
    parse_moment,
    read_report,
    write_report,
)
from pipeparts.runtime.state import State
from tests.monitoring_batches import fingerprint, make_drift, make_performance

DECISION = Decision(
    id="ab" * 16,
    retrain=True,
    as_of="2013-09-01T00:00:00Z",
    model="models:/late/1",
    batch=fingerprint("a"),
    reasons=("It drifted: ä.",),
    triggers=(Finding(name="drift", exceeded=True, value=0.7, limit=0.5), Finding(name="x", exceeded=False, value="y")),
    guards=(Finding(name="rows", exceeded=False, value=5, limit=1_000),),
)
REPORTS = {Drift: make_drift(share=0.6), Performance: make_performance(0.6), Decision: DECISION}
every_kind = pytest.mark.parametrize("kind", REPORTS, ids=lambda kind: kind.__name__)


@every_kind
def test_a_report_is_read_as_it_was_written(tmp_path: Path, kind: Any) -> None:
    write_report(tmp_path / "report", REPORTS[kind])
    first = (tmp_path / "report").read_bytes()
    read = read_report(kind, tmp_path / "report")
    assert read == REPORTS[kind]
    write_report(tmp_path / "report", read)
    assert (tmp_path / "report").read_bytes() == first


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    write_report(tmp_path / "report", DECISION)
    guard = read_report(Decision, tmp_path / "report").guards[0]
    assert (guard.value, type(guard.value)) == (5, int)


@every_kind
def test_something_else_is_refused(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "report"
    with pytest.raises(ContractError, match="cannot read a") as error:
        read_report(kind, path)
    assert error.value.facts["where"] == str(path)
    for content, headline in (("", "is not JSON"), ('{"format": "pipe', "is not JSON"), ("[]", "not a")):
        path.write_text(content)
        with pytest.raises(ContractError, match=headline):
            read_report(kind, path)
    for other in REPORTS:
        if other is not kind:
            write_report(path, REPORTS[other])
            with pytest.raises(ContractError, match="not a") as error:
                read_report(kind, path)
            assert error.value.facts["received"] == REPORTS[other].format
            assert REPORTS[kind].format in error.value.facts["allowed"]


@every_kind
def test_another_version_is_refused(tmp_path: Path, kind: Any) -> None:
    document = REPORTS[kind].model_dump(mode="json") | {"format": REPORTS[kind].format[:-1] + "2"}
    (tmp_path / "report").write_text(json.dumps(document))
    with pytest.raises(ContractError) as error:
        read_report(kind, tmp_path / "report")
    assert error.value.facts["received"].endswith("/2")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"drifted": "perhaps"}, "drifted"),
        ({"columns": [{"name": "a"}]}, "columns.0.role"),
        ({"share_drifted": None}, "share_drifted"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_damaged_report_says_where(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    document = REPORTS[Drift].model_dump(mode="json") | change
    (tmp_path / "report").write_text(json.dumps(document))
    with pytest.raises(ContractError, match="damaged: a drift report") as error:
        read_report(Drift, tmp_path / "report")
    assert error.value.facts["where"] == f"{tmp_path / 'report'}, {place}"


def test_a_drift_report_answers_for_its_columns() -> None:
    drift = make_drift(psi={"a": 0.5, "b": 0.01, "c": 0.3})
    assert [column.name for column in drift.drifted_columns] == ["a", "c"]
    found = drift.column("b")
    assert found is not None
    assert not found.drifted
    assert drift.column("z") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", "2026-11-01T00:00:00Z"),
        (" 2026-11-01T06:00:00 ", "2026-11-01T06:00:00Z"),
        ("2026-11-01T06:00:00Z", "2026-11-01T06:00:00Z"),
        ("2026-11-01T06:00:00.999+02:00", "2026-11-01T04:00:00Z"),
        ("0099-01-01", "0099-01-01T00:00:00Z"),
    ],
)
def test_a_moment_is_in_utc_to_the_second(text: str, expected: str) -> None:
    assert moment_text(parse_moment(text)) == expected


def test_without_a_text_it_is_now() -> None:
    before = dt.datetime.now(dt.UTC)
    for text in ("", "  "):
        moment = parse_moment(text)
        assert moment.microsecond == 0
        assert abs(moment - before) < dt.timedelta(seconds=5)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "01.11.2026", "1730000000", "0001-01-01T00:00+14:00", "∞"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a moment") as error:
        parse_moment(text)
    assert error.value.facts["parameter"] == "as_of"
    assert error.value.facts["received"] == text


@given(st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=st.just(dt.UTC)))
def test_moments_are_ordered_as_their_texts(one: dt.datetime, other: dt.datetime) -> None:
    one, other = one.replace(microsecond=0), other.replace(microsecond=0)
    assert parse_moment(moment_text(one)) == one
    assert (moment_text(one) < moment_text(other)) == (one < other)


def test_all_versions_of_a_registered_model_are_kept_together() -> None:
    assert history_name("models:/late_flights/1") == "late_flights"
    assert history_name("models:/late_flights/27") == "late_flights"
    assert history_name("models:/late_flights@champion") == "late_flights"
    assert history_name("ab" * 16) == "ab" * 16
    assert history_name("", "cd" * 16) == "table-cdcdcdcdcdcdcdcd"
    assert re.fullmatch(r"late-flights\+[0-9a-f]{12}", history_name("models:/late flights/1"))


def test_a_document_of_the_state_is_held_to_its_contract(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    assert state.read_as(Decision, "a") is None
    document = DECISION.model_dump(mode="json")
    state.write("a", document)
    assert state.read_as(Decision, "a") == DECISION
    for format_, hint in (("pipeparts.decision/2", True), ("pipeparts.drift/1", False), (None, False)):
        state.write("a", document | {"format": format_})
        with pytest.raises(ContractError, match="a document of another kind or version") as error:
            state.read_as(Decision, "a")
        assert error.value.facts["where"] == str(tmp_path / "a.json")
        assert error.value.facts["allowed"] == "format 'pipeparts.decision/1'"
        assert error.value.facts["received"] == f"format {format_!r}"
        assert error.value.facts["parameter"] == "state"
        assert ("a newer release" in error.value.facts.get("hint", "")) is hint
    state.write("a", [1])
    with pytest.raises(ContractError, match="of another kind") as error:
        state.read_as(Decision, "a")
    assert error.value.facts["received"] == "list"
    state.write("a", document | {"retrain": "perhaps"})
    with pytest.raises(ContractError, match="a damaged document") as error:
        state.read_as(Decision, "a")
    assert error.value.facts["where"].endswith("a.json, retrain")
    assert error.value.facts["received"] == "perhaps"
