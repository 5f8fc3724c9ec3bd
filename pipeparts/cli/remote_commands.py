"""Runs and schedules on any platform: `submit`, `status`, `wait`, `cancel`, `outputs`, `schedule`, `scheduler`."""

from __future__ import annotations

import dataclasses
import logging
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeparts.cli.app import FAILED, INTERRUPTED, JSON, app
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
from pipeparts.cli.output import make_console, make_progress, print_json, show_error
from pipeparts.errors import InputError

if TYPE_CHECKING:
    from pipeparts.schedules import Window
    from pipeparts.targets.base import RemoteRun, RemoteSchedule, Target


RunName = Annotated[str, typer.Argument(help="The run, as `submit` or `runs` names it.", metavar="RUN")]
ScheduleName = Annotated[str, typer.Argument(help="The schedule's name, as `schedule list` shows it.", metavar="NAME")]

schedule_app = typer.Typer(
    help="Make, list, pause, resume and delete schedules.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(schedule_app, name="schedule")


@app.command()
def submit(
    ctx: typer.Context,
    target: Annotated[Platform, typer.Option(help="The platform.")],
    pipeline: PipelineName = None,
    params: ParameterFile = None,
    param: Parameters = None,
    at: At = None,
    once: Once = None,
    once_per_window: OncePerWindow = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end, and show how it goes.")] = False,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Refuse what `pipeparts lint` has errors for.")
    ] = True,
    as_json: Json = False,
    attached: Attached = False,
    target_config: AnySettings = None,
) -> None:
    """Start a pipeline on a platform: in the background of this machine, on Kubeflow or on Vertex AI."""
    from pipeparts import submission

    begin(ctx, as_json=as_json, attached=attached)
    named, arguments = read_parameters(params, at)
    spec = read_pipeline(chosen(pipeline, named))
    arguments = submission.override(spec, arguments, param or [])
    key = run_key(spec, params, at, arguments, once=once, once_per_window=once_per_window)
    key = key or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    with talking(target, target_config) as platform:
        arguments = submission.check_arguments(spec, arguments)
        if check:
            _check(platform, spec)
        run = platform.submit(spec, arguments, key=key)
        if wait:
            run = _wait(platform, run, shown=not as_json)
    _answer(run, as_json=as_json)


