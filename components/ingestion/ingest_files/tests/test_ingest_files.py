"""Tests of the logic of `ingest_files`: what is read, as what, and that nothing is lost."""

import csv
import datetime
import gzip
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeparts.components.ingestion.ingest_files.logic import ingest_files
from pipeparts.runtime.file_ingestion import csv_rows, ingestion, json_rows, kinds, opening, text_rows
from pipeparts.runtime.tables import Table, arrow_type

FLIGHTS = "tests/data/flights.csv"
UTC = datetime.UTC


def ingest(folder, source, **arguments):
    """Ingests and gives back the table (as an Arrow table), the bad rows, and the descriptions."""
    done = ingest_files(
        source=str(source), table_path=folder / "table", quarantine_path=folder / "quarantine", **arguments
    )
    return Table(folder / "table").read(), Table(folder / "quarantine").read().to_pylist(), done


def write(path, text, encoding="utf-8"):
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def column(folder, values, **arguments):
    """The type name and the values of a CSV column, beside a column that keeps blank lines apart."""
    text = "id,x\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values))
    table, bad, done = ingest(folder, write(folder / "in.csv", text), **arguments)
    assert not bad
    return done.table.columns["x"], table["x"].to_pylist()


@pytest.fixture
def tiny_windows(monkeypatch):
    """Windows of a few bytes, so that every boundary falls everywhere."""
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 40)
    for module in (text_rows, csv_rows, json_rows):
        monkeypatch.setattr(module, "SMALL_WINDOW", 12)


# ---- types ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["1", "-20", ""], "int64", [1, -20, None]),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["1", "2.5"], "float64", [1.0, 2.5]),
        (["1e3", "-.5", "5."], "float64", [1000.0, -0.5, 5.0]),
        (["1", "inf", "-inf"], "float64", [1.0, math.inf, -math.inf]),
        (["true", "False", "NA"], "bool", [True, False, None]),
        (["2013-01-31", "NULL"], "date", [datetime.date(2013, 1, 31), None]),
        (
            ["2013-01-31 10:00:00", "2013-01-31T10:00:00.000001"],
            "timestamp",
            [datetime.datetime(2013, 1, 31, 10), datetime.datetime(2013, 1, 31, 10, 0, 0, 1)],
        ),
        (
            ["2013-01-31T10:00:00Z", "2013-01-31T10:00:00+02:00"],
            "timestamp_utc",
            [datetime.datetime(2013, 1, 31, 10, tzinfo=UTC), datetime.datetime(2013, 1, 31, 8, tzinfo=UTC)],
        ),
        (["a", "b"], "string", ["a", "b"]),
        (["", "NA", "N/A", "null", "NULL", "None", '""', '"NA"'], "string", [None] * 8),
        ([" 5", "6 "], "int64", [5, 6]),
    ],
)
def test_types_are_found(tmp_path, values, kind, read):
    assert column(tmp_path, values) == (kind, read)


@pytest.mark.parametrize(
    "values",
    [
        ["00008", "8"],  # leading zeros
        ["-007"],
        ["01.50", "2"],
        [" 008", "9"],
        ["+4930", "7"],
        ["0x1F"],
        ["9223372036854775808"],  # beyond 64 bits
        ["1", "99999999999999999999"],
        ["9007199254740993", "0.5"],  # a float would lose the last digit
        ["1e400"],
        ["2013-02-30"],
        ["2013-01-31T10:00:00Z", "2013-01-31T10:00:00"],  # with and without a zone
        ["2013-01-31 10:00:00.1234567"],
        ["true", "1"],
        ["2013-01-01", "5"],
        ["1,5".replace(",", ".") + "x"],
        ["1_000"],
        ["true", "maybe"],
    ],
)
def test_what_would_lose_something_stays_text(tmp_path, values):
    assert column(tmp_path, values) == ("string", values)


def test_nan_is_a_number_and_not_missing(tmp_path):
    kind, values = column(tmp_path, ["1.5", "NaN", "nan", ""])
    assert kind == "float64"
    assert math.isnan(values[1])
    assert math.isnan(values[2])
    assert values[3] is None


def test_null_values_are_a_choice(tmp_path):
    assert column(tmp_path, ["NA", "-"], options={"null_values": ["-"]}) == ("string", ["NA", None])


