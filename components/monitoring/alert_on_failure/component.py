"""The KFP interface of `alert_on_failure`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def alert_on_failure(
    status: dsl.PipelineTaskFinalStatus,
    outcome: dsl.Output[dsl.Markdown],
    to: Optional[list] = None,
    run_name: str = "",
    subject: str = "",
    links: Optional[dict] = None,
    state: str = "",
) -> None:
    """Writes how a run ended, and tells people where it failed: give it to `dsl.ExitHandler`, outside of its body.

    The outcome is written first, whatever happened. A run that succeeded, was cancelled or was skipped alerts nobody;
    one whose end nobody can name does. Each run is told of once. It acts on the outside and says when, so it may never
    be cached: set `.set_caching_options(False)` on it.

    Args:
        status: How the handled steps ended; KFP fills it in.
        to: Addresses of apprise (`mailtos://smtp.example.com/ops@example.com?from=ml@example.com`, `slack://...`), or
            references `env:NAME` and `file:/path` to texts that hold such addresses, one a line. An address with a
            password or a token in it has to be a reference. Empty: nobody is told.
        run_name: The run's name; empty: the one that KFP gives.
        subject: What the pipeline is about, in a few words, for who reads the outcome.
        links: Title to address, for the alert.
        state: A folder or bucket for the receipts; empty: in the folder of local runs. Without either, or where it
            does not answer, the alert goes out all the same.

    Returns:
        outcome: The state, the run, the error where there is one, and the time.

    Raises:
        InputError: For an address that is none, or a password in the open.
        ServiceError: Naming everybody who could not be told, and why.
    """
    from pipeparts.components.monitoring.alert_on_failure import logic

    outcome.metadata.update(
        logic.alert_on_failure(
            outcome_path=outcome.path,
            ended_as=status.state,
            job=status.pipeline_job_resource_name,
            task=status.pipeline_task_name,
            error_code=status.error_code,
            error_message=status.error_message,
            to=to,
            run_name=run_name,
            subject=subject,
            links=links,
            state=state,
        )
    )
