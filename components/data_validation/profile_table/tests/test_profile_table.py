"""Tests of `profile_table`, and of the statistics in the runtime that it is made of."""

import datetime
import decimal
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.data_validation.profile_table.logic import profile_table
from pipeparts.components.data_validation.profile_table.page import build_page, warnings
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime import sketches
from pipeparts.runtime.hashing import mix64
from pipeparts.runtime.profiles import (
    Histogram,
    from_ordered_bits,
    jensen_shannon,
    l_infinity,
    ordered_bits,
    read_profile,
    write_profile,
)
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.sketches import Cardinality, Moments, NumberCounts, TextCounts
from pipeparts.runtime.tables import Table, TableWriter, write_table

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"


def profile(tmp_path, columns, *, fingerprint=True, **options):
    data = columns if isinstance(columns, pa.Table) else pa.table(columns)
    with TableWriter(tmp_path / "table", data.schema, source="a test", fingerprint=fingerprint) as writer:
        writer.write(data)
    return profile_of(Table(tmp_path / "table"), **options)


@pytest.fixture(scope="module")
def flights():
    return pa.csv.read_csv(FLIGHTS, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))


def test_real_data_has_the_statistics_that_pandas_gives(tmp_path, flights):
    frame = flights.to_pandas()
    found = profile(tmp_path, flights)
    assert found.rows == len(frame)
    assert found.names == list(frame.columns)
    numbers = 0
    for column in found.columns:
        values = frame[column.name]
        assert column.missing == values.isna().sum()
        assert column.distinct.exact
        assert column.distinct.count == values.nunique()
        if column.numbers is None:
            continue
        numbers += 1
        for ours, theirs in (
            (column.numbers.mean, values.mean()),
            (column.numbers.standard_deviation, values.std()),
            (column.numbers.skewness or 0.0, values.skew()),
            (column.numbers.kurtosis or 0.0, values.kurt()),
        ):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
        assert (column.numbers.minimum, column.numbers.maximum) == (values.min(), values.max())
        assert column.numbers.zeros == (values == 0).sum()
        assert column.numbers.negatives == (values < 0).sum()
        for p, quantile in column.numbers.quantiles.items():
            assert quantile == pytest.approx(values.quantile(float(p)), rel=1e-12)
        assert column.numbers.quantile_error == 0
        assert column.histogram.total == values.notna().sum()
    assert numbers > 20
    counts = frame["carrier"].value_counts()
    assert found.column("carrier").top.counts() == counts.to_dict()
    assert found.column("carrier").top.complete
    assert found.column("tailnum").texts.longest == frame["tailnum"].str.len().max()


def test_it_writes_the_same_bytes_twice_and_a_page_for_each_column(tmp_path, flights):
    write_table(tmp_path / "table", flights, source="flights")
    for name in ("one", "two"):
        profile_table(
            table_path=tmp_path / "table",
            profile_path=tmp_path / f"{name}.json",
            page_path=tmp_path / f"{name}.html",
            bins=64,
            top=5,
        )
    for kind in ("json", "html"):
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    page = (tmp_path / "one.html").read_text()
    assert page.count('class="column"') == len(flights.schema.names)
    assert page.count("<svg") >= len(flights.schema.names) - 2
    assert len(page) < 60_000 * len(flights.schema.names)
    found = read_profile(tmp_path / "one.json")
    assert found == profile_of(Table(tmp_path / "table"), bins=64, top=5)
    assert len(found.column("dep_time").histogram.counts) <= 64
    assert len(found.column("dest").top.values) == 5
    assert not found.column("dest").top.complete


@pytest.mark.parametrize(("bins", "top", "name"), [(1, 5, "bins"), (20_000, 5, "bins"), (64, 0, "top")])
def test_a_parameter_out_of_its_range_is_refused(tmp_path, bins, top, name):
    with pytest.raises(InputError, match=f"`{name}` is out of its range") as error:
        profile_table(table_path=tmp_path, profile_path=tmp_path / "p", page_path=tmp_path / "h", bins=bins, top=top)
    assert error.value.facts["parameter"] == name
    assert "16 to 16,384" in str(error.value) or "1 to 10,000" in str(error.value)


