"""Starts a pipeline for the newest window of its schedule, once for each window."""

from kfp import dsl

from pipeparts.components import trigger_pipeline


@dsl.pipeline(name="run-scheduled")
def run_scheduled(
    pipeline: str,
    parameters: dict,
    schedule: dict,
    settings: dict = {},  # noqa: B006 (kfp reads it, nothing writes to it; None does not run everywhere)
    platform: str = "auto",
    wait: bool = False,
) -> None:
    """Starts a pipeline for the newest window of its schedule, once for each window.

    The schedulers of Kubeflow and Vertex AI give every run the same parameters. This pipeline stands between: they
    start it, and it fills the window into the parameters, `{start:%Y-%m}`, and starts the pipeline that is meant.
    Started twice for a window, or tried again, it finds the run that is there. `pipeparts schedule create` sets it up.

    Args:
        pipeline: A pipeline of this library by its name, or the address of a compiled YAML.
        parameters: Its parameters; texts may name the window: `{start}`, `{end}`, `{previous_start}`.
        schedule: `cron` (minute, hour, day of the month, month, day of the week) and `time_zone` (its IANA name).
        settings: Where and how it is submitted; see `trigger_pipeline`.
        platform: Where it runs: "auto" (where this one does), "local", "kubeflow" or "vertex".
        wait: Whether to wait for its end, and fail where it fails.
    """
    started = trigger_pipeline(
        pipeline=pipeline, parameters=parameters, settings=settings, platform=platform, wait=wait, schedule=schedule
    )
    started.set_caching_options(False)
