"""A table put into a folder or a bucket: whole, once, and never over what is no table's."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeparts.components.prediction.export_table import logic
from pipeparts.errors import ContractError, DataError, InputError, ServiceError
from pipeparts.runtime.sources import expand
from pipeparts.runtime.tables import INFO_FILE, Table, TableWriter, write_table
from tests.services import s3_server

# The clients of the stores keep sockets and loops of their own, which end with the process.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def make_table(path: Path, rows: int = 10, parts: int = 1, add: int = 0) -> Path:
    values = pa.table({"id": [f"r{i + add}" for i in range(rows)], "probability": [i / rows for i in range(rows)]})
    with TableWriter(path, values.schema, source="made here", rows_per_part=max(1, rows // parts)) as writer:
        for batch in values.to_batches(max_chunksize=max(1, rows // parts)):
            writer.write(batch)
            writer._flush()
    return path


def export(folder: Path, table: Path, destination: str | Path, **more: Any) -> dict[str, Any]:
    return logic.export_table(
        table_path=table, destination=str(destination), receipt_path=folder / "receipt.json", **more
    )


def test_a_folder_is_a_table_again(tmp_path: Path) -> None:
    table = make_table(tmp_path / "table", parts=2)
    receipt = export(tmp_path, table, tmp_path / "out" / "2013-08")
    there = Table(tmp_path / "out" / "2013-08")
    assert there.read().equals(Table(table).read())
    assert len(there.parts) == 2
    assert receipt == json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["rows"] == 10
    assert receipt["fingerprint"] == Table(table).info.fingerprint
    assert receipt["bytes"] == sum(file.stat().st_size for file in there.path.iterdir())


def test_readers_of_folders_see_the_parts_alone(tmp_path: Path) -> None:
    export(tmp_path, make_table(tmp_path / "table", parts=2), tmp_path / "out")
    names = [Path(file.path).name for file in expand(str(tmp_path / "out"))]
    assert names == ["part-00000.parquet", "part-00001.parquet"]


def test_the_same_table_is_not_written_again(tmp_path: Path) -> None:
    table = make_table(tmp_path / "table")
    first = export(tmp_path, table, tmp_path / "out")
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    assert export(tmp_path, table, tmp_path / "out") == first
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == before


def test_another_table_takes_its_place_whole(tmp_path: Path) -> None:
    export(tmp_path, make_table(tmp_path / "old", parts=5), tmp_path / "out")
    new = make_table(tmp_path / "new", rows=4, add=100)
    export(tmp_path, new, tmp_path / "out")
    assert Table(tmp_path / "out").read().equals(Table(new).read())
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [INFO_FILE, "part-00000.parquet"]


def test_another_table_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    old = make_table(tmp_path / "old")
    export(tmp_path, old, tmp_path / "out")
    receipt = export(tmp_path, make_table(tmp_path / "new", add=5), tmp_path / "out", if_exists="keep")
    assert receipt["fingerprint"] == Table(old).info.fingerprint == Table(tmp_path / "out").info.fingerprint


def test_another_table_is_an_error_where_that_is_asked_for(tmp_path: Path) -> None:
    export(tmp_path, make_table(tmp_path / "old"), tmp_path / "out")
    with pytest.raises(DataError, match="another table is there") as caught:
        export(tmp_path, make_table(tmp_path / "new", add=5), tmp_path / "out", if_exists="fail")
    assert caught.value.facts["where"] == str(tmp_path / "out")


@pytest.mark.parametrize("if_exists", ["replace", "keep", "fail"])
@pytest.mark.parametrize("spoil", ["truncated part", "missing part", "damaged description", "no description"])
def test_what_is_left_of_a_table_is_replaced(tmp_path: Path, spoil: str, if_exists: str) -> None:
    table = make_table(tmp_path / "table", parts=2)
    export(tmp_path, table, tmp_path / "out")
    part, info = tmp_path / "out" / "part-00000.parquet", tmp_path / "out" / INFO_FILE
    match spoil:
        case "truncated part":
            part.write_bytes(part.read_bytes()[:20])
        case "missing part":
            part.unlink()
        case "damaged description":
            info.write_text("{")
        case _:
            info.unlink()
    export(tmp_path, table, tmp_path / "out", if_exists=if_exists)
    assert Table(tmp_path / "out").read().equals(Table(table).read())


@pytest.mark.parametrize("if_exists", ["replace", "keep", "fail"])
def test_the_same_rows_in_other_parts_are_there_already(tmp_path: Path, if_exists: str) -> None:
    receipt = export(tmp_path, make_table(tmp_path / "table", parts=2), tmp_path / "out")
    again = export(tmp_path, make_table(tmp_path / "other", parts=5), tmp_path / "out", if_exists=if_exists)
    assert again == receipt
    assert len(Table(tmp_path / "out").parts) == 2


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for add in (0, 1):
        export(tmp_path, make_table(tmp_path / "table", add=add), tmp_path / "out")
        assert (tmp_path / "out").is_symlink()
        assert Table(tmp_path / "disk").rows == 10


@pytest.mark.parametrize("foreign", ["part-00000-0f1e.snappy.parquet", "_SUCCESS", ".DS_Store", "part-1.parquet"])
def test_names_that_are_nearly_a_tables_are_foreign(tmp_path: Path, foreign: str) -> None:
    export(tmp_path, make_table(tmp_path / "table"), tmp_path / "out")
    (tmp_path / "out" / foreign).write_text("from elsewhere")
    with pytest.raises(InputError, match="holds files that are no table's") as caught:
        export(tmp_path, make_table(tmp_path / "new", add=5), tmp_path / "out")
    assert caught.value.facts["received"] == foreign
    (tmp_path / "out" / foreign).unlink()
    assert Table(tmp_path / "out").info.fingerprint == Table(tmp_path / "table").info.fingerprint


@pytest.mark.parametrize("destination", ["file/below/out", "file/out"])
def test_a_place_below_a_file(tmp_path: Path, destination: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="the destination is below a file") as caught:
        export(tmp_path, make_table(tmp_path / "table"), tmp_path / destination)
    assert caught.value.facts["where"] == str(tmp_path / destination)
    assert caught.value.facts["parameter"] == "destination"
    assert not (tmp_path / "receipt.json").exists()


def test_a_folder_that_is_not_writable_for_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(logic, "whole_folder", refuse)  # these tests may run as root, who may write anywhere
    with pytest.raises(InputError, match="access is denied") as caught:
        export(tmp_path, make_table(tmp_path / "table"), tmp_path / "out")
    assert caught.value.facts["hint"] == "this user lacks the right to write it"


def test_a_full_disk_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path, make_table(tmp_path / "old"), tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logic.shutil, "copyfile", full)
    with pytest.raises(ServiceError, match="cannot write the file") as caught:
        export(tmp_path, make_table(tmp_path / "new", add=5), tmp_path / "out")
    assert "No space left" in caught.value.facts["received"]
    assert Table(tmp_path / "out").info.fingerprint == Table(tmp_path / "old").info.fingerprint
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["new", "old", "out", "receipt.json"]


def test_another_kind_of_address(tmp_path: Path) -> None:
    import fsspec

    address = f"memory://{tmp_path.name}/out"
    table = make_table(tmp_path / "table", parts=2)
    receipt = export(tmp_path, table, address)
    assert export(tmp_path, table, address) == receipt
    files = fsspec.filesystem("memory").find(address.removeprefix("memory:/"))
    assert [name.rpartition("/")[2] for name in files] == [INFO_FILE, "part-00000.parquet", "part-00001.parquet"]


@pytest.mark.parametrize("address", ["https://user:secret@host/folder", "http://host/folder?token=secret"])
def test_a_web_address_is_no_destination(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="cannot write to a web address") as caught:
        export(tmp_path, make_table(tmp_path / "table"), address)
    assert "secret" not in str(caught.value)


def test_files_that_are_no_tables_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out" / "below").mkdir(parents=True)
    (tmp_path / "out" / "below" / "thesis.docx").write_text("years of work")
    with pytest.raises(InputError, match="holds files that are no table's") as caught:
        export(tmp_path, make_table(tmp_path / "table"), tmp_path / "out")
    assert caught.value.facts["received"] == "below/thesis.docx"
    assert (tmp_path / "out" / "below" / "thesis.docx").read_text() == "years of work"


def test_a_file_is_no_destination(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="the destination is a file"):
        export(tmp_path, make_table(tmp_path / "table"), tmp_path / "out")


@pytest.mark.parametrize("destination", ["", "  ", "/", "gs://"])
def test_no_place(tmp_path: Path, destination: str) -> None:
    with pytest.raises(InputError, match="no place to write to"):
        export(tmp_path, make_table(tmp_path / "table"), destination)


def test_a_scheme_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="scheme is not known") as caught:
        export(tmp_path, make_table(tmp_path / "table"), "s4://bucket/folder")
    assert caught.value.facts["parameter"] == "destination"


def test_a_choice_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        export(tmp_path, make_table(tmp_path / "table"), tmp_path / "out", if_exists="replaces")
    assert caught.value.facts["hint"] == "did you mean 'replace'?"


def test_an_empty_table_is_delivered_too(tmp_path: Path) -> None:
    write_table(tmp_path / "table", pa.table({"id": pa.array([], pa.string())}), source="nothing")
    assert export(tmp_path, tmp_path / "table", tmp_path / "out")["rows"] == 0
    assert Table(tmp_path / "out").rows == 0


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no table here"):
        export(tmp_path, tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_half_way_leaves_the_old_table_or_the_new_one(tmp_path: Path) -> None:
    old, new = make_table(tmp_path / "old", rows=1000), make_table(tmp_path / "new", rows=400_000, parts=8, add=7)
    program = (
        "import sys\nfrom pathlib import Path\nfrom pipeparts.components.prediction.export_table import logic\n"
        "print('begin', flush=True)\n"
        "logic.export_table(table_path=sys.argv[1], destination=sys.argv[2], receipt_path=sys.argv[3])\n"
    )
    fingerprints = {Table(old).info.fingerprint, Table(new).info.fingerprint}
    for wait in (0.0, 0.002, 0.005, 0.01, 0.02):
        export(tmp_path, old, tmp_path / "out")
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(new), str(tmp_path / "out"), str(tmp_path / "r.json")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (tmp_path / "out").is_dir():
            assert Table(tmp_path / "out").info.fingerprint in fingerprints
        export(tmp_path, new, tmp_path / "out")
        assert Table(tmp_path / "out").read().equals(Table(new).read())


# ---- A bucket -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A moto server with a bucket `out`, and a client of it."""
    with s3_server("out") as client:
        yield client
    gc.collect()  # what the store's client leaves open ends here, not in a test of another module


