"""What callers see of a pipeline: its name, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeparts.diffing.changes import Change, Impact, dumped, shown
from pipeparts.diffing.reading import Compiled

_GENERIC = "system.Artifact"
_TYPES = {
    "STRING": "str",
    "NUMBER_INTEGER": "int",
    "NUMBER_DOUBLE": "float",
    "BOOLEAN": "bool",
    "STRUCT": "dict",
    "LIST": "list",
}

Ports = dict[tuple[str, str], dict[str, Any]]


def ports(component: dict[str, Any], side: str) -> Ports:
    """A component's inputs or outputs.

    Args:
        component: The component, as compiled.
        side: "inputDefinitions" or "outputDefinitions".

    Returns:
        ("parameter" or "artifact", name) to the definition.
    """
    definitions = component.get(side) or {}
    return {
        (kind, str(name)): port or {}
        for kind in ("parameter", "artifact")
        for name, port in (definitions.get(f"{kind}s") or {}).items()
    }


def type_name(port: dict[str, Any]) -> str:
    """A port's type, as people write it: "int", "Dataset", "list of Model"."""
    if "parameterType" in port or "type" in port:
        written = str(port.get("parameterType", port.get("type")))
        return _TYPES.get(written, written)
    schema = port.get("artifactType") or {}
    title = str(schema.get("schemaTitle") or schema.get("schemaUri") or schema.get("instanceSchema") or _GENERIC)
    major = str(schema.get("schemaVersion") or "0").partition(".")[0]
    name = title.removeprefix("system.") + (f" version {major}" if major != "0" else "")
    return f"list of {name}" if port.get("isArtifactList") else name


def is_required(port: dict[str, Any]) -> bool:
    """Whether an input has to be given."""
    return not port.get("isOptional") and "defaultValue" not in port


def interface_changes(old: Compiled, new: Compiled) -> Iterator[Change]:
    """What changed for callers."""
    if old.name != new.name:
        yield Change(
            "pipeline-renamed",
            Impact.BREAKING,
            "the pipeline",
            "has another name",
            "who finds it by its name, in a registry or a catalog, no longer does",
            before=old.name,
            after=new.name,
        )
    yield from _inputs(ports(old.spec["root"], "inputDefinitions"), ports(new.spec["root"], "inputDefinitions"))
    yield from _outputs(ports(old.spec["root"], "outputDefinitions"), ports(new.spec["root"], "outputDefinitions"))


def _inputs(old: Ports, new: Ports) -> Iterator[Change]:
    for kind, name in [*old, *(key for key in new if key not in old)]:
        before, after, subject = old.get((kind, name)), new.get((kind, name)), f"{_word(kind)} {name}"
        if after is None:
            assert before is not None
            yield Change(
                "input-removed",
                Impact.BREAKING,
                subject,
                "was removed",
                "who gives it is refused",
                before=type_name(before),
            )
        elif before is None:
            if is_required(after):
                why, impact = "who does not give it is refused", Impact.BREAKING
            else:
                why, impact = "who does not give it goes on as before", Impact.COMPATIBLE
            text = "was added, and is required" if is_required(after) else "was added"
            yield Change("input-added", impact, subject, text, why, after=_described(after))
        else:
            yield from _input(subject, before, after)


def _input(subject: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    yield from _retyped("input", subject, before, after, "who gives the old type is refused")
    if is_required(after) and not is_required(before):
        yield Change(
            "input-required",
            Impact.BREAKING,
            subject,
            "is required now",
            "who does not give it is refused",
            before=_default(before),
            after="no default",
        )
    elif is_required(before) and not is_required(after):
        yield Change(
            "input-optional",
            Impact.COMPATIBLE,
            subject,
            "is optional now",
            "who gives it goes on as before",
            before="required",
            after=_default(after),
        )
    elif not is_required(before) and dumped(before.get("defaultValue")) != dumped(after.get("defaultValue")):
        yield Change(
            "default-changed",
            Impact.COMPATIBLE,
            subject,
            "has another default",
            "who does not give it gets the new one",
            before=_default(before),
            after=_default(after),
        )
    yield from _values(subject, before.get("literals"), after.get("literals"))


def _values(subject: str, before: Any, after: Any) -> Iterator[Change]:
    """Of an input that allows certain values only."""
    old, new = ({dumped(value) for value in values} if values else None for values in (before, after))
    if old == new:
        return
    narrower = new is not None and (old is None or bool(old - new))
    yield Change(
        "values-changed",
        Impact.BREAKING if narrower else Impact.COMPATIBLE,
        subject,
        "allows other values",
        "a value that was allowed is refused" if narrower else "every value that was allowed still is",
        before=shown(before) if before else "any",
        after=shown(after) if after else "any",
    )


def _outputs(old: Ports, new: Ports) -> Iterator[Change]:
    for kind, name in [*old, *(key for key in new if key not in old)]:
        before, after, subject = old.get((kind, name)), new.get((kind, name)), f"output {name}"
        if after is None:
            assert before is not None
            yield Change(
                "output-removed",
                Impact.BREAKING,
                subject,
                "was removed",
                "who uses it no longer finds it",
                type_name(before),
            )
        elif before is None:
            yield Change(
                "output-added",
                Impact.COMPATIBLE,
                subject,
                "was added",
                "callers need not use it",
                after=type_name(after),
            )
        else:
            yield from _retyped(
                "output", subject, before, after, "who passes it on to an input of the old type is refused"
            )


def _retyped(side: str, subject: str, before: dict[str, Any], after: dict[str, Any], why: str) -> Iterator[Change]:
    old, new = type_name(before), type_name(after)
    if old != new:
        generic = new == "Artifact" and not old.startswith("list of")
        yield Change(
            f"{side}-retyped",
            Impact.COMPATIBLE if generic else Impact.BREAKING,
            subject,
            "has another type",
            "KFP takes an Artifact for any of its kinds" if generic else why,
            before=old,
            after=new,
        )


def _word(kind: str) -> str:
    return "parameter" if kind == "parameter" else "input artifact"


def _described(port: dict[str, Any]) -> str:
    return type_name(port) if is_required(port) else f"{type_name(port)}, {_default(port)}"


def _default(port: dict[str, Any]) -> str:
    return f"default {shown(port['defaultValue'])}" if "defaultValue" in port else "optional, without a default"
