"""The work of `trigger_pipeline`.

It asks the command line, `pipeparts run --once` and `pipeparts submit --once`, in a process of its own: what submits
pipelines needs kfp, and lives above the components.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

import pipeparts.runtime
from pipeparts.runtime import sources
from pipeparts.runtime.errors import (
    ContractError,
    DataError,
    InputError,
    PipepartsError,
    ServiceError,
    suggest,
)
from pipeparts.runtime.files import write_json
from pipeparts.runtime.monitoring import Decision, read_report
from pipeparts.runtime.state import ROOT_VARIABLE

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.triggered/1"
PLATFORMS = ("local", "kubeflow", "vertex")

_PIPELINES = Path(pipeparts.runtime.__file__).parents[1] / "pipelines"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LARGEST = 20_000_000
#: What says which platform a step runs on, as KFP's compiler for Argo and Vertex's custom jobs set it.
_KUBEFLOW_VARIABLES = ("KFP_POD_NAME", "KFP_RUN_ID")
_VERTEX_VARIABLES = ("CLOUD_ML_PROJECT_ID", "CLOUD_ML_JOB_ID", "AIP_MODEL_DIR")
_STOP_VARIABLE = "PIPEPARTS_STOP_SECONDS"
_ERRORS: dict[str, type[PipepartsError]] = {
    kind.__name__: kind for kind in (InputError, DataError, ContractError, ServiceError)
}


@dataclasses.dataclass(frozen=True)
class _Call:
    """A command, and the environment that it runs in."""

    arguments: list[str]
    environment: dict[str, str]


def trigger_pipeline(
    *,
    triggered_path: str | os.PathLike[str],
    pipeline: str,
    parameters: Mapping[str, Any] | None = None,
    key: str = "",
    platform: str = "auto",
    settings: Mapping[str, Any] | None = None,
    wait: bool = True,
    schedule: Mapping[str, Any] | None = None,
    decision_path: str | os.PathLike[str] | None = None,
) -> dict[str, str]:
    """Starts a pipeline once for a key.

    Args:
        triggered_path: Where to write which run it is (JSON).
        pipeline: A pipeline of this library by its name, or the address of a compiled YAML.
        parameters: Its parameters.
        key: What it runs once for; empty: the decision's id, or the window of the schedule.
        platform: "local", "kubeflow", "vertex", or "auto".
        settings: The target's settings.
        wait: Whether to wait for its end; locally it is waited for anyway.
        schedule: `cron` and `time_zone`: the parameters may name the window, as `{start:%Y-%m}`.
        decision_path: The decision (JSON).

    Returns:
        What was written: format, platform, run_id, pipeline, key, state, link.

    Raises:
        InputError: Where the pipeline, a parameter, a setting or the key is wrong, or the platform cannot be told.
        DataError: Where the decision is not to train again.
        ServiceError: Where the platform does not answer, or the run that was waited for failed.
        ContractError: Where the decision's file is none.
    """
    key = key.strip() or ("" if schedule else _key_of(decision_path))
    if decision_path is not None:
        _require_yes(decision_path)
    target = _target(platform)
    with tempfile.TemporaryDirectory(prefix="pipeparts-trigger-") as folder, _file_of(pipeline, Path(folder)) as file:
        content = {"parameters": dict(parameters or {}), **({"schedule": dict(schedule)} if schedule else {})}
        call = _call(target, file, content, settings or {}, key=key, wait=wait, folder=Path(folder))
        answer = _ask(call)
    if "error" in answer and isinstance(answer["error"], dict):
        raise _as_error(answer["error"])
    if answer["state"] in ("failed", "interrupted"):
        raise _run_failed(answer)
    known = ("platform", "run_id", "pipeline", "key", "state", "link")
    started = {"format": FORMAT, **{name: str(answer[name]) for name in known}}
    what = "started" if answer["new"] else "had been started before"
    logger.info("%s run %s of %s: %s", what, started["run_id"], started["pipeline"], started["state"])
    write_json(triggered_path, started)
    return started


def _key_of(decision_path: str | os.PathLike[str] | None) -> str:
    if decision_path is None:
        raise InputError(
            "nothing says what the run happens once for",
            parameter="key",
            allowed="a key, or a decision, whose id is the key",
            received="neither",
        )
    return read_report(Decision, decision_path).id


def _require_yes(decision_path: str | os.PathLike[str]) -> None:
    decision = read_report(Decision, decision_path)
    if not decision.retrain:
        raise DataError(
            "the decision is not to train again",
            where=f"decision {decision.id} of {decision.as_of}",
            allowed="a decision with retrain: true",
            received="; ".join(decision.reasons) or "no reasons",
            hint="let the pipeline trigger only where the output of decide_retraining is true (dsl.If)",
        )


# --- Where --------------------------------------------------------------------------------------------------------


def _target(platform: str) -> str:
    if platform in PLATFORMS:
        if platform == "local" and not os.environ.get(ROOT_VARIABLE):
            raise InputError(
                "this step does not run on a laptop",
                parameter="platform",
                allowed=f"'local' only in a step of `pipeparts run`, which sets {ROOT_VARIABLE}",
                received=f"'local', and {ROOT_VARIABLE} is not set",
            )
        return platform
    if platform != "auto":
        raise InputError(
            "no platform of this name",
            parameter="platform",
            allowed=("auto", *PLATFORMS),
            received=platform,
            hint=suggest(platform, ("auto", *PLATFORMS)),
        )
    for target, variables in (
        ("local", (ROOT_VARIABLE,)),
        ("kubeflow", _KUBEFLOW_VARIABLES),
        ("vertex", _VERTEX_VARIABLES),
    ):
        if any(os.environ.get(name) for name in variables):
            return target
    looked = (ROOT_VARIABLE, *_KUBEFLOW_VARIABLES, *_VERTEX_VARIABLES)
    raise InputError(
        "cannot tell which platform this step runs on",
        parameter="platform",
        allowed=PLATFORMS,
        received=f"auto; looked in the environment for: {', '.join(looked)}; none is set",
        hint="name the platform",
    )


def _known_here(target: str) -> dict[str, str]:
    """The settings that the platform's own environment answers."""
    found = {}
    if target == "vertex":
        found = {
            "project": os.environ.get("CLOUD_ML_PROJECT_ID", ""),
            "location": os.environ.get("CLOUD_ML_REGION", ""),
        }
    return {name: value for name, value in found.items() if value}


