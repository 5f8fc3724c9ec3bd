"""The components, one folder a stage and one folder a component.

`from pipeparts.components import train_keras` gives the KFP component of that name. It is looked up when it
is asked for: importing a decorated component on the path of a `logic.py` would break its container.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    import importlib

    if not name.startswith("_"):
        for folder in Path(__file__).parent.glob(f"*/{name}/component.py"):
            module = importlib.import_module(f"{__name__}.{folder.parent.parent.name}.{name}.component")
            return getattr(module, name)
    raise AttributeError(f"no component {name!r}; `pipeparts list` shows those there are")


def __dir__() -> list[str]:
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/*/component.py"))
