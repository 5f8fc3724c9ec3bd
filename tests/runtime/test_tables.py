"""The table contract: whole or not at all, and what is damaged is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.errors import ContractError, InputError
from pipeparts.runtime import tables
from pipeparts.runtime.hashing import batch_hashes
from pipeparts.runtime.tables import Table, TableWriter, arrow_type, type_name, write_table

ROWS = pa.table({"key": [3, 1, 2], "name": ["a", None, "ü"], "x": [0.5, float("nan"), None]})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    info = write_table(tmp_path / "t", ROWS, source="a test")
    table = Table(tmp_path / "t")
    assert table.info == info
    assert table.rows == 3
    assert info.columns == {"key": "int64", "name": "string", "x": "float64"}
    assert table.read(["x", "key"]).column_names == ["x", "key"]


def test_texts_that_come_as_dictionaries_are_written_as_texts(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "b", "a"], "number": [1, 2, 3, 4]})
    plain = write_table(tmp_path / "plain", table, source="test")
    encoded = table.set_column(0, "text", table["text"].dictionary_encode())
    with TableWriter(tmp_path / "encoded", table.schema, source="test") as writer:
        writer.write(encoded.slice(0, 3))
        writer.write(table.slice(3))
    assert writer.info == plain
    assert Table(tmp_path / "encoded").read().equals(table)


def test_hashes_that_are_known_give_the_same_fingerprint(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "b", "a"], "number": [1, 2, 3, 4]})
    hashes = batch_hashes(table.to_batches()[0])
    with TableWriter(tmp_path / "known", table.schema, source="test") as writer:
        writer.write(table.slice(0, 3), hashes=hashes[:3])
        writer.write(table.slice(3), hashes=hashes[3:])
    assert writer.info == write_table(tmp_path / "plain", table, source="test")


@pytest.mark.parametrize("whole_group_bytes", [0, 1 << 30])
def test_batches_are_bounded_and_in_order_however_a_group_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_group_bytes: int
) -> None:
    monkeypatch.setattr(tables, "_WHOLE_GROUP_BYTES", whole_group_bytes)
    table = pa.table({"text": [f"text {i % 9}" for i in range(300_000)], "number": range(300_000)})
    write_table(tmp_path / "table", table, source="test")
    batches = list(Table(tmp_path / "table").batches(["number", "text"], batch_rows=50_000))
    assert max(batch.num_rows for batch in batches) <= 50_000
    assert pa.Table.from_batches(batches).equals(table.select(["number", "text"]))


def test_an_empty_table_keeps_its_types(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS.slice(0, 0), source="a test")
    assert Table(tmp_path / "t").read().schema == ROWS.schema


def test_texts_with_few_values_come_as_dictionaries_to_who_takes_them(tmp_path: Path) -> None:
    few = pa.array(["a", None, "", "ü"] * 50_000)
    many = pa.array([f"text {i}" for i in range(200_000)])
    rows = pa.table({"few": few, "many": many, "number": np.arange(200_000)})
    write_table(tmp_path / "t", rows, source="a test")
    table = Table(tmp_path / "t")
    batches = list(table.batches(dictionaries=True))
    assert [str(kind) for kind in batches[0].schema.types][1:] == ["string", "int64"]
    assert all(pa.types.is_dictionary(batch.schema.field("few").type) for batch in batches)
    plain = [
        pa.record_batch([batch.column(0).dictionary_decode(), *batch.columns[1:]], rows.schema) for batch in batches
    ]
    assert pa.Table.from_batches(plain).equals(rows)
    assert table.schema.equals(rows.schema)
    assert all(batch.schema.equals(rows.schema) for batch in table.batches())


def test_parts_are_bounded(tmp_path: Path) -> None:
    batch = pa.record_batch({"a": np.arange(100_000)})
    with TableWriter(tmp_path / "t", batch.schema, source="a test", rows_per_part=300_000) as writer:
        for _ in range(10):
            writer.write(batch)
    table = Table(tmp_path / "t")
    assert len(table.parts) == 3
    assert sum(b.num_rows for b in table.batches(batch_rows=1000)) == table.rows == 1_000_000


@given(order=st.permutations(list(range(3))), columns=st.permutations(["key", "name", "x"]))
@settings(max_examples=20)
def test_fingerprint_ignores_the_order_of_rows_and_columns(tmp_path_factory, order, columns) -> None:
    folder = tmp_path_factory.mktemp("t")
    one = write_table(folder / "one", ROWS, source="a test")
    other = write_table(folder / "other", ROWS.take(order).select(columns), source="another")
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        ROWS.set_column(0, "key", pa.array([3, 1, 4])),
        ROWS.set_column(1, "name", pa.array(["a", "", "ü"])),
        ROWS.rename_columns(["key", "x2", "x"]),
        pa.concat_tables([ROWS, ROWS]),
        ROWS.slice(0, 2),
        ROWS.set_column(0, "key", pa.array([3, 1, 2], pa.int32())),
    ],
    ids=["a value", "null or empty", "a name", "doubled", "a row less", "a type"],
)
def test_fingerprint_sees_any_change(tmp_path: Path, changed: pa.Table) -> None:
    one = write_table(tmp_path / "one", ROWS, source="a test")
    assert write_table(tmp_path / "other", changed, source="a test").fingerprint != one.fingerprint


def test_nothing_appears_when_the_writer_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), TableWriter(tmp_path / "t", ROWS.schema, source="a test") as writer:
        writer.write(ROWS)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_when_the_process_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        import pyarrow as pa
        from pipeparts.runtime.tables import TableWriter
        rows = pa.record_batch({"a": list(range(200_000))})
        with TableWriter(sys.argv[1], rows.schema, source="a test") as writer:
            writer.write(rows)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "t")], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "t").exists()


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ContractError, match="other columns") as error,
        TableWriter(tmp_path / "t", ROWS.schema, source="a test") as writer,
    ):
        writer.write(ROWS.select(["key"]))
    assert "received: key: int64" in str(error.value)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no table here"):
        Table(tmp_path / "t")


def test_damage_is_seen(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS, source="a test")
    part = tmp_path / "t" / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ContractError, match="damaged"):
        Table(tmp_path / "t")
    part.unlink()
    with pytest.raises(ContractError, match="not whole"):
        Table(tmp_path / "t")


def test_a_count_that_does_not_hold_is_seen(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS, source="a test")
    path = tmp_path / "t" / "_table.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": 4}))
    with pytest.raises(ContractError, match="not whole"):
        Table(tmp_path / "t").read()


def test_a_column_that_is_not_there_suggests_the_close_one(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS, source="a test")
    with pytest.raises(InputError) as error:
        Table(tmp_path / "t").require(["nane"], parameter="label")
    assert "did you mean 'name'?" in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "string",
        "int64",
        "float64",
        "bool",
        "date",
        "timestamp",
        "timestamp_utc",
        "int32",
        "decimal128(9, 2)",
        "timestamp[ms, tz=Europe/Berlin]",
    ],
)
def test_type_names_go_both_ways(name: str) -> None:
    assert type_name(arrow_type(name)) == name


def test_an_unknown_type_suggests_the_close_one() -> None:
    with pytest.raises(InputError, match="not known") as error:
        arrow_type("flaot64")
    assert "did you mean 'float64'?" in str(error.value)


def test_a_retried_step_replaces_its_output(tmp_path: Path) -> None:
    write_table(tmp_path / "t", ROWS, source="a test")
    write_table(tmp_path / "t", ROWS.slice(0, 1), source="a test")
    assert Table(tmp_path / "t").rows == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_table_says_what_will_be_read(tmp_path: Path) -> None:
    info = write_table(tmp_path / "t", pa.table({"at": pa.array([1], pa.timestamp("s"))}), source="a test")
    table = Table(tmp_path / "t")
    assert {field.name: type_name(field.type) for field in table.schema} == info.columns
