"""A sample: the same whatever the order of the rows, uniform, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeparts.errors import ContractError, InputError
from pipeparts.runtime.sampling import sample_table
from pipeparts.runtime.tables import Table, TableWriter, write_table

FLIGHTS = Path(__file__).parents[1] / "data" / "flights.csv"


def table_of(folder: Path, rows: pa.Table, *, batch_rows: int = 1_000_000) -> Table:
    with TableWriter(folder, rows.schema, source="a test", rows_per_part=batch_rows) as writer:
        writer.write(rows)
    return Table(folder)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("flights") / "table"
    write_table(folder, pyarrow.csv.read_csv(FLIGHTS).replace_schema_metadata(None), source="flights.csv")
    return Table(folder)


def as_counts(rows: pa.Table) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows.to_pylist())


def test_the_sample_is_rows_of_the_table(flights: Table) -> None:
    sample = sample_table(flights, 300)
    assert sample.num_rows == 300
    assert sample.schema == flights.schema
    assert not as_counts(sample) - as_counts(flights.read())


def test_the_same_rows_whatever_their_order_and_the_parts(flights: Table, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(flights.rows)
    shuffled = table_of(tmp_path / "shuffled", flights.read().take(order), batch_rows=700)
    for rows in (1, 7, 300, 2_004, 2_005, 10_000):
        assert sample_table(shuffled, rows).equals(sample_table(flights, rows))


def test_a_table_of_no_more_rows_is_taken_whole(flights: Table) -> None:
    for rows in (flights.rows, flights.rows + 1):
        assert as_counts(sample_table(flights, rows)) == as_counts(flights.read())


def test_chosen_columns_in_their_order(flights: Table, tmp_path: Path) -> None:
    sample = sample_table(flights, 100, ["origin", "month"])
    assert sample.column_names == ["origin", "month"]
    alone = table_of(tmp_path / "alone", flights.read(["month", "origin"]))
    assert sample_table(alone, 100, ["origin", "month"]).equals(sample), "other columns do not change the choice"


def test_a_table_without_rows_and_a_sample_without_columns(tmp_path: Path, flights: Table) -> None:
    empty = table_of(tmp_path / "empty", flights.schema.empty_table())
    assert sample_table(empty, 10).equals(flights.schema.empty_table())
    assert sample_table(flights, 10, []).num_columns == 0


def test_equal_rows_keep_their_share_to_within_one_row(tmp_path: Path) -> None:
    letters = ["a"] * 70_000 + ["b"] * 20_000 + ["c"] * 9_999 + ["d"]
    table = table_of(tmp_path / "t", pa.table({"letter": letters}))
    counts = Counter(sample_table(table, 1_000)["letter"].to_pylist())
    assert sum(counts.values()) == 1_000
    for letter, rows in (("a", 700), ("b", 200), ("c", 100), ("d", 0)):
        assert abs(counts[letter] - rows) <= 1


def test_one_frequent_row_among_distinct_ones(tmp_path: Path) -> None:
    numbers = np.concatenate([np.zeros(50_000, dtype=np.int64), np.arange(1, 50_001)])
    table = table_of(tmp_path / "t", pa.table({"n": numbers}))
    sample = sample_table(table, 1_000)["n"].to_numpy()
    assert abs((sample == 0).sum() - 500) <= 1
    distinct = sample[sample != 0]
    assert len(np.unique(distinct)) == len(distinct)


@pytest.mark.parametrize("rows", [200, 1_000, 5_000])
def test_every_part_of_the_table_is_drawn_alike(tmp_path: Path, rows: int) -> None:
    """Chi-square over 50 stretches of the values, and Kolmogorov-Smirnov over the values, of 100,000 rows."""
    table = table_of(tmp_path / "t", pa.table({"n": np.arange(100_000), "text": np.arange(100_000).astype(str)}))
    sample = sample_table(table, rows)["n"].to_numpy()
    assert stats.chisquare(np.bincount(sample // 2_000, minlength=50)).pvalue > 0.001
    assert stats.kstest(sample / 100_000, "uniform").pvalue > 0.001
    assert len(np.unique(sample)) == rows


def test_each_row_is_drawn_as_often_as_the_others(tmp_path: Path) -> None:
    """Over 400 tables of 50 rows, 10 of each: how often the first, the second, ... row was drawn."""
    drawn = np.zeros(50)
    for number in range(400):
        rows = pa.table({"table": pa.array([number] * 50), "n": np.arange(50)})
        table = table_of(tmp_path / str(number), rows)
        drawn += np.bincount(sample_table(table, 10)["n"].to_numpy(), minlength=50)
    assert drawn.sum() == 4_000
    assert stats.chisquare(drawn).pvalue > 0.001


VALUES = st.tuples(
    st.sampled_from([None, "", "a", "b", "ü" * 2_000]),
    st.sampled_from([None, 0.0, 1.5, float("inf")]),
    st.sampled_from([None, [], [1.0], [1.0, None]]),
)
SCHEMA = pa.schema({"text": pa.string(), "number": pa.float64(), "list": pa.list_(pa.float64())})


@settings(max_examples=80, deadline=None)
@given(data=st.data(), values=st.lists(VALUES, max_size=80), rows=st.integers(1, 90))
def test_of_whatever_rows_it_is_a_fair_part(tmp_path_factory, data, values, rows) -> None:
    folder = tmp_path_factory.mktemp("t")
    made = pa.Table.from_pylist([dict(zip(SCHEMA.names, value, strict=True)) for value in values], SCHEMA)
    table = table_of(folder / "one", made)
    sample = sample_table(table, rows)
    assert sample.num_rows == min(rows, len(values))
    everything, drawn = as_counts(made), as_counts(sample)
    assert not drawn - everything
    for content, count in everything.items():
        assert abs(drawn[content] - count * sample.num_rows / len(values)) < 1 + 1e-9
    order = data.draw(st.permutations(range(len(values))))
    other = table_of(folder / "other", made.take(order) if order else made, batch_rows=data.draw(st.integers(1, 50)))
    assert sample_table(other, rows).equals(sample)


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "10"])
def test_a_size_that_is_none(flights: Table, rows: object) -> None:
    with pytest.raises(InputError, match="not a size of a sample") as caught:
        sample_table(flights, rows)  # type: ignore[arg-type]
    assert caught.value.facts["allowed"] == "a whole number from 1"
    assert caught.value.facts["received"] == str(rows)


def test_a_column_that_is_not_there(flights: Table) -> None:
    with pytest.raises(InputError, match="no such column") as caught:
        sample_table(flights, 10, ["orgin"])
    assert caught.value.facts["hint"] == "did you mean 'origin'?"


def test_a_damaged_table(tmp_path: Path, flights: Table) -> None:
    table = table_of(tmp_path / "t", flights.read())
    part = table.parts[0]
    data = bytearray(part.read_bytes())
    data[100:5_000] = bytes(4_900)
    part.write_bytes(bytes(data))
    with pytest.raises(ContractError, match="damaged"):
        sample_table(table, 10)


@pytest.mark.slow
def test_five_million_rows_in_bounded_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    schema = pa.schema({"id": pa.int64(), "city": pa.string(), **{f"x{i}": pa.float64() for i in range(6)}})
    with TableWriter(tmp_path / "t", schema, source="a test", fingerprint=False) as writer:
        for start in range(0, 5_000_000, 100_000):
            columns = [np.arange(start, start + 100_000), random.integers(0, 500, 100_000).astype(str)]
            columns += [random.normal(size=100_000) for _ in range(6)]
            writer.write(pa.record_batch([pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema))
    script = """
        import sys
        from pipeparts.runtime.sampling import sample_table
        from pipeparts.runtime.tables import Table
        def peak():
            return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
        table = Table(sys.argv[1])
        next(table.batches())
        before = peak()
        assert sample_table(table, 10_000).num_rows == 10_000
        print(before, peak())
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "t")], capture_output=True, text=True, check=True
    )
    before, after = map(int, child.stdout.split())
    assert after - before < 200, f"{before} MB, then {after} MB"
