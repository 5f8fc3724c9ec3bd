"""Tests of the logic of `split_table`."""

import datetime as dt
import itertools
import json
import logging
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeparts.components.feature_engineering.split_table.logic import split_table
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime.tables import Table, TableWriter, write_table

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"
NAMES = ("train", "validation", "test")


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    path = tmp_path_factory.mktemp("flights") / "table"
    options = pacsv.ConvertOptions(column_types={"time_hour": pa.timestamp("us", "UTC")}, strings_can_be_null=True)
    write_table(path, pacsv.read_csv(FLIGHTS, convert_options=options), source="flights.csv")
    return path


def split(table, folder, **parameters):
    paths = {f"{name}_table_path": folder / name for name in NAMES}
    return split_table(table_path=table, **paths, **parameters)


def write(folder, batch_rows=None, **columns):
    table = pa.table(columns)
    if batch_rows is None:
        write_table(folder / "table", table, source="a test")
    else:
        with TableWriter(folder / "table", table.schema, source="a test", rows_per_part=batch_rows) as writer:
            for batch in table.to_batches(max_chunksize=batch_rows):
                writer.write(batch)
                writer._flush()
    return folder / "table"


def read(folder, column):
    return [Table(folder / name).read([column])[column].to_pylist() for name in NAMES]


def together(parts):
    return [value for part in parts for value in part]


def rows(folder):
    return [Table(folder / name).rows for name in NAMES]


def fails(kind, table, folder, **parameters):
    with pytest.raises(kind) as error:
        split(table, folder, **parameters)
    assert not any((folder / name).exists() for name in NAMES)
    assert not list(folder.glob(".*"))
    return error.value


# ---- hash


def test_by_hash_the_parts_are_disjoint_complete_and_near_the_fractions(flights, tmp_path):
    split(flights, tmp_path, columns=["flight_id"])
    parts = read(tmp_path, "flight_id")
    everything = Table(flights).read(["flight_id"])["flight_id"].to_pylist()
    assert sorted(together(parts)) == sorted(everything)
    assert len(set(together(parts))) == 2005
    for part, share in zip(parts, (0.8, 0.1, 0.1), strict=True):
        assert abs(len(part) - share * 2005) < 4 * math.sqrt(2005 * share * (1 - share))


def test_a_row_stays_in_its_split_when_rows_are_added(flights, tmp_path):
    split(flights, tmp_path / "all", columns=["flight_id"])
    write_table(tmp_path / "some", Table(flights).read().slice(700, 900), source="a test")
    split(tmp_path / "some", tmp_path, columns=["flight_id"])
    for few, many in zip(read(tmp_path, "flight_id"), read(tmp_path / "all", "flight_id"), strict=True):
        assert set(few) <= set(many)


def test_the_hash_is_held_forever(tmp_path):
    """These rows were split like this in the first release; every later one has to do the same."""
    table = write(tmp_path, key=pa.array([f"key {i}" for i in range(12)]), number=pa.array(range(12)))
    split(table, tmp_path, columns=["key"], fractions=[0.4, 0.3, 0.3])
    assert read(tmp_path, "number") == [[1, 4, 7, 8, 9, 11], [0, 3, 10], [2, 5, 6]]
    split(table, tmp_path, columns=["key"], fractions=[0.4, 0.3, 0.3], salt="other")
    assert read(tmp_path, "number") == [[1, 4, 5, 7, 11], [2, 3, 8, 10], [0, 6, 9]]


def test_rows_with_equal_keys_stay_together_and_the_order_of_the_columns_does_not_count(flights, tmp_path):
    split(flights, tmp_path, columns=["carrier", "dest"])
    carriers, dests = read(tmp_path, "carrier"), read(tmp_path, "dest")
    keys = [set(zip(*pair, strict=True)) for pair in zip(carriers, dests, strict=True)]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    first = rows(tmp_path)
    split(flights, tmp_path, columns=["dest", "carrier"])
    assert rows(tmp_path) == first


def test_another_salt_gives_another_split(flights, tmp_path):
    split(flights, tmp_path, columns=["flight_id"], fractions=[0.5, 0.25, 0.25])
    plain = set(read(tmp_path, "flight_id")[0])
    split(flights, tmp_path, columns=["flight_id"], fractions=[0.5, 0.25, 0.25], salt="a")
    salted = set(read(tmp_path, "flight_id")[0])
    # Independent: about half of one half is in the other half.
    assert 400 < len(plain & salted) < 600