def test_a_large_integer_survives_beside_a_missing_one(tmp_path):
    assert column(tmp_path, ["9007199254740993", ""]) == ("int64", [9007199254740993, None])


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ("1", "2.5", "float64"),
        ("1", "x", "string"),
        ("", "7", "int64"),
        ("5", "00008", "string"),
        ("9007199254740993", "2.5", "string"),
        ("2013-01-01", "2013-01-01 10:00:00", "timestamp"),
        ("", "", "string"),
        ("true", "no", "string"),
    ],
)
def test_a_late_value_changes_the_type_of_the_whole_column(tmp_path, monkeypatch, early, late, kind):
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 4096)
    found, values = column(tmp_path, [early] * 5_000 + [late] + [early] * 500)
    assert found == kind
    if kind == "string":
        assert values == [value or None for value in [early] * 5_000 + [late] + [early] * 500]


ODD_NUMBERS = [
    "5", " 5", "5\t", "+5", "-5", "-0", "007", "0x1f", "-0x1", "5.0", "1e3", " ", "nan", "inf", "+inf", "Infinity",
    "1_0", "9223372036854775807", "9223372036854775808", "0xFFFFFFFFFFFFFFFF", "1e400", "4.9e-324", ".5", "5.", "1,5",
    "--5", "5e", "0x1p3", "1d5", "true", "\u0661", "5\u00a0", "\u20035", "nan(1)", "123456789012345678901234567890",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["int64", "float64"])
@pytest.mark.parametrize("text", ODD_NUMBERS)
def test_a_number_read_from_the_bytes_is_the_one_that_its_text_gives(tmp_path, kind, text):
    expected, misfits = kinds.convert(pa.array([text, "1"]), arrow_type(kind))
    table, bad, _ = ingest(
        tmp_path, write(tmp_path / "in.csv", f'x\n"{text}"\n1\n'), columns={"x": kind}, max_bad_rows=1
    )
    assert len(bad) == (0 if misfits is None else 1)
    assert repr(table["x"].to_pylist()) == repr(expected.to_pylist()[len(bad) :])


def test_given_types_win_and_the_rest_is_found(tmp_path):
    source = write(tmp_path / "a.csv", "zip,n,day\n00008,1,2013-01-01\n8,2,2013-01-02\n")
    table, _, done = ingest(tmp_path, source, columns={"n": "float64", "zip": "int64"})
    assert done.table.columns == {"zip": "int64", "n": "float64", "day": "date"}
    assert table["zip"].to_pylist() == [8, 8]
    assert done.table.extra["columns_inferred"] == ["day"]


def test_real_flights_are_read_whole(tmp_path):
    table, bad, done = ingest(tmp_path, FLIGHTS)
    with Path(FLIGHTS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table.num_rows == len(rows) == 2005
    assert not bad
    assert done.table.columns["time_hour"] == "timestamp_utc"
    assert done.table.columns["dep_time"] == "int64"
    assert done.table.columns["temp"] == "float64"
    for name in ("tailnum", "dep_delay", "wind_gust", "flight_id"):
        kind = {"int64": int, "float64": float, "string": str}[done.table.columns[name]]
        assert table[name].to_pylist() == [None if row[name] == "" else kind(row[name]) for row in rows]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        ingest(tmp_path / run, FLIGHTS)
    for name in ("table/_table.json", "table/part-00000.parquet", "quarantine/_table.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# ---- CSV, with windows so small that every case meets a boundary ----------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)
VALUE = st.one_of(TEXT, st.sampled_from(['"', '""', ",", "\n", '5" pipe', "00008", 'é\n,"x', "-1", "2.5", " ", "NA"]))
ROWS = st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=1, max_size=30)
WRITERS = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


@pytest.mark.slow
@given(rows=ROWS, quoting=WRITERS, end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_as_csv_comes_back(tmp_path_factory, tiny_windows, rows, quoting, end):
    folder = tmp_path_factory.mktemp("run")
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerows([("a", "b", "c"), *rows])
    table, bad, _ = ingest(folder, write(folder / "in.csv", text.getvalue()), columns=dict.fromkeys("abc", "string"))
    nulls = set(ingestion.NULL_VALUES)
    assert bad == []
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        tuple(None if value in nulls else value for value in row) for row in rows
    ]


NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(repr),
    st.sampled_from(["", "0", "00", "-0", "1e5", "true", "2013-01-01", "x", " 4"]),
)


