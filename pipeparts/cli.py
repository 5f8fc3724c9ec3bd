"""The command `pipeparts`."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import logging
import os
import re
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeparts import __version__
from pipeparts.errors import InputError, PipepartsError

# Anything heavier is imported where it is used: the command answers `--help` at once.
if TYPE_CHECKING:
    from rich.console import Console

    from pipeparts import catalog
    from pipeparts.config import LocalConfig
    from pipeparts.targets.base import RunResult

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

#: Set by a command that was asked for JSON: its errors are JSON on standard output, too.
_JSON = "pipeparts.json"


class Which(enum.StrEnum):
    """What `list` shows."""

    COMPONENTS = "components"
    PIPELINES = "pipelines"


class Remote(enum.StrEnum):
    """The platforms that `submit` knows."""

    KUBEFLOW = "kubeflow"
    VERTEX = "vertex"


class _Group(TyperGroup):
    """Shows the library's own errors as their text, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PipepartsError as error:
            if ctx.params.get("debug"):
                raise
            if ctx.meta.get(_JSON):
                _print_json({"error": {"type": type(error).__name__, "headline": error.headline, "facts": error.facts}})
            _show_error(str(error))
            raise typer.Exit(WRONG_USAGE if isinstance(error, InputError) else FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="pipeparts",
    cls=_Group,
    help="Reusable Kubeflow Pipelines components and pipelines: list, show, compile and run them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Once = Annotated[
    str | None,
    typer.Option("--once", help="Run once for this key: a run of it that succeeded is given back.", metavar="KEY"),
]
Attached = Annotated[bool, typer.Option("--attached", hidden=True, help="Stop when standard input ends.")]


def main() -> None:
    """The entry point."""
    app()


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pipeparts {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reusable Kubeflow Pipelines components and pipelines: list, show, compile and run them."""


@app.command("list")
def list_(
    which: Annotated[Which | None, typer.Argument(help="Only these.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the components by stage, and the pipelines."""
    from pipeparts import catalog

    entries = [
        *([] if which is Which.PIPELINES else catalog.components()),
        *([] if which is Which.COMPONENTS else catalog.pipelines()),
    ]
    if as_json:
        _print_json([{"name": e.name, "kind": e.kind, "stage": e.stage, "summary": e.summary} for e in entries])
        return
    from rich.table import Table
    from rich.text import Text

    console = _console()
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    shown = None
    for entry in entries:
        if entry.stage != shown:
            if shown is not None:
                table.add_row("", "")
            table.add_row(Text(entry.stage.replace("_", " "), style="bold"), "")
            shown = entry.stage
        table.add_row(Text(f"  {entry.name}", style="cyan"), Text(entry.summary))
    console.print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A component's or pipeline's name.")], as_json: Json = False) -> None:
    """Show a component's or pipeline's inputs, outputs and documentation."""
    from pipeparts import catalog

    entry = catalog.find(name)
    if as_json:
        _print_json(
            {
                "name": entry.name,
                "kind": entry.kind,
                "stage": entry.stage,
                "family": entry.family,
                "summary": entry.summary,
                "description": entry.description,
                "inputs": [_port(port) for port in entry.inputs],
                "outputs": [_port(port, is_input=False) for port in entry.outputs],
                "raises": [{"type": kind, "when": when} for kind, when in entry.raises],
                "example": _example(entry),
                "source": str(entry.source),
            }
        )
        return
    from rich.padding import Padding
    from rich.text import Text

    console = _console()
    family = f", image family {entry.family}" if entry.family else ""
    kind = f"{entry.kind}, stage {entry.stage.replace('_', ' ')}" if entry.kind == "component" else entry.kind
    console.print(Text.assemble((entry.name, "bold cyan"), (f"  {kind}{family}", "dim")))
    console.print(Text(entry.summary))
    if entry.description:
        console.print()
        console.print(Text(_flowing(entry.description)))
    _print_ports(console, "Inputs" if entry.kind == "component" else "Parameters", entry.inputs, defaults=True)
    _print_ports(console, "Outputs", entry.outputs, defaults=False)
    if entry.raises:
        console.print(Text("\nErrors", style="bold"))
        for kind, when in entry.raises:
            console.print(Padding(Text.assemble((f"{kind}: ", "cyan"), when), (0, 0, 0, 2)))
    console.print(Text("\nExample", style="bold"))
    console.print(Padding(Text(_example(entry)), (0, 0, 0, 2)), soft_wrap=True)


@app.command()
def compile(
    name: Annotated[str, typer.Argument(help="A component's or pipeline's name, or `all`.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file, or for `all` the folder (default: print).")
    ] = None,
    registry: Annotated[
        str, typer.Option(help="Write images of this registry, tagged with the release and a hash of the code.")
    ] = "",
    images: Annotated[
        Path | None, typer.Option(help="A YAML file with an image for each family: `data: registry/name@sha256:...`.")
    ] = None,
) -> None:
    """Compile to KFP v2 YAML; without images, they keep their families' names."""
    from pipeparts import catalog, compiling
    from pipeparts.config import read_mapping
    from pipeparts.runtime.files import write_text

    if name == "all" and output is None:
        raise InputError(
            "`all` needs a folder to write to", parameter="--output", allowed="a folder", received="nothing"
        )
    names = (
        [e.name for e in [*catalog.components(), *catalog.pipelines()]] if name == "all" else [catalog.find(name).name]
    )
    given = (
        {key: str(value) for key, value in read_mapping(images, what="the file of images").items()} if images else {}
    )
    for each in names:
        spec = compiling.compile_spec(each)
        if registry or given:
            known = {**(compiling.default_images(spec, registry=registry) if registry else {}), **given}
            spec = compiling.resolve_images(spec, known)
        text = compiling.to_yaml(spec)
        if output is None:
            typer.echo(text, nl=False)
            continue
        path = output / f"{each}.yaml" if name == "all" else output
        write_text(path, text)
        typer.echo(f"wrote {path}", err=True)


@app.command()
def run(
    ctx: typer.Context,
    pipeline: PipelineName = None,
    params: ParameterFile = None,
    param: Parameters = None,
    at: At = None,
    root: Root = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run every step, also those that did not change.")
    ] = False,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
    once: Once = None,
    as_json: Json = False,
    attached: Attached = False,
    target_config: Settings = None,
) -> None:
    """Run a pipeline on this machine, and show how it goes."""
    from pipeparts import submission
    from pipeparts.targets import local
    from pipeparts.targets.local_once import run_once

    _begin(ctx, as_json=as_json, attached=attached)
    config = _local_config(target_config, root, cache=False if no_cache else None, open_report=open_report or None)
    named, arguments = _parameters(params, at)
    spec = _read_pipeline(_chosen(pipeline, named))
    arguments = submission.override(spec, arguments, param or [])
    progress = _progress(stderr=as_json)
    if once is None:
        result = local.run(spec, arguments, config, progress=progress)
    else:
        result = run_once(spec, arguments, config, key=once, progress=progress)
    if as_json:
        _print_json(_local_answer(result, once))
    else:
        _print_result(result)
    if config.open_report and result.report and not as_json:
        typer.launch(result.report.resolve().as_uri())
    if result.state != "succeeded":
        raise typer.Exit(INTERRUPTED if result.state == "interrupted" else FAILED)


