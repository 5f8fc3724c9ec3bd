"""Files in a folder or a bucket, written so that two publishers at once lose nothing.

Two operations do it all: `create`, which never writes over anything, and `update`, which reads, changes and writes, and
does it again where somebody else wrote in between. A folder is locked for that; S3 and Cloud Storage take the write
only where the object is still the one that was read (If-Match, ifGenerationMatch). Other file systems of fsspec have no
such condition: there the file is read once more, and changed once more where it is not what it has to be. Of two
publishers in the same moment one may then have to publish again; what a version holds is never lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime.files import whole_file
from pipeparts.runtime.sources import open_filesystem, public_name, server_status, service_errors

#: Gives the new content for the one that is there (None for none); None where it is right already.
Edit = Callable[[bytes | None], bytes | None]

_ATTEMPTS = 30
_LOCK = ".publish.lock"
_TYPES = {".yaml": "application/yaml", ".json": "application/json", ".html": "text/html; charset=utf-8"}
_ALLOWED = "a folder, gs://bucket/folder, s3://bucket/folder or another address that fsspec can write to"


class Store(Protocol):
    """Files by path below one address."""

    address: str

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none."""

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file where there is none, whole or not at all.

        Returns:
            Whether there was none.
        """

    def update(self, path: str, edit: Edit) -> None:
        """Writes what `edit` gives, until it says that what is there is right."""


def open_store(address: str) -> Store:
    """The store of an address.

    Raises:
        InputError: Where nothing can be written there.
    """
    if "://" not in address or address.startswith("file://"):
        return _Folder(address.removeprefix("file://"))
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme in ("http", "https") or not rest.strip("/") or "@" in rest.partition("/")[0]:
        raise InputError(
            "nothing can be published to this address",
            parameter="--to",
            allowed=f"{_ALLOWED}; https://LOCATION-kfp.pkg.dev/PROJECT/REPOSITORY; oci://HOST/REPOSITORY",
            received=public_name(address),
            hint="a password goes into the environment of the storage's client" if "@" in rest else None,
        )
    kinds = {"s3": _S3, "s3a": _S3, "gs": _CloudStorage, "gcs": _CloudStorage}
    return kinds.get(scheme, _Plain)(address.rstrip("/"))


class _Folder:
    def __init__(self, address: str) -> None:
        self._root = Path(address).expanduser().absolute()
        self.address = str(self._root)

    def read(self, path: str) -> bytes | None:
        with _errors(f"{self.address}/{path}", "read"):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def create(self, path: str, content: bytes) -> bool:
        with _errors(f"{self.address}/{path}", "write"), self._locked():
            if (self._root / path).exists():
                return False
            self._write(path, content)
            return True

    def update(self, path: str, edit: Edit) -> None:
        with _errors(f"{self.address}/{path}", "write"), self._locked():
            content = edit(self.read(path))
            if content is not None:
                self._write(path, content)

    def _write(self, path: str, content: bytes) -> None:
        with whole_file(self._root / path) as partial:
            partial.write_bytes(content)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among publishers; the system takes the lock from one that was killed."""
        import fcntl

        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class _Remote:
    """A file system of fsspec; `_look` gives what is there, and `_send` writes where that is still there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._fs = open_filesystem(address, parameter="--to")

    def read(self, path: str) -> bytes | None:
        with _errors(self._path(path), "read"):
            return self._look(path)[0]

    def create(self, path: str, content: bytes) -> bool:
        with _errors(self._path(path), "write"):
            for _ in self._attempts(path):
                if self._look(path)[0] is not None:  # for storage that takes no notice of the condition
                    return False
                if self._put(path, content, version=None):
                    return True
        raise AssertionError("the attempts end with an error")

    def update(self, path: str, edit: Edit) -> None:
        with _errors(self._path(path), "write"):
            for _ in self._attempts(path):
                there, version = self._look(path)
                content = edit(there)
                if content is None:
                    return
                self._put(path, content, version=version)  # and once more, to see that it is there

    def _attempts(self, path: str) -> Iterator[int]:
        for attempt in range(_ATTEMPTS):
            yield attempt
            time.sleep(random.uniform(0, min(1.0, 0.05 * attempt)))  # so that two do not go on in step
        raise ServiceError(
            "others write to the same file all the time",
            parameter="--to",
            where=public_name(self._path(path)),
            received=f"{_ATTEMPTS} attempts",
            hint="publish again: what was published already is left as it is",
        )

    def _path(self, path: str) -> str:
        return f"{self.address}/{path}"

    def _object(self, path: str) -> tuple[str, str]:
        """A file's bucket and key."""
        bucket, _, key = self._path(path).partition("://")[2].partition("/")
        return bucket, key

    def _look(self, path: str) -> tuple[bytes | None, str | None]:
        """What is there, and what the storage calls this state of it; None and None for nothing."""
        try:
            return self._get(path)
        except FileNotFoundError:
            return None, None

    def _put(self, path: str, content: bytes, *, version: str | None) -> bool:
        """Writes where what is there is still of this version; says whether it did."""
        try:
            self._send(path, content, version)
        except OSError as error:
            if isinstance(error, FileExistsError) or server_status(error) in (409, 412):
                return False
            raise
        return True

    def _get(self, path: str) -> tuple[bytes, str | None]:
        raise NotImplementedError

    def _send(self, path: str, content: bytes, version: str | None) -> None:
        raise NotImplementedError