def test_without_columns_the_whole_row_is_the_key(flights, tmp_path):
    split(flights, tmp_path)
    assert sum(rows(tmp_path)) == 2005
    assert Table(tmp_path / "train").info.extra["rule"] == "hash of the whole row from 0 to below 0.8"


def test_a_null_key_is_a_key_like_another(tmp_path):
    table = write(tmp_path, key=pa.array([None, *"abcdefghijklmnopqrstuvwxyz", None]), number=pa.array(range(28)))
    split(table, tmp_path, columns=["key"], fractions=[0.4, 0.3, 0.3])
    assert sorted({0, 27} <= set(part) for part in read(tmp_path, "number")) == [False, False, True]


@pytest.mark.parametrize("fractions", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0.5], [0, 0.3, 0.7], [0.7, 0.3, 0]])
@pytest.mark.parametrize(
    "parameters",
    [
        {"columns": ["flight_id"]},
        {"method": "time", "columns": ["time_hour"]},
        {"method": "stratified", "stratify_by": "carrier"},
    ],
    ids=lambda p: p.get("method", "hash"),
)
def test_a_split_with_fraction_zero_is_a_table_without_rows(flights, tmp_path, parameters, fractions):
    split(flights, tmp_path, fractions=fractions, **parameters)
    assert [n == 0 for n in rows(tmp_path)] == [f == 0 for f in fractions]
    assert sum(rows(tmp_path)) == 2005
    assert Table(tmp_path / "test").schema == Table(flights).schema


# ---- time


def test_by_time_older_rows_train_and_newer_ones_test(flights, tmp_path):
    split(flights, tmp_path, method="time", columns=["time_hour"], boundaries=["2013-09-01", "2013-11-01T06:00:00"])
    first, second = dt.datetime(2013, 9, 1, tzinfo=dt.UTC), dt.datetime(2013, 11, 1, 6, tzinfo=dt.UTC)
    train, validation, test = read(tmp_path, "time_hour")
    assert max(train) < first <= min(validation)
    assert max(validation) < second <= min(test)
    assert len(train) + len(validation) + len(test) == 2005
    info = [Table(tmp_path / name).info.extra["rule"] for name in NAMES]
    assert info == [
        "time_hour before 2013-09-01T00:00:00Z",
        "time_hour from 2013-09-01T00:00:00Z to before 2013-11-01T06:00:00Z",
        "time_hour from 2013-11-01T06:00:00Z",
    ]


