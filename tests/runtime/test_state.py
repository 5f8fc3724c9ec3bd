"""Documents that outlive a run: in a folder, in S3 (moto) and in Cloud Storage (its JSON API, as far as it is used)."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.runtime import state as state_module
from pipeparts.runtime.state import State, document_name
from tests.services import s3_server

ROOT = Path(__file__).parents[2]


# ---- Storage ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A moto server with an empty bucket; as S3 itself, it takes one conditional write at a time."""
    from moto.s3.responses import S3Response

    one_at_a_time = threading.Lock()
    put = S3Response.put_object

    def put_object(self: Any) -> Any:
        with one_at_a_time:
            return put(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object)
        with s3_server("kept"):
            yield "s3://kept"


class Gcs(http.server.BaseHTTPRequestHandler):
    """As much of the JSON API of Cloud Storage as documents take; `lose` answers are lost after the work is done."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}
    lock = threading.Lock()
    lose = 0

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _facts(self, key: str) -> dict[str, Any]:
        return {"name": key, "bucket": "kept", "size": str(len(self.objects[key])), "generation": "1"}

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        key = urllib.parse.unquote(url.path.partition("/o/")[2])
        if key:
            if key not in self.objects:
                self._answer(json.dumps({"error": {"code": 404, "message": key}}).encode(), 404)
            elif query.get("alt") == "media" or "/download/" in url.path:
                self._answer(self.objects[key])
            else:
                self._answer(json.dumps(self._facts(key)).encode())
            return
        prefix = query.get("prefix", "")
        inside = [name[len(prefix) :] for name in sorted(self.objects) if name.startswith(prefix)]
        folders = {f"{prefix}{name.partition('/')[0]}/" for name in inside if "/" in name}
        items = [self._facts(prefix + name) for name in inside if "/" not in name]
        self._answer(json.dumps({"items": items, "prefixes": sorted(folders)}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = re.search(r"boundary=[\"']?([^\"';]+)", self.headers["Content-Type"])
        assert boundary
        parts = body.split(b"--" + boundary[1].encode())
        key = json.loads(parts[1].split(b"\n\n" if b"\r\n\r\n" not in parts[1] else b"\r\n\r\n", 1)[1])["name"]
        content = re.split(rb"\r?\n\r?\n", parts[2], maxsplit=1)[1]
        content = content[: -2 if content.endswith(b"\r\n") else -1]
        with self.lock:
            taken = "ifGenerationMatch=0" in self.path and key in self.objects
            if not taken:
                self.objects[key] = content
            if Gcs.lose:
                Gcs.lose -= 1
                self._answer(b'{"error": {"code": 503, "message": "the answer was lost"}}', 503)
                return
        self._answer(
            b'{"error": {"code": 412}}' if taken else json.dumps(self._facts(key)).encode(), 412 * taken or 200
        )


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gcs) as server:
        Gcs.objects, Gcs.lose = {}, 0
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield "gs://kept/here"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["folder", "s3", "gcs", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind."""
    if request.param == "folder":
        return str(tmp_path / "not there yet" / "state")
    if request.param == "memory":
        return f"memory://{tmp_path.name}/state"
    name = re.sub(r"\W", "", tmp_path.name)
    return f"{request.getfixturevalue(request.param)}/{name}"


# ---- What a document does -----------------------------------------------------------------------------------------


def test_a_document_is_read_as_it_was_written(place: str) -> None:
    document = {"text": "ä\n\u2028", "number": 1.5, "list": [1, None, True], "nothing": {}}
    state = State(place)
    assert state.read("receipts/alert-1") is None
    state.write("receipts/alert-1", document)
    assert State(place).read("receipts/alert-1") == document
    state.write("receipts/alert-1", [])
    assert State(place + "/").read("receipts/alert-1") == []


def test_of_two_that_create_the_first_succeeds(place: str) -> None:
    first, second = State(place), State(place)
    assert first.create("claims/1", {"by": "first"})
    assert not second.create("claims/1", {"by": "second"})
    assert not first.create("claims/1", {"by": "first"})
    assert second.read("claims/1") == {"by": "first"}
    first.write("claims/1", {"by": "none"})
    assert not second.create("claims/1", {"by": "second"})


def test_names_are_in_order_and_of_one_folder(place: str) -> None:
    state = State(place)
    assert state.names("history") == []
    for name in ("history/b", "history/2013-08", "history/a.json", "history/deeper/c", "other/d"):
        state.write(name, 1)
    state.create("history/e", 1)
    assert state.names("history") == ["history/2013-08", "history/a.json", "history/b", "history/e"]
    assert [State(place).read(name) for name in state.names("history")] == [1, 1, 1, 1]


