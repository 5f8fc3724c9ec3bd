"""Between a client and a server on loopback: passes bytes on, and cuts the connection when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

#: Whether the connection is cut now, half of a chunk being passed on: called with the bytes of the chunk.
When = Callable[[int], bool]


class Cutter:
    """The way between the two.

    Attributes:
        address: Where the client connects to.
        asking: When to cut as the client sends; None: not.
        answering: When to cut as the server sends; None: not.
        cuts: How many connections were cut; each `asking` and `answering` cuts one.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"localhost:{self._listener.getsockname()[1]}"
        self.asking: When | None = None
        self.answering: When | None = None
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Ends every connection."""
        for each in (self._listener, *self._open):
            _end(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                threading.Thread(target=self._pass, args=(client, server, "asking"), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, "answering"), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):  # the other side is gone
            while chunk := source.recv(65_536):
                when: When | None = getattr(self, way)
                if when is not None and when(len(chunk)):
                    setattr(self, way, None)
                    self.cuts += 1
                    sink.sendall(chunk[: len(chunk) // 2])
                    break
                sink.sendall(chunk)
        _end(source)
        _end(sink)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def cutter(server: str) -> Iterator[Cutter]:
    """Opens the way to a server, "HOST:PORT", and closes it when the block ends."""
    way = Cutter(server)
    try:
        yield way
    finally:
        way.close()


def after(size: int) -> When:
    """Cuts once so many bytes have been sent from now on."""
    sent = 0

    def when(chunk: int) -> bool:
        nonlocal sent
        sent += chunk
        return sent > size

    return when
