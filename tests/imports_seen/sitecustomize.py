"""On the path of the examples' processes: each writes down, at its end, what it has imported."""

import atexit
import os
import sys
from pathlib import Path


def _write() -> None:
    names = sorted({name.partition(".")[0] for name in sys.modules})
    (Path(os.environ["IMPORTS_SEEN"]) / f"imports-{os.getpid()}.txt").write_text("\n".join(names), encoding="utf-8")


if "IMPORTS_SEEN" in os.environ:
    atexit.register(_write)
