"""Schedules, the windows of their runs, and the runs of a past period."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts import backfill
from pipeparts.errors import InputError
from pipeparts.runtime.params import parse_params
from pipeparts.schedules import Schedule, Window, parse_day, read_schedule
from pipeparts.submission import read_parameter_file

MONTHLY = Schedule(cron="0 6 1 * *")
UTC = dt.UTC


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_windows_lie_between_the_runs_and_begin_in_the_period() -> None:
    windows = list(MONTHLY.windows(moment("2013-08-01"), moment("2014-01-01")))
    assert [f"{window.start:%m} {window.end:%m}" for window in windows] == ["08 09", "09 10", "10 11", "11 12", "12 01"]
    assert windows[0].previous_start == moment("2013-07-01T06:00")


def test_a_period_that_begins_at_a_run_has_its_window() -> None:
    first = next(MONTHLY.windows(moment("2013-08-01T06:00"), moment("2014-01-01")))
    assert first == Window(moment("2013-07-01T06:00"), moment("2013-08-01T06:00"), moment("2013-09-01T06:00"))


def test_the_last_window_is_over() -> None:
    assert MONTHLY.last_window(moment("2013-09-01T06:00")).end == moment("2013-09-01T06:00")
    assert MONTHLY.last_window(moment("2013-09-01T05:59")).end == moment("2013-08-01T06:00")


def test_past_windows_are_those_that_were_to_come() -> None:
    forward = list(MONTHLY.windows(moment("2013-01-01"), moment("2013-12-01T12:00")))
    backward = itertools.islice(MONTHLY.past_windows(moment("2014-01-02")), len(forward))
    assert list(backward)[::-1] == forward


FIELDS = st.sampled_from(["*", "*/2", "0", "7", "1-5", "5-7", "1/2", "2-7/2", "0,6,7", "SUN", "fri-SAT", "mon,7"])


@settings(max_examples=60, deadline=None)
@given(
    days=FIELDS,
    of_month=st.sampled_from(["*", "1", "*/10", "13"]),
    start=st.datetimes(dt.datetime(2001, 1, 1), dt.datetime(2030, 1, 1)),
)
def test_a_portable_cron_means_the_same(days: str, of_month: str, start: dt.datetime) -> None:
    """Kubeflow's parser knows the days 0 to 6: no 7, and a step that begins at a day ends at 6 there."""
    schedule = Schedule(cron=f"30 5 {of_month} * {days}")
    portable = Schedule(cron=schedule.portable_cron)
    field = portable.cron.split()[4]
    assert "7" not in field
    assert field.startswith("*") or "/" not in field
    begin = start.replace(tzinfo=UTC)
    both = [
        [window.end for window in each.windows(begin, begin + dt.timedelta(days=60))] for each in (schedule, portable)
    ]
    assert both[0] == both[1]
    assert portable.portable_cron == portable.cron


@pytest.mark.parametrize("cron", ["0 0 L * *", "0 0 LW * *", "0 0 * * 5L", "0 0 * * 5#2"])
def test_what_is_not_everybodys_cron(cron: str) -> None:
    schedule = Schedule(cron=cron)
    with pytest.raises(InputError, match="not every platform reads this cron") as caught:
        _ = schedule.portable_cron
    assert caught.value.facts["received"] == cron


def test_a_time_zone_with_summer_time_keeps_the_hour_on_the_clock() -> None:
    schedule = Schedule(cron="0 6 * * *", time_zone="America/New_York")
    windows = list(schedule.windows(moment("2013-03-09T12:00"), moment("2013-03-12")))
    assert {window.end.hour for window in windows} == {6}
    assert [window.end.utcoffset() for window in windows][-1] == dt.timedelta(hours=-4)


@settings(max_examples=40, deadline=None)
@given(
    cron=st.sampled_from(["0 6 1 * *", "*/30 * * * *", "15 3 * * 1", "0 0 29 2 *", "0 0 * * *"]),
    zone=st.sampled_from(["UTC", "Europe/Paris", "Asia/Kolkata"]),
    start=st.datetimes(dt.datetime(2001, 1, 1), dt.datetime(2030, 1, 1)),
    hours=st.integers(1, 24 * 4),
)
def test_windows_join_without_gap(cron: str, zone: str, start: dt.datetime, hours: int) -> None:
    schedule = Schedule(cron=cron, time_zone=zone)
    begin = start.replace(tzinfo=UTC)
    windows = list(schedule.windows(begin, begin + dt.timedelta(hours=hours)))
    for window, following in itertools.pairwise(windows):
        assert window.end == following.start
        assert window.start == following.previous_start
    for window in windows:
        assert begin <= window.start < begin + dt.timedelta(hours=hours)
        assert window.previous_start < window.start < window.end
        assert schedule.last_window(window.end) == window


def test_placeholders_are_filled_wherever_they_stand() -> None:
    window = next(MONTHLY.windows(moment("2013-08-01"), moment("2013-09-01")))
    filled = window.fill(
        {
            "source": "a-{start:%Y-%m}.csv",
            "cuts": ["{previous_start:%Y-%m-%d}", "{end:%Y-%m-%d}"],
            "n": 3,
            "at": "{end}",
        }
    )
    assert filled == {
        "source": "a-2013-08.csv",
        "cuts": ["2013-07-01", "2013-09-01"],
        "n": 3,
        "at": "2013-09-01T06:00:00+0000",
    }


def test_other_braces_stay() -> None:
    window = MONTHLY.last_window(moment("2020-01-01"))
    assert window.fill({"pattern": r"\d{4}-{1,2}", "empty": "{}"}) == {"pattern": r"\d{4}-{1,2}", "empty": "{}"}


