"""Components and pipelines as versioned templates, for others to find: `publish`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeparts.cli.app import JSON, app
from pipeparts.cli.inputs import Images, Json, Registry, read_images
from pipeparts.cli.output import make_console, print_json

if TYPE_CHECKING:
    from pipeparts.publishing.publisher import Published


@app.command()
def publish(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(help="Names of the catalog, compiled files, or `all`.", metavar="NAME...")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="A folder, gs://..., s3://..., https://LOCATION-kfp.pkg.dev/PROJECT/REPOSITORY, or oci://HOST/REPOSITORY.",
            metavar="DESTINATION",
        ),
    ],
    version: Annotated[
        str | None, typer.Option(help="The version, as 1.4.0 (default: this release of pipeparts).", show_default=False)
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A name that is to point at this version; repeat it for more.")
    ] = None,
    registry: Registry = "",
    images: Images = None,
    allow_breaking: Annotated[
        bool, typer.Option("--allow-breaking", help="Publish what breaks the interface before it, all the same.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, and say what would be published.")] = False,
    as_json: Json = False,
) -> None:
    """Publish components and pipelines as versioned templates."""
    from pipeparts import __version__
    from pipeparts.publishing import publisher
    from pipeparts.publishing.templates import make_templates
    from pipeparts.publishing.versions import Version, check_tags

    ctx.meta[JSON] = as_json
    tags = check_tags(tag or [])
    wanted = Version.parse(version or __version__)
    destination = publisher.open_destination(to)
    templates = make_templates(names, wanted, images=read_images(images), registry=registry)
    published = publisher.publish(destination, templates, tags=tags, allow_breaking=allow_breaking, dry_run=dry_run)
    if as_json:
        print_json([_answer(each) for each in published])
    else:
        _print(published, destination.address, dry_run=dry_run)


def _answer(published: Published) -> dict[str, Any]:
    template = published.template
    return {
        "name": template.name,
        "kind": template.kind,
        "version": str(template.version),
        "state": published.state,
        "location": published.location,
        "digest": published.digest,
        "content": template.digest,
        "previous": str(published.previous) if published.previous else None,
        "breaking": list(published.breaking),
    }


def _print(published: list[Published], address: str, *, dry_run: bool) -> None:
    from rich.text import Text

    console = make_console()
    for each in published:
        line = Text.assemble((f"{each.template.name} {each.template.version}", "cyan"), f"  {each.state}")
        line.append(f"  {each.location}", style="dim")
        if each.digest:
            line.append(f"  {each.digest}", style="dim")
        console.print(line, soft_wrap=True)
        for change in each.breaking:
            console.print(Text(f"  breaks {each.previous}: {change}", style="yellow"), soft_wrap=True)
    new = sum(each.state != "already there" for each in published)
    verb = "would be published" if dry_run else "published"
    rest = f", {len(published) - new} there already" if new < len(published) else ""
    console.print(Text(f"{new} {verb} to {address}{rest}"), soft_wrap=True)