def test_rows_from_the_end_on_are_in_no_split(flights, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole = Table(flights)
    boundaries = ["2013-07-01", "2013-08-01", "2013-09-01"]
    split(flights, tmp_path, method="time", columns=["time_hour"], boundaries=boundaries)
    tables = [Table(tmp_path / name) for name in ("train", "validation", "test")]
    times = [table.read(["time_hour"])["time_hour"].cast("string").to_pylist() for table in tables]
    everything = whole.read(["time_hour"])["time_hour"].cast("string").to_pylist()
    assert sorted(itertools.chain(*times)) == sorted(time for time in everything if time < "2013-09-01")
    assert max(times[2]) < "2013-09-01" <= max(everything)
    left = whole.rows - sum(table.rows for table in tables)
    assert {table.info.extra["rows_after_the_end"] for table in tables} == {left}
    assert tables[2].info.extra["rule"] == "time_hour from 2013-08-01T00:00:00Z to before 2013-09-01T00:00:00Z"
    assert sum(table.info.extra["share"] for table in tables) == pytest.approx(1, abs=2e-6)
    assert f"test {tables[2].rows:,}, after the end {left:,}" in caplog.text


TIMES = [
    (pa.date32(), [dt.date(2013, 1, d) for d in (1, 2, 3, 4)], ["2013-01-02", "2013-01-04"]),
    (pa.date64(), [dt.date(2013, 1, d) for d in (1, 2, 3, 4)], ["2013-01-02", "2013-01-04"]),
    (pa.timestamp("s"), [dt.datetime(1969, 12, 31, 23, 59, s) for s in (1, 2, 3, 4)],
     ["1969-12-31T23:59:01.5", "1969-12-31T23:59:03.000001"]),
    (pa.timestamp("ns"), [dt.datetime(2013, 1, d) for d in (1, 2, 3, 4)], ["2013-01-02", "2013-01-04"]),
    (pa.timestamp("us", "America/New_York"), [dt.datetime(2013, 1, d) for d in (1, 2, 3, 4)],
     ["2013-01-02", "2013-01-03T19:00:00-05:00"]),
    (pa.int64(), [1, 2, 3, 4], [2, 3.5]),
    (pa.int8(), [-1, 0, 3, 4], [-0.5, "4"]),
    (pa.uint64(), [1, 2, 3, 2**64 - 1], [2, "4"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "boundaries"), TIMES, ids=[str(case[0]) for case in TIMES])
def test_every_kind_of_time_can_be_cut(tmp_path, kind, values, boundaries):
    table = write(tmp_path, time=pa.array(values, kind), number=pa.array(range(4)))
    split(table, tmp_path, method="time", columns=["time"], boundaries=boundaries)
    assert read(tmp_path, "number") == [[0], [1, 2], [3]]


def test_fractions_of_time_are_cut_where_the_counts_come_nearest(flights, tmp_path):
    split(flights, tmp_path, method="time", columns=["time_hour"], fractions=[0.6, 0.2, 0.2])
    times = read(tmp_path, "time_hour")
    assert max(times[0]) < min(times[1])
    assert max(times[1]) < min(times[2])
    whole = sorted(together(times))
    # The sorted table cut at the exact quantiles differs only by the rows that share the time of a cut.
    for part, place in ((times[1], 0.6), (times[2], 0.8)):
        ties = whole.count(whole[round(place * 2005)])
        assert abs(whole.index(min(part)) - place * 2005) <= ties
    again = [Table(tmp_path / name).info.extra["rule"].split()[-1].removesuffix("Z") for name in NAMES[:2]]
    counts = rows(tmp_path)
    split(flights, tmp_path, method="time", columns=["time_hour"], boundaries=again)
    assert rows(tmp_path) == counts


def test_null_times_are_an_error_that_counts_them(tmp_path):
    table = write(tmp_path, time=pa.array([1, None, 3, None, 5, 6]))
    error = fails(DataError, table, tmp_path, method="time", columns=["time"], boundaries=[2, 4])
    assert "rows without a time" in str(error)
    assert error.facts["received"] == "2 nulls in 6 rows"


@pytest.mark.parametrize(
    ("boundaries", "words"),
    [
        (["2013-11-01", "2013-09-01"], ["not in order", "2013-11-01, then 2013-09-01"]),
        (["2013-09-01", "2013-09-01"], ["not in order"]),
        (["2013-09-01", "soon"], ["does not fit", "'soon'", "2013-09-01T06:00:00"]),
        (["2013-09-01", "2013-13-01"], ["does not fit", "month must be in 1..12"]),
        ([20130901, 20131101], ["does not fit", "20130901", "timestamp_utc"]),
        (["2013-09-01"], ["are neither two nor three"]),
        ("2013-09-01", ["are neither two nor three"]),
        (["2013-07-01", "2013-08-01", "2013-08-01"], ["not in order", "2013-08-01, then 2013-08-01"]),
        (["2013-05-01", "2013-06-01", "2013-07-01", "2013-08-01"], ["are neither two nor three"]),
        ([None, "2013-09-01"], ["does not fit", "None"]),
    ],
)
def test_boundaries_that_do_not_fit_a_timestamp(flights, tmp_path, boundaries, words):
    error = fails(InputError, flights, tmp_path, method="time", columns=["time_hour"], boundaries=boundaries)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize("boundaries", [["2013-09-01", "2013-10-01"], [True, 2], [1, float("nan")], [1, float("inf")]])
def test_boundaries_that_do_not_fit_numbers(flights, tmp_path, boundaries):
    error = fails(InputError, flights, tmp_path, method="time", columns=["month"], boundaries=boundaries)
    assert "does not fit" in str(error)
    assert "whole numbers" in error.facts["allowed"]


def test_a_zone_needs_a_column_with_one(tmp_path):
    table = write(tmp_path, time=pa.array([dt.datetime(2013, 1, 1)]))
    error = fails(
        InputError, table, tmp_path, method="time", columns=["time"], boundaries=["2013-01-01T00:00Z", "2014-01-01"]
    )
    assert "a zone, where the column has none" in error.facts["received"]


def test_a_column_without_times(flights, tmp_path):
    error = fails(InputError, flights, tmp_path, method="time", columns=["carrier"])
    assert "holds no times" in str(error)
    assert error.facts["received"] == "string"


def test_boundaries_outside_the_data_say_what_the_data_spans(flights, tmp_path):
    error = fails(
        DataError, flights, tmp_path, method="time", columns=["time_hour"], boundaries=["2015-01-01", "2015-06-01"]
    )
    assert error.headline == "the validation split has no rows"
    assert "2013-01-01T" in error.facts["hint"]
    assert "cut at 2015-01-01" in error.facts["hint"]
    assert error.facts["received"] == "train 2,005, validation 0, test 0 of 2,005 rows"


def test_an_end_after_all_rows_leaves_none_out(flights, tmp_path):
    cuts = ["2013-09-01", "2013-11-01"]
    split(flights, tmp_path / "without", method="time", columns=["time_hour"], boundaries=cuts)
    split(flights, tmp_path, method="time", columns=["time_hour"], boundaries=[*cuts, "2014-06-01"])
    assert rows(tmp_path) == rows(tmp_path / "without")
    assert Table(tmp_path / "test").info.extra["rows_after_the_end"] == 0
    assert "rows_after_the_end" not in Table(tmp_path / "without" / "test").info.extra


def test_an_end_before_the_data_says_how_many_rows_came_after_it(flights, tmp_path):
    boundaries = ["2012-01-01", "2012-06-01", "2013-01-01"]
    error = fails(DataError, flights, tmp_path, method="time", columns=["time_hour"], boundaries=boundaries)
    assert error.headline == "the train split has no rows"
    assert error.facts["received"] == "train 0, validation 0, test 0, after the end 2,005 of 2,005 rows"
    assert "cut at 2012-01-01T00:00:00Z and 2012-06-01T00:00:00Z up to 2013-01-01T00:00:00Z" in error.facts["hint"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.integers(0, 9), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 11), min_size=3, max_size=3, unique=True).map(sorted),
    batch_rows=st.integers(1, 20),
)
def test_up_to_the_end_no_row_is_lost_or_doubled(tmp_path, times, cuts, batch_rows):
    table = write(tmp_path, batch_rows, time=pa.array(times), number=pa.array(range(len(times))))
    try:
        split(table, tmp_path, method="time", columns=["time"], boundaries=cuts)
    except DataError:
        return
    parts = read(tmp_path, "number")
    edges = zip([-1, *cuts[:2]], cuts, strict=True)
    assert parts == [[n for n, time in enumerate(times) if low <= time < high] for low, high in edges]
    assert Table(tmp_path / "train").info.extra["rows_after_the_end"] == sum(time >= cuts[2] for time in times)


