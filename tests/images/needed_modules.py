"""Which other packages' modules a family's steps import, wherever in their code: read from the source."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from pipeparts import catalog


def imports_of(path: Path) -> set[str]:
    """The top-level names of all imports in a file, also those inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def needed_modules(family: str) -> dict[str, set[str]]:
    """For each of the family's components, what its own files and the runtime modules that it reaches import."""
    needed: dict[str, set[str]] = {}
    for entry in catalog.components():
        if entry.family == family:
            files = _reached([path for path in entry.folder.glob("*.py") if path.name != "component.py"])
            modules = set().union(*(imports_of(path) for path in files)) if files else set()
            needed[entry.name] = {m for m in modules if m not in sys.stdlib_module_names and m != "pipeparts"}
    return needed


def _reached(files: list[Path]) -> set[Path]:
    reached: set[Path] = set()
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeparts."):
                base = catalog.PACKAGE.joinpath(*node.module.split(".")[1:])
                waiting += [
                    p for p in [base.with_suffix(".py"), *(base / f"{a.name}.py" for a in node.names)] if p.is_file()
                ]
    return reached
