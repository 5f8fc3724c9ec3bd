"""The KFP interface of `write_outcome`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def write_outcome(
    status: dsl.PipelineTaskFinalStatus,
    outcome: dsl.Output[dsl.Markdown],
    run_name: str = "",
    subject: str = "",
) -> None:
    """Writes how a run ended, whatever happened: give it to `dsl.ExitHandler`, outside of its body.

    It says when, so it may never be cached: set `.set_caching_options(False)` on it.

    Args:
        status: How the handled steps ended; KFP fills it in.
        run_name: The run's name; empty: the one that KFP gives.
        subject: What the pipeline is about, in a few words, for who reads the outcome.

    Returns:
        outcome: The state, the run, the error where there is one, and the time.
    """
    from pipeparts.components.monitoring.write_outcome import logic

    outcome.metadata.update(
        logic.write_outcome(
            outcome_path=outcome.path,
            state=status.state,
            job=status.pipeline_job_resource_name,
            task=status.pipeline_task_name,
            error_code=status.error_code,
            error_message=status.error_message,
            run_name=run_name,
            subject=subject,
        )
    )
