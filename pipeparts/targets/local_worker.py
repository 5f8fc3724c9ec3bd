"""The process that runs a pipeline's steps: as many side by side as the machine has room for.

`pipeparts.targets.local` starts it, and it starts the steps, each in a process of its own by KFP's executor. It writes
what happens to `events.jsonl` in the run's folder, in the order that it happened, and imports the standard library and
our own light modules alone, so that a run whose steps all come from the cache is over at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import graphlib
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeparts.errors import ContractError, PipepartsError
from pipeparts.runtime.files import write_json
from pipeparts.targets.local_cache import Artifact, Cache, doubles
from pipeparts.targets.local_conditions import is_met
from pipeparts.targets.local_io import Placeholders, executor_input, load_items, read_outputs, select
from pipeparts.targets.local_resources import UNKNOWN_STEP_BYTES, Place, Places

logger = logging.getLogger(__name__)

Spec = Mapping[str, Any]
State = Literal["succeeded", "failed", "skipped", "not_run"]

_LAST_BACKOFF_SECONDS = 3600.0


def main(argv: list[str]) -> int:
    """Runs the job that is described in the run's folder.

    Args:
        argv: The run's folder, with `job.json` in it.

    Returns:
        0 where the pipeline succeeded, 1 where not.
    """
    folder = Path(argv[0])
    _end_with_parent()
    os.environ["PIPEPARTS_RUN_GROUP"] = str(os.getpgrp())
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(message)s")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        outcome = asyncio.run(_run(folder))
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        text = str(error) if isinstance(error, PipepartsError) else f"{type(error).__name__}: {error}"
        write_json(folder / "result.json", {"state": "failed", "error": text})
        return 1
    write_json(folder / "result.json", {"state": outcome.state, "outputs": _shown(outcome.outputs)})
    return 0 if outcome.state == "succeeded" else 1


async def _run(folder: Path) -> Outcome:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    text = (folder / "local.json").read_text(encoding="utf-8")
    if "{{$.workspace_path}}" in text:
        Path(job["workspace"]).mkdir(parents=True)
    with (folder / "events.jsonl").open("a", encoding="utf-8") as events:

        def tell(event: dict[str, Any]) -> None:
            where = "/".join([*event["resource"].split("/")[1:], event["task"]])
            logger.info("%s: %s", where, event.get("message") or event["event"])
            events.write(json.dumps({"time": time.time(), **event}) + "\n")
            events.flush()

        return await Worker(json.loads(text), job, tell).run()


def _shown(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline's outputs as the record keeps them."""
    return {
        name: value.uri if isinstance(value, Artifact) else value
        for name, value in outputs.items()
        if not (isinstance(value, list) and any(isinstance(item, Artifact) for item in value))
    }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        state: succeeded; failed; skipped (a condition was not met); not_run (what it waits for did not succeed).
        outputs: What it gave.
    """

    state: State
    outputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Group:
    """Tasks that run together, and what they see: the pipeline, a condition's branch, an iteration.

    Attributes:
        inputs: The values that came from outside.
        resource: Where their folders are, below that of the run's steps: the run, then the iterations.
        ends: How each task ends, by its name, to be awaited.
    """

    inputs: Mapping[str, Any]
    resource: str
    ends: dict[str, asyncio.Task[Outcome]] = dataclasses.field(default_factory=dict)


class Worker:
    """Runs the tasks of one pipeline.

    Args:
        spec: The pipeline's local variant.
        job: Its arguments, and where and how to run it.
        tell: Takes an event: `event`, `task` (its id), `resource` (the run, then the iterations that the task is in).
    """

    def __init__(self, spec: Spec, job: Mapping[str, Any], tell: Any) -> None:
        self._root: Spec = spec["root"]
        self._components: Spec = spec.get("components", {})
        self._executors: Spec = spec["deploymentSpec"].get("executors", {})
        self._arguments: Mapping[str, Any] = job["arguments"]
        self._steps = Path(job["steps"])
        self._workspace = job["workspace"]
        self._run_id: str = job["run_id"]
        self._memory: Mapping[str, int] = job["memory"]
        self._cache = Cache(Path(job["cache"])) if job["cache"] else None
        self._places = Places(job["parallel_steps"])
        self._tell = tell
        self._same_key: dict[str, asyncio.Lock] = {}
        self._installing = asyncio.Lock()
        self._begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    async def run(self) -> Outcome:
        """Runs the pipeline to its end."""
        inputs = {**_defaults(self._root), **self._arguments}
        return await self._run_group(self._root, inputs, self._run_id)

    async def _run_group(self, component: Spec, inputs: Mapping[str, Any], resource: str) -> Outcome:
        tasks: Spec = component["dag"].get("tasks", {})
        group = Group(inputs, resource)
        _check_order(tasks)
        async with asyncio.TaskGroup() as running:
            for name, task in tasks.items():
                group.ends[name] = running.create_task(self._run_task(name, task, group))
        ends = {name: end.result() for name, end in group.ends.items()}
        if any(end.state in ("failed", "not_run") for end in ends.values()):
            return Outcome("failed")
        return Outcome("succeeded", _group_outputs(component["dag"].get("outputs", {}), ends))

    async def _run_task(self, name: str, task: Spec, group: Group) -> Outcome:
        identifier = task["componentRef"]["name"].removeprefix("comp-")
        try:
            before = {other: await group.ends[other] for other in _dependencies(task)}
            state = _state_before(task, before)
            if state is not None:
                self._tell({"event": state, "task": identifier, "resource": group.resource})
                return Outcome(state)
            definition: Spec = self._components[task["componentRef"]["name"]]
            inputs = self._inputs(task, definition, group, before)
            condition = task.get("triggerPolicy", {}).get("condition")
            if condition and not is_met(condition, inputs):
                self._tell({"event": "skipped", "task": identifier, "resource": group.resource})
                return Outcome("skipped")
            if "parameterIterator" in task or "artifactIterator" in task:
                return await self._run_loop(name, task, definition, inputs, group.resource)
            return await self._run_once(identifier, task, definition, inputs, group.resource)
        except (PipepartsError, OSError) as error:
            self._tell_failed(identifier, group.resource, error)
            return Outcome("failed")

    async def _run_once(
        self, identifier: str, task: Spec, definition: Spec, inputs: Mapping[str, Any], resource: str
    ) -> Outcome:
        if "dag" in definition:
            return await self._run_group(definition, {**_defaults(definition), **inputs}, resource)
        executor = self._executors[definition["executorLabel"]]
        step = Step(identifier, task, definition, executor, inputs, resource, self._steps / resource / identifier)
        if "importer" in executor:
            return self._import(step)
        key = self._key(step)
        if key is None or self._cache is None:
            return await self._run_step(step)
        # Of two steps that are the same, in a loop over equal items, the second takes what the first made.
        async with self._same_key.setdefault(key, asyncio.Lock()):
            known = self._cache.get(key)
            if known is not None:
                self._tell({"event": "cached", "key": key, **step.place})
                return Outcome("succeeded", known)
            return await self._run_step(step, key)

    async def _run_loop(
        self, name: str, task: Spec, definition: Spec, inputs: Mapping[str, Any], resource: str
    ) -> Outcome:
        iterator = task.get("parameterIterator") or task["artifactIterator"]
        items = iterator["items"]
        source = items.get("inputParameter") or items.get("inputArtifact")
        values = load_items(inputs.get(source) if source else items.get("raw"), where=source or name)
        identifier = task["componentRef"]["name"].removeprefix("comp-")
        limit = asyncio.Semaphore(int(task.get("iteratorPolicy", {}).get("parallelismLimit", 0)) or len(values) or 1)

        async def run_one(number: int, item: Any) -> Outcome:
            given = {**inputs, iterator["itemInput"]: item if isinstance(item, Artifact) else doubles(item)}
            where = f"{resource}/{name}-iteration-{number}"
            async with limit:
                try:
                    return await self._run_once(identifier, task, definition, given, where)
                except (PipepartsError, OSError) as error:
                    self._tell_failed(identifier, where, error)
                    return Outcome("failed")

        ends = await asyncio.gather(*(run_one(number, item) for number, item in enumerate(values)))
        if any(end.state != "succeeded" for end in ends):
            return Outcome("failed")
        ports = definition.get("outputDefinitions", {})
        names = [*ports.get("parameters", {}), *ports.get("artifacts", {})]
        # An output that one iteration did not give is none of the loop's.
        whole = [output for output in names if all(output in end.outputs for end in ends)]
        return Outcome("succeeded", {output: [end.outputs[output] for end in ends] for output in whole})

    def _inputs(self, task: Spec, definition: Spec, group: Group, before: Mapping[str, Outcome]) -> dict[str, Any]:
        """What a task gets; an optional input without a value is left out."""
        ports = definition.get("inputDefinitions", {})
        inputs: dict[str, Any] = {}
        for kind in ("parameters", "artifacts"):
            for name, binding in task.get("inputs", {}).get(kind, {}).items():
                found, value = self._value(binding, group, before)
                port = ports.get(kind, {}).get(name, {})
                if found:
                    inputs[name] = value
                elif not port.get("isOptional") and "defaultValue" not in port:
                    raise ContractError(
                        "an input has no value: the step that gives it was skipped, or did not write it",
                        parameter=name,
                        where=json.dumps(binding),
                    )
        return inputs

    def _value(self, binding: Spec, group: Group, before: Mapping[str, Outcome]) -> tuple[bool, Any]:
        """The value that an input is bound to, and whether there is one."""
        for kind, output in (
            ("taskOutputParameter", "outputParameterKey"),
            ("taskOutputArtifact", "outputArtifactKey"),
        ):
            if kind in binding:
                outputs = before[binding[kind]["producerTask"]].outputs
                return binding[kind][output] in outputs, outputs.get(binding[kind][output])
        for kind in ("componentInputParameter", "componentInputArtifact"):
            if kind in binding:
                value = group.inputs.get(binding[kind])
                if value is not None and "parameterExpressionSelector" in binding:
                    value = select(value, binding["parameterExpressionSelector"])
                return value is not None, value
        if "taskFinalStatus" in binding:
            return True, self._final_status(binding["taskFinalStatus"]["producerTask"], before)
        return True, doubles(binding.get("runtimeValue", {}).get("constant"))

    def _final_status(self, producer: str, before: Mapping[str, Outcome]) -> dict[str, Any]:
        failed = before[producer].state in ("failed", "not_run")
        return {
            "state": "FAILED" if failed else "SUCCEEDED",
            "pipeline_job_resource_name": self._run_id,
            "pipeline_task_name": producer,
            "error": {"code": 1.0, "message": f"Task {producer} failed."} if failed else {},
        }

    def _key(self, step: Step) -> str | None:
        caching = step.task.get("cachingOptions", {})
        if self._cache is None or not caching.get("enableCache"):
            return None
        return self._cache.key(
            f"comp-{step.identifier}",
            step.executor["container"],
            step.inputs,
            environment=step.environment,
            custom=caching.get("cacheKey", ""),
        )

    async def _run_step(self, step: Step, key: str | None = None) -> Outcome:
        """Runs a step in a process, again where it is to be retried."""
        policy = step.task.get("retryPolicy", {})
        retries = int(policy.get("maxRetryCount", 0))
        for attempt in range(retries + 1):
            async with self._places.taken(step.name, self._memory.get(step.identifier, UNKNOWN_STEP_BYTES)) as place:
                self._tell({"event": "started", **step.place})
                code = await self._run_process(step, place)
            if code == 0:
                outputs = read_outputs(step.definition, step.folder)
                if key is not None and self._cache is not None:
                    self._cache.put(key, outputs)
                self._tell({"event": "succeeded", "key": key, **step.place})
                return Outcome("succeeded", outputs)
            if attempt < retries:
                seconds = _backoff_seconds(policy, attempt)
                message = f"attempt {attempt + 1} of {retries + 1} failed; the next one begins in {seconds:.1f} s"
                self._tell({"event": "retrying", "message": message, **step.place})
                await asyncio.sleep(seconds)
        self._tell({"event": "failed", **step.place})
        return Outcome("failed")

    async def _run_process(self, step: Step, place: Place) -> int:
        command = self._command(step)
        # Two installations into one environment get into each other's way.
        install = self._installing if any("pip install" in part for part in command) else contextlib.nullcontext()
        async with install:
            process = await _start(command, {**os.environ, **step.environment})
            place.process = process.pid
            # The step's own output goes to its log: this is what comes before, and says why it did not start. The
            # pipe also tells the step when this process is gone.
            assert process.stdout is not None
            while said := await process.stdout.read(1 << 16):
                for line in said.decode("utf-8", errors="replace").splitlines():
                    logger.info("%s | %s", step.name, line)
            return await process.wait()

    def _command(self, step: Step) -> list[str]:
        placeholders = self._placeholders(step)
        given = executor_input(step.definition, step.inputs, step.folder)
        parameters: dict[str, Any] = given.get("inputs", {}).get("parameterValues", {})
        # Only what the pipeline's author wrote is filled in: a value that looks like a placeholder is none.
        for name, binding in step.task.get("inputs", {}).get("parameters", {}).items():
            constant = binding.get("runtimeValue", {}).get("constant")
            if isinstance(constant, str) and name in parameters:
                parameters[name] = placeholders.fill(constant, given, where=name)
        container = step.executor["container"]
        parts = [*container.get("command", []), *container.get("args", [])]
        return [placeholders.fill(part, given) for part in parts]

    def _placeholders(self, step: Step) -> Placeholders:
        return Placeholders(
            {
                "pipeline_job_name": self._run_id,
                "pipeline_job_resource_name": self._run_id,
                "pipeline_job_id": self._run_id,
                "pipeline_job_uuid": self._run_id,
                "pipeline_task_name": step.identifier,
                "pipeline_task_id": step.name,
                "pipeline_task_uuid": step.name,
                "pipeline_job_create_time_utc": self._begun,
                "pipeline_job_schedule_time_utc": self._begun,
                "pipeline_root": str(self._steps),
                "workspace_path": self._workspace,
            }
        )

    def _import(self, step: Step) -> Outcome:
        """Takes in an artifact that is there already."""
        self._tell({"event": "started", **step.place})
        importer = step.executor["importer"]
        given = executor_input(step.definition, step.inputs, step.folder)
        uri = importer["artifactUri"].get("constant") or step.inputs.get("uri", "")
        metadata = _filled(importer.get("metadata", {}), self._placeholders(step), given)
        title = importer["typeSchema"].get("schemaTitle", "")
        artifact = Artifact.of({"name": "artifact", "uri": uri, "metadata": metadata}, title)
        step.folder.mkdir(parents=True, exist_ok=True)
        # For the run's record, as a step's own process would.
        write_json(
            step.folder / "executor_output.json", {"artifacts": {"artifact": {"artifacts": [artifact.as_json()]}}}
        )
        self._tell({"event": "succeeded", **step.place})
        return Outcome("succeeded", {"artifact": artifact})

    def _tell_failed(self, identifier: str, resource: str, error: Exception) -> None:
        kind = type(error).__name__
        described = {"type": kind, "message": str(error), "pipeparts": isinstance(error, PipepartsError), "where": None}
        self._tell({"event": "failed", "task": identifier, "resource": resource, "error": described})


@dataclasses.dataclass(frozen=True)
class Step:
    """A task that runs: no group of others.

    Attributes:
        identifier: Its id in the whole pipeline.
        task: It, as compiled.
        definition: Its component.
        executor: What runs it.
        inputs: What it gets.
        resource: The run, then the iterations that it is in.
        folder: Where its outputs go.
    """

    identifier: str
    task: Spec
    definition: Spec
    executor: Spec
    inputs: Mapping[str, Any]
    resource: str
    folder: Path

    @property
    def name(self) -> str:
        """Its name in this run, with the iterations that it is in."""
        return "/".join([*self.resource.split("/")[1:], self.identifier])

    @property
    def place(self) -> dict[str, str]:
        """What names it in an event."""
        return {"task": self.identifier, "resource": self.resource}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its container sets."""
        return {item["name"]: item.get("value", "") for item in self.executor["container"].get("env", [])}


