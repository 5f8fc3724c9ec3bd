"""What outlives a run: small JSON documents in a folder or a bucket, for a run that starts again to find.

Receipts (this alert was sent), decisions, the history of batches. Any fsspec address: a folder, `gs://`, `s3://`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import whole_file
from pipeparts.runtime.sources import open_filesystem, public_name, server_status, service_errors

#: What the local target sets for its steps: the folder of runs, where state goes when no address is given.
ROOT_VARIABLE = "PIPEPARTS_ROOT"

_ENDING = ".json"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@-]{0,199}")
_NAME = re.compile(rf"{_PART.pattern}(/{_PART.pattern})*")
_LONGEST_PLAIN = 80
_ALLOWED = "a folder, gs://bucket/folder or s3://bucket/folder that every run can reach"
_CONFLICT = 409  # S3: two conditional writes at the same moment; neither has to have won
_ATTEMPTS = 5
# Where links are refused: file systems over a network or a bucket (gcsfuse, some SMB).
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


P = TypeVar("P", bound=pydantic.BaseModel)


class State:
    """Documents by name, `receipts/alert-3f2a`, below one address.

    Args:
        url: A folder, or `gs://bucket/folder`, `s3://bucket/folder`; empty: `state` in the folder of local runs.
        parameter: The parameter that it came from, for messages.

    Raises:
        InputError: Where there is no address, or one where nothing can be kept.
    """

    def __init__(self, url: str, *, parameter: str = "state") -> None:
        base = url.strip() or self._default(parameter)
        self._parameter = parameter
        self._is_local = "://" not in base or base.startswith("file://")
        if self._is_local:
            self._base = str(Path(base.removeprefix("file://")).expanduser().absolute())
        else:
            self._base = _checked_address(base, parameter)
        self._fs: Any = None

    @staticmethod
    def _default(parameter: str) -> str:
        root = os.environ.get(ROOT_VARIABLE, "").strip()
        if root:
            return str(Path(root) / "state")
        raise InputError(
            "nowhere to keep what outlives this run",
            parameter=parameter,
            allowed=_ALLOWED,
            received=f"nothing; looked in: the parameter {parameter}, the environment variable {ROOT_VARIABLE}",
        )

    @property
    def place(self) -> str:
        """The address, as messages may show it."""
        return public_name(self._base)

    def read(self, name: str) -> Any | None:
        """A document, or None where there is none.

        Raises:
            ContractError: For a document that is not JSON.
            ServiceError: Where the storage does not answer.
        """
        path = self._path(name)
        with self._errors(path, "read"):
            content = self._content(path)
        if content is None:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise ContractError(
                "a damaged document",
                parameter=self._parameter,
                where=public_name(path),
                allowed="a JSON document",
                received=f"{len(content):,} bytes: {error}" if content else "an empty file",
                hint="remove it if nothing else helps: what it stood for is then forgotten",
            ) from error

    def read_as(self, kind: type[P], name: str) -> P | None:
        """A document held to its contract, or None where there is none.

        Args:
            kind: A model whose field `format` has the contract's name and version as its default.
            name: The document's name.

        Raises:
            ContractError: For a document that is damaged, or of another kind or version.
            ServiceError: Where the storage does not answer.
        """
        document = self.read(name)
        if document is None:
            return None
        where = public_name(self._path(name))
        wanted = kind.model_fields["format"].default
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        if found != wanted:
            raise ContractError(
                "a document of another kind or version",
                parameter=self._parameter,
                where=where,
                allowed=f"format {wanted!r}",
                received=f"format {found!r}" if isinstance(document, dict) else found,
                hint="a newer release of this library may have written it" if _is_newer(found, wanted) else None,
            )
        try:
            return kind.model_validate(document)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ContractError(
                "a damaged document",
                parameter=self._parameter,
                where=f"{where}, {'.'.join(str(part) for part in first['loc'])}",
                allowed=first["msg"],
                received=first.get("input"),
            ) from error

    def write(self, name: str, document: Any) -> None:
        """Writes a document, whole or not at all, over one that is there.

        Raises:
            InputError: Where nothing can be written: no such bucket, no right to.
            ServiceError: Where the storage does not answer.
        """
        path, content = self._path(name), _encoded(document)
        with self._errors(path, "write"):
            if self._is_local:
                with whole_file(path) as partial:
                    partial.write_bytes(content)
            else:
                self._remote().pipe_file(path, content)

    def create(self, name: str, document: Any) -> bool:
        """Writes a document where there is none yet, whole or not at all.

        Of several that try at the same time exactly one succeeds: on a file system, and on storage with conditional
        writes (Google Cloud Storage, S3, MinIO). Elsewhere only who comes later is sure to be refused: two at the
        same moment may both succeed. Where an answer of the storage is lost and the request repeated, the
        document counts as written by this call.

        Returns:
            Whether this call wrote it.

        Raises:
            InputError: Where nothing can be written: no such bucket, no right to.
            ServiceError: Where the storage does not answer.
        """
        path, content = self._path(name), _encoded(document)
        with self._errors(path, "write"):
            if self._is_local:
                return _create_file(Path(path), content)
            return self._create_object(path, content + _mark())

    def names(self, folder: str) -> list[str]:
        """The names of the documents in a folder, in order: of `history` they are `history/2013-08` and so on.

        Raises:
            ServiceError: Where the storage does not answer.
        """
        path = self._path(folder).removesuffix(_ENDING)
        with self._errors(path, "read"):
            if self._is_local:
                there = Path(path).iterdir() if Path(path).is_dir() else []
                found = [file.name for file in there if not file.name.startswith(".")]
            else:
                try:
                    listed = self._remote().ls(path, detail=False, refresh=True)
                except FileNotFoundError:
                    listed = []
                found = [str(item).rpartition("/")[2] for item in listed]
        return sorted(f"{folder}/{name.removesuffix(_ENDING)}" for name in found if name.endswith(_ENDING))

    def _content(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes() if self._is_local else bytes(self._remote().cat_file(path))
        except FileNotFoundError:
            return None

    def _create_object(self, path: str, content: bytes) -> bool:
        if self._content(path) is not None:  # for storage that takes no notice of the condition
            return False
        for attempt in range(_ATTEMPTS):
            try:
                self._remote().pipe_file(path, content, mode="create")
                return True
            except FileExistsError:
                # The client repeats a request whose answer was lost: then the first one made it.
                return self._content(path) == content
            except OSError as error:
                if server_status(error) != _CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InputError(
                "a name that no document can have",
                parameter=self._parameter,
                allowed="letters, digits and . _ = + @ -, in parts joined by /",
                received=name,
            )
        return f"{self._base}/{name}{_ENDING}"

    @contextlib.contextmanager
    def _errors(self, path: str, action: str) -> Any:
        with service_errors(path, parameter=self._parameter, action=action):
            try:
                yield
            except (NotADirectoryError, IsADirectoryError, FileNotFoundError, FileExistsError) as error:
                raise InputError(
                    "nothing can be kept there",
                    parameter=self._parameter,
                    where=public_name(path),
                    allowed=_ALLOWED if self._is_local else "a bucket that exists",
                    received=" ".join(f"{type(error).__name__}: {error}".split()),
                ) from error

    def _remote(self) -> Any:
        if self._fs is None:
            self._fs = open_filesystem(self._base, parameter=self._parameter)
        return self._fs


def document_name(text: str) -> str:
    """A name, or one part of it, for a document about something with any name.

    A short plain name stays what it is; of another as much as can stay, and a hash that tells it from others.
    """
    if len(text) <= _LONGEST_PLAIN and _PART.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9._=+@-]+", "-", text).strip("-._=+@")[:_LONGEST_PLAIN]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain}+{digest}" if plain else digest


def _is_newer(found: Any, wanted: str) -> bool:
    name, _, version = wanted.rpartition("/")
    match = re.fullmatch(rf"{re.escape(name)}/(\d+)", str(found))
    return match is not None and int(match[1]) > int(version)


def _checked_address(base: str, parameter: str) -> str:
    scheme, _, rest = base.partition("://")
    if scheme.lower() in ("http", "https") or not rest.strip("/"):
        raise InputError(
            "an address where nothing can be kept", parameter=parameter, allowed=_ALLOWED, received=public_name(base)
        )
    return base.rstrip("/")


def _encoded(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _mark() -> bytes:
    """128 random bits as blanks, which JSON takes no notice of: they say which call wrote a document."""
    return bytes(0x20 if int(bit) else 0x09 for bit in f"{uuid.uuid4().int:0128b}")


def _create_file(path: Path, content: bytes) -> bool:
    """A file that appears whole, and only where there is none: a link refuses a name that is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: processes of several machines, all with the same id, may write to one folder.
    handle, partial = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)  # noqa: PTH101 (as whole_file)
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            if error.errno not in _NO_LINKS:
                raise
            return _create_without_link(path, content)
    finally:
        Path(partial).unlink(missing_ok=True)
    return True


def _create_without_link(path: Path, content: bytes) -> bool:
    """As exclusive; but a process killed in the middle leaves a damaged file behind."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True