def test_what_another_run_wrote_meanwhile_is_seen(place: str) -> None:
    one, other = State(place), State(place)
    assert one.names("history") == []
    assert one.read("history/a") is None
    other.write("history/a", 1)
    assert one.names("history") == ["history/a"]
    other.write("history/a", 2)
    assert one.read("history/a") == 2


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a b", "a:b", "ä", "a\n", "a" * 201, "~", "-a"]
)
def test_a_name_that_no_document_can_have_is_refused(tmp_path: Path, name: str) -> None:
    state = State(str(tmp_path))
    for act in (lambda: state.read(name), lambda: state.write(name, 1), lambda: state.create(name, 1)):
        with pytest.raises(InputError, match="a name that no document can have") as error:
            act()
        assert error.value.facts["received"] == name
    assert not list(tmp_path.iterdir())


def test_what_is_not_json_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for write in (State(str(tmp_path)).write, State(str(tmp_path)).create):
        for document in ({"a": float("nan")}, {"a": object()}):
            with pytest.raises((ValueError, TypeError)):
                write("a", document)
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=300), st.text(max_size=300))
def test_anything_has_a_name_of_its_own(text: str, other: str) -> None:
    name = document_name(text)
    assert state_module._NAME.fullmatch(name)
    assert "/" not in name
    assert len(name) <= 100
    assert (name == document_name(other)) == (text == other)


def test_names_stay_readable() -> None:
    assert document_name("2013-08") == "2013-08"
    assert re.fullmatch(r"flights-of-August\+[0-9a-f]{12}", document_name("flights of August"))
    assert re.fullmatch(r"[0-9a-f]{12}", document_name("八月"))
    assert re.fullmatch(r"x{80}\+[0-9a-f]{12}", document_name("x" * 100))
    assert document_name("../../etc") == document_name("../../etc")


# ---- Where it is ----------------------------------------------------------------------------------------------------


def test_without_an_address_it_is_in_the_folder_of_local_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPEPARTS_ROOT", str(tmp_path))
    state = State("")
    state.write("a", 1)
    assert state.place == str(tmp_path / "state")
    assert (tmp_path / "state" / "a.json").read_text() == "1\n"
    for url in (f"file://{tmp_path}/state", f" {tmp_path}/state/ "):
        assert State(url).read("a") == 1


@pytest.mark.parametrize("root", ["", " "])
def test_without_any_address_the_error_lists_where_it_looked(monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    monkeypatch.setenv("PIPEPARTS_ROOT", root)
    with pytest.raises(InputError, match="nowhere to keep what outlives this run") as error:
        State("  ", parameter="state")
    assert error.value.facts["parameter"] == "state"
    assert "looked in: the parameter state, the environment variable PIPEPARTS_ROOT" in error.value.facts["received"]
    assert "gs://bucket/folder" in error.value.facts["allowed"]


@pytest.mark.parametrize("url", ["s3://", "gs:///", "http://host/folder", "https://me:secret@host/folder"])
def test_an_address_where_nothing_can_be_kept_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="an address where nothing can be kept") as error:
        State(url)
    assert "secret" not in str(error.value)


def test_a_scheme_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="whose scheme is not known") as error:
        State("gss://bucket/folder").read("a")
    assert error.value.facts["hint"] == "did you mean 'gs'?"
    assert error.value.facts["parameter"] == "state"


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = State(str(tmp_path / "file"))
    for act in (lambda: state.write("a/b", 1), lambda: state.create("a/b", 1), lambda: state.read("a/b")):
        with pytest.raises(InputError, match="nothing can be kept there") as error:
            act()
        assert error.value.facts["where"].endswith("file/a/b.json")
        assert "Not a directory" in error.value.facts["received"] or "File exists" in error.value.facts["received"]
    assert state.names("a") == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_this_user_may_not_write_to_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="access is denied") as error:
        State(str(tmp_path)).write("a", 1)
    assert error.value.facts["hint"] == "this user lacks the right to write it"


def test_a_full_disk_may_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(ServiceError, match="cannot write the file") as error:
        State(str(tmp_path)).create("a", 1)
    assert "No space left on device" in error.value.facts["received"]
    assert error.value.retryable
    assert not list(tmp_path.iterdir())


def test_a_bucket_that_does_not_exist_is_said(s3: str) -> None:
    state = State("s3://nobucket/folder")
    assert state.read("a") is None
    assert state.names("a") == []
    for write in (state.write, state.create):
        with pytest.raises(InputError, match="nothing can be kept there") as error:
            write("a", 1)
        assert error.value.facts["where"] == "s3://nobucket/folder/a.json"
        assert error.value.facts["allowed"] == "a bucket that exists"
        assert "bucket does not exist" in error.value.facts["received"]


def test_storage_that_does_not_answer_may_be_tried_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Gcs) as server:
        port = server.server_port
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    state = State("s3://kept")
    for act in (
        lambda: state.read("a"),
        lambda: state.write("a", 1),
        lambda: state.create("a", 1),
        lambda: state.names("a"),
    ):
        with pytest.raises(ServiceError, match="the server does not answer") as error:
            act()
        assert error.value.retryable
        assert error.value.facts["parameter"] == "state"


