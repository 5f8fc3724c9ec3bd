"""Real services for tests: started on loopback, in a folder of their own, gone when the block ends."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: With this set to 1 the tests that need a service are skipped; otherwise a missing service is an error.
SKIP = "PIPEPARTS_SKIP_SERVICES"

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_USER = "pipeparts"


class MissingServiceError(RuntimeError):
    """The service's programs are not installed on this machine."""


@dataclasses.dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL server, and one database of it.

    Attributes:
        host: Always 127.0.0.1.
        port: The TCP port.
        user: A superuser.
        password: Its password; the server takes SCRAM alone.
        database: The database that `url` names.
        folder: The server's own folder: `data`, `log.txt`, the unix socket.
        pid: The server's process.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    folder: Path
    pid: int

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, password included."""
        return f"postgresql+psycopg://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def url_without_password(self) -> str:
        """The SQLAlchemy URL as a person would write it into a pipeline."""
        return f"postgresql+psycopg://{self.user}@{self.host}:{self.port}/{self.database}"

    @property
    def log(self) -> str:
        """What the server has logged so far."""
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def execute(self, *statements: str) -> None:
        """Runs statements, each by itself and committed."""
        import psycopg

        with psycopg.connect(**self._connection(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create_database(self, name: str = "") -> Postgres:
        """Makes an empty database on the same server, for a test that wants one for itself."""
        name = name or f"test_{secrets.token_hex(4)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return dataclasses.replace(self, database=name)

    def _connection(self) -> dict[str, str]:
        return {
            "host": self.host, "port": str(self.port), "user": self.user, "password": self.password,
            "dbname": self.database,
        }  # fmt: skip


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """Starts a PostgreSQL server of its own, and removes it when the block ends.

    It listens on a free loopback port and on a unix socket in its own temporary folder, asks for a
    password, and dies with the process that started it.

    Yields:
        The server, with one empty database.

    Raises:
        MissingServiceError: Where PostgreSQL is not installed. Tests are skipped only where the
            environment says PIPEPARTS_SKIP_SERVICES=1.
    """
    if os.environ.get(SKIP) == "1":
        import pytest

        pytest.skip(f"needs a PostgreSQL server, and {SKIP}=1 is set")
    programs = _postgres_programs()
    folder = Path(tempfile.mkdtemp(prefix="pipeparts-postgres-", dir=_open_folder()))
    try:
        password = secrets.token_hex(16)
        _make_cluster(programs, folder, password)
        process, port = _start_postgres(programs, folder, password)
        try:
            yield Postgres("127.0.0.1", port, _USER, password, _USER, folder, process.pid)
        finally:
            _stop_postgres(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_programs() -> Path:
    """The folder with `initdb` and `postgres`; Debian keeps them off the PATH, a folder for each version."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(versions, key=lambda f: [int(n) for n in re.findall(r"\d+", f.parent.name)], reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise MissingServiceError(
        "these tests need PostgreSQL, and it is not installed"
        "\n  looked in: the PATH, /usr/lib/postgresql/*/bin"
        "\n  hint: apt-get install postgresql"
        f"\n  hint: or set {SKIP}=1 to skip what needs a service"
    )


def _open_folder() -> str:
    """A temporary folder that the server's user can enter; root's own TMPDIR may be closed to it."""
    folder = tempfile.gettempdir()
    everyone_enters = all(place.stat().st_mode & 0o001 for place in [Path(folder), *Path(folder).parents])
    return folder if os.getuid() != 0 or everyone_enters else "/tmp"


def _as_server_user(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root. Also: it ends at once (SIGQUIT) when this process ends."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise MissingServiceError("these tests need setpriv\n  hint: apt-get install util-linux")
    user = ["--reuid", _server_user(), "--regid", _server_user_group(), "--clear-groups"] if os.getuid() == 0 else []
    return [setpriv, *user, "--pdeathsig", "QUIT", *command]


def _server_user() -> str:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServiceError("root cannot run PostgreSQL, and there is no user 'postgres' or 'nobody' to run it")


def _server_user_group() -> str:
    return str(pwd.getpwnam(_server_user()).pw_gid)


def _make_cluster(programs: Path, folder: Path, password: str) -> None:
    password_file = folder / "password.txt"
    password_file.write_text(password, encoding="utf-8")
    if os.getuid() == 0:
        owner = pwd.getpwnam(_server_user())
        for path in (folder, password_file):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    command = [
        str(programs / "initdb"), "--pgdata", str(folder / "data"), "--username", _USER, "--auth", "scram-sha-256",
        "--pwfile", str(password_file), "--encoding", "UTF8", "--locale", "C", "--no-sync",
    ]  # fmt: skip
    done = subprocess.run(
        _as_server_user(command), cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False
    )
    password_file.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed with exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


def _start_postgres(programs: Path, folder: Path, password: str) -> tuple[subprocess.Popen[bytes], int]:
    for _ in range(5):
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(folder),
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "50",
            "shared_buffers": "32MB", "dynamic_shared_memory_type": "mmap", "timezone": "America/New_York",
        }  # fmt: skip
        command = [str(programs / "postgres"), "-D", str(folder / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                _as_server_user(command), cwd=folder, env=_environment(folder), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _wait_for_postgres(process, folder, port, password)
        except BaseException as error:
            _stop_postgres(process)
            log_text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
            if isinstance(error, RuntimeError) and "could not bind" in log_text:
                continue  # another process took the port in between
            raise
        return process, port
    raise RuntimeError("PostgreSQL found no free port in five attempts")


def _wait_for_postgres(process: subprocess.Popen[bytes], folder: Path, port: int, password: str) -> None:
    import psycopg

    address = {"host": "127.0.0.1", "port": str(port), "user": _USER, "password": password}
    until = time.monotonic() + _START_SECONDS
    last = "no attempt"
    while time.monotonic() < until:
        log = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        if process.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended with exit code {process.returncode}\n{log}")
        try:
            with psycopg.connect(**address, dbname="postgres", connect_timeout=5, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{_USER}"'.encode())
                return
        except psycopg.OperationalError as error:
            last = str(error)
        time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not answer within {_START_SECONDS:.0f} s: {last}")


def _stop_postgres(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGQUIT)  # at once, without writing out data that is thrown away
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}


@contextlib.contextmanager
def s3_server(bucket: str) -> Iterator[Any]:
    """Starts S3 (moto) on loopback with an empty bucket, and points the environment at it.

    Args:
        bucket: The bucket's name.

    Yields:
        A boto3 client of it.
    """
    import boto3
    import pytest
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        yield client
        client.close()
        server.stop()