# ---- stratified


@pytest.mark.parametrize("column", ["carrier", "late", "month", "wind_speed", "time_hour"])
def test_every_value_has_its_share_in_every_split(flights, tmp_path, column):
    split(flights, tmp_path, method="stratified", stratify_by=column, fractions=[0.7, 0.2, 0.1])
    parts = read(tmp_path, column)
    everything = together(parts)
    assert len(everything) == 2005
    for value in set(everything):
        total = everything.count(value)
        for part, share in zip(parts, (0.7, 0.2, 0.1), strict=True):
            assert abs(part.count(value) - share * total) < 1


def test_a_whole_share_is_met_exactly_and_null_is_a_value(tmp_path):
    label = [None] * 100 + ["a"] * 200 + ["b"] * 700
    table = write(tmp_path, label=pa.array(label), number=pa.array(range(1000)))
    split(table, tmp_path, method="stratified", stratify_by="label", fractions=[0.7, 0.2, 0.1])
    parts = read(tmp_path, "label")
    assert [[part.count(value) for value in (None, "a", "b")] for part in parts] == [
        [70, 140, 490], [20, 40, 140], [10, 20, 70],
    ]  # fmt: skip
    assert sorted(together(read(tmp_path, "number"))) == list(range(1000))


def test_the_order_of_the_rows_does_not_count(flights, tmp_path):
    table = Table(flights).read()
    shuffled = table.take(np.random.default_rng(1).permutation(len(table)))
    write_table(tmp_path / "shuffled", shuffled, source="a test")
    one = split(flights, tmp_path, method="stratified", stratify_by="carrier")
    other = split(tmp_path / "shuffled", tmp_path, method="stratified", stratify_by="carrier")
    assert one.test.fingerprint == other.test.fingerprint


