"""The record of a local run, `run.json`: its graph, and how each step went."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeparts.runtime.files import write_json
from pipeparts.targets.local_spec import Node

FORMAT = 1
#: The kinds of tasks that are groups of others.
GROUPS = ("condition", "loop", "exit_handler", "pipeline")
#: States of a task that has come to its end.
ENDED = ("succeeded", "cached", "failed", "skipped", "not_run", "interrupted")
_LAST_LINES = 5


class RunRecord:
    """`run.json`, kept up to date while the run goes on.

    Attributes:
        data: What is in the file. Of a task: `state` is one of queued, running, succeeded, cached, failed, skipped (its
            condition was not met), not_run (something before it failed), interrupted. A task in a loop has
            `iterations`, each with what a task has. A group has an `error` where it failed itself: its condition
            could not be decided, say.
    """

    def __init__(self, folder: Path, root: Path, nodes: list[Node], **facts: Any) -> None:
        self.folder = folder
        self._root = root
        self._nodes = {node.id: node for node in nodes}
        self.data: dict[str, Any] = {
            "format": FORMAT,
            "state": "running",
            "started": time.time(),
            "finished": None,
            "seconds": None,
            "error": None,
            "outputs": {},
            **facts,
            "tasks": [_task(node) for node in nodes],
        }
        self._tasks: dict[str, dict[str, Any]] = {task["id"]: task for task in self.data["tasks"]}
        self._runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.changed = True

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The tasks that do something: no groups."""
        return [task for task in self.data["tasks"] if task["kind"] not in GROUPS]

    @property
    def place(self) -> str:
        """The run's folder, as seen from the working directory where that is shorter."""
        return f"in {min(str(self.folder), os.path.relpath(self.folder), key=len)}"

    def task(self, identifier: str) -> dict[str, Any]:
        """A task by its id."""
        return self._tasks[identifier]

    def log_of(self, task: Mapping[str, Any]) -> Path | None:
        """The file that a task's log grows in; None before it has begun."""
        return self.folder / str(task["log"]) if task["log"] else None

    def apply(self, event: Mapping[str, Any]) -> None:
        """Takes in an event of the worker."""
        task = self._tasks.get(event.get("task", ""))
        kind = event["event"]
        self.changed = True
        if task is None:
            return
        iteration = str(event.get("resource") or "").partition("/")[2]
        part = self._part(task, iteration)
        if kind in ("skipped", "not_run"):
            part["state"] = kind
        elif event.get("error"):
            # It did not come to run, or what it wrote cannot be read.
            part.update(state="failed", finished=event["time"], error=event["error"])
            if part["folder"]:
                self._read_step(task, part)
        elif kind == "started":
            part.update(state="running", started=part["started"] or event["time"])
            part["folder"] = self._folder_of(event)
            part["log"] = f"{part['folder']}/log.txt"
        elif kind == "cached":
            part.update(state="cached", started=event["time"], finished=event["time"], seconds=0.0)
            self._take_from_cache(task, part, str(event["key"]))
        elif kind in ("succeeded", "failed"):
            part.update(state=kind, finished=event["time"])
            self._read_step(task, part)
            if kind == "succeeded" and event.get("key"):
                self._note_source(str(event["key"]), part)
        if iteration:
            _sum_up(task, list(task["iterations"]))

    def finish(self, state: str, *, error: str | None = None, outputs: Mapping[str, Any] | None = None) -> None:
        """Brings everything to its end.

        Args:
            state: succeeded, failed or interrupted.
            error: Why, where that is more than a step's failure.
            outputs: The pipeline's own outputs.
        """
        for task in self.steps:
            for part in task.get("iterations") or [task]:
                if part["state"] == "running":
                    # It did not end by itself: there is an event where a step does.
                    part["state"] = "interrupted"
                    part["finished"] = time.time()
                    self._read_step(task, part)
            if task.get("iterations"):
                _sum_up(task, task["iterations"])
        self._groups(ended=True)
        for task in self.data["tasks"]:
            if task["state"] == "queued":
                # A loop over nothing leaves its steps waiting in a run that went well.
                task["state"] = "skipped" if state == "succeeded" else "not_run"
        self._groups(ended=True)
        now = time.time()
        outputs = {name: self._shown(value) for name, value in (outputs or {}).items()}
        self.data.update(state=state, error=error, outputs=outputs, finished=now)
        self.data["seconds"] = round(now - self.data["started"], 3)
        self.write()

    def write(self) -> None:
        """Writes `run.json`, whole."""
        self._groups(ended=self.data["state"] != "running")
        write_json(self.folder / "run.json", _plain(self.data))
        self.changed = False

    def _part(self, task: dict[str, Any], iteration: str) -> dict[str, Any]:
        """The task itself, or in a loop the record of this iteration."""
        if not iteration:
            return task
        key = (task["id"], iteration)
        if key not in self._runs:
            self._runs[key] = {"iteration": iteration, **_fresh()}
            task.setdefault("iterations", []).append(self._runs[key])
            task["iterations"].sort(key=lambda part: [int(n) for n in part["iteration"].split("-") if n.isdigit()])
        return self._runs[key]

    def _folder_of(self, event: Mapping[str, Any]) -> str:
        return f"steps/{event['resource']}/{event['task']}"

    def _read_step(self, task: dict[str, Any], part: dict[str, Any]) -> None:
        """Takes what the step's own process wrote down."""
        node = self._nodes[task["id"]]
        folder = self.folder / str(part["folder"])
        step = read_kept(folder / "step.json")
        if step.get("finished"):
            part["finished"] = step["finished"]
        part.update({key: step[key] for key in ("peak_memory_bytes", "cpu_seconds", "attempt") if key in step})
        if part["started"] and part["finished"]:
            part["seconds"] = round(part["finished"] - part["started"], 3)
        if part["state"] == "succeeded":
            part["outputs"] = self._outputs(node, read_kept(folder / "executor_output.json"), folder)
        elif part["state"] == "failed":
            part["error"] = part["error"] or step.get("error") or _without_a_word(folder, step)
            part["log"] = part["log"] if (folder / "log.txt").exists() else None

    def _outputs(self, node: Node, written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """A finished step's outputs, from KFP's executor_output.json."""
        found: dict[str, Any] = {}
        values = written.get("parameterValues", {})
        artifacts = written.get("artifacts", {})
        for name, kind in node.outputs.items():
            if "." not in kind:
                path = folder / name
                value = values.get(name, path.read_text(encoding="utf-8") if path.is_file() else None)
                found[name] = {"type": kind, "value": _number(value) if kind != "NUMBER_DOUBLE" else value}
                continue
            artifact: dict[str, Any] = next(iter(artifacts.get(name, {}).get("artifacts", [])), {})
            uri = artifact.get("uri") or str(folder / name)
            found[name] = {"type": kind, "uri": self._shown(uri), "metadata": artifact.get("metadata", {})}
        return found

    def _take_from_cache(self, task: dict[str, Any], part: dict[str, Any], key: str) -> None:
        """The outputs of a step that was taken from the cache, and which run made them."""
        entry = read_kept(self._root / "cache" / f"{key}.json")
        outputs: dict[str, Any] = {}
        for name, kind in self._nodes[task["id"]].outputs.items():
            value = entry.get(name)
            if isinstance(value, dict) and value.get("__kfp_artifact__"):
                metadata = _number(value.get("metadata", {}))
                outputs[name] = {"type": kind, "uri": self._shown(value["uri"]), "metadata": metadata}
            else:
                outputs[name] = {"type": kind, "value": _number(value) if kind != "NUMBER_DOUBLE" else value}
        part["outputs"] = outputs
        source = read_kept(self._root / "cache" / "steps" / f"{key}.json")
        part["cached_from"] = source.get("run_id")
        if source.get("folder"):
            part["folder"] = os.path.relpath(self._root / source["folder"], self.folder)
            part["log"] = f"{part['folder']}/log.txt"
            part["saved_seconds"] = source.get("seconds")

    def _note_source(self, key: str, part: Mapping[str, Any]) -> None:
        """Keeps which run a cache entry comes from, beside the entries."""
        folder = os.path.relpath(self.folder / str(part["folder"]), self._root)
        note = {"run_id": self.folder.name, "folder": folder, "seconds": part["seconds"]}
        write_json(self._root / "cache" / "steps" / f"{key}.json", note)

    def _shown(self, value: Any) -> Any:
        """A path below the root, as seen from the run's folder; anything else as it is."""
        if isinstance(value, str) and value.startswith(f"{self._root}{os.sep}"):
            return os.path.relpath(value, self.folder)
        return value

    def _groups(self, *, ended: bool) -> None:
        """Sets the groups' states from their members', the innermost first; a skipped group skips its members.

        Args:
            ended: Whether the run is over. Until then a group that one iteration skipped may run in the next.
        """
        for task in self.data["tasks"]:
            parent = self._tasks.get(task["parent"] or "")
            if parent is None or task["state"] != "queued" or parent["state"] not in ("skipped", "not_run"):
                continue
            if ended or not parent.get("iterations"):
                task["state"] = parent["state"]
        for task in reversed(self.data["tasks"]):
            if task["kind"] not in GROUPS:
                continue
            members = [member for member in self.data["tasks"] if member["parent"] == task["id"]]
            runs = {part["state"] for member in members for part in member.get("iterations") or [member]}
            if task["state"] in ("skipped", "not_run") and runs <= {"queued", "skipped", "not_run"}:
                continue
            own = [part for part in task.get("iterations") or [task] if part["error"]]
            _sum_up(task, members + [{**part, "state": "failed"} for part in own])


def failures(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What failed itself, the first first: steps (in a loop, their iterations), and groups that could not begin.

    Returns:
        What the record has of each, with its `id`, `kind` and `display_name`.
    """
    failed = [
        {**part, "id": task["id"], "kind": task["kind"], "display_name": task["display_name"]}
        for task in record["tasks"]
        for part in task.get("iterations") or [task]
        if part["state"] == "failed" and (task["kind"] not in GROUPS or part["error"])
    ]
    return sorted(failed, key=lambda part: part["finished"] or 0)


def _fresh() -> dict[str, Any]:
    names = (
        "started",
        "finished",
        "seconds",
        "folder",
        "log",
        "error",
        "cached_from",
        "peak_memory_bytes",
        "cpu_seconds",
    )
    return {"state": "queued", "attempt": 1, "outputs": {}, **dict.fromkeys(names)}


def _task(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "name": node.name,
        "display_name": node.display_name,
        "kind": node.kind,
        "parent": node.parent,
        "component": node.component,
        "family": node.family,
        "dependencies": list(node.dependencies),
        "inputs": {name: dict(origin) for name, origin in node.inputs.items()},
        "condition": node.condition,
        **_fresh(),
    }


def _sum_up(task: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    """A group's (or loop step's) state and times from its parts'."""
    states = {part["state"] for part in parts}
    for state in ("failed", "interrupted", "running"):
        if state in states:
            task["state"] = state
            break
    else:
        if states <= {"queued"}:
            task["state"] = "queued"
        elif "queued" in states:
            task["state"] = "running"
        elif states == {"not_run"} or states == {"skipped"}:
            task["state"] = next(iter(states))
        elif "not_run" in states:
            task["state"] = "failed"
        else:
            task["state"] = "cached" if states <= {"cached", "skipped"} else "succeeded"
    started = [part["started"] for part in parts if part["started"]]
    finished = [part["finished"] for part in parts if part["finished"]]
    task["started"] = min(started, default=None)
    if task["state"] in ENDED:
        task["finished"] = max(finished, default=None)
        if task["started"] and task["finished"]:
            task["seconds"] = round(task["finished"] - task["started"], 3)


def _without_a_word(folder: Path, step: Mapping[str, Any]) -> dict[str, Any]:
    """The error of a step whose process ended before it could write one."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    # KFP's executor begins with its input, as JSON over many lines that end in a brace of its own.
    lines = lines[lines.index("}") + 1 :] if "}" in lines else lines
    crashes = [number for number, line in enumerate(lines) if line.startswith("Fatal Python error")]
    if not step:
        message = "the step's process did not start; worker.log says why"
    elif step["state"] == "interrupted":
        message = "the step's process was told to stop by SIGTERM"
        lines = lines[-_LAST_LINES:]
    elif crashes:
        message = "the step's process crashed in native code"
        lines = lines[crashes[-1] :][:_LAST_LINES]
    elif any(line.startswith("Timeout (") for line in lines):  # faulthandler's word for it
        message = "the step's time was over, and its native code would not be stopped (setting timeout_seconds)"
        lines = lines[-_LAST_LINES:]
    else:
        message = "the step's process was killed: often the machine ran out of memory"
        lines = lines[-_LAST_LINES:]
    return {"type": "ProcessEnded", "message": message, "pipeparts": False, "where": None, "traceback": lines}


def read_kept(path: Path) -> dict[str, Any]:
    """A JSON object that a process keeps; empty where it is not there, or not whole."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Any:
    """KFP keeps every number as a double; whole ones read better as such."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _number(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_number(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: what is not finite becomes a text."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