def test_without_credentials_the_error_says_where_it_looked(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match="no credentials were found"):
        State("s3://kept/folder").write("a", 1)


# ---- Damaged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_a_damaged_document_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ContractError, match="a damaged document") as error:
        State(str(tmp_path)).read("a")
    assert error.value.facts["where"] == str(tmp_path / "a.json")
    assert error.value.facts["allowed"] == "a JSON document"
    assert error.value.facts["received"].startswith(f"{len(content)} bytes" if content else "an empty file")


# ---- At the same time -----------------------------------------------------------------------------------------------

_RACE = """
import sys, time
from pipeparts.runtime.state import State

place, me, rounds, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
state = State(place)
state.names("claims")
print("ready", flush=True)
begin = float(sys.stdin.readline())
for number in range(rounds):
    while time.time() < begin + number * pause:
        pass
    if state.create(f"claims/{number}", {"by": me}):
        print(number, flush=True)
"""


def _race(place: str, processes: int, rounds: int, pause: float) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, place, str(me), str(rounds), str(pause)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for me in range(processes)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    begin = time.time() + 0.1
    for racer in racers:
        assert racer.stdin
        racer.stdin.write(f"{begin}\n")
        racer.stdin.flush()
    won = {}
    for me, racer in enumerate(racers):
        output, _ = racer.communicate(timeout=120)
        assert racer.returncode == 0
        for number in output.split():
            assert number not in won, "two processes made the same document"
            won[number] = str(me)
    assert len(won) == rounds
    state = State(place)
    assert [state.read(f"claims/{number}") for number in range(rounds)] == [{"by": won[str(n)]} for n in range(rounds)]


@pytest.mark.slow
def test_of_processes_at_the_same_time_one_creates(tmp_path: Path) -> None:
    _race(str(tmp_path), processes=2, rounds=1000, pause=0.001)
    assert not [file for file in (tmp_path / "claims").iterdir() if file.name.startswith(".")]


@pytest.mark.slow
def test_of_processes_at_the_same_time_one_creates_in_a_bucket(s3: str, gcs: str) -> None:
    _race(f"{s3}/race", processes=3, rounds=20, pause=0.1)
    _race(gcs, processes=3, rounds=20, pause=0.1)


def test_of_threads_at_the_same_time_one_creates(tmp_path: Path) -> None:
    won: Counter[str] = Counter()
    barrier = threading.Barrier(8)

    def run(me: int) -> None:
        state = State(str(tmp_path))
        for number in range(50):
            barrier.wait()
            if state.create(f"claims/{number}", {"by": me, "long": "x" * 10_000}):
                won[str(number)] += 1

    threads = [threading.Thread(target=run, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == {str(number): 1 for number in range(50)}
    assert all(State(str(tmp_path)).read(f"claims/{number}")["long"] for number in range(50))


def test_without_links_it_is_exclusive_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    state = State(str(tmp_path))
    assert state.create("a", 1)
    assert not state.create("a", 2)
    assert state.read("a") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_repeated_request_whose_answer_was_lost_counts_once(gcs: str, lost: int) -> None:
    Gcs.lose = lost
    assert State(gcs).create("a", {"by": "first"})
    assert not State(gcs).create("a", {"by": "first"})
    assert State(gcs).read("a") == {"by": "first"}


def test_a_conflict_in_the_storage_is_tried_again(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.s3.responses import S3Response

    refused: list[bool] = []
    put = S3Response.put_object

    def conflicts(self: Any) -> Any:
        if len(refused) < 2:
            refused.append(True)
            return 409, {}, "<Error><Code>ConditionalRequestConflict</Code><Message>later</Message></Error>"
        return put(self)

    monkeypatch.setattr(S3Response, "put_object", conflicts)
    state = State(f"{s3}/conflict")
    assert state.create("a", 1)
    assert not state.create("a", 2)
    assert len(refused) == 2
    refused.clear()
    monkeypatch.setattr(state_module, "_ATTEMPTS", 1)
    with pytest.raises(ServiceError, match="status 409"):
        state.create("b", 1)


# ---- Killed half-way ------------------------------------------------------------------------------------------------

_WRITER = """
import sys
from pipeparts.runtime.state import State

state = State(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    document = {"number": number, "filling": "x" * 300_000}
    state.write("written", document)
    state.create(f"created/{number}", document)
"""


@pytest.mark.slow
def test_a_process_killed_half_way_leaves_whole_documents_only(tmp_path: Path) -> None:
    for pause in (0.1, 0.3, 0.33):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=30)
    state = State(str(tmp_path))
    names = [*state.names("created"), "written"]
    assert len(names) > 3
    for name in names:
        assert len(state.read(name)["filling"]) == 300_000
    state.write("written", 1)
    assert state.read("written") == 1
