"""Tests of the logic of `record_batch`."""

import dataclasses
import json
import random
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.monitoring.record_batch.history import MOST_COLUMNS, better_by
from pipeparts.components.monitoring.record_batch.logic import record_batch
from pipeparts.components.monitoring.record_batch.page import heat_colour
from pipeparts.components.monitoring.record_batch.plots import shortened
from pipeparts.errors import ContractError, InputError
from pipeparts.runtime.monitoring import Decision, Finding
from pipeparts.runtime.state import State
from tests.monitoring_batches import fingerprint, make_drift, make_performance, write


def make_decision(batch, retrain=False, as_of="2013-09-01T00:00:00Z", **changes):
    return Decision(
        id=fingerprint(f"decision on {batch}"),
        retrain=retrain,
        as_of=as_of,
        model="models:/late_flights/1",
        batch=fingerprint(batch),
        reasons=("60% of the columns drifted.",) if retrain else ("No limit was passed.",),
        triggers=(Finding(name="drift", exceeded=retrain),),
        guards=(Finding(name="rows", exceeded=False), Finding(name="cool_down_days", exceeded=not retrain)),
    ).model_copy(update=changes)


@dataclasses.dataclass
class Desk:
    """A place where batches are recorded, with a state of its own."""

    folder: Path

    @property
    def state(self):
        return str(self.folder / "state")

    def add(self, name="2013-08", drift=None, decision=None, performance=None, baseline=None, **arguments):
        drift = drift or make_drift(name)
        decision = decision or make_decision(name, drift.drifted)
        paths = {
            "drift_path": write(self.folder, "drift", drift),
            "decision_path": write(self.folder, "decision", decision),
            "performance_path": write(self.folder, "performance", performance) if performance else None,
            "baseline_path": write(self.folder, "baseline", baseline) if baseline else None,
            "history_path": self.folder / "history.json",
            "page_path": self.folder / "page.html",
        }
        return record_batch(**paths, **{"name": name, "state": self.state} | arguments)

    @property
    def history(self):
        return json.loads((self.folder / "history.json").read_text())

    @property
    def page(self):
        return (self.folder / "page.html").read_text()


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_a_batch_is_kept_with_all_that_was_found(desk):
    drift = make_drift("2013-08", share=0.6, psi={"month": 0.4, "carrier": 0.05, "day": 0.3}, prediction_psi=0.15)
    history = desk.add(
        drift=drift, decision=make_decision("2013-08", True), performance=make_performance(0.68, rows_labelled=20_000)
    )
    (batch,) = desk.history["batches"]
    assert (batch["name"], batch["rows"], batch["model"]) == ("2013-08", 29_000, "models:/late_flights/1")
    assert batch["as_of"] == "2013-09-01T00:00:00Z"
    assert batch["drift"]["share"] == 0.6
    assert (batch["drift"]["share_limit"], batch["drift"]["drifted"]) == (0.5, True)
    assert (batch["drift"]["prediction_psi"], batch["drift"]["prediction_limit"]) == (0.15, 0.2)
    assert [column["name"] for column in batch["drift"]["columns"]] == ["month", "day", "prediction", "carrier"]
    assert batch["performance"]["value"] == 0.68
    assert batch["performance"]["registered"] == 0.708
    assert batch["performance"]["degraded"]
    assert batch["decision"]["retrain"]
    assert batch["decision"]["reasons"] == ["60% of the columns drifted."]
    assert batch["baseline"] is None
    assert history.metadata() == {
        "batches": 1, "latest": "2013-08", "model": "models:/late_flights/1", "drifted": 1, "trainings": 1,
    }  # fmt: skip
    assert desk.history["format"] == "pipeparts.history/1"
    assert State(desk.state).names("history/late_flights") == ["history/late_flights/2013-08"]


def test_batches_stand_in_their_order_whatever_the_order_of_recording(desk):
    for name, as_of in (("b", "2013-10-01"), ("c", "2013-11-01T06:00:00+01:00"), ("a", ""), ("a2", "2013-09-01")):
        desk.add(name, as_of=as_of)
    assert [batch["name"] for batch in desk.history["batches"]] == ["a", "a2", "b", "c"]
    assert desk.history["batches"][3]["as_of"] == "2013-11-01T05:00:00Z"
    assert "4 batches, a to c, as of 2013-11-01" in desk.page


def test_a_batch_of_the_same_name_is_replaced_and_the_bytes_are_the_same(desk):
    desk.add("2013-08", performance=make_performance())
    desk.add("2013-09", decision=make_decision("2013-09", as_of="2013-10-01T00:00:00Z"))
    first, page = desk.history, desk.page
    desk.add("2013-09", decision=make_decision("2013-09", as_of="2013-10-01T00:00:00Z"))
    assert (desk.history, desk.page) == (first, page)
    desk.add("2013-09", performance=make_performance(0.7))
    assert [batch["performance"]["value"] for batch in desk.history["batches"]] == [0.71, 0.7]


