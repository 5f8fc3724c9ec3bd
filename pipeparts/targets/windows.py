"""Schedules whose parameters name the window, on platforms whose scheduler gives every run the same parameters."""

from __future__ import annotations

import dataclasses

from pipeparts import catalog, compiling
from pipeparts.errors import InputError
from pipeparts.targets.base import PlannedSchedule, Target

PIPELINE = "run_scheduled"


def run_scheduled(platform: Target, planned: PlannedSchedule, *, pipeline: str) -> PlannedSchedule:
    """The schedule of the pipeline that fills the window in, and starts the one that is meant.

    Args:
        platform: Where it runs.
        planned: The schedule that is meant.
        pipeline: Its pipeline, as a step can find it: a name of this library's, or an address.

    Raises:
        InputError: For a file of this machine, which no step can read.
    """
    if "://" not in pipeline and pipeline.replace("-", "_") not in {entry.name for entry in catalog.pipelines()}:
        raise InputError(
            "a schedule that fills in the window needs a pipeline that its step can read",
            parameter="pipeline",
            allowed="a pipeline of this library by its name, or an address: gs://, s3://, https://",
            received=pipeline,
            hint="`pipeparts publish` puts a compiled pipeline where it has an address",
        )
    return dataclasses.replace(
        planned,
        spec=compiling.compile_spec(PIPELINE),
        arguments={
            "pipeline": pipeline,
            "parameters": dict(planned.arguments),
            "schedule": planned.schedule.model_dump(),
            "settings": platform.step_settings(),
            "platform": platform.platform,
        },
    )
