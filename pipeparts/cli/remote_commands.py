"""Runs on a platform: `submit`."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import secrets
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeparts.cli.app import FAILED, INTERRUPTED, app
from pipeparts.cli.inputs import (
    At,
    Attached,
    Json,
    Once,
    ParameterFile,
    Parameters,
    PipelineName,
    begin,
    chosen,
    read_parameters,
    read_pipeline,
)
from pipeparts.cli.output import print_json, show_error


class Remote(enum.StrEnum):
    """The platforms that `submit` knows."""

    KUBEFLOW = "kubeflow"
    VERTEX = "vertex"


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

    begin(ctx, as_json=as_json, attached=attached)
    named, arguments = read_parameters(params, at)
    spec = read_pipeline(chosen(pipeline, named))
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
        print_json(dataclasses.asdict(run))
    else:
        typer.echo(f"{'started' if run.new else 'found'} {run.pipeline} as {run.run_id} on {run.platform}: {run.state}")
        if run.link:
            typer.echo(run.link)
        if run.error:
            show_error(f"the run failed\n{run.error}")
    if run.state in ("failed", "interrupted"):
        raise typer.Exit(INTERRUPTED if run.state == "interrupted" else FAILED)
