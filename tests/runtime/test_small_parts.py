"""Errors, parameters, whole files, verdicts and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from pipeparts.errors import ContractError, InputError, suggest
from pipeparts.runtime.files import read_json, whole_file, write_json
from pipeparts.runtime.pages import Html, Page, new_figure
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.verdict import Check, Verdict, format_value, read_verdict


class Scale(Params):
    kind: Literal["log", "none"] = "none"
    clip: float | None = None


class Settings(Params):
    rows: int
    columns: dict[str, Scale] = {}


def test_parameters_become_a_frozen_model() -> None:
    settings = parse_params(Settings, {"rows": 3, "columns": {"a": {"kind": "log"}}}, parameter="settings")
    assert settings.columns["a"].kind == "log"
    with pytest.raises(Exception, match="frozen"):
        settings.rows = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"rows": 1, "colums": {}}, ["settings.colums", "did you mean 'columns'?"]),
        ({"rows": 1, "columns": {"a": {"klip": 1}}}, ["settings.columns.a.klip", "did you mean 'clip'?", "clip, kind"]),
        ({"rows": "many"}, ["settings.rows", "valid integer", "received: str: 'many'"]),
        ({"rows": 1, "columns": {"a": {"kind": "lgo"}}}, ["settings.columns.a.kind", "'log' or 'none'", "'lgo'"]),
        ({}, ["settings.rows", "received: nothing"]),
        ([1], ["a dictionary", "received: list: [1]"]),
        ({"rows": "many", "x": 1}, ["also wrong: settings.x"]),
    ],
)
def test_wrong_parameters_say_what_where_allowed_received(value, expected) -> None:
    with pytest.raises(InputError) as error:
        parse_params(Settings, value, parameter="settings")
    for text in expected:
        assert text in str(error.value)


def test_long_values_are_cut_in_errors() -> None:
    text = str(InputError("too long", received="x" * 10_000))
    assert len(text) < 400
    assert "(10,000 characters)" in text


def test_nothing_is_suggested_where_nothing_is_close() -> None:
    assert suggest("zebra", ["rows", "columns"]) is None


def test_a_name_in_another_case_is_suggested() -> None:
    assert suggest("CARRIER", ["origin", "carrier", "Dest"]) == "did you mean 'carrier'?"
    assert suggest("dest", ["origin", "Dest"]) == "did you mean 'Dest'?"


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ContractError) as error:
        read_json(tmp_path / "a.json", what="a profile")
    assert "a profile" in str(error.value)
    assert "a.json" in str(error.value)


VERDICT = Verdict(
    gate="validate_model",
    subject="late-flights on 55,403 rows",
    checks=(Check("roc_auc", True, 0.7123, 0.6, "0.712 is above 0.6"), Check("a|b", False, 1, 2, "one\nis not two")),
)


def test_a_verdict_comes_back_as_it_was(tmp_path: Path) -> None:
    VERDICT.write(tmp_path / "v.json", tmp_path / "v.md")
    assert read_verdict(tmp_path / "v.json") == VERDICT
    assert not VERDICT.passed
    text = (tmp_path / "v.md").read_text()
    assert text.startswith("# validate_model: not passed\n")
    assert "| a\\|b | **no** | 1 | 2 | one is not two |" in text
    assert VERDICT.metadata() == {"passed": False, "gate": "validate_model", "checks": 2, "failed": "a|b"}


def test_a_verdict_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    VERDICT.write(tmp_path / "v.json", tmp_path / "v.md")
    document = json.loads((tmp_path / "v.json").read_text()) | {"passed": True}
    (tmp_path / "v.json").write_text(json.dumps(document))
    with pytest.raises(ContractError, match="contradicts"):
        read_verdict(tmp_path / "v.json")


def test_a_gate_that_checks_nothing_cannot_pass() -> None:
    with pytest.raises(ContractError, match="without any check"):
        Verdict("gate", "nothing", ())


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "yes"), (1234567, "1,234,567"), (0.123456, "0.1235"), (2.0, "2"), (1e20, "1e+20"), ("a", "a")],
)
def test_values_read_well(value, text: str) -> None:
    assert format_value(value) == text


def test_a_page_stands_alone_and_escapes_what_came_from_outside() -> None:
    page = Page("Rows of <table>", "with & without")
    page.facts({"rows": 3})
    page.table([["<script>", 1], [Html("<b>bold</b>"), 2]], columns=["name", "count"])
    page.verdict(VERDICT)
    figure, axes = new_figure()
    axes.plot([1, 2], [3, 4])
    page.plots([(figure, "a line")])
    text = page.render()
    assert "&lt;script&gt;" in text
    assert "<b>bold</b>" in text
    assert "<svg" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_same_page_is_the_same_bytes() -> None:
    def render() -> str:
        page = Page("A plot")
        figure, axes = new_figure()
        axes.plot([1, 2], [3, 4], label="line")
        axes.legend()
        page.plots([(figure, "a line")])
        return page.render()

    assert render() == render()
