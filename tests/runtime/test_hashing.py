"""The hashes against their written specifications."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import DataError
from pipeparts.runtime.hashing import hash_array, hash_fractions, mix64, row_hashes, siphash

# The test vectors of the reference implementation: key 00..0f, message 00..(n-1).
VECTORS = {0: 0x726FDB47DD0E0E31, 1: 0x74F839C593DC67FD, 8: 0x93F5F5799A932462, 15: 0xA129CA6149BE45E5}


@pytest.mark.parametrize(("length", "expected"), VECTORS.items())
def test_siphash_gives_the_reference_vectors(length: int, expected: int) -> None:
    key = (int.from_bytes(bytes(range(8)), "little"), int.from_bytes(bytes(range(8, 16)), "little"))
    assert int(siphash(pa.array([bytes(range(length))], pa.binary()), key)[0]) == expected


@given(st.lists(st.text(), max_size=30))
def test_a_string_hashes_the_same_alone_and_in_company(values: list[str]) -> None:
    together = siphash(pa.array(values, pa.string()))
    alone = [int(siphash(pa.array([value], pa.string()))[0]) for value in values]
    assert together.tolist() == alone


def test_a_slice_hashes_as_what_it_shows() -> None:
    values = pa.array(["a", "bb", None, "dddddddddddd", "e"])
    assert hash_array(values.slice(1, 3)).tolist() == hash_array(values).tolist()[1:4]


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs of the generator with seed 0: the finalizer of the state after each step.
    steps = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert [hex(int(h)) for h in mix64(steps)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 3], pa.int32()),
        pa.array([1.5, None, float("nan")]),
        pa.array([True, None, False]),
        pa.array(["a", None, ""]),
        pa.array([b"a", None, b""]),
        pa.array([1, None, 2], pa.timestamp("us")),
        pa.array([1, None, 2], pa.date32()),
        pa.array([2**63, None, 2], pa.uint64()),
        pa.array(["1.50", None, "2.25"]).cast(pa.decimal128(9, 2)),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([None, None, None]),
        pa.chunked_array([["a"], [None, "b"]]),
        pa.chunked_array([], pa.string()),
    ],
    ids=lambda values: str(values.type),
)
def test_every_type_hashes_the_same_by_value(values: pa.Array) -> None:
    hashes = hash_array(values)
    assert len(hashes) == len(values)
    by_value: dict[str, set[int]] = {}
    for value, digest in zip(values.to_pylist(), hashes.tolist(), strict=True):
        by_value.setdefault(repr(value), set()).add(digest)
    assert all(len(digests) == 1 for digests in by_value.values())
    assert len(set().union(*by_value.values())) == len(by_value)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([None if i % 7 == 0 else i % 1_000 for i in range(40_000)], pa.int64()),
        pa.array([i / 3 for i in range(40_000)]),
        pa.array([None if i % 7 == 0 else f"text {i % 1_000}" for i in range(40_000)]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_long_column_hashes_as_its_parts_do(values: pa.Array) -> None:
    parts = [hash_array(values.slice(start, 777), 5) for start in range(0, len(values), 777)]
    assert (np.concatenate(parts) == hash_array(values, 5)).all()


@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=30), st.integers(0, 5))
def test_a_dictionary_hashes_as_its_values_do(values: list[str | None], start: int) -> None:
    plain = pa.array(values, pa.string())
    assert hash_array(plain.dictionary_encode().slice(start)).tolist() == hash_array(plain.slice(start)).tolist()
    # One that holds nulls, and what no row has.
    indices = pa.array(range(len(values)), pa.int32())
    odd = pa.DictionaryArray.from_arrays(indices, pa.concat_arrays([plain, pa.array(["more", None])]))
    assert hash_array(odd.slice(start)).tolist() == hash_array(plain.slice(start)).tolist()


def test_minus_zero_and_every_nan_are_one_value() -> None:
    hashes = hash_array(pa.array([0.0, -0.0, float("nan"), -float("nan")]))
    assert hashes[0] == hashes[1]
    assert hashes[2] == hashes[3]


def test_nested_columns_are_refused() -> None:
    with pytest.raises(DataError, match="nested"):
        hash_array(pa.array([[1], [2]]))


def test_fractions_are_spread_evenly() -> None:
    fractions = hash_fractions(row_hashes({"key": pa.array(np.arange(100_000))}))
    assert fractions.min() >= 0
    assert fractions.max() < 1
    counts, _ = np.histogram(fractions, bins=20, range=(0, 1))
    assert abs(counts - 5000).max() < 350  # five standard deviations


def test_huge_values_hash_quickly_and_apart() -> None:
    huge = "x" * 5_000_000
    values = pa.array([huge, "short", None, huge + "y", huge])
    hashes = hash_array(values)
    assert hashes[0] == hashes[4]
    assert len(set(hashes.tolist())) == 4
    assert hashes[1] == hash_array(pa.array(["short"]))[0]
