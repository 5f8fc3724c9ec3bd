"""Runs a compiled pipeline on this machine: no cluster, no Docker, no account."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from pipeparts import __version__, catalog, compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError, suggest
from pipeparts.runtime.files import write_json, write_text
from pipeparts.runtime.local_step import SETTINGS_VARIABLE
from pipeparts.runtime.state import ROOT_VARIABLE
from pipeparts.step_settings import StepNames
from pipeparts.submission import prepare_arguments
from pipeparts.targets.base import RunResult, RunState
from pipeparts.targets.binding import bind, check_secrets, local_steps
from pipeparts.targets.local_docker import prepare
from pipeparts.targets.local_record import GROUPS, RunRecord, failures
from pipeparts.targets.local_resources import cores, expected_memory, keep_peaks
from pipeparts.targets.local_spec import (
    DEFAULT_FAMILY,
    Spec,
    check_local,
    families,
    family_of,
    function_of,
    interpreter_variable,
    localize,
)
from pipeparts.targets.progress import NoProgress, Progress

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
#: Families that are no part of the extra `local`, and a module that each has.
_OWN_ENVIRONMENT = {"tfx": "tensorflow_data_validation"}
_RUN_GROUP = "PIPEPARTS_RUN_GROUP"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(
    pipeline: Spec | str | os.PathLike[str],
    arguments: Mapping[str, Any] | None = None,
    config: LocalConfig | None = None,
    *,
    progress: Progress | None = None,
    run_id: str | None = None,
    key: str = "",
) -> RunResult:
    """Runs a compiled pipeline, and waits for its end.

    Args:
        pipeline: The compiled YAML's path, or its content.
        arguments: The pipeline's parameters.
        config: Where and how; the defaults unless given.
        progress: Shows how it goes; nothing unless given.
        run_id: A name that no other run has, of `new_run_id`; made unless given.
        key: What the run is for, where it runs once alone (`local_once`); kept in its record.

    Returns:
        How the run ended: also where it failed or was interrupted.

    Raises:
        InputError: Where the pipeline, an argument or the configuration is wrong; nothing has run then.
    """
    config = config or LocalConfig()
    progress = progress or NoProgress()
    spec = pipeline if isinstance(pipeline, dict) else compiling.read_yaml(pipeline)
    arguments = prepare_arguments(spec, arguments or {})
    interpreters = _interpreters(spec, config)
    run_id = run_id or new_run_id(spec["pipelineInfo"]["name"])
    bound = bind(spec, config)
    for note in bound.notes:
        logger.debug("%s", note)
    check_secrets(spec, config)
    docker = prepare(spec, config, run_id=run_id) if config.runner == "docker" else None
    if docker is None:
        _require_libraries(interpreters)
    images = docker.images if docker else step_images(spec, interpreters)
    local_spec, nodes = localize(bound.spec, images=images, given=arguments)
    tasks = {node.id: StepNames(node.name, node.display_name, node.component) for node in nodes if node.kind == "step"}
    settings = local_steps(spec, config, tasks)
    if docker is not None:
        local_spec = docker.rewrite(local_spec)
    root = root_folder(config)
    folder = root / "runs" / run_id
    folder.mkdir(parents=True)
    record = RunRecord(
        folder,
        root,
        nodes,
        run_id=run_id,
        target="local",
        pipeline=spec["pipelineInfo"]["name"],
        display_name=spec["pipelineInfo"].get("displayName", spec["pipelineInfo"]["name"]),
        description=spec["pipelineInfo"].get("description", ""),
        package_version=__version__,
        pipeline_hash=compiling.spec_hash(spec),
        arguments={**_defaults(spec), **arguments},
        **({"key": key} if key else {}),
    )
    with _held(folder):
        record.write()
        write_text(folder / "pipeline.yaml", compiling.to_yaml(spec))
        write_json(folder / "local.json", local_spec)
        job = {
            "run_id": run_id,
            "arguments": arguments,
            "steps": str(folder / "steps"),
            "workspace": str(folder / "workspace"),
            "cache": str(root / "cache") if config.cache else None,
            "parallel_steps": config.parallel_steps or cores(),
            "memory": expected_memory(root, record.data["pipeline"]),
        }
        write_json(folder / "job.json", job)
        environment = _environment(root, config, interpreters)
        # A step that starts a run of its own has the variable of this one.
        environment.pop(SETTINGS_VARIABLE, None)
        if settings:
            write_json(folder / "step_settings.json", settings)
            environment[SETTINGS_VARIABLE] = str(folder / "step_settings.json")
        if docker is not None:
            environment.update(docker.environment(root))
            docker.give_folders(root, folder)
        progress.begin(record)
        try:
            _work(record, config, environment, progress)
        finally:
            if docker is not None:
                docker.remove_containers()
            # Where watching itself failed, the steps were stopped, and the record must not stay at "running".
            if record.data["state"] == "running":
                record.finish("interrupted", error="the command that watched the run failed")
            progress.end(record)
    report = None
    # The run itself ended as it did: what it made must not be lost over what is written about it.
    try:
        keep_peaks(root, record.data)
        report = write_report(folder)
    except Exception:
        logger.exception("cannot write the report of run %s", run_id)
    return RunResult(
        run_id=run_id,
        state=record.data["state"],
        folder=folder,
        report=report,
        outputs=dict(record.data["outputs"]),
        record=record.data,
    )


def check_runs_here(spec: Spec, config: LocalConfig) -> None:
    """Refuses a pipeline that this machine cannot run, or not with this configuration.

    Raises:
        InputError: Naming the step, or the setting.
    """
    check_local(spec)
    _interpreters(spec, config)
    bind(spec, config)


def new_run_id(pipeline: str) -> str:
    """A name for a run that sorts by time and that no other run has."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{pipeline}-{secrets.token_hex(2)}"


