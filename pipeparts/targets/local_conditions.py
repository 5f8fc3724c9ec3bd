"""The conditions of a compiled pipeline, decided: the part of CEL that KFP's compiler writes.

CEL is the Common Expression Language (https://github.com/google/cel-spec). The compiler compares parameters with
constants or with each other, converts numbers, and joins the comparisons.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeparts.errors import ContractError

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<parameter>inputs\.parameter_values\[(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\])
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<number>-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>&&|\|\||==|!=|<=|>=|<|>|!|\(|\))
    )""",
    re.VERBOSE,
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONSTANTS = {"true": True, "false": False}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def is_met(condition: str, parameters: Mapping[str, Any]) -> bool:
    """Decides a condition.

    Args:
        condition: As compiled: `int(inputs.parameter_values['n']) > 1 && !(...)`.
        parameters: The values of the parameters that it may name.

    Returns:
        Whether it is met.

    Raises:
        ContractError: Where it cannot be decided: a parameter without a value, types that do not compare, or what
            KFP's compiler does not write.
    """
    try:
        reader = _Reader(condition, parameters)
        value = reader.read_any_of()
        reader.end()
        if not isinstance(value, bool):
            raise _UndecidedError(f"its value is {value!r}, neither true nor false")
    except _UndecidedError as reason:
        raise ContractError(
            "a condition that cannot be decided",
            where=condition,
            allowed="comparisons of parameters that have a value, joined by && and ||",
            received=str(reason),
        ) from None
    return value


class _UndecidedError(Exception):
    """Why a condition has no answer."""


class _Reader:
    """Reads a condition from left to right, one method for each level of precedence."""

    def __init__(self, condition: str, parameters: Mapping[str, Any]) -> None:
        self._tokens = _tokens(condition)
        self._parameters = parameters

    def end(self) -> None:
        if self._tokens:
            raise _UndecidedError(f"{self._tokens[0][1]!r} where the end was expected")

    def read_any_of(self) -> Any:
        value = self._read_all_of()
        while self._take("||"):
            other = self._read_all_of()
            value = _boolean(value) or _boolean(other)
        return value

    def _read_all_of(self) -> Any:
        value = self._read_comparison()
        while self._take("&&"):
            other = self._read_comparison()
            value = _boolean(value) and _boolean(other)
        return value

    def _read_comparison(self) -> Any:
        left = self._read_single()
        while (sign := self._take(*_COMPARISONS)) is not None:
            left = _compare(left, sign, self._read_single())
        return left

    def _read_single(self) -> Any:
        if self._take("!"):
            return not _boolean(self._read_single())
        if self._take("("):
            value = self.read_any_of()
            self._close()
            return value
        kind, value = self._tokens.pop(0) if self._tokens else ("", "the end")
        if kind == "constant":
            return value
        if kind == "parameter":
            if self._parameters.get(value) is None:
                raise _UndecidedError(f"parameter {value!r} has no value")
            return self._parameters[value]
        if kind == "word" and value in _CONSTANTS:
            return _CONSTANTS[value]
        if kind == "word" and self._take("("):
            argument = self.read_any_of()
            self._close()
            return _convert(value, argument)
        raise _UndecidedError(f"{value!r} where a value was expected")

    def _take(self, *signs: str) -> str | None:
        if self._tokens and self._tokens[0][0] == "sign" and self._tokens[0][1] in signs:
            return str(self._tokens.pop(0)[1])
        return None

    def _close(self) -> None:
        if not self._take(")"):
            raise _UndecidedError("a parenthesis is not closed")


def _tokens(condition: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    position, end = 0, len(condition.rstrip())
    while position < end:
        found = _TOKEN.match(condition, position)
        if found is None:
            raise _UndecidedError(f"{condition[position:].strip()!r} cannot be read")
        position = found.end()
        if found["parameter"]:
            tokens.append(("parameter", found["single"] if found["single"] is not None else found["double"]))
        elif found["text"]:
            text = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), found["text"][1:-1])
            tokens.append(("constant", text))
        elif found["number"]:
            whole = re.fullmatch(r"-?\d+", found["number"])
            tokens.append(("constant", int(found["number"]) if whole else float(found["number"])))
        else:
            tokens.append(("word", found["word"]) if found["word"] else ("sign", found["sign"]))
    return tokens


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _UndecidedError(f"{value!r} where true or false was expected")
    return value


def _compare(left: Any, sign: str, right: Any) -> bool:
    if _kind(left) == _kind(right):
        return _COMPARISONS[sign](left, right)
    if sign in ("==", "!="):
        return sign == "!="  # values of different types are not equal
    raise _UndecidedError(f"{left!r} {sign} {right!r}: they do not compare")


def _kind(value: Any) -> str:
    # For Python, true is the number one.
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def _convert(function: str, value: Any) -> Any:
    try:
        if function == "int":
            return int(value)
        if function == "double":
            return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _UndecidedError(f"{function}({value!r})") from None
    if function == "string":
        return str(value).lower() if isinstance(value, bool) else str(value)
    raise _UndecidedError(f"{function!r} is no function that KFP's compiler writes")
