"""What every command prints with."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