@app.command()
def submit(
    ctx: typer.Context,
    target: Annotated[Remote, typer.Option(help="The platform.")],
    pipeline: PipelineName = None,
    params: ParameterFile = None,
    param: Parameters = None,
    at: At = None,
    once: Once = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    as_json: Json = False,
    attached: Attached = False,
    target_config: Annotated[
        Path | None,
        typer.Option("--target-config", help="Settings (default configs/TARGET.yaml).", metavar="FILE"),
    ] = None,
) -> None:
    """Start a pipeline on Kubeflow or Vertex AI."""
    from pipeparts import config, submission

    _begin(ctx, as_json=as_json, attached=attached)
    named, arguments = _parameters(params, at)
    spec = _read_pipeline(_chosen(pipeline, named))
    arguments = submission.override(spec, arguments, param or [])
    key = once or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with contextlib.redirect_stdout(sys.stderr):  # KFP's and Google's clients print their news
        if target is Remote.KUBEFLOW:
            from pipeparts.targets import kubeflow

            run = kubeflow.submit(spec, arguments, config.load_kubeflow(file=target_config), key=key, wait=wait)
        else:
            from pipeparts.targets import vertex

            run = vertex.submit(spec, arguments, config.load_vertex(file=target_config), key=key, wait=wait)
    if as_json:
        _print_json(dataclasses.asdict(run))
    else:
        typer.echo(f"{'started' if run.new else 'found'} {run.pipeline} as {run.run_id} on {run.platform}: {run.state}")
        if run.link:
            typer.echo(run.link)
        if run.error:
            _show_error(f"the run failed\n{run.error}")
    if run.state in ("failed", "interrupted"):
        raise typer.Exit(INTERRUPTED if run.state == "interrupted" else FAILED)


