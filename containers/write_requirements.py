"""Writes each family's `requirements.in` from the extras in setup.py; `make lock` resolves them to locks."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FAMILIES = ("data", "tensorflow", "registry", "monitoring", "tfx")
#: Families whose steps call the command line (`trigger_pipeline` does), so need what it needs.
WITH_COMMAND = ("registry",)


def main() -> None:
    """Writes the files."""
    package = read_setup()
    kfp = [line for line in package["install_requires"] if line.startswith("kfp==")]
    for family in FAMILIES:
        needed = {*package["extras_require"][family], *(package["install_requires"] if family in WITH_COMMAND else kfp)}
        lines = [f"# The extra `{family}` of setup.py and kfp; written by `make lock`.", *sorted(needed)]
        (ROOT / "containers" / family / "requirements.in").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_setup() -> dict[str, Any]:
    """What setup.py hands to setuptools, which so need not be installed."""
    given: dict[str, Any] = {}
    stand_in = types.ModuleType("setuptools")
    stand_in.setup = given.update  # type: ignore[attr-defined]
    stand_in.find_packages = lambda **_: []  # type: ignore[attr-defined]
    kept = sys.modules.get("setuptools")
    sys.modules["setuptools"] = stand_in
    try:
        path = ROOT / "setup.py"
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__file__": str(path)})
    finally:
        if kept is None:
            del sys.modules["setuptools"]
        else:
            sys.modules["setuptools"] = kept
    return given


if __name__ == "__main__":
    main()
