"""Secrets by reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeparts.errors import InputError
from pipeparts.runtime.secrets import read_secret


def fails(reference: str) -> InputError:
    with pytest.raises(InputError) as error:
        read_secret(reference, parameter="password_secret")
    assert error.value.facts["parameter"] == "password_secret"
    assert "env:NAME" in error.value.facts["allowed"]
    return error.value


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", " with spaces: äö ")
    assert read_secret("env:DB_PASSWORD", parameter="p") == " with spaces: äö "


@pytest.mark.parametrize("content", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_from_a_file_without_its_last_line_break(tmp_path: Path, content: str) -> None:
    (tmp_path / "password").write_bytes(content.encode())
    assert read_secret(f"file:{tmp_path}/password", parameter="p") == "s3cret"
    assert read_secret(f"file://{tmp_path}/password", parameter="p") == "s3cret"


def test_a_variable_that_is_not_set_or_empty_says_where_it_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DB_PASSWORD", raising=False)
    error = fails("env:DB_PASSWORD")
    assert error.facts["where"] == "looked in: the environment variable DB_PASSWORD"
    assert error.facts["received"] == "it is not set"
    monkeypatch.setenv("DB_PASSWORD", "")
    assert fails("env:DB_PASSWORD").facts["received"] == "it is empty"


def test_a_file_that_holds_no_secret_says_why(tmp_path: Path) -> None:
    assert fails(f"file:{tmp_path}/none").facts["received"] == "No such file or directory"
    assert fails(f"file:{tmp_path}").facts["received"] == "Is a directory"
    for content, received in ((b"\n", "it is empty"), (b"\xff\xfe", "it is not UTF-8 text"), (b"x" * 70_000, "longer")):
        (tmp_path / "password").write_bytes(content)
        assert received in fails(f"file:{tmp_path}/password").facts["received"]


@pytest.mark.parametrize("reference", ["hunter2", "", "env:", "env:hunter 2", "file:hunter2", "vault:hunter2", "ENV:A"])
def test_what_may_be_the_secret_itself_is_never_shown(reference: str) -> None:
    assert "hunter" not in str(fails(reference))