class _S3(_Remote):
    def _get(self, path: str) -> tuple[bytes, str | None]:
        from fsspec.asyn import sync

        bucket, key = self._object(path)

        async def get() -> tuple[bytes, str]:
            answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key)
            async with answer["Body"] as body:
                return await body.read(), str(answer["ETag"])

        found: tuple[bytes, str] = sync(self._fs.loop, get)
        return found

    def _send(self, path: str, content: bytes, version: str | None) -> None:
        bucket, key = self._object(path)
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        kind, caching = _headers(path)
        self._fs.call_s3(
            "put_object", Bucket=bucket, Key=key, Body=content, ContentType=kind, CacheControl=caching, **condition
        )


class _CloudStorage(_Remote):
    def _get(self, path: str) -> tuple[bytes, str | None]:
        headers, content = self._fs.call("GET", self._fs.url(self._path(path)))
        return bytes(content), str(headers["X-Goog-Generation"])

    def _send(self, path: str, content: bytes, version: str | None) -> None:
        bucket, key = self._object(path)
        kind, caching = _headers(path)
        facts = json.dumps({"name": key, "contentType": kind, "cacheControl": caching}).encode()
        mark = uuid.uuid4().hex.encode()  # in no content that anybody wrote
        parts = [
            b"--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n" % (mark, facts),
            b"--%s\r\nContent-Type: %s\r\n\r\n%s\r\n" % (mark, kind.encode(), content),
            b"--%s--" % mark,
        ]
        # gcsfs itself knows one condition only, that there is nothing yet.
        self._fs.call(
            "POST",
            f"{self._fs._location}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=version or "0",
            headers={"Content-Type": f'multipart/related; boundary="{mark.decode()}"'},
            data=b"".join(parts),
            json_out=True,
        )


class _Plain(_Remote):
    def _get(self, path: str) -> tuple[bytes, str | None]:
        return bytes(self._fs.cat_file(self._path(path))), None  # there is no condition to give it to

    def _send(self, path: str, content: bytes, version: str | None) -> None:
        target = self._path(path)
        partial = f"{target}.{uuid.uuid4().hex}.partial"
        self._fs.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH120 (an address)
        try:
            self._fs.pipe_file(partial, content)
            self._fs.mv(partial, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(partial)
            raise


def _headers(path: str) -> tuple[str, str]:
    """What browsers are told: the type, and that a version never changes where pointers and the index do."""
    kind = _TYPES.get(os.path.splitext(path)[1], "text/plain; charset=utf-8")
    versioned = path.endswith(".yaml")
    return kind, "public, max-age=31536000, immutable" if versioned else "no-cache"


@contextlib.contextmanager
def _errors(where: str, action: str) -> Iterator[None]:
    with service_errors(where, parameter="--to", action=action):
        try:
            yield
        except (NotADirectoryError, IsADirectoryError, FileNotFoundError, FileExistsError) as error:
            raise InputError(
                "nothing can be published there",
                parameter="--to",
                where=public_name(where),
                allowed="a bucket that exists, or a folder whose name no file has",
                received=" ".join(f"{type(error).__name__}: {error}".split()),
            ) from error
