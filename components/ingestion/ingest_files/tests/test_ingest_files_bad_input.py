"""Each kind of bad input of `ingest_files`, and the message it gets."""

import gzip
import http.server
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from pipeparts.components.ingestion.ingest_files.logic import ingest_files
from pipeparts.errors import DataError, InputError, ServiceError
from pipeparts.runtime.file_ingestion import text_rows
from pipeparts.runtime.tables import Table

GOOD = "a,b\n" + "".join(f"{i},text {i}\n" for i in range(5_000))


def refused(folder, source, error=DataError, **arguments):
    """Ingests what cannot be ingested, and gives the error; no table may be there, nor a part of one."""
    with pytest.raises(error) as caught:
        ingest_files(
            source=str(source), table_path=folder / "out" / "table", quarantine_path=folder / "out" / "bad", **arguments
        )
    left = {path.name for path in (folder / "out").iterdir()} if (folder / "out").exists() else set()
    assert left <= {"bad"}
    return caught.value


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(table):
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def zipped(content, name="a.csv"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


# ---- sources that are not there -------------------------------------------------------------------------------


def test_no_file_matches(tmp_path):
    write(tmp_path / "flights.csv", GOOD)
    error = refused(tmp_path, tmp_path / "*.tsv", InputError)
    assert error.headline == "no file matches the glob"
    assert error.facts["received"].endswith("*.tsv")
    error = refused(tmp_path, tmp_path / "flihgts.csv", InputError)
    assert error.headline == "no file matches the source"
    assert error.facts["hint"] == "did you mean 'flights.csv'?"
    error = refused(tmp_path, tmp_path / "nowhere" / "x.csv", InputError)
    assert error.facts["hint"] == f"there is no folder {tmp_path / 'nowhere'}"
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(tmp_path, tmp_path / "empty", InputError).facts["hint"]


@pytest.mark.parametrize(
    ("source", "headline"),
    [
        ("", "no source is given"),
        ("gss://bucket/a.csv", "a source with a scheme that is not known"),
        ("s3://", "a source without a bucket"),
        ("http://127.0.0.1/*.csv", "globs and folders are not possible over http"),
    ],
)
def test_sources_that_are_none(tmp_path, source, headline):
    assert refused(tmp_path, source, InputError).headline == headline


def test_folders_whose_names_hold_values_are_refused(tmp_path):
    (tmp_path / "in" / "year=2013").mkdir(parents=True)
    write(tmp_path / "in" / "year=2013" / "a.csv", GOOD)
    error = refused(tmp_path, tmp_path / "in", InputError)
    assert error.headline == "folders whose names hold values of columns are not read"
    assert error.facts["where"] == "year=2013/a.csv"


def test_a_file_without_the_right_to_read_it(tmp_path, monkeypatch):
    write(tmp_path / "a.csv", GOOD)

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")  # the tests may run as root, who may read everything

    monkeypatch.setattr("pipeparts.runtime.file_ingestion.opening._open", denied)
    error = refused(tmp_path, tmp_path / "a.csv", InputError)
    assert error.headline == "access is denied"
    assert error.facts["where"] == str(tmp_path / "a.csv")


# ---- files that are damaged as a whole ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "headline", "fact"),
    [
        ("a.csv", "", "an empty file", ("received", "0 bytes")),
        ("a.jsonl", "", "an empty file", ("where", "a.jsonl")),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "an empty file", ("where", "a.csv.gz")),
        ("a.csv", "\n\n", "no rows", ("received", "rows: 0")),
        ("a.csv", "x,y\n", "no rows", ("received", "columns: x, y, rows: 0")),
        ("a.jsonl", "\n", "no rows", ("received", "columns: unknown, rows: 0")),
        (
            "a.csv.gz",
            gzip.compress(GOOD.encode(), mtime=0)[:-100],
            "a compressed file that is damaged or cut short",
            ("where", "a.csv.gz"),
        ),
        (
            "a.csv.gz",
            gzip.compress(GOOD.encode(), mtime=0)[:-4] + b"1234",
            "a compressed file that is damaged",
            ("where", "a.csv.gz"),
        ),
        (
            "a.csv.zst",
            zstandard.compress(GOOD.encode())[:-50],
            "a compressed file that is damaged or cut short",
            ("where", "a.csv.zst"),
        ),
        ("a.zip", zipped(GOOD)[:-60], "a compressed file that is damaged or cut short", ("where", "a.zip")),
        (
            "a.zip",
            zipped(GOOD)[:2000] + b"!" * 100 + zipped(GOOD)[2100:],
            "a compressed file that is damaged",
            ("where", "a.zip/a.csv"),
        ),
        ("a.zip", zipped("", ".hidden"), "an archive without files", ("received", "none")),
        ("a.zip", zipped(b"", "b.zip"), "an archive within an archive", ("where", "b.zip")),
        ("a.csv.gz", GOOD, "a file that is not compressed as its name says", ("allowed", "gzip")),
        ("a.csv.bz2", b"BZh91AY&SY", "a compression that is not read", ("received", "bzip2")),
        (
            "a.parquet",
            parquet(pa.table({"a": range(1000)}))[:-500],
            "a Parquet file that is damaged or cut short",
            ("where", "a.parquet"),
        ),
        ("a.parquet", GOOD, "not a Parquet file", ("received", "a,b")),
        ("a.csv", parquet(pa.table({"a": [1]})), "a Parquet file under another format's name", ("hint", "parquet")),
        ("a.csv", random.Random(1).randbytes(100_000), "the first line is no text", ("allowed", "UTF-8")),
        ("a.jsonl", '[{"a": 1}]', "a JSON array, not JSON Lines", ("allowed", "one JSON object a line")),
        ("a.dat", "some words", "neither the name nor the content tells the format", ("received", "some words")),
        ("a.csv", GOOD.encode("utf-16"), "a file in another encoding", ("hint", '{"encoding": "utf-16"}')),
        ("a.csv", "né,b\n1,2\n".encode("latin-1"), "the first line is no text", ("received", "byte 0xe9")),
        ("a.csv", "a,b,a\n1,2,3\n", "columns with the same name", ("received", "a")),
        (
            "a.csv",
            "1,517,UA\n2,533,UA\n",
            "the first line looks like data, not like names of columns",
            ("hint", '"header": false'),
        ),
        ("a.csv", "a;b\n1;2\n", "the delimiter seems to be another one", ("hint", '{"delimiter": ";"}')),
        ("a.csv", '"a,b\n1,2\n', "the first line cannot be read", ("received", "a quote that is never closed")),
    ],
)
def test_files_that_cannot_be_read_as_a_whole(tmp_path, name, content, headline, fact):
    error = refused(tmp_path, write(tmp_path / name, content))
    assert error.headline == headline
    assert name in error.facts["where"]
    assert fact[1] in error.facts[fact[0]]


