"""The KFP interface of `record_batch`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def record_batch(
    drift: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    history: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    name: str,
    title: str = "",
    as_of: str = "",
    state: str = "",
    performance: Optional[dsl.Input[dsl.Artifact]] = None,
    baseline: Optional[dsl.Input[dsl.Artifact]] = None,
) -> None:
    """Adds a batch to the monitoring history, and draws all batches of the model side by side.

    The history is kept in `state`: a document for each batch, of all versions of a registered model together. A batch
    of the same name is replaced. It reads what other runs have added: never cached, set
    `.set_caching_options(False)` on it.

    Args:
        drift: From report_drift.
        decision: From decide_retraining, of the same batch.
        name: The batch's name, as 2013-08: at most 200 characters.
        title: The page's heading; empty: the model's name.
        as_of: The batch's place in the order of batches (ISO 8601); empty: the moment that was decided for.
        state: A folder or bucket (`gs://`, `s3://`) where the history is kept; empty: in the folder of local runs.
        performance: From report_performance, where labels have arrived.
        baseline: The performance of another model on the same rows, the first champion for example: the page shows
            it beside that of the model which served, so what retraining gained.

    Returns:
        history: JSON with every batch: rows, model, drift, performance, decision.
        page: The batches side by side: drift, performance, which model served, when it was trained again.

    Raises:
        InputError: For a name, a moment or a state that is not one.
        ContractError: Where a report or a kept batch is damaged, or the reports are not of the same batch.
        ServiceError: Where the state does not answer.
    """
    from pipeparts.components.monitoring.record_batch import logic

    recorded = logic.record_batch(
        drift_path=drift.path,
        decision_path=decision.path,
        performance_path=performance.path if performance else None,
        baseline_path=baseline.path if baseline else None,
        history_path=history.path,
        page_path=page.path,
        name=name,
        title=title,
        as_of=as_of,
        state=state,
    )
    history.metadata.update(recorded.metadata())