@pytest.mark.slow
@given(values=st.lists(NUMBERS, min_size=1, max_size=40), first=st.sampled_from(["1", "1.5", "", "true"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_types_do_not_depend_on_where_windows_end(tmp_path_factory, values, first):
    values = [first] * 5 + values
    found = []
    for window in (1 << 20, 30):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_rows, "FULL_WINDOW", window)
            kind, read = column(tmp_path_factory.mktemp("run"), values)
            found.append((kind, repr(read)))
    assert found[0] == found[1]
    kind, read = found[0][0], read
    present = [value for value in values if value]
    if kind == "int64":
        assert [int(value) for value in present] == [value for value in read if value is not None]
    elif kind == "string":
        assert [value or None for value in values] == read


@pytest.mark.slow
@given(lines=st.lists(st.text('a,"1\n é', max_size=8), max_size=20))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fast_and_exact_reading_agree_on_anything(tmp_path_factory, lines):
    """Every physical line ends in a row or in the quarantine, the same by both ways."""
    folder = tmp_path_factory.mktemp("run")
    source = write(folder / "in.csv", "\n".join(["p,q", "1,2", *lines]))
    results = []
    for slow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if slow:
                patch.setattr(csv_rows.CsvReader, "_parse", lambda self, block: None)
            table, bad, _ = ingest(folder, source, max_bad_rows=10_000)
        results.append((table.to_pylist(), bad))
    assert results[0] == results[1]


TIMES = [
    "2013-01-01T05:00:00Z", "2013-01-01 05:00:00.123456Z", "2013-01-01T05:00:00.1234567Z", "2013-01-01T05:00:00",
    "2013-01-01 05:00", "2013-01-01", "2013-01-01T05:00:00+02:00", "2013-01-01T05:00:00+0200", " 2013-01-01T05:00:00Z ",
    "2013-02-30", "1600-01-01", "300000-01-01", "", "NA", "x", "1357016400", "2013-01-01T25:00:00Z", "2013-01-01T05Z",
]  # fmt: skip


@pytest.mark.slow
@given(times=st.lists(st.sampled_from(TIMES), min_size=1, max_size=30), kind=st.sampled_from(["", "_utc"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_given_times_are_the_same_from_bytes_and_from_texts(tmp_path_factory, times, kind):
    folder = tmp_path_factory.mktemp("run")
    source = write(folder / "in.csv", "n,t\n0,\n" + "".join(f"1,{text}\n" for text in times))
    results = []
    for direct in (csv_rows._DIRECT, ()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_rows, "_DIRECT", direct)
            table, bad, _ = ingest(folder, source, columns={"t": f"timestamp{kind}"}, max_bad_rows=100)
        results.append((table.to_pylist(), bad))
    assert results[0] == results[1]


@pytest.mark.slow
@given(lines=st.lists(st.text('a,"\n', max_size=8), min_size=1, max_size=20), last=st.booleans())
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_quick_look_at_quotes_says_what_the_thorough_one_says(tmp_path_factory, lines, last):
    stream = opening.Stream(io.BytesIO(b'a,b\n"1","x"\n'), "in.csv")
    dialect = csv_rows.Dialect(",", True, '"', True, None, ())
    reader = csv_rows.CsvReader(stream, ingestion._NoRows(), dialect)
    reader.position, reader.buffer = 0, "\n".join(lines).encode()
    found = reader.cut(len(reader.buffer), last)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "_PIECE", 3)
        assert reader.cut(len(reader.buffer), last) == found
        patch.setattr(csv_rows.CsvReader, "_is_well_quoted", lambda *_: False)
        assert reader.cut(len(reader.buffer), last) == found


def test_lines_are_counted_through_quoted_line_breaks(tmp_path, tiny_windows):
    text = 'a,b\n1,"x\ny\nz"\n\n2,"q"\n3\n4,"m\nn",9\n5,ok\n'
    table, bad, done = ingest(tmp_path, write(tmp_path / "in.csv", text), max_bad_rows=2)
    assert table.to_pylist() == [{"a": 1, "b": "x\ny\nz"}, {"a": 2, "b": "q"}, {"a": 5, "b": "ok"}]
    source = str(tmp_path / "in.csv")
    assert bad == [
        {"file": source, "line": 7, "reason": "1 value where there are 2 columns", "text": "3"},
        {"file": source, "line": 8, "reason": "3 values where there are 2 columns", "text": '4,"m\nn",9'},
    ]
    assert done.table.extra["bad_rows"] == 2
    assert done.quarantine.rows == 2


@pytest.mark.parametrize("bad_at", [0, 9_999, 50_000])
def test_a_bad_row_among_many_is_found_by_its_line(tmp_path, bad_at):
    lines = [f"{i},text {i},{i}.5" for i in range(60_000)]
    lines[bad_at] = f"{bad_at},only two"
    table, bad, _ = ingest(tmp_path, write(tmp_path / "in.csv", "\n".join(["a,b,c", *lines])), max_bad_rows=1)
    assert table["a"].to_pylist() == [i for i in range(60_000) if i != bad_at]
    assert [(row["line"], row["text"]) for row in bad] == [(bad_at + 2, f"{bad_at},only two")]


def test_a_value_that_does_not_fit_its_given_type_is_a_bad_row(tmp_path):
    source = write(tmp_path / "in.csv", "a,b\n1,2013-01-01\nx,2013-01-02\n3,soon\n 4 ,\n")
    table, bad, _ = ingest(tmp_path, source, columns={"a": "int64", "b": "date"}, max_bad_rows=2)
    assert table["a"].to_pylist() == [1, 4]
    assert [(row["line"], row["reason"]) for row in bad] == [
        (3, "column 'a': 'x' is no int64"),
        (4, "column 'b': 'soon' is no date"),
    ]


def test_other_delimiters_and_quotes(tmp_path):
    source = write(tmp_path / "in.csv", "a;b\n'x;y';1\n")
    table, _, _ = ingest(tmp_path, source, options={"delimiter": ";", "quote": "'"})
    assert table.to_pylist() == [{"a": "x;y", "b": 1}]
    table, _, _ = ingest(tmp_path, write(tmp_path / "q.tsv", 'a\tb\n"x\t1\n'), options={"quote": ""})
    assert table.to_pylist() == [{"a": '"x', "b": 1}]


def test_files_without_a_header(tmp_path):
    source = write(tmp_path / "in.csv", "1,x\n2,y\n")
    table, _, _ = ingest(tmp_path, source, options={"header": False})
    assert table.column_names == ["column_1", "column_2"]
    assert table.num_rows == 2
    table, _, _ = ingest(tmp_path, source, options={"header": False, "names": ["a", "b"]}, columns={"a": "string"})
    assert table.to_pylist() == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def test_a_header_of_numbers_can_be_said_to_be_one(tmp_path):
    table, _, _ = ingest(tmp_path, write(tmp_path / "in.csv", "2012,2013\n1,2\n"), options={"header": True})
    assert table.to_pylist() == [{"2012": 1, "2013": 2}]


def test_a_column_without_a_name_gets_one(tmp_path):
    table, _, _ = ingest(tmp_path, write(tmp_path / "in.csv", ",a\n0,x\n"))
    assert table.column_names == ["column_1", "a"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_ending_is_read(tmp_path, end):
    table, _, _ = ingest(tmp_path, write(tmp_path / "in.csv", end.join(["a,b", "1,x", "", '2,"y"', ""])))
    assert table.to_pylist() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    ("encoding", "option"),
    [
        ("utf-8-sig", "utf-8"),
        ("latin-1", "latin-1"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("cp1252", "cp1252"),
    ],
)
def test_encodings(tmp_path, encoding, option):
    text = "näme,n\n" + "Zoë Ångström,1\n" * 5_000
    table, _, _ = ingest(tmp_path, write(tmp_path / "in.csv", text, encoding), options={"encoding": option})
    assert table.column_names == ["näme", "n"]
    assert set(table["näme"].to_pylist()) == {"Zoë Ångström"}
    assert table.num_rows == 5_000


# ---- JSON Lines -----------------------------------------------------------------------------------------------


def test_json_lines(tmp_path):
    rows = [
        {"a": 1, "b": 1.5, "c": "00008", "d": True, "when": "2013-01-01T00:00:00Z", "day": "2013-01-01"},
        {"a": None, "b": 2, "c": "NA", "d": False, "when": None, "day": "2013-01-02"},
        {"c": "", "deep": {"x": [1, 2.5]}},
    ]
    source = write(tmp_path / "in.jsonl", "\n".join(json.dumps(row) for row in rows))
    table, _, done = ingest(tmp_path, source)
    assert done.table.columns == {
        "a": "int64",
        "b": "float64",
        "c": "string",
        "d": "bool",
        "when": "timestamp_utc",
        "day": "date",
        "deep": "string",
    }
    assert table["a"].to_pylist() == [1, None, None]
    assert table["c"].to_pylist() == ["00008", "NA", ""]  # JSON has a null of its own
    assert table["deep"].to_pylist() == [None, None, '{"x": [1, 2.5]}']


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        (["1", "2.50"], "float64", [1.0, 2.5]),
        (["1", '"x"'], "string", ["1", "x"]),
        (["2.50", '"x"'], "string", ["2.50", "x"]),
        (["true", "1"], "string", ["true", "1"]),
        (['"5"', '"6"'], "string", ["5", "6"]),
        (["9223372036854775808", "1"], "string", ["9223372036854775808", "1"]),
        (["9007199254740993", "1.5"], "string", ["9007199254740993", "1.5"]),
        (["1e400", "1"], "string", ["1e400", "1"]),
        (["1", "[1, 2]"], "string", ["1", "[1, 2]"]),
        (["null", "null"], "string", [None, None]),
    ],
)
@pytest.mark.parametrize("between", [0, 3_000])
def test_json_types_are_found_and_lose_nothing(tmp_path, monkeypatch, values, kind, read, between):
    """The second value comes at once, or when many rows have been handed on already."""
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 4096)
    lines = [values[0]] * (between + 1) + [values[1]]
    source = write(tmp_path / "in.jsonl", "\n".join(f'{{"x": {value}, "i": 1}}' for value in lines))
    table, _, done = ingest(tmp_path, source)
    assert done.table.columns["x"] == kind
    assert table["x"].to_pylist() == [read[0]] * (between + 1) + [read[1]]


def test_a_key_that_comes_late_is_a_column(tmp_path, monkeypatch):
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 4096)
    lines = ['{"a": 1}'] * 5_000 + ['{"b": "x", "a": 2}']
    table, _, _ = ingest(tmp_path, write(tmp_path / "in.ndjson", "\n".join(lines)))
    assert table.num_rows == 5_001
    assert table["b"].to_pylist()[-2:] == [None, "x"]


def test_broken_json_lines_are_bad_rows(tmp_path, tiny_windows):
    lines = [b'{"a": 1}', b'{"a": 2', b"[1]", b"", b'{"a": 1, "a": 2}', b'{"a": 3}{"a": 4}', b'{"a": "\xff"}', b'"x"',
             b'{"a": "\\ud800"}', b'{"a": "\0"}', b'{"a": 5}']  # fmt: skip
    table, bad, _ = ingest(tmp_path, write(tmp_path / "in.jsonl", b"\n".join(lines)), max_bad_rows=8)
    assert table["a"].to_pylist() == [1, 5]
    assert [(row["line"], row["reason"]) for row in bad] == [
        (2, "not JSON: Expecting ',' delimiter at character 8"),
        (3, "not a JSON object but an array"),
        (5, "not JSON: the key 'a' twice"),
        (6, "not JSON: Extra data at character 9"),
        (7, "not valid UTF-8: byte 0xff"),
        (8, "not a JSON object but a text"),
        (9, "half of a surrogate pair in a text"),
        (10, "a NUL byte"),
    ]


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
)


