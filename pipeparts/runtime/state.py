"""What outlives a run: small JSON documents in a folder or a bucket, for a run that starts again to find.

Receipts (this alert was sent), decisions, the history of batches. Any fsspec address: a folder, `gs://`, `s3://`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import whole_file
from pipeparts.runtime.sources import public_name, service_errors

#: What the local target sets for its steps: the folder of runs, where state goes when no address is given.
ROOT_VARIABLE = "PIPEPARTS_ROOT"

_ENDING = ".json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@-]{0,199}(/[A-Za-z0-9][A-Za-z0-9._=+@-]{0,199})*")


class State:
    """Documents by name, `receipts/alert-3f2a`, below one address.

    Args:
        url: A folder, or `gs://bucket/folder`, `s3://bucket/folder`; empty: `state` in the folder of local runs.
        parameter: The parameter that it came from, for messages.

    Raises:
        InputError: Where there is no address.
    """

    def __init__(self, url: str, *, parameter: str = "state") -> None:
        base = (url.strip() or self._default(parameter)).removeprefix("file://").rstrip("/")
        self._parameter = parameter
        self._is_local = "://" not in base
        self._base = str(Path(base).expanduser().absolute()) if self._is_local else base

    @staticmethod
    def _default(parameter: str) -> str:
        root = os.environ.get(ROOT_VARIABLE, "").strip()
        if root:
            return str(Path(root) / "state")
        raise InputError(
            "nowhere to keep what outlives this run",
            parameter=parameter,
            allowed="a folder, gs://bucket/folder or s3://bucket/folder that every run can reach",
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
        path = self._path(name) + _ENDING
        with self._errors():
            try:
                content = Path(path).read_bytes() if self._is_local else self._remote().cat_file(path)
            except FileNotFoundError:
                return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise ContractError("a damaged document", where=public_name(path), received=str(error)) from error

    def write(self, name: str, document: Any) -> None:
        """Writes a document, whole or not at all, over one that is there."""
        path = self._path(name) + _ENDING
        with self._errors():
            if self._is_local:
                with whole_file(path) as partial:
                    partial.write_bytes(_encoded(document))
            else:
                self._remote().pipe_file(path, _encoded(document))

    def create(self, name: str, document: Any) -> bool:
        """Writes a document where there is none yet.

        Of several that try at the same time one succeeds: on a file system, and on storage that offers a conditional
        write (Google Cloud Storage, S3).

        Returns:
            Whether this call wrote it.
        """
        path = self._path(name) + _ENDING
        with self._errors():
            if self._is_local:
                return _create_file(Path(path), _encoded(document))
            try:
                self._remote().pipe_file(path, _encoded(document), mode="create")
            except FileExistsError:
                return False
        return True

    def names(self, folder: str) -> list[str]:
        """The names of the documents in a folder, in order: of `history` they are `history/2013-08` and so on."""
        path = self._path(folder)
        with self._errors():
            if self._is_local:
                found = [file.name for file in Path(path).glob(f"*{_ENDING}") if not file.name.startswith(".")]
            else:
                remote = self._remote()
                remote.invalidate_cache()  # another run may have written meanwhile
                try:
                    found = [str(item).rpartition("/")[2] for item in remote.ls(path, detail=False)]
                except FileNotFoundError:
                    found = []
        return sorted(f"{folder}/{name.removesuffix(_ENDING)}" for name in found if name.endswith(_ENDING))

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise InputError(
                "a name that no document can have",
                parameter=self._parameter,
                allowed="letters, digits and . _ = + @ -, in parts joined by /",
                received=name,
            )
        return f"{self._base}/{name}"

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return service_errors(self._base, parameter=self._parameter)

    def _remote(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self._base)[0]


def _encoded(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _create_file(path: Path, content: bytes) -> bool:
    """A file that appears whole, and only where there is none: a link refuses a name that is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True
