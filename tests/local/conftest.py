"""Small pipelines that do one thing each, compiled once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts.config import LocalConfig
from pipeparts.targets.base import RunResult
from pipeparts.targets.local import run

SOURCES = Path(__file__).parent / "sample_pipelines.py"


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the path of a sample pipeline's compiled YAML."""
    import importlib.util

    from kfp import compiler

    folder = tmp_path_factory.mktemp("samples")
    spec = importlib.util.spec_from_file_location("sample_pipelines", SOURCES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    lock = threading.Lock()

    def compiled(name: str) -> Path:
        path = folder / f"{name}.yaml"
        with lock:
            if not path.exists():
                compiler.Compiler().compile(getattr(module, name), str(path))
        return path

    return compiled


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def go(sample: Callable[[str], Path], root: Path) -> Callable[..., RunResult]:
    """Runs a sample pipeline under this test's root."""

    def start(name: str, /, *, cache: bool = True, **arguments: Any) -> RunResult:
        return run(sample(name), arguments, LocalConfig(root=root, cache=cache, stop_seconds=3))

    return start