def step_images(spec: Spec, interpreters: Mapping[str, Path]) -> dict[str, str]:
    """The image to name for each executor: its family, the release and a hash of the code that the step runs.

    No image runs here; the name is a part of the cache's key, so that changed code is not taken from the
    cache. Images that are no family's stay as they are: their steps' code is in the command, which is in the
    key anyway.
    """
    images: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for label, executor in spec["deploymentSpec"].get("executors", {}).items():
        container = executor.get("container")
        if container is None or family_of(container["image"]) == DEFAULT_FAMILY:
            continue
        family, function = family_of(container["image"]), function_of(container)
        if function not in hashes:
            hashes[function] = _code_hash(function)
        total = hashlib.sha256(f"{hashes[function]} {_installed(interpreters[family])}".encode()).hexdigest()
        images[label] = f"{catalog.FAMILY_PREFIX}{family}:{__version__}-{total[:16]}"
    return images


def _code_hash(function: str) -> str:
    try:
        return compiling.component_hash(function)
    except InputError:
        return compiling.package_hash()  # a component of the pipeline's own: it may use any of ours


def _installed(interpreter: Path) -> str:
    """What is installed for another interpreter than this one: a folder a distribution, named with its version."""
    if interpreter == Path(sys.executable):
        return ""
    folders = interpreter.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    return " ".join([str(interpreter), *sorted(f"{path.parts[-3]}/{path.name}" for path in folders)])


def _interpreters(spec: Spec, config: LocalConfig) -> dict[str, Path]:
    """The interpreter of each family that the pipeline needs."""
    needed = families(spec)
    found = {family: config.python.get(family, Path(sys.executable)) for family in needed}
    known = {*needed, DEFAULT_FAMILY, *(entry.family for entry in catalog.components())} if config.python else set()
    for family, path in config.python.items():
        # In a step of a run the environment names that run's families as well.
        if family not in known and _RUN_GROUP not in os.environ:
            raise InputError(
                "an interpreter for an image family that does not exist",
                parameter=f"python.{family}",
                allowed=sorted(known),
                received=family,
                hint=suggest(family, known),
            )
        resolved = shutil.which(path)
        if resolved is None:
            raise InputError(
                "there is no interpreter here",
                parameter=f"python.{family}",
                allowed="the path of a Python interpreter",
                received=str(path),
            )
        if family in found:
            found[family] = Path(resolved).absolute()
    return found