def test_many_small_strata_add_up_to_the_fractions(tmp_path):
    table = write(tmp_path, label=pa.array(np.arange(8000) // 4), number=pa.array(range(8000)))
    split(table, tmp_path, method="stratified", stratify_by="label")
    for count, share in zip(rows(tmp_path), (0.8, 0.1, 0.1), strict=True):
        assert abs(count / 8000 - share) < 0.01


def test_equal_rows_are_counted_out_exactly(tmp_path):
    table = write(tmp_path, label=pa.array(["a"] * 1000 + ["b"] * 10))
    split(table, tmp_path, method="stratified", stratify_by="label")
    assert rows(tmp_path) == [808, 101, 101]


def test_rows_with_equal_keys_stay_together_within_their_stratum(tmp_path):
    people = np.arange(3000) % 500
    table = write(tmp_path, label=pa.array(people % 2), person=pa.array(people))
    split(table, tmp_path, method="stratified", stratify_by="label", columns=["person"], fractions=[0.6, 0.2, 0.2])
    parts = [set(part) for part in read(tmp_path, "person")]
    assert sum(len(part) for part in parts) == 500
    assert rows(tmp_path) == [1800, 600, 600]


def test_too_many_values_to_stratify_by(tmp_path):
    table = write(tmp_path, label=pa.array(range(10_001)))
    error = fails(InputError, table, tmp_path, method="stratified", stratify_by="label")
    assert "too many values" in str(error)
    assert "10,000" in error.facts["allowed"]


def test_strata_beyond_the_first_sixteen_and_chunks_are_found(tmp_path, monkeypatch):
    from pipeparts.components.feature_engineering.split_table import strata

    monkeypatch.setattr(strata, "_CHUNK_ROWS", 77)
    label = np.arange(3000) % 50
    table = write(tmp_path, 256, label=pa.array(label), number=pa.array(range(3000)))
    split(table, tmp_path, method="stratified", stratify_by="label", fractions=[0.5, 0.25, 0.25])
    assert [np.bincount(part).tolist() for part in read(tmp_path, "label")] == [[30] * 50, [15] * 50, [15] * 50]


# ---- properties


SHARES = st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.34, 0.33, 0.33), (0.0, 0.5, 0.5), (0.98, 0.01, 0.01)])


@pytest.mark.parametrize("method", ["hash", "time", "stratified"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, "a", "b", ""])), min_size=1, max_size=60),
    shares=SHARES,
    batch_rows=st.integers(1, 20),
    whole_row=st.booleans(),
)
def test_no_row_is_lost_or_doubled(tmp_path, method, values, shares, batch_rows, whole_row):
    times, labels = [v[0] for v in values], [v[1] for v in values]
    table = write(tmp_path, batch_rows, time=pa.array(times), label=pa.array(labels, pa.string()),
                  number=pa.array(range(len(values))))  # fmt: skip
    parameters = {
        "hash": {"columns": None if whole_row else ["label", "time"]},
        "time": {"columns": ["time"]},
        "stratified": {"stratify_by": "label", "columns": None if whole_row else ["time"]},
    }[method]
    try:
        split(table, tmp_path, method=method, fractions=list(shares), **parameters)
    except DataError:
        return
    parts = read(tmp_path, "number")
    assert sorted(together(parts)) == list(range(len(values)))
    assert all(part == sorted(part) for part in parts)
    assert all(bool(part) == bool(share) for part, share in zip(parts, shares, strict=True))
    if method == "time" or (method == "hash" and not whole_row):
        kept = [{(times[n], labels[n]) if method == "hash" else times[n] for n in part} for part in parts]
        assert sum(len(part) for part in kept) == len(set.union(*kept))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(st.sampled_from([None, 1.0, 2.0, -0.0, 0.0, float("nan")]), min_size=1, max_size=80),
    numbers=st.integers(1, 4),
)
def test_strata_counts_are_within_one_row_whatever_the_duplicates(tmp_path, labels, numbers):
    table = write(tmp_path, label=pa.array(labels), number=pa.array([i % numbers for i in range(len(labels))]))
    try:
        split(table, tmp_path, method="stratified", stratify_by="label", fractions=[0.5, 0.3, 0.2])
    except DataError:
        return
    names = [[repr(v + 0.0) if v is not None else None for v in part] for part in read(tmp_path, "label")]
    for value in set(together(names)):
        total = sum(part.count(value) for part in names)
        for part, share in zip(names, (0.5, 0.3, 0.2), strict=True):
            assert abs(part.count(value) - share * total) < 1


# ---- what is written, and what is refused


