"""The servers on loopback, and a pipeline to submit to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeparts import catalog, compiling
from tests.targets.kubeflow_server import KubeflowServer, kubeflow_server
from tests.targets.vertex_server import VertexServer, vertex_server

COMPILED = catalog.PACKAGE / "pipelines" / "train_and_register" / "compiled.yaml"
FLIGHTS = Path(__file__).parents[1] / "data" / "flights.csv"


@pytest.fixture(scope="session")
def spec() -> dict[str, Any]:
    return compiling.read_yaml(COMPILED)


@pytest.fixture
def arguments() -> dict[str, Any]:
    return {
        "source": str(FLIGHTS),
        "label": "late",
        "features": {"carrier": "category", "temp": "numeric"},
        "model_name": "late-flights",
        "split_fractions": [0.8, 0.1, 0.1],
        "seed": 7,
    }


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowServer]:
    monkeypatch.setattr("pipeparts.targets.kubeflow_client._PAUSES", (0.0, 0.05))
    with kubeflow_server() as server:
        yield server


@pytest.fixture(scope="session")
def _vertex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VertexServer]:
    # One for the session: gRPC reads the certificates to trust once in a process.
    with vertex_server(tmp_path_factory.mktemp("vertex")) as server:
        yield server


@pytest.fixture
def vertex(_vertex: VertexServer, monkeypatch: pytest.MonkeyPatch) -> VertexServer:
    _vertex.reset()
    for name, value in _vertex.environment.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith(("CLOUD_ML_", "GOOGLE_CLOUD_"))]:
        monkeypatch.delenv(name)
    return _vertex
