"""What a step's container runs, without what KFP puts around it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from typing import Any

_FUNCTION = "--function_to_execute"
_PIP_ARGUMENT = re.compile(r"'([^']*)'|(--(?:index-url|extra-index-url|trusted-host|find-links)[ =]\S+)")
#: What the SDK of one release or another writes around the function; it says nothing of the step.
_AROUND = ("pip install", "program_path=$(mktemp", "$(command -v pip)")
_STANDARD = ["--executor_input", "{{$}}"]


@dataclasses.dataclass(frozen=True)
class Code:
    """What a container runs.

    Attributes:
        source: The source of a Python function; empty for other containers.
        meaning: The same without comments, docstrings and the function's own name.
        packages: What is installed before it, kfp itself apart.
        command: The command and arguments, those that KFP adds for a Python function apart.
    """

    source: str = ""
    meaning: str = ""
    packages: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def read_code(container: dict[str, Any]) -> Code:
    """The code of a container, as compiled."""
    command = [str(part) for part in _list(container.get("command"))]
    arguments = [str(part) for part in _list(container.get("args"))]
    if _FUNCTION not in arguments or not command:
        return Code(command=(*command, *arguments))
    at = arguments.index(_FUNCTION)
    name = arguments[at + 1] if at + 1 < len(arguments) else ""
    kept = [*arguments[:at], *arguments[at + 2 :]]
    if kept[:2] == _STANDARD:
        kept = kept[2:]
    *around, source = command
    if "def " not in source:  # a containerized component: the function is in the image
        return Code(meaning=name, command=(*command, *kept))
    others = [part for part in around if not any(mark in part for mark in _AROUND)]
    packages = [package for part in around if "pip install" in part for package in _packages(part)]
    shell = [part for part in others if part not in ("sh", "-c", "-ec", "python3", "-m")]
    return Code(source, _meaning(source, name), tuple(packages), (*shell, *kept))


@functools.lru_cache(maxsize=512)
def _meaning(source: str, name: str) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return "\n".join(line.rstrip() for line in source.strip().splitlines())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            if node.name == name:
                node.name = "_"
    return ast.dump(tree)


def _packages(script: str) -> list[str]:
    found = []
    for line in re.split(r"&&|\n|;", script):
        if "pip install" in line:
            found += [quoted or option for quoted, option in _PIP_ARGUMENT.findall(line)]
    return [package for package in found if not re.match(r"kfp(==|$)", package)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