def test_json_keeps_a_whole_number_above_2_to_the_53_among_fractions(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows.JsonReader, "read_fast", lambda self, block: False)
    source = write(tmp_path / "in.jsonl", '{"b": 0.5}\n{"b": 9007199254740994}\n')
    table, _, _ = ingest(tmp_path, source)
    assert table["b"].to_pylist() == [0.5, 9007199254740994.0]


@pytest.mark.slow
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), JSON_VALUES, max_size=3), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_json_reads_the_same_fast_and_one_by_one(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("run")
    rows = [{"a": 1, "b": 0.5, "c": "x"}] * 3 + rows
    source = write(folder / "in.jsonl", "\n".join(json.dumps(row) for row in rows))
    results = []
    for slow in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(text_rows, "FULL_WINDOW", 64)
            if slow:
                patch.setattr(json_rows.JsonReader, "read_fast", lambda self, block: False)
            table, bad, _ = ingest(folder, source, max_bad_rows=1_000)
            results.append((table, bad))
    assert results[0][0].equals(results[1][0])
    assert results[0][1] == results[1][1]


# ---- Parquet --------------------------------------------------------------------------------------------------


def test_parquet_keeps_its_types(tmp_path):
    table = pa.table(
        {
            "i": pa.array([1, None], pa.int32()),
            "s": pa.array(["a", "b"]).dictionary_encode(),
            "t": pa.array([datetime.datetime(2013, 1, 1)] * 2, pa.timestamp("ms", "Europe/Berlin")),
            "l": pa.array([[1, 2], None]),
            "big": pa.array(["x", None], pa.large_string()),
            "none": pa.nulls(2),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    read, _, done = ingest(tmp_path, tmp_path / "in.parquet")
    assert done.table.columns == {
        "i": "int32",
        "s": "string",
        "t": "timestamp_utc",
        "l": "string",
        "big": "string",
        "none": "string",
    }
    assert read["l"].to_pylist() == ["[1, 2]", None]
    assert read["t"].to_pylist()[0] == datetime.datetime(2013, 1, 1, tzinfo=UTC)


def test_parquet_values_that_do_not_fit_are_bad_rows(tmp_path):
    pq.write_table(pa.table({"a": [1.0, 2.5, None], "b": ["x", "y", "z"]}), tmp_path / "in.parquet")
    table, bad, _ = ingest(tmp_path, tmp_path / "in.parquet", columns={"a": "int64"}, max_bad_rows=1)
    assert table.to_pylist() == [{"a": 1, "b": "x"}, {"a": None, "b": "z"}]
    assert (bad[0]["line"], bad[0]["reason"]) == (2, "column 'a': '2.5' is no int64")
    assert json.loads(bad[0]["text"]) == {"a": 2.5, "b": "y"}


def test_a_table_of_ours_is_read_as_a_folder(tmp_path):
    ingest(tmp_path, FLIGHTS)
    (tmp_path / "again").mkdir()
    again, _, done = ingest(tmp_path / "again", tmp_path / "table")
    assert again.equals(Table(tmp_path / "table").read())
    assert done.table.fingerprint == Table(tmp_path / "table").info.fingerprint


# ---- compression, archives, folders ---------------------------------------------------------------------------


def pack(path, data):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]))
    elif path.suffix == ".zst":
        path.write_bytes(zstandard.compress(data[:100]) + zstandard.compress(data[100:]))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            lines = data.splitlines(keepends=True)
            archive.writestr("__MACOSX/._a.csv", b"rubbish")
            archive.writestr("folder/b.csv.gz", gzip.compress(lines[0] + b"".join(lines[1001:])))
            archive.writestr("a.csv", b"".join(lines[:1001]))
    return path