def test_a_table_that_is_not_whole_leaves_no_output(tmp_path, flights):
    write_table(tmp_path / "table", flights, source="flights")
    part = tmp_path / "table" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(ContractError, match="a damaged table"):
        profile_table(
            table_path=tmp_path / "table", profile_path=tmp_path / "p", page_path=tmp_path / "h", bins=64, top=5
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table"]


def test_columns_of_every_type(tmp_path):
    day = datetime.date(2013, 2, 28)
    moment = datetime.datetime(2013, 2, 28, 12, 30, 0, 500_000)
    found = profile(
        tmp_path,
        {
            "none": pa.nulls(4),
            "empty": pa.array([None] * 4, pa.float64()),
            "bool": pa.array([True, False, None, True]),
            "date": pa.array([day, None, day, day.replace(year=1969)]),
            "date64": pa.array([day, None, day, day.replace(year=1969)], pa.date64()),
            "local": pa.array([moment] * 4, pa.timestamp("ms")),
            "utc": pa.array([moment, None, moment, moment], pa.timestamp("ns", tz="UTC")),
            "time": pa.array([datetime.time(23, 59, 1)] * 4, pa.time32("s")),
            "lasting": pa.array([5, 7, None, 1], pa.duration("s")),
            "decimal": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.50"), None]),
            "unsigned": pa.array([2**63 + 1024, 1, 0, None], pa.uint64()),
            "half": pa.array(np.array([1, 2, 3, 4], np.float16)),
            "bytes": pa.array([b"\xff\x00", b"", None, b"\xff\x00"]),
            "fixed": pa.array([b"ab", b"cd", None, b"ab"], pa.binary(2)),
            "large": pa.array(["a", "b", "", None], pa.large_string()),
            "view": pa.array(["a", "b", "", None], pa.string_view()),
            "coded": pa.array(["a", "b", "a", None]).dictionary_encode(),
            "list": pa.array([[1], [], None, [2, 3]]),
            "struct": pa.array([{"a": 1}, None, None, {"a": 2}]),
        },
    )
    kinds = {column.name: column.kind for column in found.columns}
    assert (kinds["none"], kinds["decimal"], kinds["coded"], kinds["list"]) == ("empty", "number", "text", "nested")
    assert (found.column("none").count, found.column("none").missing) == (0, 4)
    assert found.column("empty").numbers.mean is None
    assert found.column("empty").numbers.quantiles == {}
    assert found.column("bool").booleans.true == 2
    for name in ("date", "date64"):
        assert (found.column(name).times.minimum, found.column(name).times.maximum) == ("1969-02-28", "2013-02-28")
        assert found.column(name).times.quantiles["0.5"] == "2013-02-28"
    assert found.column("local").times.maximum == "2013-02-28T12:30:00.500"
    assert found.column("utc").times.maximum == "2013-02-28T12:30:00.500000000Z"
    assert found.column("time").times.maximum == "23:59:01"
    assert found.column("lasting").times.minimum == "1 s"
    assert found.column("decimal").numbers.mean == 2.0
    assert found.column("unsigned").numbers.maximum == float(2**63 + 1024)
    assert found.column("bytes").top.counts() == {"0xff00": 2, "0x": 1}
    assert found.column("fixed").distinct.count == 2
    for name in ("large", "view"):
        assert found.column(name).texts.empty == 1
    assert found.column("coded").top.counts() == {"a": 2, "b": 1}
    assert (found.column("list").missing, found.column("struct").missing) == (1, 2)
    write_profile(tmp_path / "p.json", found)
    assert read_profile(tmp_path / "p.json") == found
    assert "<section" in build_page(found).render()


def test_nan_and_infinities_are_counted_apart_and_never_written(tmp_path):
    found = profile(tmp_path, {"x": [1.0, math.nan, math.inf, -math.inf, None, math.nan, 3.0, -0.0]})
    numbers = found.column("x").numbers
    assert (numbers.nan, numbers.positive_infinities, numbers.negative_infinities, numbers.zeros) == (2, 1, 1, 1)
    assert (numbers.minimum, numbers.maximum, numbers.mean) == (0.0, 3.0, pytest.approx(4 / 3))
    assert (found.column("x").count, found.column("x").distinct.count) == (7, 6)
    write_profile(tmp_path / "p.json", found)
    text = (tmp_path / "p.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert {text for _, text in warnings(found)} >= {"2 values are NaN, which is not the same as missing."}


@pytest.mark.parametrize(
    "values",
    [
        [1e308, -1e308, 1e308],
        [1e200, -1e200, 3e200],
        [1e105, 2e105, -1e105],
        [5e-324, 0.0, -5e-324],
        [1e16 + 2, 1e16, 1e16 + 4],
    ],
)
def test_numbers_at_the_edges_of_floating_point(tmp_path, values):
    found = profile(tmp_path, {"x": values}).column("x")
    assert (found.numbers.minimum, found.numbers.maximum) == (min(values), max(values))
    assert found.histogram.total == 3
    if abs(values[0]) == 1e16 + 2:
        assert found.numbers.standard_deviation == 2.0


def test_a_constant_has_no_deviation(tmp_path):
    numbers = profile(tmp_path, {"x": [0.1] * 1000}).column("x").numbers
    assert (numbers.standard_deviation, numbers.skewness, numbers.kurtosis) == (0.0, None, None)
    assert numbers.mean == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize("columns", [{}, {"x": pa.array([], pa.float64()), "s": pa.array([], pa.string())}])
def test_a_table_without_rows_or_without_columns(tmp_path, columns):
    found = profile(tmp_path, columns)
    assert found.rows == 0
    assert [column.count for column in found.columns] == [0] * len(columns)
    assert ("", "The table has no rows.") in warnings(found)
    assert "no rows" in build_page(found).render()


def test_huge_texts_stay_different_and_are_listed_cut(tmp_path):
    texts = ["é" * 3_000_000 + end for end in "ab"] * 2 + ["<script>alert(1)</script>"]
    found = profile(tmp_path, {"s": texts}, fingerprint=False)
    column = found.column("s")
    assert (column.distinct.count, column.texts.longest) == (3, 3_000_001)
    assert column.top.values[0].count == 2
    assert max(len(item.value) for item in column.top.values) < 200
    assert "6,000,001 bytes" in column.top.values[0].value
    assert "<script>alert" not in build_page(found).render()


def test_one_outlier_takes_no_precision():
    rng = np.random.default_rng(1)
    values = rng.normal(1000.0, 1.0, 200_000)
    with_outlier = NumberCounts(integers=False)
    with_outlier.add(np.append(values, 1e300))
    with_outlier.finish()
    lower, upper, _ = with_outlier.buckets()
    assert np.max((upper - lower)[:-1]) < 0.002
    assert len(with_outlier.histogram(512).counts) > 256


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(0, 1, 300_000),
        np.random.default_rng(1).lognormal(3, 4, 300_000) * np.random.default_rng(2).choice([-1, 0, 1], 300_000),
        np.append(np.random.default_rng(3).uniform(1.3e9, 1.4e9, 200_000), np.full(100_000, -1.0)),
        np.append(np.arange(10**12, 10**12 + 200_000), [-(2**62), 2**62, -1, 0]),
        np.random.default_rng(4).integers(-(2**63), 2**63 - 1, 150_000),
    ],
    ids=["normal", "both signs", "sentinel", "far ids", "all of int64"],
)
def test_beyond_the_exact_limit_errors_are_as_stated(tmp_path, values):
    found = profile(tmp_path, {"x": values}).column("x")
    numbers, truth = found.numbers, pd.Series(values).astype(float)
    assert not found.distinct.exact
    assert found.distinct.count == pytest.approx(len(np.unique(values)), rel=4 * found.distinct.standard_error)
    assert found.top is None
    assert (numbers.minimum, numbers.maximum) == (values.min(), values.max())
    assert numbers.mean == pytest.approx(truth.mean(), rel=1e-9, abs=1e-9 * truth.abs().max())
    assert numbers.standard_deviation == pytest.approx(truth.std(), rel=1e-9)
    assert numbers.kurtosis == pytest.approx(truth.kurt(), rel=1e-6, abs=1e-6)
    ordered = np.sort(truth.to_numpy())
    for p, quantile in numbers.quantiles.items():
        assert quantile == pytest.approx(np.quantile(ordered, float(p)), rel=1.01 * numbers.quantile_error, abs=1e-12)
    assert numbers.zeros == (values == 0).sum()
    assert found.histogram.total == len(values)