def test_versions_of_a_model_share_a_history_and_models_do_not(desk):
    desk.add("a")
    desk.add("b", make_drift("b", model="models:/late_flights/2"))
    assert len(desk.history["batches"]) == 2
    for model in ("models:/other/1", "ab" * 16, ""):
        desk.add("a", make_drift("a", model=model), make_decision("a", model=model))
        assert len(desk.history["batches"]) == 1, model


def test_the_title_is_given_or_the_models_name(desk):
    desk.add(title="Late flights")
    assert "<h1>Late flights</h1>" in desk.page
    desk.add()
    assert "<h1>late_flights</h1>" in desk.page
    desk.add(drift=make_drift("2013-08", model="ab" * 16))
    assert f"<h1>Model {'ab' * 6}</h1>" in desk.page


def test_a_baseline_is_compared_by_the_same_metric(desk):
    first = "models:/late_flights/1"
    desk.add("a", performance=make_performance(0.71), baseline=make_performance(0.71))
    assert "better than the baseline" not in desk.page
    drift = make_drift("b", model="models:/late_flights/2")
    report = make_performance(0.73, model="models:/late_flights/2")
    desk.add("b", drift, performance=report, baseline=make_performance(0.1, metric="accuracy", model=first))
    assert desk.history["batches"][1]["baseline"]["value"] is None
    desk.add("b", drift, performance=report, baseline=make_performance(0.708, model=first))
    assert desk.history["batches"][1]["baseline"]["value"] == 0.708
    assert "+0.022 on average" in desk.page
    assert "grey: baseline" in desk.page or "baseline</th>" in desk.page


def test_better_is_better_whatever_the_metric():
    assert better_by("roc_auc", 0.7, 0.6) == pytest.approx(0.1)
    assert better_by("rmse", 4.0, 5.0) == 1.0
    assert better_by("roc_auc", None, 0.6) is None
    assert better_by("base_rate", 0.1, 0.2) is None
    assert better_by("my_metric", 0.1, 0.2) is None


def test_many_columns_are_cut_and_predictions_are_kept(desk):
    psi = {f"column_{number}": 1 - number / 1000 for number in range(MOST_COLUMNS + 50)}
    history = desk.add(drift=make_drift("2013-08", psi=psi, prediction_psi=0.0))
    drift = history.latest.drift
    assert len(drift.columns) == MOST_COLUMNS + 1
    assert drift.columns[-1].role == "prediction"
    assert drift.columns_compared == MOST_COLUMNS + 51
    assert "more columns moved less" in desk.page


# ---- The page -------------------------------------------------------------------------------------------------------


def test_the_page_says_who_served_what_was_decided_and_why(desk):
    desk.add("2013-08", make_drift("2013-08", share=0.6), performance=make_performance(0.68))
    held = make_decision("2013-09", as_of="2013-10-01T00:00:00Z")
    drift = make_drift("2013-09", model="models:/late_flights/2")
    desk.add("2013-09", drift, held, make_performance(0.73, registered=0.72, model="models:/late_flights/2"))
    page = desk.page
    for text in ("late_flights/1", "late_flights/2", "train again", "held back: cool_down_days", "+0.010", "-0.028"):
        assert text in page
    assert "2013-09: The model stays" in page
    assert page.index("Batch by batch") < page.index("Which columns moved") < page.index("Every batch")
    rows = page[page.index("Every batch") :]
    assert rows.index("2013-09") < rows.index("2013-08"), "the latest first"


def test_without_labels_the_page_says_so(desk):
    desk.add("a")
    assert "no labels yet" in desk.page
    desk.add("b", performance=make_performance(None, registered=None))
    assert "not defined" in desk.page
    desk.add("c", make_drift("c", psi={}, prediction_psi=None, columns=()))
    assert "not measured" in desk.page


def test_without_any_statistics_there_is_a_page(desk):
    desk.add("a", make_drift("a", columns=(), findings=()))
    assert "was not measured for any column" in desk.page


def test_what_comes_from_outside_is_escaped(desk):
    evil = "<script>alert('$x^2$')</script>"
    drift = make_drift(evil, psi={evil: 0.5}, share=0.6, model=f"models:/{evil.replace('/', '')}/1")
    decision = make_decision(evil, True, reasons=(evil,))
    desk.add(evil, drift, decision, make_performance(0.5, metric="my_metric"), title=evil)
    assert "<script" not in desk.page
    assert "&lt;script&gt;" in desk.page
    assert desk.history["batches"][0]["name"] == evil


