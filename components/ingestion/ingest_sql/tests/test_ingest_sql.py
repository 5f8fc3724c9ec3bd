"""Tests of the logic of `ingest_sql`, on PostgreSQL, SQLite and DuckDB."""

import dataclasses
import datetime as dt
import decimal
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.ingestion.ingest_sql import cursors
from pipeparts.components.ingestion.ingest_sql import postgres as postgres_reading
from pipeparts.components.ingestion.ingest_sql.connections import without_password
from pipeparts.components.ingestion.ingest_sql.logic import ingest_sql
from pipeparts.components.ingestion.ingest_sql.parts import make_parts
from pipeparts.components.ingestion.ingest_sql.statements import parse_statement
from pipeparts.errors import DataError, InputError, ServiceError
from pipeparts.runtime.tables import Table
from tests.services import free_port, postgres

ROOT = Path(__file__).parents[4]
FLIGHTS = ROOT / "tests" / "data" / "flights.csv"
UTC = dt.UTC


@pytest.fixture(scope="module")
def server():
    with postgres() as running:
        yield running


@pytest.fixture
def database(server, monkeypatch):
    monkeypatch.setenv("TEST_PASSWORD", server.password)
    # The same database, emptied: one for each test would be 300 files for each.
    server.execute('DROP SCHEMA IF EXISTS "Odd schema" CASCADE', "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    return server


def from_postgres(database, folder, query, **parameters):
    return read(database.url_without_password, folder, query, password_secret="env:TEST_PASSWORD", **parameters)


def read(url, folder, query, **parameters):
    info = ingest_sql(table_path=folder / "table", url=url, query=query, **parameters)
    table = Table(folder / "table")
    assert table.info == info
    return table.read()


def fails(kind, url, folder, query, **parameters):
    with pytest.raises(kind) as error:
        ingest_sql(table_path=folder / "table", url=url, query=query, **parameters)
    assert not (folder / "table").exists()
    assert not list(folder.glob(".table*"))
    return error.value


def fails_on_postgres(kind, database, folder, query, **parameters):
    parameters = {"password_secret": "env:TEST_PASSWORD", **parameters}
    error = fails(kind, database.url_without_password, folder, query, **parameters)
    assert database.password not in str(error)
    return error


@pytest.fixture
def sqlite(tmp_path):
    def make(script):
        path = tmp_path / "data.db"
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.executescript(script)
        connection.close()
        return f"sqlite:///{path}"

    return make


@pytest.fixture
def duck(tmp_path):
    def make(script):
        path = tmp_path / "data.duckdb"
        path.unlink(missing_ok=True)
        connection = duckdb.connect(str(path))
        connection.execute(script).fetchall()
        connection.close()
        return f"duckdb:///{path}"

    return make


# ---- the same everywhere


def flights_of(kind, tmp_path, database):
    """The small real data in a database of each kind, and how to read it from there."""
    if kind == "duckdb":
        with duckdb.connect(str(tmp_path / "f.duckdb")) as db:
            db.execute(f"CREATE TABLE flights AS FROM read_csv('{FLIGHTS}')").fetchall()
        return f"duckdb:///{tmp_path}/f.duckdb", {}
    header, *lines = FLIGHTS.read_text().splitlines()
    texts = {"flight_id", "carrier", "tailnum", "origin", "dest", "type", "manufacturer", "model", "engine"}
    floats = {"temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib", "dest_lat", "dest_lon"}
    types = dict.fromkeys(header.split(","), "bigint")
    types |= dict.fromkeys(texts, "text") | dict.fromkeys(floats, "double precision")
    if kind == "sqlite":
        with sqlite3.connect(tmp_path / "f.db") as db:
            types["time_hour"] = "timestamp"
            db.execute(f"CREATE TABLE flights ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
            rows = [[value or None for value in line.split(",")] for line in lines]
            db.executemany(f"INSERT INTO flights VALUES ({', '.join('?' * len(types))})", rows)
        db.close()
        return f"sqlite:///{tmp_path}/f.db", {"columns": {"time_hour": "timestamp_utc"}}
    types["time_hour"] = "timestamptz"
    import psycopg

    with psycopg.connect(**database._connection(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE flights ({', '.join(f'{name} {kind}' for name, kind in types.items())})")
        with connection.cursor().copy("COPY flights FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write(FLIGHTS.read_bytes())
    return database.url_without_password, {"password_secret": "env:TEST_PASSWORD"}


def test_real_data_is_the_same_from_every_database(database, tmp_path):
    tables = {}
    for kind in ("postgresql", "sqlite", "duckdb"):
        url, parameters = flights_of(kind, tmp_path, database)
        tables[kind] = read(url, tmp_path / kind, "flights", **parameters)
        assert tables[kind].num_rows == 2005
        assert tables[kind]["flight_id"][0].as_py() == "2013-01-01-0515-UA1545-EWR"
        assert tables[kind]["time_hour"][0].as_py() == dt.datetime(2013, 1, 1, 10, tzinfo=UTC)
    prints = {Table(tmp_path / kind / "table").info.fingerprint for kind in tables}
    assert len(prints) == 1, {kind: table.schema for kind, table in tables.items()}


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
@pytest.mark.parametrize("column", ["flight", "dep_time", "temp", "time_hour"])
def test_partitions_give_the_same_rows(kind, column, database, tmp_path):
    url, parameters = flights_of(kind, tmp_path, database)
    if kind == "sqlite" and column == "time_hour":
        error = fails(InputError, url, tmp_path, "flights", partition_column=column, partitions=3, **parameters)
        assert "cannot be divided" in error.headline
        assert "str" in error.facts["received"]
        return
    prints = set()
    for partitions in (1, 2, 7):
        read(url, tmp_path, "SELECT * FROM flights", partition_column=column, partitions=partitions, **parameters)
        info = Table(tmp_path / "table").info
        prints.add(info.fingerprint)
        assert info.extra["partitions"] == partitions
        assert info.rows == 2005
    assert len(prints) == 1


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
def test_same_rows_same_bytes(kind, database, tmp_path):
    url, parameters = flights_of(kind, tmp_path, database)
    for folder in ("1", "2"):
        read(url, tmp_path / folder, "flights", **parameters)
    for file in (tmp_path / "1" / "table").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / "table" / file.name).read_bytes()


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
def test_no_rows_are_a_table_with_types(kind, database, tmp_path):
    url, parameters = flights_of(kind, tmp_path, database)
    query = "SELECT flight_id, flight, temp, time_hour, temp > 5 AS warm FROM flights WHERE flight < 0"
    table = read(url, tmp_path, query, **parameters)
    assert table.num_rows == 0
    # SQLite declares nothing for an expression, and without rows there is nothing to see.
    warm = "string" if kind == "sqlite" else "bool"
    assert Table(tmp_path / "table").info.columns == {
        "flight_id": "string", "flight": "int64", "temp": "float64", "time_hour": "timestamp_utc", "warm": warm,
    }  # fmt: skip
    table = read(url, tmp_path, query, partition_column="flight", partitions=4, **parameters)
    assert table.num_rows == 0


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
def test_what_a_person_gets_wrong(kind, database, tmp_path):
    url, parameters = flights_of(kind, tmp_path, database)

    def wrong(query, **more):
        return fails(InputError, url, tmp_path, query, **{**parameters, **more})

    error = wrong("flihgts")
    assert error.headline == "no such table"
    assert "flights" in error.facts["allowed"]
    assert error.facts["hint"] == "did you mean 'flights'?"
    assert wrong("nowhere.flights").headline == "no such table"
    error = wrong("SELECT * FROM flihgts")
    assert "refuses the query" in error.headline
    assert "flihgts" in error.facts["received"]
    assert error.facts["hint"] == "did you mean 'flights'?"
    assert "syntax error" in wrong("SELECT * FORM flights").facts["received"]
    assert "carier" in wrong("SELECT carier FROM flights").facts["received"]
    error = wrong("SELECT month, day, month FROM flights")
    assert "two columns of the same name" in error.headline
    assert error.facts["received"] == "month"
    error = wrong("flights", partition_column="mnoth", partitions=2)
    assert error.facts["parameter"] == "partition_column"
    assert error.facts["hint"] == "did you mean 'month'?"
    error = wrong("flights", partition_column="carrier", partitions=2)
    assert "cannot be divided into ranges" in error.headline
    assert "str" in error.facts["received"]
    error = wrong("flights", columns={"carier": "string"})
    assert error.facts["hint"] == "did you mean 'carrier'?"
    error = fails(DataError, url, tmp_path, "flights", **{**parameters, "columns": {"tailnum": "int64"}})
    assert "does not fit" in error.headline
    assert error.facts["where"] == "column 'tailnum', row 1"
    assert "N14228" in error.facts["received"]
    assert error.facts["allowed"] == "int64"


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
def test_a_query_with_signs_that_drivers_take_for_parameters(kind, database, tmp_path):
    url, parameters = flights_of(kind, tmp_path, database)
    query = (
        "SELECT flight % 10 AS digit, ':name %s %(x)s \\:y ?' AS text, '10:30' AS clock -- a comment; 'or two\n"
        "FROM flights WHERE carrier LIKE 'U%' /* and ; here */ AND dest <> 'a;b' ORDER BY flight_id ; -- last"
    )
    parameters.pop("columns", None)
    table = read(url, tmp_path, query, **parameters)
    assert set(table["text"].to_pylist()) == {":name %s %(x)s \\:y ?"}
    assert max(table["digit"].to_pylist()) == 9
    parts = read(url, tmp_path, query, partition_column="digit", partitions=3, **parameters)
    assert parts.num_rows == table.num_rows


@pytest.mark.parametrize("kind", ["postgresql", "sqlite", "duckdb"])
def test_nothing_is_written_to_the_database(kind, database, tmp_path, monkeypatch):
    url, parameters = flights_of(kind, tmp_path, database)
    for query in (
        "DELETE FROM flights",
        "SELECT 1; DELETE FROM flights",
        "WITH a AS (SELECT 1) DELETE FROM flights",
        "SELECT * INTO copy FROM flights",
        "DROP TABLE flights",
        "EXPLAIN SELECT 1",
    ):
        assert fails(InputError, url, tmp_path, query, **parameters).facts["parameter"] == "query"
    # Also where the look at the statement lets something through, the database is told to refuse it.
    monkeypatch.setattr("pipeparts.components.ingestion.ingest_sql.statements._VERBS", {"SELECT"})
    for query in (
        "WITH a AS (SELECT 1) DELETE FROM flights WHERE flight IN (SELECT 1) RETURNING flight, (SELECT 1)",
        "WITH a AS (DELETE FROM flights RETURNING *) SELECT * FROM a",
    ):
        fails(InputError, url, tmp_path, query, **parameters)
    assert read(url, tmp_path, "flights", **parameters).num_rows == 2005


# ---- PostgreSQL


TYPES = [
    ("smallint", "-3", "int64", -3), ("int", "7", "int64", 7), ("bigint", "9223372036854775807", "int64", 2**63 - 1),
    ("numeric(9, 2)", "1.25", "decimal128(9, 2)", decimal.Decimal("1.25")),
    ("numeric(38, 0)", "9" * 38, "decimal128(38, 0)", decimal.Decimal("9" * 38)),
    ("numeric", "0.1", "float64", 0.1), ("numeric", "9007199254740993.5", "float64", 9007199254740993.5),
    ("numeric", "18446744073709551616", "float64", 2.0**64), ("numeric(50, 2)", "1.25", "float64", 1.25),
    ("real", "0.1", "float64", 0.1), ("double precision", "'-Infinity'", "float64", float("-inf")),
    ("text", "'a,\"b\"'", "string", 'a,"b"'), ("varchar(3)", "''", "string", ""), ("char(3)", "'x'", "string", "x  "),
    ("text", r"E'\\.\n\\N\r\n'", "string", "\\.\n\\N\r\n"), ("text", "'äö 🛫'", "string", "äö 🛫"),
    ("bool", "true", "bool", True), ("date", "'0001-01-01'", "date", dt.date(1, 1, 1)),
    ("timestamp", "'2020-01-01 10:00:00.000001'", "timestamp", dt.datetime(2020, 1, 1, 10, 0, 0, 1)),
    ("timestamptz", "'2020-07-01 10:00'", "timestamp_utc", dt.datetime(2020, 7, 1, 14, tzinfo=UTC)),
    ("time", "'10:00:00.5'", "time64[us]", dt.time(10, 0, 0, 500000)),
    ("timetz", "'10:00+02'", "string", "10:00:00+02"),
    ("interval", "'1 day 2 hours'", "string", "P1DT2H"), ("json", "'{\"a\":  1}'", "string", '{"a":  1}'),
    ("jsonb", "'{\"a\":  1}'", "string", '{"a": 1}'), ("bytea", r"'\x00ff'", "binary", b"\x00\xff"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "string", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("int[]", "'{1,2}'", "string", "{1,2}"), ("inet", "'10.0.0.1'", "string", "10.0.0.1"),
]  # fmt: skip


def test_every_type_of_postgresql(database, tmp_path):
    database.execute("SET bytea_output = 'escape'")
    names = [f"c{place}" for place in range(len(TYPES))]
    columns = ", ".join(f"{name} {case[0]}" for name, case in zip(names, TYPES, strict=True))
    values = ", ".join(case[1] for case in TYPES)
    # The server is set to New York's time: the texts of the statement are read there.
    database.execute(f"CREATE TABLE t (id int, {columns}, lonely text)", f"INSERT INTO t VALUES (1, {values})")
    database.execute("INSERT INTO t VALUES (2)")
    table = read(database.url_without_password, tmp_path, "t", password_secret="env:TEST_PASSWORD")
    described = Table(tmp_path / "table").info.columns
    for name, (declared, _, kind, value) in zip(names, TYPES, strict=True):
        assert described[name] == kind, declared
        assert table[name].to_pylist() == [value, None], declared
    assert described["lonely"] == "string"
    assert table["lonely"].null_count == 2


@pytest.mark.parametrize(
    ("expression", "kind", "received"),
    [
        ("CASE WHEN i = 70001 THEN 'infinity'::date END", "date", "str: 'infinity'"),
        ("CASE WHEN i = 70001 THEN '20000-01-01'::timestamp END", "timestamp", "20000-01-01 00:00:00"),
        ("CASE WHEN i = 70001 THEN '0044-03-15 BC'::timestamptz END", "timestamp_utc", "BC"),
        ("CASE WHEN i = 70001 THEN 'NaN'::numeric(9, 2) ELSE 1 END::numeric(9, 2)", "decimal128(9, 2)", "NaN"),
        ("CASE WHEN i = 70001 THEN 12345678901234567891 ELSE 0.5 END", "float64", "12345678901234567891"),
        ("CASE WHEN i = 70001 THEN 10::numeric ^ 400 END", "float64", "beyond the range"),
    ],
)  # fmt: skip
def test_a_late_value_that_arrow_does_not_have(database, tmp_path, expression, kind, received):
    query = f"SELECT i, {expression} AS x FROM generate_series(1, 70002) AS s(i)"
    error = fails_on_postgres(DataError, database, tmp_path, query)
    assert error.facts["where"] == "column 'x', row 70,001"
    assert error.facts["allowed"] == kind
    assert received in error.facts["received"]
    table = from_postgres(database, tmp_path, query, columns={"x": "string"})
    assert table["x"][70_000].as_py() in received or "BC" in table["x"][70_000].as_py() or kind == "float64"


def test_columns_say_other_types(database, tmp_path):
    database.execute(
        "CREATE TABLE t AS SELECT 5 AS i, '7'::text AS s, true AS b, timestamp '2020-01-01 10:00' AS ts, "
        "timestamptz '2020-01-01 10:00+00' AS tz, date '2020-01-02' AS d, 0.333333333333333333333::numeric AS n"
    )
    columns = {
        "i": "float64", "s": "int64", "b": "int64", "ts": "timestamp_utc", "tz": "timestamp", "d": "timestamp",
        "n": "decimal128(30, 21)",
    }  # fmt: skip
    table = from_postgres(database, tmp_path, "t", columns=columns)
    ten = dt.datetime(2020, 1, 1, 10)
    assert list(table.to_pylist()[0].values()) == [
        5.0, 7, 1, ten.replace(tzinfo=UTC), ten, dt.datetime(2020, 1, 2), decimal.Decimal("0.333333333333333333333"),
    ]  # fmt: skip
    texts = from_postgres(database, tmp_path, "t", columns=dict.fromkeys(columns, "string"))
    assert texts.to_pylist()[0]["b"] == "t"
    assert texts.to_pylist()[0]["tz"] == "2020-01-01 10:00:00+00"
    error = fails_on_postgres(DataError, database, tmp_path / "2", "t", columns={"ts": "date"})
    assert error.facts["where"] == "column 'ts', row 1"
    error = fails_on_postgres(InputError, database, tmp_path / "2", "t", columns={"b": "date"})
    assert error.facts["received"] == "date"


@pytest.mark.parametrize("columns", [{"a": "flaot64"}, {"a": "list"}, {"a": 5}, ["a"], "a"])
def test_types_that_are_none(tmp_path, columns):
    error = fails(InputError, "duckdb://", tmp_path, "SELECT 1 AS a", columns=columns)
    assert error.facts["parameter"].startswith("columns")


def test_names_with_signs_are_quoted(database, tmp_path):
    database.execute(
        'CREATE SCHEMA "Odd schema"', 'CREATE TABLE "Odd schema"."My ""table"": 5%" ("A b" int, "c""d" int, "%s" int)',
        'INSERT INTO "Odd schema"."My ""table"": 5%" VALUES (1, 2, 3)',
    )  # fmt: skip
    name = '"Odd schema"."My ""table"": 5%"'
    assert from_postgres(database, tmp_path, name).to_pylist() == [{"A b": 1, 'c"d': 2, "%s": 3}]
    table = from_postgres(database, tmp_path, name, partition_column='c"d', partitions=2)
    assert table.num_rows == 1
    database.execute("CREATE VIEW a_view AS SELECT 1 AS one", "CREATE MATERIALIZED VIEW other AS SELECT 1 AS one")
    assert from_postgres(database, tmp_path, "a_view").num_rows == 1
    assert from_postgres(database, tmp_path, "public.other").num_rows == 1


@pytest.mark.parametrize(
    "key",
    ["i", "i / 3.0", "(i / 3.0)::numeric(9, 4)", "date '2020-01-01' + i", "timestamp '2020-01-01' + i * interval '7 s'",
     "timestamptz '2020-03-01' + i * interval '7 h'", "(-i)::smallint", "i % 2", "5", "NULL::int"],
)  # fmt: skip
def test_every_kind_of_key_divides_completely(database, tmp_path, key):
    query = f"SELECT i, CASE WHEN i % 10 <> 0 THEN {key} END AS k FROM generate_series(1, 500) AS s(i)"
    table = from_postgres(database, tmp_path, query, partition_column="k", partitions=6)
    assert sorted(table["i"].to_pylist()) == list(range(1, 501))


@pytest.mark.parametrize("value", ["'NaN'", "'Infinity'"])
def test_a_key_without_end_cannot_be_divided(database, tmp_path, value):
    query = f"SELECT 1.5::float8 AS k UNION ALL SELECT {value}::float8"
    error = fails_on_postgres(InputError, database, tmp_path, query, partition_column="k", partitions=2)
    assert "cannot be divided" in error.headline


def test_all_parts_are_of_one_snapshot(database, tmp_path, monkeypatch):
    database.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 100) AS s(i)")
    original = postgres_reading.PostgresReader.read

    def read_and_change(self, part):
        yield from original(self, part)
        database.execute("INSERT INTO t SELECT i FROM generate_series(1, 100) AS s(i)", "DELETE FROM t WHERE i > 90")

    monkeypatch.setattr(postgres_reading.PostgresReader, "read", read_and_change)
    table = from_postgres(database, tmp_path, "t", partition_column="i", partitions=4)
    assert sorted(table["i"].to_pylist()) == list(range(1, 101))


def test_bytes_that_are_no_utf8_in_a_database_without_an_encoding(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_PASSWORD", server.password)
    server.execute("DROP DATABASE IF EXISTS raw", "CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0")
    raw = dataclasses.replace(server, database="raw")
    raw.execute(r"CREATE TABLE t AS SELECT 1 AS i, 'plain' AS s UNION ALL SELECT 2, E'caf\xe9'")
    error = fails_on_postgres(DataError, raw, tmp_path, "SELECT * FROM t ORDER BY i")
    assert error.facts["received"] == 'invalid byte sequence for encoding "UTF8": 0xe9'
    table = from_postgres(raw, tmp_path, "SELECT s::bytea AS s FROM t ORDER BY i")
    assert table["s"].to_pylist() == [b"plain", b"caf\xe9"]


def test_functions_that_write_are_refused_by_the_transaction(database, tmp_path):
    database.execute("CREATE SEQUENCE s")
    error = fails_on_postgres(InputError, database, tmp_path, "SELECT nextval('s')")
    assert error.headline == "the query writes, and only reading is allowed"
    assert "read-only transaction" in error.facts["received"]


def test_a_failure_half_way_is_the_databases_own_and_leaves_nothing(database, tmp_path):
    error = fails_on_postgres(
        DataError, database, tmp_path, "SELECT 1 / (150000 - i) AS x FROM generate_series(1, 200000) AS s(i)"
    )
    assert error.facts["received"] == "division by zero"
    assert "after " in error.facts["where"]


def test_a_server_that_goes_away_half_way_is_a_service_error(database, tmp_path, monkeypatch):
    original = postgres_reading._chunks

    def chunks(copy):
        for number, lines in enumerate(original(copy)):
            yield lines
            if number == 0:
                database.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND datname = current_database()"
                )

    monkeypatch.setattr(postgres_reading, "_chunks", chunks)
    query = "SELECT i, repeat('x', 100) AS x FROM generate_series(1, 1000000) AS s(i)"
    error = fails_on_postgres(ServiceError, database, tmp_path, query)
    assert "went away" in error.headline
    assert error.retryable


def test_connections_that_fail_say_what_to_do(server, database, tmp_path, monkeypatch):
    monkeypatch.setenv("WRONG", "not the password")
    error = fails(InputError, database.url_without_password, tmp_path, "t", password_secret="env:WRONG")
    assert "does not accept user and password: user pipeparts" in error.headline
    assert error.facts["parameter"] == "password_secret"
    assert "not the password" not in str(error)
    error = fails(InputError, database.url_without_password, tmp_path, "t")
    assert "password_secret" in error.facts["hint"]
    url = f"postgresql://{server.user}@{server.host}:{server.port}/no_such"
    error = fails(InputError, url, tmp_path, "t", password_secret="env:TEST_PASSWORD")
    assert error.headline == "no such database: no_such"
    port = free_port()
    error = fails(ServiceError, f"postgresql://a@127.0.0.1:{port}/d", tmp_path, "t", password_secret="env:WRONG")
    assert error.headline == f"cannot reach the database at 127.0.0.1:{port}"
    url = f"{database.url_without_password}?no_such_option=1"
    error = fails(InputError, url, tmp_path, "t", password_secret="env:TEST_PASSWORD")
    assert "options" in error.headline
    assert "no_such_option" in error.facts["received"]


def test_the_password_is_nowhere(server, database, tmp_path, caplog):
    caplog.set_level("DEBUG", logger="pipeparts")
    (tmp_path / "secret").write_text(server.password + "\n")
    database.execute("CREATE TABLE t AS SELECT 1 AS a")
    info = ingest_sql(
        table_path=tmp_path / "table", url=database.url_without_password, query="t", partition_column="a",
        password_secret=f"file:{tmp_path}/secret", source_version="3",
    )  # fmt: skip
    assert info.metadata()["source_version"] == "3"
    assert info.source == f"postgresql+psycopg://pipeparts@127.0.0.1:{server.port}/{database.database}: t"
    written = json.dumps(info.metadata()) + caplog.text
    written += "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "table").iterdir())
    assert server.password not in written


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.binary(max_size=4),
            st.none() | st.datetimes(min_value=dt.datetime(1, 1, 2)),
        ),
        max_size=8,
    )
)
def test_postgresql_gives_back_what_was_put_in(server, tmp_path_factory, rows):
    import psycopg

    folder = tmp_path_factory.mktemp("rows")
    os.environ["TEST_PASSWORD"] = server.password
    with psycopg.connect(**server._connection(), autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS anything")
        connection.execute("CREATE TABLE anything (id serial, s text, i bigint, f float8, b bytea, t timestamp)")
        for row in rows:
            connection.execute("INSERT INTO anything (s, i, f, b, t) VALUES (%s, %s, %s, %s, %s)", row)
    table = from_postgres(server, folder, "SELECT s, i, f, b, t FROM anything ORDER BY id")
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    table = from_postgres(server, folder, "SELECT s FROM anything ORDER BY id")
    assert table["s"].to_pylist() == [row[0] for row in rows]


CHILD = """
import re, sys
from pipeparts.components.ingestion.ingest_sql.logic import ingest_sql
ingest_sql(table_path=sys.argv[1], url=sys.argv[2], query=sys.argv[3], password_secret=sys.argv[4])
# Not ru_maxrss, which a child inherits from the process that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


def child(folder, url, query, secret=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(folder / "table"), url, query, secret]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_half_way_leaves_no_table(database, tmp_path):
    query = "SELECT i, pg_sleep(0.0005)::text AS s, repeat('x', 1000) AS x FROM generate_series(1, 10000000) AS s(i)"
    process = child(tmp_path, database.url_without_password, query, "env:TEST_PASSWORD")
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".table*")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.glob(".table*")), "it had begun"
    assert not (tmp_path / "table").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(database, tmp_path):
    query = "SELECT i, md5(i::text) AS a, md5((i + 1)::text) AS b, i * 0.5 AS c FROM generate_series(1, {}) AS s(i)"
    peaks = []
    for rows in (200_000, 2_000_000):
        process = child(tmp_path, database.url_without_password, query.format(rows), "env:TEST_PASSWORD")
        out, err = process.communicate()
        assert process.returncode == 0, err
        peaks.append(int(out))
    assert peaks[1] < peaks[0] + 150, peaks  # MB; all rows as Parquet's columns would be 160 more, as CSV 170
    assert peaks[1] < 700


# ---- SQLite


def test_sqlite_reads_declared_types(sqlite, tmp_path):
    url = sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(5), x REAL, d DATE, ts DATETIME, ti TIME, b BOOLEAN,"
        " n NUMERIC(9, 2), bl BLOB, u, j JSON, lonely TEXT);"
        "INSERT INTO t VALUES (1, 'a', 1.5, '2020-01-01', '2020-01-01 10:00:00.5', '10:00', 1, 1.25, x'00ff', 5, '{}',"
        " NULL), (2, '', 2, NULL, NULL, NULL, 0, 3, NULL, NULL, NULL, NULL);"
    )
    table = read(url, tmp_path, "t")
    assert Table(tmp_path / "table").info.columns == {
        "id": "int64", "name": "string", "x": "float64", "d": "date", "ts": "timestamp", "ti": "time64[us]",
        "b": "bool", "n": "float64", "bl": "binary", "u": "int64", "j": "string", "lonely": "string",
    }  # fmt: skip
    assert list(table.to_pylist()[0].values()) == [
        1, "a", 1.5, dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 10, 0, 0, 500000), dt.time(10), True, 1.25,
        b"\x00\xff", 5, "{}", None,
    ]  # fmt: skip
    assert list(table.to_pylist()[1].values()) == [2, "", 2.0, *[None] * 3, False, 3.0, *[None] * 4]


def test_sqlite_expressions_take_the_type_of_all_their_values(sqlite, tmp_path):
    url = sqlite("CREATE TABLE t (i INT); INSERT INTO t VALUES (1), (2), (3);")
    query = """
        SELECT i, i + 1 AS whole, CASE WHEN i < 3 THEN i ELSE 0.5 END AS mixed, 'a:' || i AS text, NULL AS empty,
               CASE WHEN i = 3 THEN x'01' END AS late, count(*) OVER () AS n FROM t -- the end"""
    read(url, tmp_path, query)
    assert Table(tmp_path / "table").info.columns == {
        "i": "int64", "whole": "int64", "mixed": "float64", "text": "string", "empty": "string", "late": "binary",
        "n": "int64",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "value", "kind", "received"),
    [
        ("INTEGER", "'abc'", "int64", "str: 'abc'"),
        ("INTEGER", "1.5", "int64", "float: 1.5"),
        ("REAL", "'abc'", "float64", "str: 'abc'"),
        ("TEXT", "x'ff'", "string", "bytes: b'\\xff'"),
        ("BLOB", "'abc'", "binary", "str: 'abc'"),
        ("BOOLEAN", "2", "bool", "int: 2"),
        ("DATE", "'01/02/2020'", "date", "str: '01/02/2020'"),
        ("DATE", "5", "date", "int: 5"),
        ("DATETIME", "'2020-01-01T10:00Z'", "timestamp", "a time with a zone"),
        ("", "'abc'", "string", "int: 1"),
    ],
)
def test_a_late_value_of_another_type_names_column_row_and_value(sqlite, tmp_path, declared, value, kind, received):
    early = {"DATE": "'2020-01-01'", "DATETIME": "'2020-01-01'", "TEXT": "'a'", "BLOB": "x'00'"}.get(declared, "1")
    url = sqlite(
        f"CREATE TABLE t (v {declared});"
        "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 20000) "
        f"INSERT INTO t SELECT {early} FROM r;"
        f"INSERT INTO t VALUES ({value});"
    )
    error = fails(DataError, url, tmp_path, "t")
    assert error.headline == "a value that does not fit its column's type"
    # Without a declared type texts make the column one of texts, and the numbers before do not fit.
    assert error.facts["where"] == ("column 'v', row 20,001" if declared else "column 'v', row 1")
    assert error.facts["allowed"] == kind
    assert received in error.facts["received"]
    assert "'v': 'string'" in error.facts["hint"]
    if value != "x'ff'":
        assert read(url, tmp_path, "t", columns={"v": "binary" if kind == "binary" else "string"}).num_rows == 20_001


def test_text_that_is_not_utf8(sqlite, tmp_path):
    url = sqlite("CREATE TABLE t (v TEXT); INSERT INTO t VALUES (CAST(x'ff41' AS TEXT));")
    error = fails(DataError, url, tmp_path, "t")
    assert "UTF-8" in error.facts["received"]


def test_sqlite_parts_are_of_one_snapshot_and_the_file_is_not_touched(sqlite, tmp_path, monkeypatch):
    url = sqlite("PRAGMA journal_mode = WAL; CREATE TABLE t (i INT); INSERT INTO t VALUES (1), (2), (3), (4);")
    original = cursors.CursorReader.read

    def read_and_change(self, part):
        yield from original(self, part)
        with sqlite3.connect(tmp_path / "data.db") as other:
            other.execute("INSERT INTO t VALUES (4), (NULL)")
        other.close()

    monkeypatch.setattr(cursors.CursorReader, "read", read_and_change)
    assert read(url, tmp_path, "t", partition_column="i", partitions=2)["i"].to_pylist() == [1, 2, 3, 4]
    monkeypatch.undo()
    plain = sqlite("CREATE TABLE t (i INT); INSERT INTO t VALUES (1);")
    before = hashlib.sha256((tmp_path / "data.db").read_bytes()).hexdigest()
    read(plain, tmp_path, "SELECT i, i + 1 AS j FROM t")
    assert hashlib.sha256((tmp_path / "data.db").read_bytes()).hexdigest() == before


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_files_that_are_no_database(tmp_path, dialect):
    (tmp_path / "flights.db").write_text("a,b\n1,2\n" * 500)
    error = fails(InputError, f"{dialect}:///{tmp_path}/flihgts.db", tmp_path, "t")
    assert error.headline == "no such database"
    assert error.facts["hint"] == "did you mean 'flights.db'?"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flights.db"], "an empty one would be made"
    error = fails(InputError, f"{dialect}:///{tmp_path}/flights.db", tmp_path, "t")
    assert error.headline == "not a database"
    error = fails(InputError, f"{dialect}:///{tmp_path}", tmp_path, "t")
    assert error.facts["received"] == "a folder"
    error = fails(InputError, f"{dialect}:///x", tmp_path, "t", password_secret="env:A")
    assert error.headline == "a file needs no password"


def test_a_locked_sqlite_file_is_a_service_error(sqlite, tmp_path):
    url = sqlite("CREATE TABLE t (i INT);")
    other = sqlite3.connect(tmp_path / "data.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    error = fails(ServiceError, f"{url}?timeout=0.1", tmp_path, "SELECT * FROM t")
    other.close()
    assert "locked" in error.facts["received"]
    assert error.retryable


# ---- DuckDB


def test_every_type_of_duckdb(duck, tmp_path):
    url = duck(
        """CREATE TABLE t AS SELECT 1::UTINYINT AS ut, 2::HUGEINT AS h, 1.5::DECIMAL(9, 2) AS d, 0.5::FLOAT AS f,
        TIMESTAMPTZ '2020-01-01 10:00:00+02' AS tz, TIMESTAMP '2020-01-01 10:00:00' AS ts, DATE '2020-01-01' AS da,
        TIME '10:00' AS ti, INTERVAL 1 DAY AS iv, uuid '00000000-0000-0000-0000-000000000001' AS u, [1, 2] AS l,
        {'a': 'x'} AS st, 'e'::ENUM('e') AS e, '\\x00'::BLOB AS b, true AS bo, NULL::INTEGER AS n"""
    )
    table = read(url, tmp_path, "t")
    assert table.to_pylist() == [
        {"ut": 1, "h": 2, "d": decimal.Decimal("1.50"), "f": 0.5, "tz": dt.datetime(2020, 1, 1, 8, tzinfo=UTC),
         "ts": dt.datetime(2020, 1, 1, 10), "da": dt.date(2020, 1, 1), "ti": dt.time(10), "iv": "1 day",
         "u": "00000000-0000-0000-0000-000000000001", "l": "[1,2]", "st": '{"a":"x"}', "e": "e", "b": b"\x00",
         "bo": True, "n": None}
    ]  # fmt: skip
    kinds = Table(tmp_path / "table").info.columns
    assert (kinds["ut"], kinds["h"], kinds["n"], kinds["tz"]) == ("int64", "int64", "int64", "timestamp_utc")


def test_duckdb_sums_beyond_int64_are_named(tmp_path):
    query = "SELECT CASE WHEN i = 99999 THEN 2::HUGEINT ** 64 ELSE i END::HUGEINT AS total FROM range(100000) AS r(i)"
    error = fails(DataError, "duckdb://", tmp_path, query)
    assert error.facts["where"] == "column 'total', row 100,000"
    assert "18446744073709551616" in error.facts["received"]
    assert read("duckdb://", tmp_path, query, columns={"total": "string"})["total"][-1].as_py() == str(2**64)


def test_duckdb_file_that_another_process_writes(duck, tmp_path):
    url = duck("CREATE TABLE t AS SELECT 1 AS a")
    path = str(tmp_path / "data.duckdb")
    script = f"import duckdb, sys; c = duckdb.connect({path!r}); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "open\n"
    error = fails(ServiceError, url, tmp_path, "t")
    other.communicate()
    assert "lock" in error.facts["received"]
    assert read(url, tmp_path, "main.t").num_rows == 1


# ---- parameters


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://reader:hunter2@db/x", ["holds a password", "://***@db/x", "env:NAME"]),
        ("postgresql://reader:hunt/er2@hunter2@db/x", ["holds a password", "://***@db/x"]),
        ("postgresql://reader@db/x?password=hunter2", ["holds a password", "db/x?***"]),
        ("mssql+pyodbc://?odbc_connect=UID%3Da%3BPWD%3Dhunter2", ["holds a password", "://?***"]),
        ("hunter2", ["not a database's URL", "postgresql://reader@"]),
        ("", ["not a database's URL", "received: nothing"]),
        ("postgresql://a:hunter2@db:port/x", ["not a database's URL", "://***@db:port/x"]),
        ("postgres://reader@db/x", ["write postgresql:// instead"]),
        ("postgresq://reader@db/x", ["no driver", "postgresq", "did you mean 'postgresql'?"]),
        ("mysql+mysqldb://reader@db/x", ["no driver", "install pymysql"]),
        ("oracle+oracledb://reader@db/x", ["no driver", "install oracledb"]),
    ],
)
def test_urls_that_are_refused(tmp_path, url, words):
    error = fails(InputError, url, tmp_path, "t")
    for word in words:
        assert word in str(error)
    if url != "hunter2":
        assert "hunt" not in str(error)


def test_shown_urls_have_no_password():
    url = sa.URL.create("postgresql", "u", "hunter2", "h", 5, "d")
    assert without_password(url) == "postgresql://u@h:5/d"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"partitions": 0}, ["parameter: partitions", "received: 0"]),
        ({"partitions": 20_000, "partition_column": "a"}, ["1 to 10,000", "20000"]),
        ({"partitions": True, "partition_column": "a"}, ["received: True"]),
        ({"partitions": 2}, ["partitions need a column", "received: nothing"]),
    ],
)
def test_bad_partitions(tmp_path, parameters, words):
    error = fails(InputError, "duckdb://", tmp_path, "SELECT 1 AS a", **parameters)
    for word in words:
        assert word in str(error)


@pytest.mark.parametrize(
    ("query", "table"),
    [("flights", ("", "flights")), (" Flights ", ("", "Flights")), ("a.b", ("a", "b")), ("a . b", ("a", "b")),
     ('"A.b"."c ""d"""', ("A.b", 'c "d"')), ("c.s.t", ("c.s", "t")), ("größe", ("", "größe"))],
)  # fmt: skip
def test_names_of_tables(query, table):
    statement = parse_statement(query)
    assert (statement.schema, statement.table) == table
    assert not statement.sql


@pytest.mark.parametrize(
    "query",
    ["select 1", "SELECT 1;", "select 1 ; ; -- end", "-- first\nSELECT 1", "/* ; */ select ';'",
     "(select 1) union select 2",
     "with a as (select 1) select * from a", "with recursive a(i) as (select 1) select * from a", "select $$ ; $$",
     "select $x$ ; drop $x$", 'select 1 as "a;b"', "select `a;b` from t", "select 'it''s; fine'", "select 1 -- it's",
     "select replace(a, 'into', ';') from t", "select a from t where b in (select c into_what from d)"],
)  # fmt: skip
def test_statements_that_read(query):
    assert "select" in parse_statement(query).sql.lower()


@pytest.mark.parametrize(
    "query",
    ["", " ; ", "-- only a comment", "delete from t", "select 1; select 2", "select ';'; drop table t", "select 1;;x",
     "with a as (select 1) insert into t select * from a", "with a as (select 1) update t set a = 1", "call f()",
     "copy t to '/tmp/x'", "select * into t2 from t", "select a from t into outfile '/tmp/x'", "a.b.c.d", "a-b",
     "truncate t", "begin; select 1", "$$ select 1", "values (1)", "pragma table_info(t)", "attach 'x' as y"],
)  # fmt: skip
def test_statements_that_are_refused(query):
    with pytest.raises(InputError) as error:
        parse_statement(query)
    assert "SELECT" in error.value.facts["allowed"]


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        statement = parse_statement(text)
    except InputError:
        return
    assert statement.sql or statement.table


@given(st.text(st.sampled_from("ab:\\%'$ 1"), max_size=20))
def test_sqlalchemy_passes_the_statement_on_as_it_is(text):
    assert str(cursors._as_text(text).compile(dialect=sa.dialects.sqlite.dialect())) == text + "\n"


keys = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.floats(-1e300, 1e300), min_size=1),
    st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000), min_size=1),
    st.lists(st.dates(), min_size=1),
    st.lists(st.datetimes(), min_size=1),
)


@given(keys, st.integers(1, 20))
def test_every_key_is_in_exactly_one_part(values, count):
    parts = make_parts("k", min(values), max(values), count)
    assert len(parts) <= count + 1
    assert parts[-1].nulls
    for value in values:
        inside = [p for p in parts[:-1] if (p.low is None or value >= p.low) and (p.high is None or value < p.high)]
        assert len(inside) == 1


def test_parts_are_of_about_the_same_size():
    parts = make_parts("k", 1, 100, 4)
    assert [(part.low, part.high) for part in parts[:-1]] == [(None, 26), (26, 51), (51, 76), (76, None)]
    assert [str(part) for part in parts] == ["k below 26", "k from 26 and below 51", "k from 51 and below 76",
                                             "k from 76", "k is null"]  # fmt: skip
    assert make_parts("k", None, None, 3)[0].condition('"k"') == '"k" IS NOT NULL'
