"""Cloud Storage on loopback: as much of its JSON API as publishing takes, with generations and their conditions."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest


class Handler(http.server.BaseHTTPRequestHandler):
    """`objects` holds each object's content, generation and facts; `lose` answers are lost after the work is done."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one packet
    objects: ClassVar[dict[str, tuple[bytes, int, dict[str, Any]]]] = {}
    lock = threading.Lock()
    generation = 100
    lose = 0

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: bytes, generation: int = 0) -> None:
        self.send_response(status)
        if generation:
            self.send_header("X-Goog-Generation", str(generation))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode())

    def _facts(self, key: str) -> dict[str, Any]:
        content, generation, facts = self.objects[key]
        return {**facts, "name": key, "bucket": "kept", "size": str(len(content)), "generation": str(generation)}

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        key = urllib.parse.unquote(url.path.partition("/o/")[2])
        if "/b/kept/" not in url.path:
            self._json(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        elif not key:
            inside = [self._facts(name) for name in sorted(self.objects) if name.startswith(query.get("prefix", ""))]
            self._json(200, {"items": inside})
        elif key not in self.objects:
            self._json(404, {"error": {"code": 404, "message": key}})
        elif query.get("alt") == "media" or "/download/" in url.path:
            self._answer(200, *self.objects[key][:2])
        else:
            self._json(200, self._facts(key))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/b/kept/" not in self.path:
            self._json(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
            return
        boundary = re.search(r"boundary=[\"']?([^\"';]+)", self.headers["Content-Type"])
        assert boundary
        _, first, second, _ = body.split(b"--" + boundary[1].encode())
        facts = json.loads(first.split(b"\r\n\r\n", 1)[1])
        content = second.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        condition = re.search(r"ifGenerationMatch=(\d+)", self.path)
        key = facts["name"]
        with self.lock:
            there = self.objects[key][1] if key in self.objects else 0
            fits = condition is None or int(condition[1]) == there
            if fits:
                Handler.generation += 1
                self.objects[key] = (content, self.generation, facts)
            if Handler.lose:
                Handler.lose -= 1
                self._json(503, {"error": {"code": 503, "message": "the answer was lost"}})
                return
        if fits:
            self._json(200, self._facts(key))
        else:
            self._json(412, {"error": {"code": 412, "message": "conditionNotMet"}})


@contextlib.contextmanager
def cloud_storage() -> Iterator[type[Handler]]:
    """Starts it, with an empty bucket `kept`, and points the environment at it."""
    Handler.objects.clear()
    Handler.lose = 0
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield Handler
        server.shutdown()
        thread.join()
