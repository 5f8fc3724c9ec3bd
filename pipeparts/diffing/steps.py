"""What changed in what a step runs: image, code, resources, environment, and what its platforms add."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from typing import Any

from pipeparts.diffing.changes import Change, Impact, canonical, cut, difference, dumped, internal, shown, without
from pipeparts.diffing.code import Code, read_code
from pipeparts.diffing.graph import Step
from pipeparts.diffing.interface import is_required, ports, type_name

_LONGEST_DETAIL = 40
#: What a run needs of the cluster with these settings of kfp-kubernetes: without it, no step starts.
_NEEDED = ("secret", "configMap", "pvcMount", "serviceAccount", "imagePullSecret")
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def executor_changes(old: Step, new: Step, steps: tuple[str, ...]) -> Iterator[Change]:
    """What changed in what a step runs."""
    before, after = old.executor.get("container") or {}, new.executor.get("container") or {}
    if before.get("image") != after.get("image"):
        yield internal(
            "image-changed",
            "the image",
            "changed",
            before=str(before.get("image", "")),
            after=str(after.get("image", "")),
            steps=steps,
        )
    yield from _code_changes(read_code(before), read_code(after), steps)
    if _resources(before) != _resources(after):
        yield difference("resources-changed", "resources", _resources(before), _resources(after), steps)
    variables = [
        {str(item.get("name")): item.get("value") for item in each.get("env") or []} for each in (before, after)
    ]
    for name in sorted({*variables[0], *variables[1]}):
        if variables[0].get(name) != variables[1].get(name):
            subject = f"environment variable {name}"
            yield difference("environment-changed", subject, variables[0].get(name), variables[1].get(name), steps)
    known = ("image", "command", "args", "resources", "env")
    for one, other, place in (
        (without(before, *known), without(after, *known), ""),
        (without(old.executor, "container"), without(new.executor, "container"), ""),
        *((_part(old, kind), _part(new, kind), f"{kind}: ") for kind in ("importer",)),
    ):
        for key in sorted({*one, *other}):
            if key != "importer" and dumped(one.get(key)) != dumped(other.get(key)):
                kind = "importer-changed" if place else "setting-changed"
                yield difference(kind, f"{place}{key}", one.get(key), other.get(key), steps)


def _code_changes(old: Code, new: Code, steps: tuple[str, ...]) -> Iterator[Change]:
    if old.packages != new.packages:
        before, after = (", ".join(code.packages) for code in (old, new))
        yield internal(
            "packages-changed",
            "the packages that it installs",
            "changed",
            before=cut(before),
            after=cut(after),
            steps=steps,
        )
    if old.meaning != new.meaning:
        lines = difflib.unified_diff(old.source.splitlines(), new.source.splitlines(), lineterm="", n=2)
        detail = [line for line in lines if not line.startswith(("---", "+++"))]
        more = len(detail) - _LONGEST_DETAIL
        shortened = [*detail[:_LONGEST_DETAIL], f"... {more} more lines"] if more > 0 else detail
        change = internal("code-changed", "the code", "changed", steps=steps)
        yield dataclasses.replace(change, detail=tuple(shortened))
    if old.command != new.command:
        yield difference("command-changed", "the command", list(old.command), list(new.command), steps)


def platform_changes(old: Step, new: Step, steps: tuple[str, ...]) -> Iterator[Change]:
    """What changed in a step's settings for one platform alone."""
    for platform in sorted({*old.platforms, *new.platforms}):
        before, after = old.platforms.get(platform) or {}, new.platforms.get(platform) or {}
        for key in sorted({*before, *after}):
            one, other = before.get(key), after.get(key)
            if dumped(one) == dumped(other):
                continue
            change = difference("platform-changed", f"{platform}: {key}", one, other, steps)
            if key.startswith(_NEEDED) and other and not _all_optional(other):
                why = "where the cluster lacks what it names, the step does not start"
                change = dataclasses.replace(change, impact=Impact.BREAKING, why=why)
            yield change


def port_changes(old: Step, new: Step, steps: tuple[str, ...]) -> Iterator[Change]:
    """What changed in a step's own inputs and outputs; what is given to it is seen where it comes from."""
    for side, word in (("inputDefinitions", "input"), ("outputDefinitions", "output")):
        before, after = ports(old.component, side), ports(new.component, side)
        for key in [*before, *(key for key in after if key not in before)]:
            given = side == "inputDefinitions" and key[1] in old.inputs and key[1] in new.inputs
            one, other = (_port(each.get(key), side, given=given) for each in (before, after))
            if key[1] in {*old.inputs} ^ {*new.inputs} or key[1].startswith("pipelinechannel--") or one == other:
                continue
            yield internal(
                "step-interface-changed", f"{word} {key[1]}", "changed", before=one, after=other, steps=steps
            )


def _port(port: dict[str, Any] | None, side: str, *, given: bool) -> str:
    if port is None:
        return ""
    if side == "outputDefinitions" or given:
        return type_name(port)
    default = f", default {shown(port['defaultValue'])}" if "defaultValue" in port else ""
    return f"{type_name(port)}{', required' if is_required(port) else default}"


def _resources(container: dict[str, Any]) -> dict[str, Any]:
    """Resources in cores and bytes: KFP writes them in two spellings, a number and a text, and newer releases both."""
    written = container.get("resources") or {}
    found: dict[str, Any] = {}
    for key, value in written.items():
        if key == "accelerator":
            accelerator = {name: item for name, item in (value or {}).items() if not name.startswith("resource")}
            found["accelerator"] = canonical(
                {
                    "count": _number(value.get("resourceCount", accelerator.get("count"))),
                    "type": value.get("resourceType", accelerator.get("type")),
                }
            )
            continue
        name = key.removeprefix("resource")
        name = name[0].lower() + name[1:]
        spelled = written.get(f"resource{name[0].upper()}{name[1:]}")
        if spelled is not None:
            found[name] = canonical(_number(spelled))
        elif isinstance(value, (int, float)):
            found[name] = canonical(float(value) * (1e9 if name.startswith("memory") else 1.0))
        else:
            found[name] = value
    return found


def _number(text: Any) -> Any:
    """A Kubernetes quantity as a number; anything else as it is."""
    if isinstance(text, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[kMGT]i?|Ki|)", text.strip())
        if found:
            return float(found[1]) * (0.001 if found[2] == "m" else _UNITS.get(found[2], 1.0))
    return text


def _all_optional(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and item.get("optional") is True for item in value)


def _part(step: Step, key: str) -> dict[str, Any]:
    part = step.executor.get(key)
    return part if isinstance(part, dict) else {}