def test_a_parquet_file_damaged_in_the_middle(tmp_path):
    content = bytearray(parquet(pa.table({"a": [f"value {i}" for i in range(100_000)]})))
    content[1000:3000] = random.Random(1).randbytes(2000)
    error = refused(tmp_path, write(tmp_path / "a.parquet", bytes(content)))
    assert error.headline == "a Parquet file that is damaged or cut short"


def test_files_that_do_not_agree(tmp_path):
    write(tmp_path / "a.csv", "x,y\n1,2\n")
    write(tmp_path / "b.csv", "x,z\n1,2\n")
    error = refused(tmp_path, tmp_path / "*.csv")
    assert error.headline == "a file with other columns than the first one"
    assert error.facts["where"] == str(tmp_path / "b.csv")
    assert error.facts["received"] == "lacks y and has z more"
    assert error.facts["allowed"] == f"the columns of {tmp_path / 'a.csv'}: x, y"
    write(tmp_path / "c.jsonl", '{"x": 1}')
    (tmp_path / "b.csv").unlink()
    error = refused(tmp_path, tmp_path / "[ac].*")
    assert error.headline == "files of different formats"
    assert error.facts["received"] == "jsonl"


def test_parquet_files_of_different_types(tmp_path):
    write(tmp_path / "a.parquet", parquet(pa.table({"x": [1]})))
    write(tmp_path / "b.parquet", parquet(pa.table({"x": ["one"]})))
    error = refused(tmp_path, tmp_path / "*.parquet")
    assert error.headline == "the column 'x' has another type than in the files before"
    assert (error.facts["allowed"], error.facts["received"]) == ("int64", "string")
    write(tmp_path / "b.parquet", parquet(pa.table({"z": [1]})))
    assert refused(tmp_path, tmp_path / "*.parquet").facts["received"] == "lacks x and has z more"


