"""Imports what an image promises, and says what cannot be imported: the build's last step, and its health check."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path


def main(promises: str) -> int:
    """Imports each name of the file; KFP's executor first, as KFP starts it."""
    failed = 0
    names = Path(promises).read_text(encoding="utf-8").split()
    for name in names:
        # The command and the compiler want the decorators, which KFP leaves out inside a step.
        os.environ["_KFP_RUNTIME"] = "false" if {"pipeparts.cli", "kfp.compiler"} & set(names) else "true"
        try:
            if name == "kfp.dsl.executor_main":
                importlib.import_module("kfp.dsl")
                if importlib.util.find_spec(name) is None:
                    raise ModuleNotFoundError(name)
            else:
                importlib.import_module(name)
        except Exception as error:
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}\n")
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