@app.command()
def backfill(
    files: Annotated[
        list[Path], typer.Argument(help="Files of parameters, each with a `schedule`.", metavar="FILE...")
    ],
    start: Annotated[str, typer.Option(help="The first day that a window may begin at.", metavar="DAY")],
    end: Annotated[str, typer.Option(help="The day before which it begins.", metavar="DAY")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the runs.")] = False,
    root: Root = None,
    target_config: Settings = None,
) -> None:
    """Run what schedules would have run in a past period, in the order of time, each run once."""
    from pipeparts import backfill as backfills
    from pipeparts.targets.local_once import run_once

    config = _local_config(target_config, root)
    planned = backfills.plan(files, start=start, end=end)
    for number, run in enumerate(planned, 1):
        typer.echo(f"{number} of {len(planned)}: {run.pipeline}, {run.window}")
        if dry_run:
            continue
        result = run_once(run.spec, run.arguments, config, key=run.key, progress=_progress())
        _print_result(result)
        if result.state != "succeeded":
            raise typer.Exit(INTERRUPTED if result.state == "interrupted" else FAILED)


@app.command()
def runs(
    root: Root = None,
    limit: Annotated[int, typer.Option(help="How many of the newest; 0 for all.", min=0)] = 20,
    as_json: Json = False,
    target_config: Settings = None,
) -> None:
    """List the runs on this machine, the newest first."""
    from pipeparts.targets.local_runs import list_runs

    folder = _local_config(target_config, root).root
    found = list_runs(folder.resolve())
    found = found[:limit] if limit else found
    if as_json:
        names = ("run_id", "pipeline", "state", "started", "finished", "seconds", "error", "arguments", "folder")
        _print_json([{name: record[name] for name in names} for record in found])
        return
    if not found:
        typer.echo(f"no runs in {folder}")
        return
    from rich.table import Table
    from rich.text import Text

    from pipeparts.targets.progress import duration

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "state", "time", "steps"):  # a run is named after its pipeline
        table.add_column(title, no_wrap=title != "steps", overflow="fold")
    styles = {"succeeded": "green", "failed": "red", "interrupted": "yellow", "running": "bold"}
    for record in found:
        seconds = duration(record["seconds"]) if record["seconds"] is not None else ""
        state = Text(record["state"], style=styles[record["state"]])
        table.add_row(Text(record["run_id"]), state, seconds, Text(_counts(record)))
    _console().print(table)


@app.command()
def report(
    name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="The run, or a part of its name (default: the newest).")
    ] = None,
    root: Root = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    target_config: Settings = None,
) -> None:
    """Write a run's report anew, and print its path."""
    from pipeparts.targets import local
    from pipeparts.targets.local_runs import find_run
    from pipeparts.targets.progress import shown_path

    folder = find_run(_local_config(target_config, root).root.resolve(), name)
    path = local.write_report(folder)
    if path is None:
        raise InputError("this installation has no report module", where="pipeparts.report")
    typer.echo(shown_path(path))
    if open_report:
        typer.launch(path.resolve().as_uri())


@app.command()
def clean(
    keep: Annotated[int, typer.Option(help="How many of the newest runs stay.", min=0)] = 20,
    root: Root = None,
    target_config: Settings = None,
) -> None:
    """Remove old runs and their artifacts; what a run that stays took from the cache stays too."""
    from pipeparts.targets import local_runs

    removed, freed = local_runs.clean(_local_config(target_config, root).root.resolve(), keep)
    typer.echo(f"removed {len(removed)} runs, {freed / 1e6:,.1f} MB")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set: flights, diamonds.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to write; replaced whole.", metavar="FOLDER")],
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing where the folder has files already.")
    ] = False,
) -> None:
    """Write a real data set to try the pipelines on."""
    from pipeparts import datasets

    if name not in datasets.DATASETS:
        datasets.write_dataset(name, to)  # which says what there is
    if if_missing and to.is_dir() and any(to.iterdir()):
        typer.echo(f"{to} is there already")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    datasets.write_dataset(name, to)


def _parameters(file: Path | None, at: str | None) -> tuple[str | None, dict[str, Any]]:
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


def _begin(ctx: typer.Context, *, as_json: bool, attached: bool) -> None:
    """What `run` and `submit` do first for the programs that call them."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeparts").setLevel(logging.INFO)
    ctx.meta[_JSON] = as_json
    if attached:
        threading.Thread(target=_end_with_input, name="watch-input", daemon=True).start()


def _end_with_input() -> None:
    """Asks this process to stop when whoever started it is gone: its end of the pipe closes then, however it went."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _chosen(pipeline: str | None, named: str | None) -> str:
    if pipeline or named:
        return pipeline or named or ""
    raise InputError(
        "no pipeline is named",
        parameter="PIPELINE",
        allowed="a pipeline's name, a compiled YAML file, or --params FILE with `pipeline: NAME`",
        received="nothing",
    )