# ---- rows -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason", "text"),
    [
        (b"1", "1 value where there are 2 columns", "1"),
        (b"1,2,3", "3 values where there are 2 columns", "1,2,3"),
        (b"1,caf\xe9", "not valid UTF-8: byte 0xe9", "1,caf\\xe9"),
        (b"1,a\0b", "a NUL byte", "1,a\\x00b"),
        (b'1,"never closed', "a quote that is never closed", '1,"never closed'),
        (b'1,"a"b', "text behind a closing quote", '1,"a"b'),
        (b"1," + b"x" * 300_000, "a row longer than", "1," + "x" * 1_998),
    ],
)
@pytest.mark.parametrize("rows_before", [0, 3_000])
def test_rows_that_cannot_be_read(tmp_path, monkeypatch, line, reason, text, rows_before):
    for module in ("text_rows", "csv_rows"):
        monkeypatch.setattr(f"pipeparts.runtime.file_ingestion.{module}.LONGEST_ROW", 200_000)
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 1 << 14)
    good = b"7,fine\n" * rows_before
    source = write(tmp_path / "a.csv", b"a,b\n" + good + line + b"\n" + b"8,fine\n" * 30_000)
    error = refused(tmp_path, source)
    at = f"{source}:{rows_before + 2}"
    assert error.headline.startswith(f"1 row cannot be read\n  - {at}: {reason}")
    assert error.facts["allowed"] == "0 bad rows"
    assert error.facts["received"] == f"1, beside {rows_before + 30_000:,} that can be read"
    (bad,) = Table(tmp_path / "out" / "bad").read().to_pylist()
    assert bad["line"] == rows_before + 2
    assert bad["reason"].startswith(reason)
    assert bad["text"] == text
    done = ingest_files(source=str(source), table_path=tmp_path / "t", quarantine_path=tmp_path / "q", max_bad_rows=1)
    assert done.table.rows == rows_before + 30_000
    assert done.table.extra["bad_rows"] == 1


def test_many_bad_rows_are_counted_and_the_first_are_named(tmp_path):
    source = write(tmp_path / "a.csv", "a,b\n" + "1\n" * 20)
    error = refused(tmp_path, source, max_bad_rows=5)
    lines = error.headline.splitlines()
    assert lines[0] == "20 rows cannot be read"
    assert lines[-1] == "  - and 15 more"
    assert len(lines) == 7
    source = write(tmp_path / "a.csv", "a,b\n" + "1\n" * 200_000)
    error = refused(tmp_path, source, max_bad_rows=5)
    assert error.headline.startswith("At least 1,005 rows cannot be read")
    assert Table(tmp_path / "out" / "bad").rows == 1_005


def test_bytes_that_the_said_encoding_does_not_allow(tmp_path):
    source = write(tmp_path / "a.csv", "a,b\n1,x\n2,".encode("utf-16-le") + b"\x00\xd8" + "\n3,y\n".encode("utf-16-le"))
    error = refused(tmp_path, source, options={"encoding": "utf-16-le"})
    assert "a.csv:3: bytes that the encoding does not allow" in error.headline


def test_a_huge_value_is_read_where_it_is_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 1 << 14)
    source = write(tmp_path / "a.csv", 'a,b\n1,"' + "x\n" * 100_000 + '"\n2,y\n')
    done = ingest_files(source=str(source), table_path=tmp_path / "t", quarantine_path=tmp_path / "q")
    assert done.table.rows == 2
    assert len(Table(tmp_path / "t").read()["b"][0].as_py()) == 200_000


