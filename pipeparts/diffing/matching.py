"""Which step of the old pipeline is which of the new one: by name, and for renamed ones by what they are."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re

from pipeparts.diffing.changes import dumped
from pipeparts.diffing.code import Code, read_code
from pipeparts.diffing.graph import Graph, Step, render

#: What a pair of steps can score at most in each respect, and the least that makes them one step renamed.
_CONTENT, _NAME, _BASE_NAME, _INPUTS, _PLACE = 4.0, 3.0, 2.5, 2.0, 0.5
_RENAMED = 5.0


#: Marks the path of what only the old pipeline has.
GONE = " (gone)"


@dataclasses.dataclass(frozen=True)
class Matches:
    """Old path to new path, of the steps and of the groups that are in both."""

    steps: dict[str, str]
    groups: dict[str, str]

    def name(self, old: str) -> str:
        """What an old path is called in the new pipeline; where it is gone, what no new one is called."""
        return self.steps.get(old) or self.groups.get(old) or f"{old}{GONE}"


def match(old: Graph, new: Graph) -> Matches:
    """Finds the steps and groups that two pipelines share."""
    if old.is_component and new.is_component:
        return Matches(dict(zip(old.steps, new.steps, strict=True)), {})
    steps = _match_steps(old, new)
    return Matches(steps, _match_groups(old, new, steps))


def _match_steps(old: Graph, new: Graph) -> dict[str, str]:
    before = {path: _Facts.of(old, step) for path, step in old.steps.items()}
    after = {path: _Facts.of(new, step) for path, step in new.steps.items()}
    found = {path: path for path, facts in before.items() if after.get(path) == facts}
    left, free = [p for p in before if p not in found], [p for p in after if p not in found]
    scored = [(before[a].score(before[a], after[b]), a, b) for a in left for b in free]
    taken: set[str] = set()
    for score, a, b in sorted(scored, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if a in found or b in taken:
            continue
        if score >= _RENAMED or before[a].name == after[b].name:
            found[a] = b
            taken.add(b)
    return found


def _match_groups(old: Graph, new: Graph, steps: dict[str, str]) -> dict[str, str]:
    inside = {path: {steps[step] for step in old.inside(path) if step in steps} for path in old.groups}
    scored = []
    for a, before in old.groups.items():
        for b, after in new.groups.items():
            if before.kind == after.kind:
                theirs = set(new.inside(b))
                shared = len(inside[a] & theirs) / (len(inside[a] | theirs) or 1)
                if shared or a == b:
                    same = 0.1 * (_condition(before) == _condition(after)) + 0.05 * (a == b)
                    scored.append((shared + same, a, b))
    found: dict[str, str] = {}
    for _, a, b in sorted(scored, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if a not in found and b not in found.values():
            found[a] = b
    return found


def _condition(group: Step | object) -> str:
    condition = getattr(group, "condition", None)
    return render(condition, lambda path: path.rpartition("/")[2]) if condition else ""


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What tells whether two steps are the same one."""

    path: str
    name: str
    image: str
    code: Code
    other: str
    ports: frozenset[str]
    inputs: frozenset[str]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, graph: Graph, step: Step) -> _Facts:
        container = step.executor.get("container") or {}
        ports = set()
        for side in ("inputDefinitions", "outputDefinitions"):
            for kind, definitions in (step.component.get(side) or {}).items():
                for name, port in definitions.items():
                    ports.add(f"{side} {name} {port.get('parameterType') or dumped(port.get('artifactType') or kind)}")
        return cls(
            path=step.path,
            name=step.name,
            image=str(container.get("image", "")),
            code=read_code(container),
            other=dumped({key: value for key, value in step.executor.items() if key != "container"}),
            ports=frozenset(ports),
            inputs=frozenset(
                f"{n} {render(o, lambda p: p.rpartition('/')[2], whole=True)}" for n, o in step.inputs.items()
            ),
            kinds=tuple(graph.groups[path].kind for path in graph.around(step.path)),
        )

    @staticmethod
    def score(a: _Facts, b: _Facts) -> float:
        name = _NAME if a.name == b.name else _BASE_NAME if _base(a.name) == _base(b.name) else 0.0
        inputs = len(a.inputs & b.inputs) / len(a.inputs | b.inputs) if a.inputs | b.inputs else 1.0
        ports = len(a.ports & b.ports) / len(a.ports | b.ports) if a.ports | b.ports else 1.0
        image = a.image == b.image and a.other == b.other
        content = 0.2 * image + 0.3 * ports + 0.5 * _likeness(a.code, b.code)
        return _CONTENT * content + name + _INPUTS * inputs + _PLACE * (a.kinds == b.kinds)


def _base(name: str) -> str:
    """A name without the number that KFP gives to the second step of the same component."""
    return re.sub(r"-\d+$", "", name)


@functools.lru_cache(maxsize=4096)
def _likeness(a: Code, b: Code) -> float:
    if (a.meaning, a.packages, a.command) == (b.meaning, b.packages, b.command):
        return 1.0
    matcher = difflib.SequenceMatcher(None, _words(a), _words(b), autojunk=False)
    return matcher.ratio() if matcher.real_quick_ratio() > 0.5 else 0.0


def _words(code: Code) -> list[str]:
    return [*re.findall(r"\w+", code.source), *code.command, *code.packages]
