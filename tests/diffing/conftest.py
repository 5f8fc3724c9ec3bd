from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The samples, compiled."""
    from kfp import compiler

    from tests.diffing import samples

    folder = tmp_path_factory.mktemp("samples")
    found = {}
    for name in ("sample", "without_condition", "with_condition", "load"):
        path = Path(folder) / f"{name}.yaml"
        compiler.Compiler().compile(getattr(samples, name), str(path))
        found[name] = yaml.safe_load(path.read_text())
    return found
