"""Conditions as KFP's compiler writes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.errors import ContractError
from pipeparts.targets.local_conditions import is_met

VALUES: dict[str, Any] = {"n": 5, "x": 0.5, "s": "it's", "t": "a && b", "yes": True, "no": False, "d": "5"}


def value(name: str) -> str:
    return f"inputs.parameter_values['{name}']"


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        (f"int({value('n')}) > 1", True),
        (f"!(int({value('n')}) > 1)", False),
        (f"int({value('n')}) > 4 && int({value('n')}) < 6", True),
        (f"int({value('n')}) > 5 || int({value('n')}) == 5", True),
        (f"{value('no')} == true || {value('yes')} == true && {value('no')} == true", False),
        (f"!({value('no')} == true) && !({value('yes')} == false)", True),
        (f"{value('x')} >= 0.5", True),
        (f"{value('x')} < -1e-3", False),
        (f"{value('x')} == double(1)", False),
        (f"{value('t')} == 'a && b'", True),
        (f"{value('s')} != 'x'", True),
        (f"{value('s')} == 'it\\'s'", True),
        (f"{value('d')} == '5'", True),
        (f"int({value('d')}) == int({value('n')})", True),
        (f"{value('d')} == 5", False),
        (f"{value('yes')} == 1", False),
        (f"{value('s')} < 'j'", True),
        ("'a' == 'a'", True),
        ("true", True),
    ],
)
def test_what_is_met(condition: str, met: bool) -> None:
    assert is_met(condition, VALUES) is met


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (f"{value('absent')} == 'x'", "parameter 'absent' has no value"),
        (f"{value('s')} < 3", '"it\'s" < 3: they do not compare'),
        (f"int({value('s')}) < 3", 'int("it\'s")'),
        (f"{value('n')}", "its value is 5, neither true nor false"),
        (f"{value('n')} && true", "5 where true or false was expected"),
        (f"({value('n')} == 5", "a parenthesis is not closed"),
        (f"{value('n')} == ", "'the end' where a value was expected"),
        (f"{value('n')} == 5 5", "5 where the end was expected"),
        ("size('x') == 1", "'size' is no function that KFP's compiler writes"),
        ("__import__('os')", "'__import__' is no function that KFP's compiler writes"),
        ("1 + 1 == 2", "'+ 1 == 2' cannot be read"),
        ("", "'the end' where a value was expected"),
    ],
)
def test_what_cannot_be_decided(condition: str, reason: str) -> None:
    with pytest.raises(ContractError, match="a condition that cannot be decided") as caught:
        is_met(condition, VALUES)
    assert caught.value.facts["received"] == reason


@given(st.text(), st.text())
def test_any_text_is_compared_as_it_is(left: str, right: str) -> None:
    parameters = {"left": left, "right": right}
    assert is_met(f"{value('left')} == {value('right')}", parameters) is (left == right)
    assert is_met(f"!({value('left')} != {value('right')})", parameters) is (left == right)