def keys(client: Any, prefix: str) -> list[str]:
    found = client.list_objects_v2(Bucket="out", Prefix=prefix).get("Contents", [])
    return [item["Key"].removeprefix(prefix) for item in found]


@pytest.mark.slow
def test_a_bucket_has_the_parts_and_then_the_description(tmp_path: Path, bucket: Any) -> None:
    old, new = make_table(tmp_path / "old", parts=2), make_table(tmp_path / "new", rows=4, add=9)
    receipt = export(tmp_path, old, "s3://out/a/2013-08/")
    assert keys(bucket, "a/2013-08/") == [INFO_FILE, *(f"part-{i:05d}.parquet" for i in range(2))]
    assert receipt["rows"] == 10
    written = bucket.head_object(Bucket="out", Key=f"a/2013-08/{INFO_FILE}")["LastModified"]
    export(tmp_path, old, "s3://out/a/2013-08")
    assert bucket.head_object(Bucket="out", Key=f"a/2013-08/{INFO_FILE}")["LastModified"] == written
    export(tmp_path, new, "s3://out/a/2013-08")
    assert keys(bucket, "a/2013-08/") == [INFO_FILE, "part-00000.parquet"]
    assert len(expand("s3://out/a/2013-08")) == 1


@pytest.mark.slow
def test_a_bucket_without_description_is_not_whole_and_is_written_again(tmp_path: Path, bucket: Any) -> None:
    table = make_table(tmp_path / "table", parts=2)
    export(tmp_path, table, "s3://out/b")
    bucket.delete_object(Bucket="out", Key=f"b/{INFO_FILE}")
    export(tmp_path, table, "s3://out/b")
    assert INFO_FILE in keys(bucket, "b/")


