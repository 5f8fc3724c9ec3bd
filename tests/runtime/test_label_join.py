"""The join of predictions with labels."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime import label_join
from pipeparts.runtime.label_join import match_rows
from pipeparts.runtime.tables import Table, write_table


def table(path: Path, **columns: Any) -> Table:
    write_table(path, pa.table(columns), source=path.name)
    return Table(path)


def matched(tmp_path: Path, left: dict[str, Any], right: dict[str, Any], keys: list[str] | None = None) -> list[int]:
    one, other = table(tmp_path / "predictions", **left), table(tmp_path / "labels", **right)
    return match_rows(one, other, keys or list(left)).rows.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 9), st.sampled_from(["", "a", "b", "ä", None])), unique=True, max_size=30),
    st.lists(st.tuples(st.integers(-3, 9), st.sampled_from(["", "a", "b", "ä", None])), unique=True, max_size=30),
    st.randoms(use_true_random=False),
)
def test_it_is_the_join_of_pandas_whatever_the_order(tmp_path_factory, left, right, random):
    folder = tmp_path_factory.mktemp("join")
    kinds = {"id": pa.int64(), "leg": pa.string()}

    def columns(rows):
        return {name: pa.array([row[i] for row in rows], kinds[name]) for i, name in enumerate(kinds)}

    def pairs(ours, theirs, name):
        found = matched(folder / name, columns(ours), columns(theirs))
        return {(ours[i], theirs[row]) for i, row in enumerate(found) if row >= 0}

    first = pairs(left, right, "first")
    # A key that is null matches nothing, as in SQL.
    assert first == {(row, row) for row in set(left) & set(right) if row[1] is not None}
    frame = pd.DataFrame(left, columns=list(kinds)).merge(pd.DataFrame(right, columns=list(kinds)).dropna())
    assert len(frame) == len(first)
    random.shuffle(left)
    random.shuffle(right)
    assert pairs(left, right, "second") == first


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array([1, 2, 3], pa.int32()), pa.array([3, 1, 7], pa.int64())),
        (pa.array([1, 2, 3], pa.uint8()), pa.array([3, 1, -7], pa.int64())),
        (pa.array([1, 2, 3], pa.uint64()), pa.array([3, 1, 9], pa.uint16())),
        (pa.array([1, 2**64 - 1, 3], pa.uint64()), pa.array([3, 1, -1], pa.int64())),
        (pa.array(["a", "bc", "d"]), pa.array(["d", "a", "x"], pa.large_string())),
        (pa.array(["a", "bc", "d"]).dictionary_encode(), pa.array(["d", "a", "x"])),
        (pa.array([b"a", b"b", b"d"]), pa.array([b"d", b"a", b"x"], pa.binary(1))),
        (pa.array([1.5, 2, 3], pa.float32()), pa.array([3.0, 1.5, 9.0])),
        (pa.array([True, None, False]), pa.array([False, True, None])),
        (
            pa.array([1, 2, 3]).cast(pa.timestamp("ms")),
            pa.array([3_000, 1_000, 9_000]).cast(pa.timestamp("us", tz="UTC")),
        ),
        (
            pa.array([1_000, 2_000, 3_000]).cast(pa.timestamp("us", tz="America/New_York")),
            pa.array([3, 1, 9]).cast(pa.timestamp("ms", tz="UTC")),
        ),
        (
            pa.array([dt.date(2013, 1, 1), None, dt.date(2013, 1, 3)]),
            pa.array([dt.date(2013, 1, 3), dt.date(2013, 1, 1), None]).cast(pa.date64()),
        ),
        (
            pa.array(["1.50", "2", "3"]).cast(pa.decimal128(9, 2)),
            pa.array(["3", "1.5", "9"]).cast(pa.decimal128(20, 4)),
        ),
    ],
    ids=str,
)
def test_types_may_differ_in_width(tmp_path, left, right):
    assert matched(tmp_path, {"id": left}, {"id": right}) == [1, -1, 0]


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (pa.array([1]), pa.array(["1"]), "int64 in the predictions, string in the labels"),
        (pa.array([1]), pa.array([1.0]), "int64 in the predictions, float64 in the labels"),
        (pa.array([dt.date(2013, 1, 1)]), pa.array([1]).cast(pa.timestamp("us")), "date in the predictions"),
        (pa.array([[1]]), pa.array([[1]]), "list<element: int64>"),
    ],
)
def test_types_of_different_kinds_do_not_go_together(tmp_path, left, right, said):
    with pytest.raises(ContractError, match="a key of different types") as error:
        matched(tmp_path, {"id": left}, {"id": right})
    assert said in error.value.facts["received"]
    assert "columns: {id: string}" in error.value.facts["hint"]


def test_the_order_of_the_keys_counts(tmp_path):
    left, right = {"a": [1, 2], "b": [2, 2]}, {"a": [2, 1], "b": [1, 2]}
    assert matched(tmp_path, left, right) == [1, -1]


def test_not_a_number_is_no_key(tmp_path):
    one = table(tmp_path / "p", id=pa.array([float("nan"), 1.0, float("nan"), None]))
    other = table(tmp_path / "l", id=pa.array([float("nan"), 1.0, -0.0]))
    found = match_rows(one, other, ["id"])
    assert found.rows.tolist() == [-1, 1, -1, -1]
    assert (found.predictions_without_key, found.labels_without_key) == (3, 1)


@pytest.mark.parametrize("empty", ["predictions", "labels", "both"])
def test_an_empty_table_matches_nothing(tmp_path, empty):
    full, none = pa.array([1, 2]), pa.array([], pa.int64())
    left, right = (none if empty in (name, "both") else full for name in ("predictions", "labels"))
    assert matched(tmp_path, {"id": left}, {"id": right}) == [-1] * len(left)


@pytest.mark.parametrize("side", ["predictions", "labels"])
def test_a_key_that_is_there_twice_is_an_error_with_samples(tmp_path, side):
    twice = {"id": [3, 4, 5, 7, 9, 7, 7, 1, 5], "leg": ["a", "b", "x", "y", "z", "y", "y", "w", "x"]}
    once = {"id": [5, 7], "leg": ["x", "y"]}
    with pytest.raises(DataError, match=f"more than once in the table of {side}") as error:
        matched(tmp_path, *((twice, once) if side == "predictions" else (once, twice)))
    facts = error.value.facts
    assert facts["received"] == "2 repeated keys in 5 rows: id = 5, leg = x (2 times); id = 7, leg = y (3 times)"
    assert facts["allowed"] == "each key once at most"
    assert facts["where"].startswith(f"id, leg of {tmp_path / side}")


def test_a_missing_key_names_what_both_have(tmp_path):
    one, other = table(tmp_path / "p", flight_id=[1], prediction=[0]), table(tmp_path / "l", flight_id=[1], late=[0])
    with pytest.raises(InputError, match="the table of labels does not have") as error:
        match_rows(one, other, ["prediction"])
    assert error.value.facts["allowed"] == "flight_id"
    with pytest.raises(InputError, match="the table of predictions does not have") as error:
        match_rows(one, other, ["flightid"])
    assert error.value.facts["hint"] == "did you mean 'flight_id'?"


def test_a_collision_hashes_again(tmp_path, monkeypatch):
    """As if the first hash of every key were the same, once."""
    real, calls = label_join._hash_keys, []

    def hashes(batch, salt):
        calls.append(salt)
        return np.zeros(batch.num_rows, np.uint64) if salt == 0 else real(batch, salt)

    monkeypatch.setattr(label_join, "_hash_keys", hashes)
    assert matched(tmp_path, {"id": [1, 2, 3]}, {"id": [3, 1, 7]}) == [1, -1, 0]
    assert max(calls) == 3


def test_a_collision_across_the_tables_hashes_again(tmp_path, monkeypatch):
    real = label_join._hash_keys
    monkeypatch.setattr(
        label_join, "_hash_keys", lambda batch, salt: np.zeros(1, np.uint64) if salt == 0 else real(batch, salt)
    )
    assert matched(tmp_path, {"id": [1]}, {"id": [2]}) == [-1]
    assert matched(tmp_path / "same", {"id": [1]}, {"id": [1]}) == [0]


def test_hashes_that_always_collide_are_an_error(tmp_path, monkeypatch):
    real = label_join._hash_keys
    monkeypatch.setattr(
        label_join,
        "_hash_keys",
        lambda batch, salt: np.zeros(batch.num_rows, np.uint64) if salt % 2 == 0 else real(batch, salt),
    )
    with pytest.raises(DataError, match="collide again and again"):
        matched(tmp_path, {"id": [1, 2]}, {"id": [1, 2]})


def test_a_time_out_of_the_finer_units_range_is_an_error(tmp_path):
    far = pa.array([2**62]).cast(pa.timestamp("ms"))
    with pytest.raises(DataError, match="a key outside the range of its type"):
        matched(tmp_path, {"id": far}, {"id": pa.array([1]).cast(pa.timestamp("ns"))})


def test_a_table_cut_short_is_an_error(tmp_path):
    one, other = table(tmp_path / "p", id=list(range(1000))), table(tmp_path / "l", id=[1])
    part = tmp_path / "p" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-200])
    with pytest.raises(ContractError, match="a damaged table"):
        match_rows(one, other, ["id"])
