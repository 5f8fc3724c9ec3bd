"""What every command prints with."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pipeparts.targets.base import RunResult
    from pipeparts.targets.progress import Progress


def print_json(value: Any) -> None:
    """A value on standard output, for programs."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def make_console(*, stderr: bool = False) -> Console:
    """A console that prints texts as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False)


def show_error(text: str) -> None:
    """An error on standard error; its first line is the headline."""
    from rich.text import Text

    first, _, rest = text.partition("\n")
    console = make_console(stderr=True)
    console.print(Text.assemble(("error: ", "bold red"), (first, "bold")), soft_wrap=True)
    if rest:
        console.print(Text(rest), soft_wrap=True)


def make_progress(*, stderr: bool = False) -> Progress:
    """A table that changes on a terminal, plain lines elsewhere."""
    from pipeparts.targets.progress import LiveProgress, PlainProgress

    console = make_console(stderr=stderr)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console)
    return PlainProgress(sys.stderr if stderr else sys.stdout)


def print_result(result: RunResult) -> None:
    """How a local run ended: its errors, what it decided or registered, and where its report is."""
    from rich.text import Text

    from pipeparts.report import highlights
    from pipeparts.targets.local_record import failures
    from pipeparts.targets.progress import failure_text, shown_path, summary

    console = make_console()
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
        show_error(failure_text(failure, result.folder))
    if result.state == "failed" and not failed:
        show_error(str(result.record["error"]) + f"\n  log: {shown_path(result.folder / 'worker.log')}")
    if result.state != "succeeded":
        when = "when that is mended, run" if result.state == "failed" else "run"
        console.print(f"{when} the same command again: it goes on from the steps that finished", soft_wrap=True)
    for line in [*highlights(result.folder, result.record), *(f"{name} = {v}" for name, v in result.outputs.items())]:
        console.print(Text(line), soft_wrap=True)
    what, path = ("report", result.report) if result.report else ("run", result.folder)
    console.print(Text(f"{what}: {shown_path(path)}"), soft_wrap=True)
