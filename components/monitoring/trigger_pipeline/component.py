"""The KFP interface of `trigger_pipeline`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-registry", install_kfp_package=False)
def trigger_pipeline(
    triggered: dsl.Output[dsl.Artifact],
    pipeline: str,
    parameters: Optional[dict] = None,
    key: str = "",
    platform: str = "auto",
    settings: Optional[dict] = None,
    wait: bool = True,
    schedule: Optional[dict] = None,
    decision: Optional[dsl.Input[dsl.Artifact]] = None,
) -> str:
    """Starts a pipeline on the platform that this one runs on, once for each decision.

    However often the step is tried again: a run of the same pipeline and key that goes on or has succeeded is found and
    given back; one that failed or was stopped is followed by another. The run does not end with
    this one on Kubeflow and Vertex AI; on a laptop it does, and goes on when the pipeline is run again. It acts
    on the outside, so it may never be cached: set `.set_caching_options(False)` on it.

    Args:
        pipeline: A pipeline of this library by its name, or a compiled YAML: a path, `gs://`, `s3://`, `https://`.
        parameters: Its parameters, held against its signature before anything is sent. No secrets: references to them.
        key: What the run happens once for; empty: the decision's id, or the window of the schedule.
        platform: "local", "kubeflow", "vertex", or "auto": where this step runs, by its environment.
        settings: The target's settings, as in `configs/<target>.yaml`: for Kubeflow and Vertex AI `registry` or
            `images`, for Vertex AI `pipeline_root`. The address and the project are known on the platform itself.
        wait: Whether to wait for the run's end, and fail where it fails. On a laptop it is always waited for: nobody
            would watch over a run that outlives the command.
        schedule: The times of which this run is one: `cron` (five fields) and `time_zone`. The parameters may then name
            the window between the last two, as `{start:%Y-%m}`, `{end}` and `{previous_start}`.
        decision: The decision to train again; where it says no, nothing is started.

    Returns:
        triggered: Which run it is: JSON with platform, run_id, pipeline, key, state and link.
        Output: The run's name on the platform.

    Raises:
        InputError: Where the pipeline, a parameter, a setting or the key is wrong, or the platform cannot be told.
        DataError: Where the decision is not to train again.
        ServiceError: Where the platform does not answer, or the run that was waited for failed, with its error.
        ContractError: Where the artifact is no decision.
    """
    from pipeparts.components.monitoring.trigger_pipeline import logic

    started = logic.trigger_pipeline(
        triggered_path=triggered.path,
        pipeline=pipeline,
        parameters=parameters,
        key=key,
        platform=platform,
        settings=settings,
        wait=wait,
        schedule=schedule,
        decision_path=decision.path if decision else None,
    )
    triggered.metadata.update(started)
    return started["run_id"]
