"""Secrets by reference: a parameter says where the secret is, never what it is."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipeparts.runtime.errors import InputError

FORMS = "'env:NAME' for an environment variable, or 'file:/path' for a file"

_LONGEST = 65_536


def read_secret(reference: str, *, parameter: str) -> str:
    """Reads a secret from where a reference says that it is.

    Args:
        reference: `env:NAME` or `file:/absolute/path`. One line break at the file's end does not count.
        parameter: The parameter's name, for the message.

    Returns:
        The secret. Neither it nor anything that may be it is ever part of a message.

    Raises:
        InputError: For a reference of another form, and where nothing is there; it lists where it looked.
    """
    kind, _, place = reference.partition(":")
    if kind == "env" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", place):
        return _from_environment(place, parameter)
    if kind == "file" and place.startswith("/"):
        return _from_file(Path(place), parameter)
    raise InputError(
        "not a reference to a secret",
        parameter=parameter,
        allowed=FORMS,
        # What was given may be the secret itself.
        received=f"a text of {len(reference)} characters of another form (not shown: it may be the secret)",
        hint="the path of a file is absolute" if kind == "file" else None,
    )


def _from_environment(name: str, parameter: str) -> str:
    value = os.environ.get(name)
    if value:
        return value
    raise _not_there(
        parameter,
        looked=f"the environment variable {name}",
        received="it is not set" if value is None else "it is empty",
        hint=f"say where it is: `secrets: {{{name}: ...}}` in the target's file (docs/configuration.md), or export it",
    )


def _from_file(path: Path, parameter: str) -> str:
    hint = "mount the secret at this path for this step, and let the step's user read it"
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _not_there(parameter, f"the file {path}", "it is not UTF-8 text", hint) from None
    except OSError as error:
        raise _not_there(parameter, f"the file {path}", f"{error.strerror or error}", hint) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or len(content) > _LONGEST:
        received = "it is empty" if not text else f"it is longer than {_LONGEST:,} bytes"
        raise _not_there(parameter, f"the file {path}", received, hint)
    return text


def _not_there(parameter: str, looked: str, received: str, hint: str) -> InputError:
    return InputError(
        "the secret is not where its reference says",
        parameter=parameter,
        where=f"looked in: {looked}",
        allowed=FORMS,
        received=received,
        hint=hint,
    )
