"""What changed between two compiled pipelines: `diff`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeparts.cli.app import FAILED, app
from pipeparts.cli.output import make_console, print_json

if TYPE_CHECKING:
    from pipeparts.diffing.changes import Comparison, Impact

_REFERENCE = "a compiled file, a folder of them, a name of the catalog, `all`, or git:REVISION:PATH"
_STYLES = {"breaking": "bold red", "compatible": "yellow", "internal": "dim"}


class Format(enum.StrEnum):
    """How the changes are written."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"


class FailOn(enum.StrEnum):
    """From which impact on the exit code is 1."""

    BREAKING = "breaking"
    COMPATIBLE = "compatible"
    ANY = "any"
    NONE = "none"


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help=f"What there was: {_REFERENCE}.", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="What there is now; the same kinds.", metavar="NEW")],
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write the changes.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file (default: print).", metavar="FILE")
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="End with exit code 1 on changes of this impact, or worse; `any`: on every change.")
    ] = FailOn.NONE,
) -> None:
    """Show what changed in meaning between two compiled pipelines, and whether callers break."""
    from pipeparts.diffing.changes import worst
    from pipeparts.diffing.compare import compare_templates
    from pipeparts.diffing.formats import as_json, as_markdown, as_text
    from pipeparts.diffing.reading import read
    from pipeparts.runtime.files import write_json, write_text

    comparisons = compare_templates(read(old, parameter="OLD"), read(new, parameter="NEW"))
    if format is Format.JSON:
        value = as_json(comparisons, old, new)
        print_json(value) if output is None else write_json(output, value)
    elif output is not None:
        write_text(output, as_markdown(comparisons) if format is Format.MARKDOWN else as_text(comparisons))
    elif format is Format.MARKDOWN:
        typer.echo(as_markdown(comparisons), nl=False)
    else:
        _print(comparisons)
    if _fails(worst(change for comparison in comparisons for change in comparison.changes), fail_on):
        raise typer.Exit(FAILED)


def _fails(impact: Impact | None, fail_on: FailOn) -> bool:
    if impact is None or fail_on is FailOn.NONE:
        return False
    return fail_on is FailOn.ANY or impact == "breaking" or (fail_on is FailOn.COMPATIBLE and impact == "compatible")


def _print(comparisons: list[Comparison]) -> None:
    from rich.text import Text

    from pipeparts.diffing.formats import as_text

    console = make_console()
    for line in as_text(comparisons).splitlines():
        text = Text(line)
        word = line.split(maxsplit=1)[0] if line.startswith("  ") and line.strip() else ""
        if word in _STYLES:
            text.stylize(_STYLES[word], 2, 2 + len(word))
        console.print(text, soft_wrap=True)
