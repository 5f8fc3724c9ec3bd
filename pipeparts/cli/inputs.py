"""The options that several commands share, and what they are read into."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeparts.cli.app import JSON
from pipeparts.errors import InputError

if TYPE_CHECKING:
    from pipeparts.config import LocalConfig
    from pipeparts.targets.base import Target


class Platform(enum.StrEnum):
    """The platforms."""

    LOCAL = "local"
    KUBEFLOW = "kubeflow"
    VERTEX = "vertex"


Where = Annotated[Platform, typer.Option("--target", help="The platform.", show_default=True)]
AnySettings = Annotated[
    Path | None, typer.Option("--target-config", help="Settings (default configs/TARGET.yaml).", metavar="FILE")
]
PipelineName = Annotated[
    str | None, typer.Argument(help="A pipeline's name, or a compiled YAML file.", show_default=False)
]
ParameterFile = Annotated[
    Path | None,
    typer.Option("--params", "--config", help="A file with `pipeline: NAME` and `parameters: {...}`.", metavar="FILE"),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="One parameter; the value is read as YAML. Dots go inside a dictionary."),
]
At = Annotated[
    str | None,
    typer.Option("--at", help="The time of a run of the file's schedule (default: the last one).", metavar="TIME"),
]
Root = Annotated[Path | None, typer.Option("--root", help="Folder for runs and cache (default .pipeparts).")]
Settings = Annotated[
    Path | None,
    typer.Option("--target-config", help="Settings of the target (default configs/local.yaml).", metavar="FILE"),
]
Registry = Annotated[
    str, typer.Option(help="Write images of this registry, tagged with the release and a hash of the code.")
]
Images = Annotated[
    Path | None, typer.Option(help="A YAML file with an image for each family: `data: registry/name@sha256:...`.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Once = Annotated[
    str | None,
    typer.Option("--once", help="Run once for this key: a run of it that succeeded is given back.", metavar="KEY"),
]
OncePerWindow = Annotated[
    bool, typer.Option("--once-per-window", help="Run once for the window of the file's schedule.")
]
Attached = Annotated[bool, typer.Option("--attached", hidden=True, help="Stop when standard input ends.")]


def read_parameters(file: Path | None, at: str | None) -> tuple[str | None, dict[str, Any]]:
    """The pipeline and the parameters that a file names; with a schedule, those of one of its runs."""
    import datetime as dt

    from pipeparts import schedules, submission

    if file is None:
        return None, {}
    pipeline, parameters = submission.read_parameter_file(file)
    schedule = schedules.read_schedule(file)
    if schedule is None:
        if at is not None:
            raise InputError(
                "a file of parameters without a schedule has no runs to choose from",
                parameter="--at",
                where=str(file),
                allowed="a file with `schedule: {cron: ...}`",
                received=at,
            )
        return pipeline, parameters
    moment = dt.datetime.now(dt.UTC) if at is None else schedules.parse_day(at, schedule, parameter="--at")
    return pipeline, schedule.last_window(moment).fill(parameters)


def begin(ctx: typer.Context, *, as_json: bool, attached: bool) -> None:
    """What `run` and `submit` do first for the programs that call them."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeparts").setLevel(logging.INFO)
    ctx.meta[JSON] = as_json
    if attached:
        threading.Thread(target=_end_with_input, name="watch-input", daemon=True).start()


def _end_with_input() -> None:
    """Asks this process to stop when whoever started it is gone: its end of the pipe closes then, however it went."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def chosen(pipeline: str | None, named: str | None) -> str:
    """The pipeline that the command line names, else the one of the file of parameters."""
    if pipeline or named:
        return pipeline or named or ""
    raise InputError(
        "no pipeline is named",
        parameter="PIPELINE",
        allowed="a pipeline's name, a compiled YAML file, or --params FILE with `pipeline: NAME`",
        received="nothing",
    )


def read_pipeline(name: str) -> dict[str, Any]:
    """Reads a compiled file, or compiles what the catalog has under the name."""
    from pipeparts import catalog, compiling

    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return compiling.read_yaml(path)
    return compiling.compile_spec(catalog.find(name).name)


def read_images(file: Path | None) -> dict[str, str]:
    """The image of each family that a file names."""
    from pipeparts.config import read_mapping

    return {key: str(value) for key, value in read_mapping(file, what="the file of images").items()} if file else {}


def local_config(file: Path | None, root: Path | None, **overrides: Any) -> LocalConfig:
    """The settings of local runs; None on the command line counts as not given."""
    from pipeparts.config import load_local

    return load_local(file=file, overrides={"root": root, **overrides})


def run_key(
    spec: Mapping[str, Any],
    params: Path | None,
    at: str | None,
    arguments: Mapping[str, Any],
    *,
    once: str | None,
    once_per_window: bool,
) -> str | None:
    """What the run happens once for; None where nobody says."""
    if not once_per_window:
        return once
    import datetime as dt

    from pipeparts import schedules
    from pipeparts.backfill import key_of

    schedule = schedules.read_schedule(params) if params is not None else None
    if once or schedule is None:
        raise InputError(
            "there is no window to run once for",
            parameter="--once-per-window",
            allowed="a file of parameters with `schedule`, and no --once",
            received=f"--once {once}" if once else str(params or "no file of parameters"),
        )
    moment = dt.datetime.now(dt.UTC) if at is None else schedules.parse_day(at, schedule, parameter="--at")
    return key_of(str(spec["pipelineInfo"]["name"]), schedule.last_window(moment), arguments)


@contextlib.contextmanager
def talking(target: Platform, file: Path | None) -> Iterator[Target]:
    """The platform; KFP's and Google's clients print their news, which do not belong on standard output."""
    from pipeparts.targets import get_target

    with contextlib.redirect_stdout(sys.stderr):
        yield get_target(target.value, file=file)
