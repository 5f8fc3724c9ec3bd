"""These tests need the images: `make images-test` runs them, and there a missing image is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips all of this folder where nobody has built the images."""
    if os.environ.get("PIPEPARTS_IMAGES_TEST") != "1":
        reason = "runs on the images: make images images-test"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=reason))