# ---- parameters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "headline", "fact"),
    [
        ({"columns": {"aa": "int64"}}, "a type is given for a column that is not there", ("hint", "did you mean 'a'?")),
        ({"columns": {"a": "integer64"}}, "a column type that is not known", ("hint", "did you mean 'int64'?")),
        ({"columns": {"a": 5}}, "a column type that is no text", ("received", "5")),
        ({"columns": {"a": "month_interval"}}, "a column type that", ("received", "month")),
        ({"columns": ["a"]}, "`columns` is not a dictionary", ("received", "a")),
        ({"format": "cvs"}, "a format that is not known", ("hint", "did you mean 'csv'?")),
        ({"max_bad_rows": -1}, "a limit below zero", ("received", "-1")),
        (
            {"options": {"delimeter": ";"}},
            "`options` has a key that is not known",
            ("hint", "did you mean 'delimiter'?"),
        ),
        (
            {"options": {"delimiter": ";;"}},
            "`options` has a value that is not allowed",
            ("allowed", "one ASCII character"),
        ),
        ({"options": {"encoding": "utf-99"}}, "`options` has a value that is not allowed", ("allowed", "latin-1")),
        ({"options": {"encoding": "rot13"}}, "`options` has a value that is not allowed", ("allowed", "latin-1")),
        ({"options": {"names": ["a"]}}, "`options` has a value that is not allowed", ("allowed", "header: false")),
        (
            {"options": {"quote": ",", "delimiter": ","}},
            "`options` has a value that is not allowed",
            ("allowed", "quote"),
        ),
        (
            {"options": {"missing_columns": "drop"}},
            "`options` has a value that is not allowed",
            ("allowed", "'error' or 'null'"),
        ),
    ],
)
def test_wrong_parameters(tmp_path, arguments, headline, fact):
    error = refused(tmp_path, write(tmp_path / "a.csv", GOOD), InputError, **arguments)
    assert error.headline.startswith(headline)
    assert fact[1] in error.facts[fact[0]]


def test_names_that_are_not_as_many_as_the_columns(tmp_path):
    source = write(tmp_path / "a.csv", "1,2\n")
    error = refused(tmp_path, source, options={"header": False, "names": ["a"]})
    assert error.headline == "not as many names as columns"
    assert error.facts["received"] == "1 names in options.names"


def test_unknown_columns_of_json_and_parquet(tmp_path):
    write(tmp_path / "a.jsonl", '{"a": 1}')
    write(tmp_path / "a.parquet", parquet(pa.table({"a": [1]})))
    for name in ("a.jsonl", "a.parquet"):
        error = refused(tmp_path, tmp_path / name, InputError, columns={"b": "int64"})
        assert error.headline == "a type is given for a column that is not there"


def test_a_parquet_column_that_cannot_become_the_type_given(tmp_path):
    source = write(tmp_path / "a.parquet", parquet(pa.table({"a": [True]})))
    error = refused(tmp_path, source, InputError, columns={"a": "date"})
    assert error.headline == "a column cannot be read as the type given"
    assert error.facts["received"] == "date"


# ---- changed, unreachable, killed -----------------------------------------------------------------------------


def test_a_source_that_changes_while_it_is_read(tmp_path, monkeypatch):
    source = write(tmp_path / "a.csv", GOOD)
    run = text_rows.TextReader.run

    def run_and_change(reader):
        run(reader)
        write(source, GOOD + "1,more\n")

    monkeypatch.setattr(text_rows.TextReader, "run", run_and_change)
    error = refused(tmp_path, source)
    assert error.headline == "the source changed while it was read"
    assert "a.csv" in error.facts["received"]


def test_an_unreachable_server(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        port = server.server_port
    error = refused(tmp_path, f"http://user:secret@127.0.0.1:{port}/a.csv?signature=secret", ServiceError)
    assert error.headline == "the server does not answer"
    assert error.retryable
    assert error.facts["where"] == f"http://127.0.0.1:{port}/a.csv"
    assert "secret" not in str(error)


def test_a_step_killed_half_way_leaves_no_table(tmp_path):
    source = tmp_path / "a.csv"
    write(source, "a,b,c\n" + "".join(f"{i},text {i},2013-01-01\n" for i in range(1_500_000)))
    code = (
        "import sys\n"
        "from pipeparts.components.ingestion.ingest_files.logic import ingest_files\n"
        "ingest_files(source=sys.argv[1], table_path=sys.argv[2] + '/t', quarantine_path=sys.argv[2] + '/q')"
    )
    step = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    try:
        until = time.monotonic() + 60
        while not list((tmp_path / "out").glob(".t.*/part-*")) and time.monotonic() < until:
            time.sleep(0.01)
        assert step.poll() is None
    finally:
        step.send_signal(signal.SIGKILL)
        step.wait()
    visible = [path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")]
    assert visible == []