def _require_libraries(interpreters: Mapping[str, Path]) -> None:
    """Refuses a step whose family's libraries do not install everywhere, before anything runs.

    Raises:
        InputError: Naming the family and the two ways to run it.
    """
    for family, module in _OWN_ENVIRONMENT.items():
        if interpreters.get(family) == Path(sys.executable) and importlib.util.find_spec(module) is None:
            raise InputError(
                f"steps of the image family {family!r} cannot run in this environment",
                parameter=f"python.{family}",
                allowed=f"an interpreter that has {module}",
                received=sys.executable,
                hint=f"run with --runner docker, or make a virtual environment with pipeparts[{family}]",
            )


def _every_interpreter(config: LocalConfig) -> dict[str, Path]:
    """The interpreters of the families that this pipeline does not need, and a run that it starts may."""
    known = {DEFAULT_FAMILY, *(entry.family for entry in catalog.components())}
    chosen = {family: config.python.get(family, Path(sys.executable)) for family in known}
    return {family: Path(shutil.which(path) or path).absolute() for family, path in chosen.items()}


def root_folder(config: LocalConfig) -> Path:
    """The folder for runs and cache, made where it is not there.

    Raises:
        InputError: Where it cannot be written to.
    """
    root = Path(config.root).expanduser().resolve()
    try:
        (root / "runs").mkdir(parents=True, exist_ok=True)
        (root / "cache" / "steps").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "cannot write to the root folder",
            parameter="root",
            where=str(root),
            allowed="a folder that can be written to",
            received=str(error),
        ) from error
    return root


def _defaults(spec: Spec) -> dict[str, Any]:
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    found: dict[str, Any] = {}
    for name, parameter in parameters.items():
        value = parameter.get("defaultValue")
        # Compiled YAML holds every number as a double.
        found[name] = int(value) if parameter["parameterType"] == "NUMBER_INTEGER" and value is not None else value
    return found


def _environment(root: Path, config: LocalConfig, interpreters: Mapping[str, Path]) -> dict[str, str]:
    environment = dict(os.environ)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if sys.platform == "linux":
        # As in the images: of the batches that have gone through, it keeps a quarter less memory than Arrow's default.
        environment.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    if not (environment.get("MLFLOW_TRACKING_URI") or config.environment.get("MLFLOW_TRACKING_URI")):
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{root / 'mlflow.db'}"
        # Without a server, MLflow puts its files into ./mlruns of wherever the command was started.
        environment.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", str(root / "mlflow-artifacts"))
    environment.update(config.environment)
    for family, interpreter in {**_every_interpreter(config), **interpreters}.items():
        environment[interpreter_variable(family)] = str(interpreter)
    # A step that starts a run of its own does so with the same settings; and it is gone before the step has to be.
    environment[ROOT_VARIABLE] = str(root)
    environment["PIPEPARTS_CACHE"] = str(config.cache).lower()
    if config.parallel_steps is not None:
        environment["PIPEPARTS_PARALLEL_STEPS"] = str(config.parallel_steps)
    environment["PIPEPARTS_STOP_SECONDS"] = str(config.stop_seconds / 2)
    # A source tree is importable in the steps too; an installed package is anyway.
    package = catalog.PACKAGE.parent
    if package.name not in ("site-packages", "dist-packages"):
        paths = environment.get("PYTHONPATH", "").split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join([*(path for path in paths if path), str(package)])
    return environment