def test_an_unknown_placeholder_says_where_it_stands() -> None:
    with pytest.raises(InputError, match="a placeholder that a schedule does not have") as caught:
        MONTHLY.last_window(moment("2020-01-01")).fill({"training": {"source": "x-{strat:%Y}"}})
    assert caught.value.facts["parameter"] == "training.source"
    assert caught.value.facts["hint"] == "did you mean 'start'?"


@pytest.mark.parametrize(
    ("given", "named", "allowed"),
    [
        ({"cron": "every day"}, "schedule.cron", "five fields of cron"),
        ({"cron": "0 6 1 * * *"}, "schedule.cron", "five fields of cron"),
        ({"cron": "0 6 1 * *", "time_zone": "Mars/Base"}, "schedule.time_zone", "IANA name"),
        ({"cron": "0 6 1 * *", "timezone": "UTC"}, "schedule.timezone", "time_zone"),
        ({}, "schedule.cron", ""),
    ],
)
def test_wrong_schedules_are_refused(given: dict[str, str], named: str, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_params(Schedule, given, parameter="schedule")
    assert caught.value.facts["parameter"] == named
    assert allowed in str(caught.value)


def test_a_day_is_one_of_the_schedules_zone() -> None:
    paris = Schedule(cron="0 6 1 * *", time_zone="Europe/Paris")
    assert parse_day("2013-08-01", paris, parameter="--start").utcoffset() == dt.timedelta(hours=2)
    assert parse_day("2013-08-01T00:00:00+00:00", paris, parameter="--start").utcoffset() == dt.timedelta(0)
    with pytest.raises(InputError, match="not a day"):
        parse_day("August", paris, parameter="--start")


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_without_schedule_has_none(tmp_path: Path) -> None:
    assert read_schedule(write(tmp_path / "a.yaml", "pipeline: predict_batch\n")) is None


def test_a_schedule_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`schedule` is not a mapping") as caught:
        read_schedule(write(tmp_path / "a.yaml", "schedule: daily\n"))
    assert caught.value.facts["received"] == "daily"


def test_parameters_begin_with_those_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    write(
        tmp_path / "training" / "a.yaml", "pipeline: x\nparameters: {label: late, gate: {metric: roc_auc}, seed: 1}\n"
    )
    path = write(
        tmp_path / "b.yaml",
        "parameters:\n  batch: one\n  training: {parameters_of: training/a.yaml, seed: 2}\n",
    )
    assert read_parameter_file(path)[1] == {
        "batch": "one",
        "training": {"label": "late", "gate": {"metric": "roc_auc"}, "seed": 2},
    }


def test_files_that_begin_with_each_other_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "parameters: {x: {parameters_of: b.yaml}}\n")
    write(tmp_path / "b.yaml", "parameters: {x: {parameters_of: a.yaml}}\n")
    with pytest.raises(InputError, match="begin with each other"):
        read_parameter_file(path)


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file of parameters") as caught:
        read_parameter_file(write(tmp_path / "a.yaml", "parameters: {x: {parameters_of: b.yaml}}\n"))
    assert str(tmp_path / "b.yaml") in str(caught.value)


PREDICT = """pipeline: predict_batch
schedule: {cron: "0 5 1 * *"}
parameters: {source: "f-{start:%Y-%m}.csv", model_name: m, destination: out, keys: [id]}
"""
MONITOR = """pipeline: monitor_and_retrain
schedule: {cron: "0 6 1 * *"}
parameters: {batch: "{start:%Y-%m}", source: s, predictions: out, keys: [id], as_of: "{end:%Y-%m-%d}"}
"""


def test_runs_of_several_schedules_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    files = [write(tmp_path / "m.yaml", MONITOR), write(tmp_path / "p.yaml", PREDICT)]
    runs = backfill.plan(files, start="2013-08-01", end="2013-10-01")
    assert [run.pipeline for run in runs] == ["predict_batch", "monitor_and_retrain"] * 2
    assert runs[0].arguments["source"] == "f-2013-08.csv"
    assert runs[3].arguments["as_of"] == "2013-10-01"
    assert len({run.key for run in runs}) == 4
    assert runs == backfill.plan(files, start="2013-08-01", end="2013-10-01")


def test_windows_that_are_not_over_are_left_out(tmp_path: Path) -> None:
    files = [write(tmp_path / "p.yaml", PREDICT)]
    runs = backfill.plan(files, start="2013-08-01", end="2014-01-01", now=moment("2013-10-15"))
    assert [run.arguments["source"] for run in runs] == ["f-2013-08.csv", "f-2013-09.csv"]
    with pytest.raises(InputError, match="no run of these schedules") as caught:
        backfill.plan(files, start="2013-12-01", end="2014-01-01", now=moment("2013-10-15"))
    assert caught.value.facts["received"] == "2013-12-01 to 2014-01-01"


@pytest.mark.parametrize("lacking", ["pipeline", "schedule"])
def test_a_file_to_backfill_has_a_pipeline_and_a_schedule(tmp_path: Path, lacking: str) -> None:
    lines = [line for line in PREDICT.splitlines() if not line.startswith(lacking)]
    with pytest.raises(InputError, match=f"no `{lacking}:`"):
        backfill.plan([write(tmp_path / "p.yaml", "\n".join(lines))], start="2013-08-01", end="2013-10-01")


def test_parameters_are_checked_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "p.yaml", PREDICT.replace("model_name", "modelname"))
    with pytest.raises(InputError, match="has no parameter of this name") as caught:
        backfill.plan([path], start="2013-08-01", end="2013-10-01")
    assert caught.value.facts["hint"] == "did you mean 'model_name'?"