@pytest.mark.parametrize("name", ["f.csv.gz", "f.csv.zst", "f.zip"])
def test_compressed_files_hold_the_same_rows(tmp_path, name):
    source = pack(tmp_path / name, Path(FLIGHTS).read_bytes())
    (tmp_path / "plain").mkdir()
    plain, _, _ = ingest(tmp_path / "plain", FLIGHTS)
    packed, _, _ = ingest(tmp_path, source)
    assert packed.equals(plain)


def test_rows_of_an_archive_are_known_by_their_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/x.csv", "a,b\n1\n2,3\n")
    _, bad, _ = ingest(tmp_path, tmp_path / "a.zip", max_bad_rows=1)
    assert bad[0]["file"] == f"{tmp_path}/a.zip/in/x.csv"


def test_parquet_in_an_archive_and_compressed(tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2]}), buffer)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.parquet", buffer.getvalue())
    assert ingest(tmp_path, tmp_path / "a.zip")[0]["a"].to_pylist() == [1, 2]
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(buffer.getvalue()))
    assert ingest(tmp_path, tmp_path / "b.parquet.gz")[0]["a"].to_pylist() == [1, 2]


def test_folders_and_globs_follow_by_name_without_hidden_files(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for name, number in (("b.csv", 2), ("a.csv", 1), ("sub/c.csv", 3)):
        write(folder / name, f"n,m\n{number},x\n")
    for name in ("_SUCCESS", ".hidden.csv", "_old.csv"):
        write(folder / name, "junk")
    table, _, done = ingest(tmp_path, folder)
    assert table["n"].to_pylist() == [1, 2, 3]
    assert done.table.extra["files"] == 3
    assert ingest(tmp_path, folder / "*.csv")[0]["n"].to_pylist() == [1, 2]
    assert ingest(tmp_path, folder / "**" / "*.csv")[0]["n"].to_pylist() == [1, 2, 3]
    assert ingest(tmp_path, folder / "[b]*")[0]["n"].to_pylist() == [2]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path):
    assert ingest(tmp_path, write(tmp_path / "a[1].csv", "n,m\n5,x\n"))[0]["n"].to_pylist() == [5]


