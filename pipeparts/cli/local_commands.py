"""Runs on this machine: `run`, `backfill`, `runs`, `report`, `clean`, and the `data` to try them on."""

from __future__ import annotations

import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeparts.cli.app import FAILED, INTERRUPTED, app
from pipeparts.cli.inputs import (
    AnySettings,
    At,
    Attached,
    Json,
    Once,
    OncePerWindow,
    ParameterFile,
    Parameters,
    PipelineName,
    Platform,
    Root,
    Settings,
    Where,
    begin,
    chosen,
    local_config,
    read_parameters,
    read_pipeline,
    run_key,
    talking,
)
from pipeparts.cli.output import make_console, make_progress, print_json, print_result
from pipeparts.errors import InputError

if TYPE_CHECKING:
    from pipeparts.targets.base import RemoteRun, RunResult


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
    parallel: Annotated[
        int | None,
        typer.Option(
            "--parallel", help="How many steps run at the same time, at most (default: one a core).", metavar="N", min=1
        ),
    ] = None,
    runner: Annotated[
        str | None, typer.Option(help="subprocess (the default), or docker: each step in a container of its image.")
    ] = None,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report in a browser at the end.")] = False,
    once: Once = None,
    once_per_window: OncePerWindow = False,
    as_json: Json = False,
    attached: Attached = False,
    target_config: Settings = None,
) -> None:
    """Run a pipeline on this machine, and show how it goes."""
    from pipeparts import submission
    from pipeparts.targets import local
    from pipeparts.targets.local_once import run_once

    begin(ctx, as_json=as_json, attached=attached)
    config = local_config(
        target_config,
        root,
        cache=False if no_cache else None,
        parallel_steps=parallel,
        open_report=open_report or None,
        runner=runner,
    )
    named, arguments = read_parameters(params, at)
    spec = read_pipeline(chosen(pipeline, named))
    arguments = submission.override(spec, arguments, param or [])
    progress = make_progress(stderr=as_json)
    key = run_key(spec, params, at, arguments, once=once, once_per_window=once_per_window)
    if key is None:
        result = local.run(spec, arguments, config, progress=progress)
    else:
        result = run_once(spec, arguments, config, key=key, progress=progress)
    if as_json:
        print_json(_local_answer(result, key))
    else:
        print_result(result)
    if config.open_report and result.report and not as_json:
        typer.launch(result.report.resolve().as_uri())
    if result.state != "succeeded":
        raise typer.Exit(INTERRUPTED if result.state == "interrupted" else FAILED)


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

    config = local_config(target_config, root)
    planned = backfills.plan(files, start=start, end=end)
    for number, run in enumerate(planned, 1):
        typer.echo(f"{number} of {len(planned)}: {run.pipeline}, {run.window}")
        if dry_run:
            continue
        result = run_once(run.spec, run.arguments, config, key=run.key, progress=make_progress())
        print_result(result)
        if result.state != "succeeded":
            raise typer.Exit(INTERRUPTED if result.state == "interrupted" else FAILED)


@app.command()
def runs(
    root: Root = None,
    limit: Annotated[int, typer.Option(help="How many of the newest; 0 for all of this machine.", min=0)] = 20,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """List the runs, the newest first."""
    from pipeparts.targets.local_runs import list_runs

    if target is not Platform.LOCAL:
        with talking(target, target_config) as platform:
            others = platform.runs(limit=limit or 100)
        _print_runs(others, as_json=as_json)
        return

    folder = local_config(target_config, root).root
    found = list_runs(folder.resolve())
    found = found[:limit] if limit else found
    if as_json:
        names = ("run_id", "pipeline", "state", "started", "finished", "seconds", "error", "arguments", "folder")
        print_json([{name: record[name] for name in names} for record in found])
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
    make_console().print(table)


def _print_runs(found: list[RemoteRun], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(run) for run in found])
        return
    if not found:
        typer.echo("no runs")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "pipeline", "state", "started"):
        table.add_column(title, no_wrap=title != "run", overflow="fold")
    for run in found:
        table.add_row(*(Text(cell) for cell in (run.run_id, run.pipeline, run.state, run.started)))
    make_console().print(table)


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

    folder = find_run(local_config(target_config, root).root.resolve(), name)
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

    removed, freed = local_runs.clean(local_config(target_config, root).root.resolve(), keep)
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


def _counts(record: dict[str, Any]) -> str:
    from pipeparts.targets.progress import WORDS, count_steps

    words = {**WORDS, "skipped": "skipped"}
    return ", ".join(f"{number} {words[state]}" for state, number in count_steps(record).items())