async def _start(command: list[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
    except OSError as error:
        large = error.errno == errno.E2BIG
        raise ContractError(
            "the step's process cannot be started",
            received=error.strerror,
            hint="its inputs are too long for a command: hand on large values as artifacts" if large else None,
        ) from None


def _defaults(component: Spec) -> dict[str, Any]:
    """The defaults of a group's inputs."""
    parameters = component.get("inputDefinitions", {}).get("parameters", {})
    return {name: doubles(port["defaultValue"]) for name, port in parameters.items() if "defaultValue" in port}


def _dependencies(task: Spec) -> list[str]:
    """The neighbours that a task waits for: those named, and those whose outputs it takes."""
    inputs = task.get("inputs", {})
    bindings = [*inputs.get("parameters", {}).values(), *inputs.get("artifacts", {}).values()]
    kinds = ("taskOutputParameter", "taskOutputArtifact", "taskFinalStatus")
    producers = [binding[kind]["producerTask"] for binding in bindings for kind in kinds if kind in binding]
    return list(dict.fromkeys([*task.get("dependentTasks", []), *producers]))


def _check_order(tasks: Spec) -> None:
    """Refuses tasks that wait for each other, or for one that is not there: they would wait for ever."""
    graph = {name: _dependencies(task) for name, task in tasks.items()}
    for name, others in graph.items():
        if missing := [other for other in others if other not in tasks]:
            raise ContractError(
                "a task that waits for one that is not there", where=name, allowed=list(tasks), received=missing
            )
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise ContractError("tasks that wait for each other", received=" -> ".join(error.args[1])) from None


def _state_before(task: Spec, before: Mapping[str, Outcome]) -> State | None:
    """The state of a task that does not run for what came before it; None for one that runs.

    As on Kubeflow: what waits for a task runs where that has succeeded. An exit task runs however it went.
    """
    if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
        return None
    states = {end.state for end in before.values()}
    if states & {"failed", "not_run"}:
        return "not_run"
    return "skipped" if "skipped" in states else None


def _group_outputs(outputs: Spec, ends: Mapping[str, Outcome]) -> dict[str, Any]:
    """What a group gives; what a skipped task of it would have given is left out."""
    found: dict[str, Any] = {}
    for name, output in outputs.get("parameters", {}).items():
        chosen = output.get("valueFromOneof", {}).get("parameterSelectors") or [output["valueFromParameter"]]
        _add_output(found, name, chosen, "outputParameterKey", ends)
    for name, output in outputs.get("artifacts", {}).items():
        _add_output(found, name, output["artifactSelectors"], "outputArtifactKey", ends)
    return found


def _add_output(
    found: dict[str, Any], name: str, selectors: Sequence[Spec], key: str, ends: Mapping[str, Outcome]
) -> None:
    """Adds a group's output, from the one of its tasks that gave it."""
    values = [
        ends[selector["producerSubtask"]].outputs[selector[key]]
        for selector in selectors
        if selector[key] in ends[selector["producerSubtask"]].outputs
    ]
    if len(selectors) > 1 and len(values) != 1:
        raise ContractError(
            "dsl.OneOf needs one branch that ran",
            parameter=name,
            allowed=[str(selector["producerSubtask"]) for selector in selectors],
            received=f"{len(values)} that ran",
            hint="end the branches with dsl.Else",
        )
    if values:
        found[name] = values[0]


def _backoff_seconds(policy: Spec, attempt: int) -> float:
    """How long to wait before the next attempt."""
    first = _seconds(policy.get("backoffDuration", "0s"))
    longest = _seconds(policy.get("backoffMaxDuration", f"{_LAST_BACKOFF_SECONDS}s"))
    factor = float(policy.get("backoffFactor", 0)) or 2.0
    return float(min(first * factor**attempt, longest))


def _seconds(duration: str) -> float:
    return float(str(duration).removesuffix("s"))


def _filled(value: Any, placeholders: Placeholders, given: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return placeholders.fill(value, given, where="metadata")
    if isinstance(value, Mapping):
        return {_filled(key, placeholders, given): _filled(item, placeholders, given) for key, item in value.items()}
    return [_filled(item, placeholders, given) for item in value] if isinstance(value, list) else value


def _end_with_parent() -> None:
    """Ends this process and its steps when the process that started it is gone.

    Standard input is a pipe that the parent holds open and never writes to: its end is the parent's.
    """
    link = os.dup(0)
    os.set_inheritable(link, False)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    threading.Thread(target=_watch, args=(link,), name="watch-parent", daemon=True).start()


def _watch(link: int) -> None:
    while os.read(link, 1024):
        pass
    # The steps clean up after themselves on SIGTERM, and see to their own end when this process is gone.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