def test_frequent_texts_among_very_many_have_exact_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(sketches, "_PENDING", 500)
    rng = np.random.default_rng(0)
    texts = [f"rare {i}" for i in range(5000)] + ["often"] * 400 + ["common"] * 300 + ["seldom"] * 20
    rng.shuffle(texts)
    counts = TextCounts(pa.string(), exact_values=1000, followed=50)
    for start in range(0, len(texts), 300):
        values = pa.array(texts[start : start + 300]).value_counts()
        counts.add(values.field("values"), values.field("counts").to_numpy())
    distinct = counts.finish()
    assert not distinct.exact
    assert distinct.count == pytest.approx(5003, rel=0.03)
    assert counts.error == len(texts) // 51
    assert {"often", "common"} <= set(counts.candidates(2).to_pylist())
    # Through the whole: the limits of the module, on one column that goes beyond them.
    many = [f"rare {i}" for i in range(70_000)] + ["often"] * 400 + ["common"] * 300
    rng.shuffle(many)
    column = profile(tmp_path, {"s": many}).column("s")
    assert column.top.counts() == {"often": 400, "common": 300}
    assert (column.top.complete, column.top.others_at_most) == (False, 70_700 // 16_385)


def test_texts_have_the_same_profile_whether_they_come_as_dictionaries_or_not(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    texts = np.array(["", "a", "ü" * 300, "ü" * 300 + "x", "longer"], dtype=object)
    columns = {
        "few": pa.array(texts[random.integers(0, 5, 150_000)], mask=random.random(150_000) < 0.1),
        "none": pa.array([None] * 150_000, pa.string()),
        "one": pa.array(["same"] * 150_000),
    }
    write_table(tmp_path / "table", pa.table(columns), source="test")
    table = Table(tmp_path / "table")
    kinds = {name: next(table.batches(dictionaries=True)).schema.field(name).type for name in columns}
    assert all(pa.types.is_dictionary(kind) for kind in kinds.values())
    as_dictionaries = profile_of(table)
    monkeypatch.setattr("pipeparts.runtime.tables._TEXT_BYTES", 0)
    assert profile_of(table) == as_dictionaries


def test_counts_alone_are_the_same_counts(tmp_path):
    random = np.random.default_rng(0)
    numbers = random.normal(3.0, 2.0, 200_000)
    numbers[:100] = -numbers[:100] * 1e6
    table = pa.table({"float": numbers, "integer": random.integers(-(2**40), 2**40, 200_000), "few": numbers.round()})
    write_table(tmp_path / "table", table, source="test")
    whole, counts = (profile_of(Table(tmp_path / "table"), counts_only=counts_only) for counts_only in (False, True))
    for known, found in zip(whole.columns, counts.columns, strict=True):
        assert found.histogram == known.histogram
        assert found.numbers.quantiles == known.numbers.quantiles
        assert found.numbers.mean == pytest.approx(known.numbers.mean, rel=1e-3)
        assert found.numbers.standard_deviation == pytest.approx(known.numbers.standard_deviation, rel=1e-3)
    assert [column.distinct is None for column in counts.columns] == [True, False, False]
    assert counts.columns[2] == whole.columns[2], "few values are counted exactly either way"


def test_the_cardinality_estimate_is_within_its_error():
    for size in (10, 1_000, 30_000, 60_000, 300_000):
        sketch = Cardinality()
        sketch.add(mix64(np.arange(size, dtype=np.uint64)))
        assert sketch.estimate() == pytest.approx(size, rel=3 * Cardinality.STANDARD_ERROR)
    one, two, both = Cardinality(), Cardinality(), Cardinality()
    assert one.estimate() == 0
    one.add(mix64(np.arange(500, dtype=np.uint64)))
    two.add(mix64(np.arange(300, 900, dtype=np.uint64)))
    both.add(mix64(np.arange(900, dtype=np.uint64)))
    one.merge(two)
    assert one.estimate() == both.estimate()


numbers = st.lists(st.one_of(st.integers(-50, 50).map(float), st.floats(-1e9, 1e9)), min_size=1, max_size=200)


def counted(batches, **limits):
    counts = NumberCounts(integers=False, **limits)
    for batch in batches:
        counts.add(np.array(batch, dtype=np.float64))
    distinct, moments = counts.finish()
    return counts, distinct, moments


@settings(deadline=None)
@given(numbers, st.integers(0, 2**32 - 1), st.integers(1, 50), st.sampled_from([5, 1000]))
def test_neither_the_order_nor_the_batches_change_a_profile(values, seed, size, limit):
    limits = {"exact_values": limit, "buckets": limit}
    shuffled = np.random.default_rng(seed).permutation(values)
    whole, distinct, moments = counted([values], **limits)
    cut, distinct_cut, moments_cut = counted(
        [shuffled[start : start + size] for start in range(0, len(values), size)], **limits
    )
    assert distinct == distinct_cut
    assert whole.histogram(16) == cut.histogram(16)
    assert (whole.minimum, whole.maximum, whole.zeros) == (cut.minimum, cut.maximum, cut.zeros)
    assert moments.mean == pytest.approx(moments_cut.mean, rel=1e-9, abs=1e-6)
    assert moments.second == pytest.approx(moments_cut.second, rel=1e-6, abs=1e-3)


@settings(deadline=None)
@given(numbers, numbers)
def test_moments_merge_to_those_of_the_whole(one, two):
    first, second, whole = Moments(), Moments(), Moments()
    first.add(np.array(one))
    second.add(np.array(two))
    whole.add(np.array(one + two))
    first.merge(second)
    assert first.count == whole.count
    scale = max(1.0, max(abs(value) for value in one + two))
    assert first.mean == pytest.approx(whole.mean, rel=1e-9, abs=1e-9 * scale)
    assert first.second == pytest.approx(whole.second, rel=1e-6, abs=1e-9 * scale**2)
    assert first.fourth == pytest.approx(whole.fourth, rel=1e-6, abs=1e-9 * scale**4)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_ordered_bits_are_in_the_order_of_the_numbers(values):
    array = np.array(values)
    bits = ordered_bits(array)
    assert (np.argsort(bits, kind="stable") == np.argsort(array, kind="stable")).all()
    assert (from_ordered_bits(bits) == array).all()


def test_a_coarse_histogram_and_a_fine_one_share_a_grid():
    values = np.random.default_rng(0).normal(5, 2, 100_000)
    counts, _, _ = counted([values])
    fine, coarse = counts.histogram(4096), counts.histogram(100)
    assert jensen_shannon(fine, coarse) == 0
    moved, _, _ = counted([values + 1])
    near = jensen_shannon(fine, moved.histogram(4096))
    assert 0.02 < near < 0.2
    far, _, _ = counted([values + 100])
    assert jensen_shannon(fine, far.histogram(256)) == pytest.approx(1.0)
    with pytest.raises(DataError, match="without values"):
        jensen_shannon(fine, Histogram(exact=True, shift=0, lower=(), counts=()))


def test_l_infinity_gives_the_value_whose_share_differs_most(tmp_path):
    one = profile(tmp_path / "1", {"s": ["a"] * 50 + ["b"] * 50}).column("s")
    two = profile(tmp_path / "2", {"s": ["a"] * 20 + ["b"] * 50 + ["c"] * 30}).column("s")
    assert l_infinity(one, one) == (0.0, None)
    assert l_infinity(one, two) == (pytest.approx(0.3), "a")
    cut = profile(tmp_path / "3", {"s": ["a"] * 20 + ["b"] * 50 + ["c"] * 30}, top=1).column("s")
    # "a" is not listed there: it may occur up to 30 times, so that a difference of 0.2 is sure.
    assert l_infinity(one, cut) == (pytest.approx(0.2), "a")


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        (lambda document: [], "not a profile"),
        (lambda document: document | {"format": "pipeparts.table/1"}, "not a profile"),
        (lambda document: {k: v for k, v in document.items() if k != "rows"}, "a damaged profile"),
        (lambda document: document | {"columns": [{"name": "x"}]}, "a damaged profile"),
    ],
)
def test_what_is_no_profile_is_refused(tmp_path, change, headline):
    write_profile(tmp_path / "p.json", profile(tmp_path, {"x": [1]}))
    document = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps(change(document)))
    with pytest.raises(ContractError, match=headline):
        read_profile(tmp_path / "p.json")


