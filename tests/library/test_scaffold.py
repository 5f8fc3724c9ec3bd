"""`make component` makes a component that passes the contract tests at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeparts import catalog
from pipeparts.errors import InputError
from pipeparts.scaffold import new_component

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_new_component_passes_the_contract_tests(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", ".git", ".venv", ".pipeparts", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=ignore)
    environment = {"PYTHONPATH": str(tmp_path / "copy"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path / "copy",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    made = run("pipeparts.scaffold", "data_validation/count_things")
    assert made.returncode == 0, made.stderr
    assert "made components/data_validation/count_things" in made.stderr
    own = run("pytest", "-q", "components/data_validation/count_things")
    assert own.returncode == 0, own.stdout
    contract = run("pytest", "-q", "tests/contract", "-k", "count_things")
    assert contract.returncode == 0, contract.stdout
    for tool in (("ruff", "check"), ("ruff", "format", "--check")):
        checked = run(*tool, "components/data_validation/count_things")
        assert checked.returncode == 0, checked.stdout
    again = run("pipeparts.scaffold", "data_validation/count_things")
    assert again.returncode == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("data_validaton/count_rows", "data_validation"), ("ingestion/rows", "verb_noun"), ("count_rows", "no such stage"),
     ("ingestion/Count_rows", "verb_noun"), ("data_validation/require_verdict", "exists already")],
)  # fmt: skip
def test_a_wrong_name_makes_nothing(tmp_path: Path, name: str, message: str) -> None:
    shutil.copytree(catalog.PACKAGE / "components" / "data_validation", tmp_path / "data_validation")
    with pytest.raises(InputError) as error:
        new_component(name, components=tmp_path)
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data_validation"]