def test_names_in_any_script_are_drawn(desk):
    for name in ("八月", "août", "$", "a$b$", "🛫", "n" * 200):
        desk.add(name)
    assert len(desk.history["batches"]) == 6
    assert "八月" in desk.page


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 60, 400])
def test_the_page_stands_alone_and_stays_small(desk, batches):
    numbers = random.Random(batches)
    for number in range(batches):
        psi = {f"column {place}": numbers.random() / 3 for place in range(20)}
        name, version = f"day {number:03d}", f"models:/late_flights/{1 + number // 7}"
        drift = make_drift(name, model=version, psi=psi, share=numbers.random())
        measured = make_performance(0.7 + numbers.random() / 20, model=version) if number % 5 else None
        if number < batches - 1:  # as `add` does, but for the page
            document = desk_document(desk, name, drift, measured, number)
            State(desk.state).write(f"history/late_flights/day-{number:03d}", document)
    began = time.monotonic()
    desk.add(name, drift, make_decision(name, drift.drifted, as_of=moment(number)), measured)
    assert time.monotonic() - began < 20
    assert len(desk.history["batches"]) == batches
    assert desk.page.startswith("<!doctype html>")
    assert not re.findall(r"""(?:src|href)=["']https?://""", desk.page)
    assert len(desk.page) < 2_500_000


def moment(number):
    return f"20{13 + number // 300}-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}T00:00:00Z"


def desk_document(desk, name, drift, measured, number):
    from pipeparts.components.monitoring.record_batch.history import kept

    decision = make_decision(name, drift.drifted, as_of=moment(number))
    return kept(name, decision.as_of, drift, decision, measured, None).model_dump(mode="json")


@given(st.floats(0, 100, allow_nan=False))
def test_a_cells_colour_is_a_colour(psi):
    background, ink = heat_colour(psi)
    assert re.fullmatch(r"#[0-9a-f]{6}", background)
    assert ink in ("#fff", "#111827")


@settings(max_examples=200)
@given(st.text(max_size=60), st.integers(3, 40))
def test_a_shortened_text_keeps_its_ends(text, most):
    short = shortened(text, most)
    assert len(short) <= most
    assert short == text or (text.startswith(short.partition("…")[0]) and short[-1] == text[-1])


# ---- What is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\x00"])
def test_a_name_that_no_batch_can_have_is_refused(desk, name):
    with pytest.raises(InputError, match="a name that no batch can have") as error:
        desk.add(name)
    assert error.value.facts["parameter"] == "name"
    assert "1 to 200 characters" in error.value.facts["allowed"]
    assert not Path(desk.state).exists()


def test_a_decision_on_another_batch_is_refused(desk):
    with pytest.raises(ContractError, match="on another batch") as error:
        desk.add("2013-08", decision=make_decision("2013-09"))
    assert error.value.facts["received"] == fingerprint("2013-09")
    assert fingerprint("2013-08") in error.value.facts["allowed"]
    assert not (desk.folder / "page.html").exists()


def test_a_moment_or_a_state_that_is_none_is_refused(desk, monkeypatch):
    with pytest.raises(InputError, match="not a moment"):
        desk.add(as_of="soon")
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    with pytest.raises(InputError, match="nowhere to keep"):
        desk.add(state="")


def test_what_is_no_report_is_refused(desk):
    desk.add()
    arguments = {
        "history_path": desk.folder / "h", "page_path": desk.folder / "p", "name": "2013-08", "state": desk.state,
    }  # fmt: skip
    drift, decision = desk.folder / "drift.json", desk.folder / "decision.json"
    with pytest.raises(ContractError, match="not a drift report"):
        record_batch(drift_path=decision, decision_path=decision, **arguments)
    with pytest.raises(ContractError, match="not a decision"):
        record_batch(drift_path=drift, decision_path=drift, **arguments)
    with pytest.raises(ContractError, match="not a performance report"):
        record_batch(drift_path=drift, decision_path=decision, baseline_path=drift, **arguments)
    assert not (desk.folder / "h").exists()


def test_a_kept_batch_in_another_version_or_damaged_is_refused(desk):
    desk.add("a")
    state, name = State(desk.state), "history/late_flights/a"
    document = state.read(name)
    state.write(name, document | {"format": "pipeparts.batch/2"})
    with pytest.raises(ContractError, match="of another kind or version") as error:
        desk.add("b")
    assert error.value.facts["where"].endswith("history/late_flights/a.json")
    assert error.value.facts["allowed"] == "format 'pipeparts.batch/1'"
    assert "a newer release" in error.value.facts["hint"]
    state.write(name, document | {"rows": "many"})
    with pytest.raises(ContractError, match="a damaged document") as error:
        desk.add("b")
    assert error.value.facts["where"].endswith("a.json, rows")
    (Path(desk.state) / f"{name}.json").write_bytes(b"{")
    with pytest.raises(ContractError, match="a damaged document"):
        desk.add("b")
    desk.add("a")
    assert [batch["name"] for batch in desk.history["batches"]] == ["a", "b"], "what was kept before is not lost"