def test_columns_in_another_order_are_the_same_columns(tmp_path):
    write(tmp_path / "a.csv", "x,y\n1,a\n")
    write(tmp_path / "b.csv", "y,x\nb,2\n")
    table, _, _ = ingest(tmp_path, tmp_path / "*.csv")
    assert table.to_pylist() == [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_missing_columns_can_be_null(tmp_path, format):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, row in (("a", {"x": [1]}), ("b", {"x": [2], "y": ["q"]})):
        if format == "csv":
            write(
                folder / f"{name}.csv",
                "\n".join(",".join(map(str, line)) for line in (row, (v[0] for v in row.values()))),
            )
        else:
            pq.write_table(pa.table(row), folder / f"{name}.parquet")
    table, _, _ = ingest(tmp_path, folder, options={"missing_columns": "null"})
    assert table.to_pylist() == [{"x": 1, "y": None}, {"x": 2, "y": "q"}]


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("data", "a,b\n1,2\n", [{"a": 1, "b": 2}]),
        ("data.txt", "a\tb\n1\t2\n", [{"a": 1, "b": 2}]),
        ("part-0", '{"a": 1}\n', [{"a": 1}]),
    ],
)
def test_the_content_tells_the_format_where_the_name_does_not(tmp_path, name, text, rows):
    assert ingest(tmp_path, write(tmp_path / name, text))[0].to_pylist() == rows