@pytest.mark.slow
@pytest.mark.parametrize("broken_at", range(5))
def test_broken_off_in_a_bucket_it_is_never_half_there(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch, broken_at: int
) -> None:
    """Broken off before the n-th object is deleted or put: a reader finds the old table, the new one, or no marker."""
    old, new = make_table(tmp_path / "old", parts=2), make_table(tmp_path / "new", parts=2, add=9)
    address = f"s3://out/broken-{broken_at}"
    export(tmp_path, old, address)
    steps = iter(range(100))

    def fragile(original: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps) == broken_at:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        real = logic.open_filesystem

        def opened(*arguments: Any, **options: Any) -> Any:
            filesystem = real(*arguments, **options)
            for name in ("rm_file", "put_file"):
                patch.setattr(filesystem, name, fragile(getattr(filesystem, name)))
            return filesystem

        patch.setattr(logic, "open_filesystem", opened)
        with pytest.raises(KeyboardInterrupt):
            export(tmp_path, new, address)
    left = keys(bucket, f"broken-{broken_at}/")
    assert (INFO_FILE in left) == (broken_at == 0)
    export(tmp_path, new, address, if_exists="replace" if broken_at == 0 else "fail")
    whole = tmp_path / "read back"
    whole.mkdir()
    for name in keys(bucket, f"broken-{broken_at}/"):
        bucket.download_file("out", f"broken-{broken_at}/{name}", str(whole / name))
    assert Table(whole).read().equals(Table(new).read())


