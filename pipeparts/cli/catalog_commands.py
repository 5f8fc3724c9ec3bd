"""What is in the catalog, and its YAML: `list`, `show`, `compile`."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeparts.cli.app import app
from pipeparts.cli.inputs import AnySettings, Json, Platform, Registry, read_images
from pipeparts.cli.output import make_console, print_json
from pipeparts.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeparts import catalog


class Which(enum.StrEnum):
    """What `list` shows."""

    COMPONENTS = "components"
    PIPELINES = "pipelines"


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
        print_json([{"name": e.name, "kind": e.kind, "stage": e.stage, "summary": e.summary} for e in entries])
        return
    from rich.table import Table
    from rich.text import Text

    console = make_console()
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
        print_json(
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

    console = make_console()
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
    registry: Registry = "",
    images: Annotated[
        str | None,
        typer.Option(
            help="A YAML file with an image for each family: `data: registry/name@sha256:...`; or `pip`, for a public "
            "Python image that installs the package when a step starts.",
            metavar="FILE|pip",
        ),
    ] = None,
    package: Annotated[
        str, typer.Option(help="With `--images pip`: what pip installs, `{family}` in it for the extra.")
    ] = "",
    target: Annotated[
        Platform | None,
        typer.Option(help="Write this platform's variant, with the settings of its steps.", show_default=False),
    ] = None,
    target_config: AnySettings = None,
) -> None:
    """Compile to KFP v2 YAML; without images, they keep their families' names."""
    from pipeparts import catalog, compiling
    from pipeparts.config import load_kubeflow, load_local, load_vertex
    from pipeparts.runtime.files import write_text
    from pipeparts.targets.binding import bind_variant

    if target_config is not None and target is None:
        raise InputError(
            "settings of a target, and no target",
            parameter="--target-config",
            allowed="--target with it",
            received=str(target_config),
        )

    if name == "all" and output is None:
        raise InputError(
            "`all` needs a folder to write to", parameter="--output", allowed="a folder", received="nothing"
        )
    names = (
        [e.name for e in [*catalog.components(), *catalog.pipelines()]] if name == "all" else [catalog.find(name).name]
    )
    by_pip = images == "pip"
    if (package and not by_pip) or (registry and by_pip):
        raise InputError(
            "these options do not go together",
            parameter="--package" if package and not by_pip else "--registry",
            allowed="--package with --images pip; --registry with built images",
            received=f"--images {images}" if images else "no --images",
        )
    given = read_images(Path(images) if images and not by_pip else None)
    config: Any = None
    if target is not None:
        load: Any = {"local": load_local, "kubeflow": load_kubeflow, "vertex": load_vertex}[target.value]
        # The public image takes the place of those that the configuration names.
        nothing = {"registry": "", "images": {}} if by_pip and target is not Platform.LOCAL else None
        config = load(file=target_config, overrides=nothing)
    for each in names:
        bound = bind_variant(compiling.compile_spec(each), config, registry=registry, images=given)
        for note in bound.notes:
            typer.echo(f"note: {note}", err=True)
        documents = bound.documents
        if by_pip:
            documents = [compiling.pip_images(documents[0], package=package), *documents[1:]]
        text = compiling.to_yaml(*documents)
        if output is None:
            typer.echo(text, nl=False)
            continue
        path = output / f"{each}.yaml" if name == "all" else output
        write_text(path, text)
        typer.echo(f"wrote {path}", err=True)


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
