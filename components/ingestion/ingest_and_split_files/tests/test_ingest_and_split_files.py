"""Tests of the logic of `ingest_and_split_files`: the same tables as in two steps, and nothing half-written."""

import gzip

import pytest

from pipeparts.components.feature_engineering.split_table.logic import split_table
from pipeparts.components.ingestion.ingest_and_split_files.logic import ingest_and_split_files
from pipeparts.components.ingestion.ingest_files.logic import ingest_files
from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.file_ingestion import text_rows
from pipeparts.runtime.tables import Table

FLIGHTS = "tests/data/flights.csv"
SPLITS = ("train", "validation", "test")


def ingest(folder, source=FLIGHTS, **arguments):
    """Ingests and splits into `folder`; the four tables, and what was returned."""
    paths = {f"{name}_table_path": folder / name for name in SPLITS}
    done = ingest_and_split_files(source=str(source), **paths, quarantine_path=folder / "quarantine", **arguments)
    return [Table(folder / name) for name in (*SPLITS, "quarantine")], done


@pytest.mark.parametrize("key_columns", [None, ["tailnum", "time_hour"], ["carrier"]])
@pytest.mark.parametrize("salt", ["", "pepper"])
def test_the_tables_are_those_of_ingest_files_and_split_table(tmp_path, monkeypatch, key_columns, salt):
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 4096)  # many batches
    fractions = [0.6, 0.3, 0.1]
    tables, _ = ingest(tmp_path / "one", key_columns=key_columns, fractions=fractions, salt=salt)
    two = tmp_path / "two"
    ingest_files(source=FLIGHTS, table_path=two / "table", quarantine_path=two / "quarantine")
    paths = {f"{name}_table_path": two / name for name in SPLITS}
    split_table(table_path=two / "table", **paths, columns=key_columns, fractions=fractions, salt=salt)
    for name, table in zip(SPLITS, tables, strict=False):
        expected = Table(two / name)
        assert table.read().equals(expected.read())
        assert table.info.fingerprint == expected.info.fingerprint
        said = {k: v for k, v in table.info.extra.items() if k in expected.info.extra}
        assert said == expected.info.extra
    assert sum(table.rows for table in tables[:3]) == Table(two / "table").rows


def test_the_tables_say_what_was_read(tmp_path):
    (tmp_path / "a.csv").write_text("k,n\n" + "".join(f"{i},{i}\n" for i in range(200)) + "7,x\n")
    tables, done = ingest(tmp_path, tmp_path / "a.csv", columns={"n": "int64"}, max_bad_rows=1, source_version="v1")
    assert [table.info for table in tables[:3]] == [done.splits.train, done.splits.validation, done.splits.test]
    assert tables[3].read().to_pylist()[0]["line"] == 202
    for table, share in zip(tables, (0.8, 0.1, 0.1), strict=False):
        extra = table.info.extra
        assert (extra["bad_rows"], extra["files"], extra["format"], extra["source_version"]) == (1, 1, "csv", "v1")
        assert extra["columns_inferred"] == ["k"]
        assert extra["split_of_rows"] == 200
        assert extra["share"] == table.rows / 200 == pytest.approx(share, abs=0.1)
        assert table.info.source == str(tmp_path / "a.csv")


def test_reading_starts_anew_where_a_late_value_widens_a_type(tmp_path, monkeypatch):
    monkeypatch.setattr(text_rows, "FULL_WINDOW", 4096)
    (tmp_path / "a.csv").write_text("k,n\n" + "".join(f"{i},1\n" for i in range(5_000)) + "5000,1.5\n")
    tables, _ = ingest(tmp_path, tmp_path / "a.csv")
    assert {table.info.columns["n"] for table in tables[:3]} == {"float64"}
    assert sum(table.rows for table in tables[:3]) == 5_001


def test_a_split_of_share_zero_is_an_empty_table_of_the_same_columns(tmp_path):
    tables, _ = ingest(tmp_path, fractions=[0.9, 0.1, 0.0])
    assert tables[2].rows == 0
    assert tables[2].info.columns == tables[0].info.columns


@pytest.mark.parametrize(
    ("arguments", "parameter", "said"),
    [
        ({"key_columns": ["tailnun"]}, "key_columns", "tailnum"),
        ({"key_columns": []}, "key_columns", "one or more columns"),
        ({"key_columns": ["dest", "dest"]}, "key_columns", "each once"),
        ({"key_columns": "dest"}, "key_columns", "a list"),
        ({"fractions": [0.5, 0.2, 0.2]}, "fractions", "0.9"),
        ({"format": "xml"}, "format", "xml"),
        ({"columns": {"no_such": "int64"}}, "columns", "no_such"),
    ],
)
def test_wrong_parameters_are_refused_and_nothing_is_written(tmp_path, arguments, parameter, said):
    with pytest.raises(InputError) as caught:
        ingest(tmp_path, **arguments)
    assert parameter in str(caught.value)
    assert said in str(caught.value)
    assert not list(tmp_path.rglob("part-*.parquet"))


def test_too_many_bad_rows_fail_and_stay_in_the_quarantine(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 50 + "1\n1,2,3\n")
    with pytest.raises(DataError, match="2 rows cannot be read"):
        ingest(tmp_path, tmp_path / "a.csv", max_bad_rows=1)
    assert Table(tmp_path / "quarantine").rows == 2
    assert not any((tmp_path / name).exists() for name in SPLITS)


def test_a_key_of_one_value_leaves_two_splits_without_rows(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"1,{i}\n" for i in range(50)))
    with pytest.raises(DataError, match="has no rows") as caught:
        ingest(tmp_path, tmp_path / "a.csv", key_columns=["a"])
    assert "the key has few values" in str(caught.value)
    assert str(tmp_path / "a.csv") in str(caught.value)
    assert not any((tmp_path / name).exists() for name in SPLITS)


def test_a_file_that_ends_within_its_compression_leaves_no_table(tmp_path):
    text = "a,b\n" + "".join(f"{i},{i * 7919}\n" for i in range(200_000))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:-1000])
    with pytest.raises(DataError):
        ingest(tmp_path, tmp_path / "a.csv.gz")
    assert not any((tmp_path / name).exists() for name in SPLITS)
