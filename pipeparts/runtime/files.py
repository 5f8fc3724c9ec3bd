"""Outputs that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves it into place when the block ends well.

    Args:
        path: Where the file is to appear. Its folder is made.

    Yields:
        The path to write to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent)
    os.close(handle)
    partial = Path(name)
    partial.chmod(0o644)  # mkstemp lets only this user read
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary folder beside `path`, and moves it into place when the block ends well.

    A folder that is already there is replaced: a retried step writes the same output again. It is moved aside first,
    so that nobody finds half of it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    partial.chmod(0o755)
    old = partial.with_suffix(".old")
    try:
        yield partial
        if target.is_dir() and not target.is_symlink():
            target.rename(old)
        elif target.exists():
            target.unlink()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file as UTF-8, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON that is the same bytes for the same value; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str], *, what: str) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        what: What it should be ("a profile"), for the message.

    Raises:
        ContractError: Where it is missing, empty or not JSON.
    """
    from pipeparts.runtime.errors import ContractError

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(f"cannot read {what}", where=str(path), received=str(error)) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ContractError(
            f"{what} is not JSON",
            where=f"{path}, line {error.lineno}",
            allowed="a JSON document",
            received=text[:80] or "an empty file",
        ) from error
