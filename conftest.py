"""Which tests run where: those that need TFX's libraries run in their image alone, by `make tfx-test`."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `tfx` where its libraries are not; the reason is in the summary."""
    if importlib.util.find_spec("tensorflow_data_validation") is not None:
        return
    skip = pytest.mark.skip(reason="needs TFX's libraries, which are in their image alone: make tfx-test")
    for item in items:
        if item.get_closest_marker("tfx"):
            item.add_marker(skip)
