"""Tests of the logic of `require_verdict`."""

import pytest

from pipeparts.components.data_validation.require_verdict.logic import require_verdict
from pipeparts.errors import ContractError, DataError
from pipeparts.runtime.verdict import Check, Verdict


def write(folder, *checks):
    Verdict(gate="validate_table", subject="300 rows", checks=checks).write(folder / "v.json", folder / "v.md")
    return folder / "v.json"


def test_a_passed_verdict_lets_the_run_go_on(tmp_path):
    assert require_verdict(verdict_path=write(tmp_path, Check("rows", True))) is True


def test_the_error_names_the_gate_and_every_reason(tmp_path):
    path = write(tmp_path, Check("rows", True), Check("range:age", False, reason="2 rows above 150"))
    with pytest.raises(DataError, match="validate_table did not pass: 1 of 2 checks") as error:
        require_verdict(verdict_path=path)
    assert "range:age: 2 rows above 150" in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}'])
def test_what_is_no_verdict_is_refused(tmp_path, text):
    (tmp_path / "v.json").write_text(text)
    with pytest.raises(ContractError):
        require_verdict(verdict_path=tmp_path / "v.json")