def test_a_table_without_rows_can_be_right(tmp_path):
    write(tmp_path / "a.csv", "x,y\n")
    write(tmp_path / "b.csv", "")
    table, _, _ = ingest(tmp_path, tmp_path / "*.csv", options={"allow_empty": True}, columns={"x": "int64"})
    assert table.num_rows == 0
    assert table.schema.names == ["x", "y"]
    assert table.schema.field("x").type == pa.int64()


def test_metadata_for_the_consoles(tmp_path):
    _, _, done = ingest(tmp_path, FLIGHTS, source_version="abc")
    metadata = done.table.metadata()
    json.dumps(metadata)
    assert metadata["rows"] == 2005
    assert metadata["source"] == FLIGHTS
    assert metadata["source_version"] == "abc"
    assert metadata["files"] == 1
    assert metadata["format"] == "csv"
    assert metadata["bad_rows"] == 0


# ---- memory ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "quoted.csv"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    line = b'%d,some text that is not short,2013-01-01T10:00:00Z,3.25,"quoted, text"\n'
    if kind == "jsonl":
        line = b'{"a": %d, "b": "some text that is not short", "c": "2013-01-01T10:00:00Z", "d": 3.25}\n'
    elif kind == "quoted.csv":
        line = b'%d,"some text\nthat is not short",2013-01-01T10:00:00Z,3.25,5" pipe\n'
    peaks = []
    for megabytes in (20, 180):
        source = tmp_path / f"in{megabytes}.{kind}"
        with gzip.open(source, "wb", 1) if kind.endswith("gz") else source.open("wb") as file:
            if kind != "jsonl":
                file.write(b"a,b,c,d,e\n")
            some = b"".join(line % i for i in range(10_000))
            for _ in range(megabytes * 1_000_000 // len(some)):
                file.write(some)
        code = (
            "import sys\n"
            "from pipeparts.components.ingestion.ingest_files.logic import ingest_files\n"
            "ingest_files(source=sys.argv[1], table_path=sys.argv[2] + '/t', quarantine_path=sys.argv[2] + '/q')\n"
            'print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)'
        )
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(
            [sys.executable, "-c", code, str(source), str(tmp_path)],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        peaks.append(int(done.stdout))
        source.unlink()
    assert peaks[1] < peaks[0] + 120, f"resident megabytes of a small and a large file: {peaks}"
    assert peaks[1] < 650
