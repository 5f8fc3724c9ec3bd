"""The application that the commands are registered with, and how its errors look."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeparts import __version__
from pipeparts.cli.output import print_json, show_error
from pipeparts.errors import InputError, PipepartsError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130

#: Set in a context's `meta` by a command that was asked for JSON: its errors are JSON on standard output, too.
JSON = "pipeparts.json"


class _Group(TyperGroup):
    """Shows the library's own errors as their text, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PipepartsError as error:
            if ctx.params.get("debug"):
                raise
            if ctx.meta.get(JSON):
                print_json({"error": {"type": type(error).__name__, "headline": error.headline, "facts": error.facts}})
            show_error(str(error))
            raise typer.Exit(WRONG_USAGE if isinstance(error, InputError) else FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="pipeparts",
    cls=_Group,
    help="Reusable Kubeflow Pipelines components and pipelines: list, compile, lint, run, submit, schedule, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    """Reusable Kubeflow Pipelines components and pipelines: list, compile, lint, run, submit, schedule, publish."""
