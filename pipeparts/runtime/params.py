"""Dictionaries that come in as parameters, checked into frozen typed models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_origin

import pydantic

from pipeparts.runtime.errors import InputError, suggest


class Params(pydantic.BaseModel):
    """Base of every parameter model: frozen, and refuses keys it does not know."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


P = TypeVar("P", bound=pydantic.BaseModel)


def parse_params(model: type[P], value: Mapping[str, Any] | None, *, parameter: str) -> P:
    """Checks a dictionary parameter against its model.

    Args:
        model: The pydantic model that says what is allowed.
        value: What was received; None counts as an empty dictionary.
        parameter: The parameter's name, for the message.

    Returns:
        The typed model.

    Raises:
        InputError: Naming each wrong key or value, what is allowed there, and the close match.
    """
    if value is not None and not isinstance(value, Mapping):
        raise InputError(
            f"`{parameter}` is not a dictionary",
            parameter=parameter,
            allowed="a dictionary",
            received=f"{type(value).__name__}: {value!r}",
        )
    try:
        return model.model_validate(dict(value or {}))
    except pydantic.ValidationError as error:
        raise _explain(error, model, parameter) from None


def _explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel], parameter: str) -> InputError:
    problems = error.errors(include_url=False)
    first = problems[0]
    places = [".".join([parameter, *(str(part) for part in problem["loc"])]) for problem in problems]
    others = "; ".join(f"{place}: {problem['msg']}" for place, problem in zip(places[1:], problems[1:], strict=True))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        fields = fields_at(model, first["loc"][:-1])
        hint = suggest(name, fields)
        return InputError(
            f"`{parameter}` has a key that is not known",
            parameter=places[0],
            allowed=sorted(fields) if fields else None,
            received=name,
            hint="; ".join(part for part in (hint, f"also wrong: {others}" if others else None) if part) or None,
        )
    received = first.get("input")
    missing = first["type"] == "missing"
    return InputError(
        f"`{parameter}` lacks a key that it needs" if missing else f"`{parameter}` has a value that is not allowed",
        parameter=places[0],
        allowed="a value (required)" if missing else first["msg"].removeprefix("Value error, "),
        received="nothing" if missing else f"{type(received).__name__}: {received!r}",
        hint=f"also wrong: {others}" if others else None,
    )


def fields_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """The field names of the (nested) model that a validation error points into."""
    current: Any = model
    is_key = False
    for part in location:
        fields = {} if is_key else getattr(current, "model_fields", {})
        is_key = part in fields and _is_container(fields[part].annotation)
        if part in fields:
            current = fields[part].annotation
        # A dictionary's key, a list's index or a union's tag: look into the arguments of the type.
        models = list(_models_in(current))
        if part not in fields and not models:
            return []
        named = [m for m in models if m.__name__ == str(part)]
        current = (named or models or [current])[0]
    return sorted(getattr(current, "model_fields", {}))


def _is_container(annotation: Any) -> bool:
    """Whether what comes next in a place is a key or an index, which may be spelled like a field."""
    parts = (annotation, *getattr(annotation, "__args__", ()))
    return any(get_origin(part) in (dict, list, tuple) for part in parts)


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    found: list[type[pydantic.BaseModel]] = []
    for argument in getattr(annotation, "__args__", ()):
        found.extend(_models_in(argument))
    return found