def _local_answer(result: RunResult, key: str | None) -> dict[str, Any]:
    from pipeparts.targets.local_record import failures
    from pipeparts.targets.progress import failure_text

    errors = [] if result.state == "succeeded" else [str(result.record["error"])]
    if result.state == "failed":
        errors = [failure_text(failure, result.folder) for failure in failures(result.record)] or errors
    return {
        "platform": "local",
        "run_id": result.run_id,
        "pipeline": result.record["pipeline"],
        "key": key or "",
        "state": result.state,
        "link": result.report.resolve().as_uri() if result.report else "",
        "error": "\n".join(errors),
        "new": result.new,
        "folder": str(result.folder),
        "outputs": result.outputs,
    }


def _read_pipeline(name: str) -> dict[str, Any]:
    from pipeparts import catalog, compiling

    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.is_file():
        return compiling.read_yaml(path)
    return compiling.compile_spec(catalog.find(name).name)


def _local_config(file: Path | None, root: Path | None, **overrides: Any) -> LocalConfig:
    from pipeparts.config import load_local

    return load_local(file=file, overrides={"root": root, **overrides})


def _progress(*, stderr: bool = False) -> Any:
    from pipeparts.targets.progress import LiveProgress, PlainProgress

    console = _console(stderr=stderr)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console)
    return PlainProgress(sys.stderr if stderr else sys.stdout)


def _print_result(result: RunResult) -> None:
    from rich.text import Text

    from pipeparts.report import highlights
    from pipeparts.targets.local_record import failures
    from pipeparts.targets.progress import failure_text, shown_path, summary

    console = _console()
    if not result.new:
        console.print(Text(f"run {result.run_id} has done this already: it is not run again"), soft_wrap=True)
        if not result.folder.is_dir():
            return
    mark, style = {"succeeded": ("✓", "bold green"), "failed": ("✗", "bold red")}.get(
        result.state, ("!", "bold yellow")
    )
    console.print(Text(f"{mark} {summary(result.record)}", style=style), soft_wrap=True)
    failed = failures(result.record)
    for failure in failed:
        _show_error(failure_text(failure, result.folder))
    if result.state == "failed" and (result.record["undecided"] or not failed):
        _show_error(str(result.record["error"]) + f"\n  log: {shown_path(result.folder / 'kfp.log')}")
    if result.state != "succeeded":
        when = "when that is mended, run" if result.state == "failed" else "run"
        console.print(f"{when} the same command again: it goes on from the steps that finished", soft_wrap=True)
    for line in [*highlights(result.folder, result.record), *(f"{name} = {v}" for name, v in result.outputs.items())]:
        console.print(Text(line), soft_wrap=True)
    what, path = ("report", result.report) if result.report else ("run", result.folder)
    console.print(Text(f"{what}: {shown_path(path)}"), soft_wrap=True)


def _counts(record: dict[str, Any]) -> str:
    from pipeparts.targets.progress import WORDS, count_steps

    words = {**WORDS, "skipped": "skipped"}
    return ", ".join(f"{number} {words[state]}" for state, number in count_steps(record).items())


def _port(port: catalog.Port, *, is_input: bool = True) -> dict[str, Any]:
    described = {"name": port.name, "type": port.type, "artifact": port.is_artifact, "doc": " ".join(port.doc.split())}
    return {**described, "required": port.required, "default": port.default} if is_input else described


def _flowing(text: str) -> str:
    """A docstring's text without the line breaks inside its paragraphs."""
    return re.sub(r"(?<!\n)\n(?![\n\s*-])", " ", text)


def _print_ports(console: Console, title: str, ports: tuple[catalog.Port, ...], *, defaults: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    if not ports:
        return
    console.print(Text(f"\n{title}", style="bold"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for width in ("name", "type", "default", "doc"):
        if width != "default" or defaults:
            table.add_column(
                overflow="fold", no_wrap=width in ("name", "type"), max_width=28 if width == "default" else None
            )
    for port in ports:
        cells = [Text(f"  {port.name}", style="cyan"), Text(port.type)]
        if defaults:
            cells.append(Text("required", style="bold") if port.required else Text(f"= {port.default!r}", style="dim"))
        table.add_row(*cells, Text(" ".join(port.doc.split())))
    console.print(table)


def _example(entry: catalog.Entry) -> str:
    """A command (or for a component that takes artifacts, the code) to start with."""
    needed = [port for port in entry.inputs if port.required]
    if not any(port.is_artifact for port in entry.inputs if port.required):
        files = sorted(Path("configs", entry.name).glob("*.yaml"))
        if files:
            return f"pipeparts run {entry.name} --params {files[0]}"
        settings = "".join(f" --param {port.name}=..." for port in needed)
        return f"pipeparts run {entry.name}{settings}"
    arguments = ", ".join(f"{port.name}=..." for port in needed)
    return f"from pipeparts.components import {entry.name}\n{entry.name}({arguments})"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def _show_error(text: str) -> None:
    from rich.text import Text

    first, _, rest = text.partition("\n")
    console = _console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), (first, "bold")), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)


if __name__ == "__main__":
    main()