def test_an_unknown_column_of_a_profile_is_named_with_the_close_match(tmp_path):
    with pytest.raises(DataError, match="no such column") as error:
        profile(tmp_path, {"carrier": ["a"]}).column("carier")
    assert "did you mean 'carrier'?" in str(error.value)


def test_warnings_name_what_a_person_should_look_at(tmp_path):
    size = 200
    found = profile(
        tmp_path,
        {
            "constant": [1] * size,
            "gone": pa.array([None] * size, pa.string()),
            "sparse": [1.5, None, 2.5, None] * (size // 4),
            "key": [f"id {i}" for i in range(size)],
            "blank": ["", "a"] * (size // 2),
            "fine": [float(i % 7) for i in range(size)],
        },
    )
    by_column = dict(warnings(found))
    assert "Constant" in by_column["constant"]
    assert by_column["gone"] == "All values are missing."
    assert "50.0%" in by_column["sparse"]
    assert "key" in by_column["key"]
    assert "empty" in by_column["blank"]
    assert "fine" not in by_column


@pytest.mark.slow
def test_memory_stays_bounded_whatever_the_number_of_rows(tmp_path):
    rng = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
    with TableWriter(tmp_path / "table", schema, source="noise", fingerprint=False) as writer:
        for start in range(0, 2_000_000, 100_000):
            rows = np.arange(start, start + 100_000)
            texts = pa.array(rows).cast(pa.string())
            writer.write(pa.table([pa.array(rows), pa.array(rng.normal(size=100_000)), texts], schema=schema))
    script = (
        "import sys\n"
        "from pipeparts.runtime.profiling import profile_of\n"
        "from pipeparts.runtime.tables import Table\n"
        "profile_of(Table(sys.argv[1]))\n"
        'print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "table")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400