def test_metadata_says_rows_share_and_rule(flights, tmp_path):
    splits = split(flights, tmp_path, columns=["flight_id"], salt="a")
    metadata = splits.validation.metadata()
    assert metadata == {**Table(tmp_path / "validation").info.metadata()}
    assert metadata["split"] == "validation"
    assert metadata["rule"] == "hash of flight_id (salted) from 0.8 to below 0.9"
    assert metadata["share"] == pytest.approx(metadata["rows"] / 2005, abs=1e-6)
    assert metadata["split_of_fingerprint"] == Table(flights).info.fingerprint
    assert metadata["source"] == "flights.csv"
    json.dumps(metadata, allow_nan=False)


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_same_input_same_bytes(flights, tmp_path, method):
    parameters = {"hash": {}, "stratified": {"stratify_by": "carrier"}}[method]
    split(flights, tmp_path / "1", method=method, **parameters)
    split(flights, tmp_path / "2", method=method, **parameters)
    for name in NAMES:
        for file in (tmp_path / "1" / name).iterdir():
            assert file.read_bytes() == (tmp_path / "2" / name / file.name).read_bytes()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"method": "hsah"}, ["no such way to split", "hash, time, stratified", "hsah", "did you mean 'hash'?"]),
        ({"fractions": [0.8, 0.1, 0.2]}, ["do not add to 1", "together 1.1"]),
        ({"fractions": [0.8, 0.3, -0.1]}, ["not from 0 to 1", "-0.1"]),
        ({"fractions": [0.8, 0.2]}, ["are not three", "0.8, 0.2"]),
        ({"fractions": []}, ["are not three", "nothing"]),
        ({"fractions": ["0.8", 0.1, 0.1]}, ["not all numbers"]),
        ({"fractions": [True, 0, 0]}, ["not all numbers"]),
        ({"fractions": [float("nan"), 0.5, 0.5]}, ["not from 0 to 1"]),
        ({"fractions": 0.8}, ["not a list", "float: 0.8"]),
        ({"columns": ["flight_if"]}, ["no such column", "did you mean 'flight_id'?"]),
        ({"columns": []}, ["not a list of different names", "received: nothing"]),
        ({"columns": ["month", "month"]}, ["not a list of different names"]),
        ({"columns": "month"}, ["not a list", "str: 'month'"]),
        ({"boundaries": [1, 2]}, ["`boundaries` means nothing to the method 'hash'", "method 'time'"]),
        ({"stratify_by": "late"}, ["`stratify_by` means nothing to the method 'hash'", "method 'stratified'"]),
        ({"method": "time"}, ["needs exactly one column", "received: nothing"]),
        ({"method": "time", "columns": ["month", "day"]}, ["needs exactly one column", "month, day"]),
        ({"method": "time", "columns": ["month"], "salt": "a"}, ["`salt` means nothing to the method 'time'"]),
        ({"method": "time", "columns": ["month"], "boundaries": [4, 9], "fractions": [1, 0, 0]}, ["both `boundaries`"]),
        ({"method": "stratified"}, ["needs a column to stratify by"]),
        ({"method": "stratified", "stratify_by": "latte"}, ["parameter: stratify_by", "did you mean 'late'?"]),
        ({"method": "stratified", "stratify_by": "late", "boundaries": [4, 9]}, ["`boundaries` means nothing"]),
    ],
)
def test_bad_parameters(flights, tmp_path, parameters, words):
    error = fails(InputError, flights, tmp_path, **parameters)
    for word in words:
        assert word in str(error)


def test_a_split_that_comes_out_empty_says_so(tmp_path):
    table = write(tmp_path, key=pa.array(["same"] * 50))
    error = fails(DataError, table, tmp_path, columns=["key"])
    assert error.headline.endswith("split has no rows")
    assert "of 50 rows" in error.facts["received"]
    assert "few values" in error.facts["hint"]


def test_a_table_without_rows(tmp_path):
    table = write(tmp_path, key=pa.array([], pa.string()))
    assert "no rows to split" in fails(DataError, table, tmp_path).headline


def test_nested_columns_can_be_carried_but_not_keyed_on(tmp_path):
    table = write(tmp_path, key=pa.array(range(100)), tags=pa.array([["a"]] * 100))
    assert "nested" in fails(InputError, table, tmp_path).headline
    assert "nested" in fails(InputError, table, tmp_path, method="stratified", stratify_by="tags").headline
    split(table, tmp_path, columns=["key"])
    assert sum(rows(tmp_path)) == 100


def test_what_is_no_table_or_a_damaged_one(flights, tmp_path):
    fails(ContractError, tmp_path / "nothing", tmp_path)
    table = write(tmp_path, key=pa.array(range(100)))
    part = next(table.glob("part-*"))
    part.write_bytes(part.read_bytes()[:-20])
    assert "damaged" in str(fails(ContractError, table, tmp_path))