# --- What ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _file_of(pipeline: str, folder: Path) -> Iterator[Path]:
    """The compiled YAML as a file of this machine."""
    pipeline = pipeline.strip()
    if _NAME.fullmatch(pipeline) and not Path(pipeline).is_file():
        yield _of_library(pipeline)
        return
    found = sources.expand(pipeline, parameter="pipeline")
    if len(found) != 1:
        raise InputError(
            "not one pipeline",
            parameter="pipeline",
            allowed="the address of one compiled YAML",
            received=f"{sources.public_name(pipeline)}: {len(found)} files",
        )
    with sources.service_errors(pipeline, parameter="pipeline"), found[0].fs.open(found[0].path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InputError(
            "too large for a compiled pipeline",
            parameter="pipeline",
            where=found[0].name,
            allowed=f"{_LARGEST:,} bytes at most",
            received=f"{found[0].size or 'more'} bytes",
        )
    path = folder / "pipeline.yaml"
    path.write_bytes(content)
    yield path


def _of_library(name: str) -> Path:
    path = _PIPELINES / name.replace("-", "_") / "compiled.yaml"
    if path.is_file():
        return path
    names = sorted(file.parent.name for file in _PIPELINES.glob("*/compiled.yaml"))
    raise InputError(
        "no pipeline of this name",
        parameter="pipeline",
        allowed=[*names, "or the address of a compiled YAML"],
        received=name,
        hint=suggest(name.replace("-", "_"), names),
    )


# --- The command --------------------------------------------------------------------------------------------------


def _call(
    target: str,
    file: Path,
    content: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    key: str,
    wait: bool,
    folder: Path,
) -> _Call:
    chosen = {**_known_here(target), **settings}
    if target == "local":
        # Local steps run in no image, and on whatever is here: the same settings serve every platform.
        unused = ("registry", "images", "accelerators")
        chosen = {name: value for name, value in chosen.items() if name not in unused}
        if not wait:
            logger.info("on this machine the run is waited for: nobody would watch over it after this step's end")
    # What is secret stays out of the list of processes, where everybody can read a command's arguments.
    params, config = folder / "parameters.yaml", folder / "settings.yaml"
    params.write_text(yaml.safe_dump(dict(content), allow_unicode=True), encoding="utf-8")
    config.write_text(yaml.safe_dump(chosen, allow_unicode=True), encoding="utf-8")
    command = ["run"] if target == "local" else ["submit", "--target", target, *(["--wait"] if wait else [])]
    arguments = [*command, str(file), "--params", str(params), "--target-config", str(config)]
    if target == "local":
        arguments += ["--root", os.environ[ROOT_VARIABLE]]
    arguments += ["--once", key] if key else ["--once-per-window"]
    return _Call([*arguments, "--json", "--attached"], _environment(chosen))


def _environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """This step's environment, for a command that is no step."""
    # KFP's executor sets the first, which takes the decorators out of kfp.dsl. What the pipeline says
    # holds against the environment of the image.
    taken = {"_KFP_RUNTIME"}
    for name, value in settings.items():
        names = [f"{name}_{part}" for part in value] if isinstance(value, Mapping) else [name]
        taken |= {f"PIPEPARTS_{each.upper()}" for each in names}
    return {name: value for name, value in os.environ.items() if name not in taken}


def _ask(call: _Call) -> dict[str, Any]:
    """The command's answer; the command is gone when this is over, however it goes.

    Its standard input is a pipe that this process holds open: the command stops when that ends, even by a SIGKILL.
    It has a session of its own, so that it is asked to stop once, and in one way.
    """
    command = [sys.executable, "-m", "pipeparts.cli", *call.arguments]
    logger.info("pipeparts %s", " ".join(call.arguments))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=call.environment,
        start_new_session=True,
        encoding="utf-8",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        output = process.stdout.read()
        process.wait()
    finally:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(float(os.environ.get(_STOP_VARIABLE) or 10.0) + 2.0)
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    with contextlib.suppress(ValueError):
        answer = json.loads(output)
        if isinstance(answer, dict):
            return answer
    how = f"by signal {-process.returncode}" if process.returncode < 0 else f"with exit code {process.returncode}"
    raise ServiceError(
        "the command that starts the pipeline ended without an answer",
        where=f"pipeparts {call.arguments[0]}",
        allowed="JSON on its standard output",
        received=f"it ended {how}; the log above has its last words",
    )


def _as_error(error: Mapping[str, Any]) -> PipepartsError:
    """The error of the command, as this step's."""
    kind = _ERRORS.get(str(error["type"]), ServiceError)
    return kind(str(error["headline"]), **{str(name): str(text) for name, text in error["facts"].items()})


def _run_failed(answer: Mapping[str, Any]) -> ServiceError:
    what = "failed" if answer["state"] == "failed" else "was stopped before its end"
    lines = str(answer.get("error") or "").splitlines()
    headline = "\n  ".join([f"the triggered run of {answer['pipeline']} {what}", *lines])
    return ServiceError(
        headline,
        where=str(answer.get("folder") or answer["link"] or answer["run_id"]),
        hint="mend it and run this pipeline again: the same key starts another run",
    )