@app.command()
def status(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="The run (default: the newest).", metavar="[RUN]", show_default=False)
    ] = None,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Show how a run stands, task by task."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.status(run or _newest(platform))
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    import datetime as dt

    from rich.table import Table
    from rich.text import Text

    from pipeparts.targets.progress import FollowedRun, describe

    console = make_console()
    console.print(Text(f"{found.pipeline}  run {found.run_id} on {found.platform}: {found.state}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("task", "state", "began"):
        table.add_column(title, overflow="fold")
    for task, shown in zip(found.tasks, FollowedRun(found).steps, strict=True):
        began = dt.datetime.fromisoformat(task.started).astimezone() if task.started else None
        table.add_row(Text(task.name), Text(describe(shown)), Text(f"{began:%Y-%m-%d %H:%M:%S}" if began else ""))
    if found.tasks:
        console.print(table)
    if found.error:
        logs = [f"log of {task.name}: {task.link}" for task in found.tasks if task.state == "failed" and task.link]
        show_error("\n".join(["the run failed", found.error, *logs]))
    if found.link:
        console.print(Text(found.link), soft_wrap=True)


@app.command()
def wait(
    ctx: typer.Context,
    run: RunName,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Wait for a run's end, and show how it goes."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = _wait(platform, platform.status(run), shown=not as_json)
    _answer(dataclasses.replace(found, new=False), as_json=as_json)


@app.command()
def cancel(
    ctx: typer.Context,
    run: RunName,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Ask a run to stop."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.cancel(run)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        asked = "asked to stop, and still " if found.state == "running" else ""
        typer.echo(f"{found.pipeline} as {found.run_id} on {found.platform}: {asked}{found.state}")


@app.command()
def outputs(
    ctx: typer.Context,
    run: Annotated[
        str | None, typer.Argument(help="The run (default: the newest).", metavar="[RUN]", show_default=False)
    ] = None,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Show what the tasks of a run gave: values of parameters, and where artifacts are."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.outputs(run or _newest(platform))
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
        return
    if not found:
        typer.echo("no outputs yet")
        return
    from rich.table import Table
    from rich.text import Text

    from pipeparts.targets.base import METRICS_TYPE

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("task", "output", "type", "value"):
        table.add_column(title, no_wrap=title != "value", overflow="fold")
    for each in found:
        said = str(each.value)
        if each.type == METRICS_TYPE and each.metadata:
            said = "\n".join(f"{name} = {value}" for name, value in sorted(each.metadata.items()))
        cells = (each.task or "the pipeline", each.name, each.type or "parameter", said)
        table.add_row(*(Text(cell) for cell in cells))
    make_console().print(table)


@schedule_app.command("create")
def create_schedule(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file of parameters with `pipeline` and `schedule`.", metavar="FILE")],
    target: Where = Platform.LOCAL,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name (default: the pipeline's and the file's).")
    ] = None,
    param: Parameters = None,
    paused: Annotated[bool, typer.Option("--paused", help="Make it, and let it wait for `schedule resume`.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Never through `run_scheduled`: refuse what differs from run to run.")
    ] = False,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Make a schedule from a file of parameters, or replace the one of its name where anything has changed.

    Parameters that name the window, as {start:%Y-%m}, are filled in for each run, and the version of the data is looked
    up anew: on this machine by the scheduler, on Kubeflow and Vertex AI by the pipeline run_scheduled, which the
    schedule then starts, and which starts the pipeline.
    """
    from pipeparts import submission
    from pipeparts.schedules import names_window, read_schedule
    from pipeparts.targets.base import PlannedSchedule
    from pipeparts.targets.windows import run_scheduled

    ctx.meta[JSON] = as_json
    pipeline, arguments = submission.read_parameter_file(file)
    schedule = read_schedule(file)
    if schedule is None:
        raise InputError(
            "the file of parameters has no `schedule:`",
            parameter="schedule",
            where=str(file),
            allowed="schedule: {cron: '0 6 1 * *', time_zone: Europe/Paris}",
            received="nothing",
        )
    spec = read_pipeline(chosen(pipeline, None))
    arguments = submission.override(spec, arguments, param or [])
    called = name or f"{spec['pipelineInfo']['name']}-{file.stem}"
    with talking(target, target_config) as platform:
        planned = PlannedSchedule(called, spec, arguments, schedule, paused)
        # What differs from run to run is settled at each run: the window, and the version that the data has then.
        differs = names_window(arguments) or submission.data_versions(spec, arguments)
        if differs and target is not Platform.LOCAL and not plain:
            planned = run_scheduled(platform, planned, pipeline=chosen(pipeline, None))
        _check(platform, planned.spec)
        made = platform.schedule(planned)
    _print_schedules([made], as_json=as_json)


@schedule_app.command("list")
def list_schedules(
    ctx: typer.Context, target: Where = Platform.LOCAL, as_json: Json = False, target_config: AnySettings = None
) -> None:
    """List the schedules that pipeparts has made."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.schedules()
    _print_schedules(found, as_json=as_json)


@schedule_app.command("pause")
def pause_schedule(
    ctx: typer.Context,
    name: ScheduleName,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Let a schedule start nothing until it is resumed."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.pause(name)
    _print_schedules([found], as_json=as_json)


@schedule_app.command("resume")
def resume_schedule(
    ctx: typer.Context,
    name: ScheduleName,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Let a paused schedule go on; what it missed is not made up for (`backfill` does that on this machine)."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.resume(name)
    _print_schedules([found], as_json=as_json)


@schedule_app.command("delete")
def delete_schedule(
    ctx: typer.Context,
    name: ScheduleName,
    target: Where = Platform.LOCAL,
    as_json: Json = False,
    target_config: AnySettings = None,
) -> None:
    """Delete a schedule; the runs that it has started stay."""
    ctx.meta[JSON] = as_json
    with talking(target, target_config) as platform:
        found = platform.unschedule(name)
    _print_schedules([found], as_json=as_json)


@app.command()
def scheduler(
    once: Annotated[bool, typer.Option("--once", help="Run what is due, and end.")] = False,
    catch_up: Annotated[
        int, typer.Option(help="How many missed windows of a schedule are made up for, the newest; 0 for all.", min=0)
    ] = 1,
    root: Root = None,
    target_config: Settings = None,
) -> None:
    """Run the schedules of this machine, each window once, until it is stopped (Ctrl-C, or SIGTERM)."""
    import datetime as dt

    from pipeparts.targets.local_scheduler import Scheduler, run_due, serve

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeparts").setLevel(logging.INFO)
    works = Scheduler(local_config(target_config, root), catch_up=catch_up, began=_say_begun, ended=_say_ended)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if once:
        over = run_due(works, dt.datetime.now(dt.UTC), stop)
        if not over and not stop.is_set():
            typer.echo("nothing is due")
        if stop.is_set() or any(run.state != "succeeded" for run in over):
            raise typer.Exit(INTERRUPTED if stop.is_set() else FAILED)
        return
    typer.echo("waiting for what is due; Ctrl-C ends it")
    serve(works, stop)


def _say_begun(name: str, window: Window, run: RemoteRun) -> None:
    what = "started" if run.new else "found"
    typer.echo(f"{time.strftime('%H:%M:%S')}  {name}, {window}: {what} run {run.run_id}")


def _say_ended(run: RemoteRun) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')}  {run.pipeline} as {run.run_id}: {run.state}")
    if run.error:
        show_error(f"the run failed\n{run.error}")


def _check(platform: Target, spec: dict[str, Any]) -> None:
    """Refuses a pipeline that would not run there."""
    from pipeparts.linting.formats import message_of

    errors = [finding for finding in platform.check(spec) if finding.severity == "error"]
    if errors:
        said = [f"{finding.rule.id} {message_of(finding)}" for finding in errors]
        raise InputError(
            f"the pipeline would not run on {platform.platform}",
            parameter="PIPELINE",
            received="; ".join(said[:3]) + (f"; and {len(said) - 3} more" if len(said) > 3 else ""),
            hint=f"{errors[0].rule.fix} (`pipeparts lint` says more; --no-check submits all the same)",
        )


def _newest(platform: Target) -> str:
    found = platform.runs(limit=1)
    if not found:
        raise InputError("there are no runs here", parameter="RUN", where=platform.platform)
    return found[0].run_id


def _wait(platform: Target, run: RemoteRun, *, shown: bool) -> RemoteRun:
    """Waits for a run's end, and shows on standard error how it goes, as `run` does."""
    try:
        return _follow(platform, run) if shown else platform.wait(run)
    except KeyboardInterrupt:
        again = f"{run.run_id} --target {platform.platform}"
        typer.echo(
            f"the run goes on: `pipeparts wait {again}` waits for it, `pipeparts cancel {again}` stops it", err=True
        )
        raise


def _follow(platform: Target, run: RemoteRun) -> RemoteRun:
    from pipeparts.targets.progress import FollowedRun

    progress = make_progress(stderr=True)
    seen = FollowedRun(run)

    def watch(found: RemoteRun) -> None:
        nonlocal seen
        seen = FollowedRun(found)
        progress.update(seen)

    progress.begin(seen)
    try:
        progress.update(seen)
        return platform.wait(run, watch)
    finally:
        progress.end(seen)


def _answer(run: RemoteRun, *, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(run))
    else:
        typer.echo(f"{'started' if run.new else 'found'} {run.pipeline} as {run.run_id} on {run.platform}: {run.state}")
        if run.link:
            typer.echo(run.link)
        if run.error:
            show_error(f"the run failed\n{run.error}")
    if run.state in ("failed", "interrupted"):
        raise typer.Exit(INTERRUPTED if run.state == "interrupted" else FAILED)


def _print_schedules(schedules: list[RemoteSchedule], *, as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(schedule) for schedule in schedules])
        return
    if not schedules:
        typer.echo("no schedules")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("schedule", "pipeline", "when", "state", "next run"):
        table.add_column(title, no_wrap=title != "schedule", overflow="fold")
    for each in schedules:
        state = f"{each.state} ({each.change})" if each.change else each.state
        cells = (each.name, each.pipeline, f"{each.cron} {each.time_zone}", state, each.next_run)
        table.add_row(*(Text(cell) for cell in cells))
    make_console().print(table)