def _work(record: RunRecord, config: LocalConfig, environment: Mapping[str, str], progress: Progress) -> None:
    """Starts the worker, follows its events to its end, and brings the record to its own."""
    folder = record.folder
    with (folder / "worker.log").open("ab") as log, _stop_signals() as stopped:
        worker = subprocess.Popen(
            [sys.executable, "-m", "pipeparts.targets.local_worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        events = _Events(folder / "events.jsonl")
        try:
            while worker.poll() is None and not stopped():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(_POLL_SECONDS)
                for event in events.read():
                    record.apply(event)
                if record.changed:
                    record.write()
                progress.update(record)
        finally:
            interrupted = worker.poll() is None
            if interrupted:
                progress.stopping(record, config.stop_seconds)
            stop_group(worker, config.stop_seconds if interrupted else 1.0, stopped)
            if worker.stdin is not None:
                worker.stdin.close()
        for event in events.read():
            record.apply(event)
    shutil.rmtree(folder / "workspace", ignore_errors=True)
    _conclude(record, worker.returncode, interrupted=interrupted)


def _conclude(record: RunRecord, code: int, *, interrupted: bool) -> None:
    result: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        result = json.loads((record.folder / "result.json").read_text(encoding="utf-8"))
    if interrupted:
        record.finish("interrupted", error="stopped before its end")
        return
    if result.get("state") == "succeeded":
        record.finish("succeeded", outputs=result.get("outputs"))
        return
    failed = next(iter(failures(record.data)), None)
    if failed is not None:
        what = "step" if failed["kind"] not in GROUPS else "group"
        record.finish("failed", error=f"{what} {failed['display_name']} failed")
    elif result.get("error"):
        record.finish("failed", error=str(result["error"]))
    else:
        how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
        record.finish("failed", error=f"the process that runs the pipeline ended {how}; worker.log has its last words")


class _Events:
    """Reads the lines that were added to a file since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return
        whole = content.rpartition(b"\n")[0]
        if whole:
            self._offset += len(whole) + 1
            for line in whole.splitlines():
                yield json.loads(line)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], int]]:
    """Counts the signals that ask to stop, instead of dying of them; a thread other than the main one cannot."""
    count = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1

    previous: dict[int, Any] = {}
    with contextlib.suppress(ValueError):
        for number in _SIGNALS:
            previous[number] = signal.signal(number, note)
    try:
        yield lambda: count
    finally:
        for known, handler in previous.items():
            signal.signal(known, handler)


def stop_group(worker: subprocess.Popen[bytes], grace_seconds: float, stopped: Callable[[], int] = lambda: 0) -> None:
    """Ends a worker and everything it started, gently first.

    Args:
        worker: The leader of its process group.
        grace_seconds: How long the processes have after SIGTERM.
        stopped: How many times a person asked to stop; a second time ends the patience.
    """
    asked = stopped()
    with contextlib.suppress(ProcessLookupError):
        if _alive(worker):
            os.killpg(worker.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while _alive(worker) and time.monotonic() < deadline and stopped() <= max(asked, 1):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        if _alive(worker):
            os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _alive(worker: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the worker's group still runs; one that is dead and not yet reaped does not count."""
    if worker.poll() is None:
        return True
    try:
        os.killpg(worker.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return True
    for stat in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == worker.pid and state not in ("Z", "X"):
                return True
    return False


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds the run's lock, which says who still watches it; it is released however this process ends."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_watched(folder: Path) -> bool:
    """Whether the process that started a run still lives."""
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def watcher(folder: Path) -> int | None:
    """The process that watches a run; None where nobody does."""
    if not is_watched(folder):
        return None
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "lock").read_text())
    return None


def write_report(folder: Path) -> Path | None:
    """Writes a run's HTML report; None where this installation has no report module."""
    try:
        from pipeparts.report import write_report  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    path: Path = write_report(folder)
    return path


def state_of(record: Mapping[str, Any], folder: Path) -> RunState:
    """A run's state; one whose process was killed is interrupted, whatever its record says."""
    state: RunState = record["state"]
    return "interrupted" if state == "running" and not is_watched(folder) else state