@pytest.mark.slow
def test_what_was_put_is_ingested_again(tmp_path: Path, bucket: Any) -> None:
    from pipeparts.components.ingestion.ingest_files.logic import ingest_files

    table = make_table(tmp_path / "table", parts=3)
    for number, destination in enumerate((str(tmp_path / "out"), "s3://out/again")):
        export(tmp_path, table, destination)
        folders = {name: tmp_path / f"{name}-{number}" for name in ("table", "quarantine")}
        ingest_files(source=destination, **{f"{name}_path": path for name, path in folders.items()})
        assert Table(folders["table"]).info.fingerprint == Table(table).info.fingerprint


@pytest.mark.slow
def test_other_objects_in_a_bucket_are_not_touched(tmp_path: Path, bucket: Any) -> None:
    bucket.put_object(Bucket="out", Key="c/below/thesis.docx", Body=b"years of work")
    with pytest.raises(InputError, match="holds files that are no table's"):
        export(tmp_path, make_table(tmp_path / "table"), "s3://out/c")
    assert keys(bucket, "c/") == ["below/thesis.docx"]


@pytest.mark.slow
def test_a_bucket_that_is_not_there(tmp_path: Path, bucket: Any) -> None:
    with pytest.raises((InputError, ServiceError)) as caught:
        export(tmp_path, make_table(tmp_path / "table"), "s3://nobucket/x")
    assert caught.value.facts["where"] == "s3://nobucket/x"
