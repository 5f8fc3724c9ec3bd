"""The KFP interface of `decide_retraining`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def decide_retraining(
    drift: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    verdict_text: dsl.Output[dsl.Markdown],
    policy: Optional[dict] = None,
    as_of: str = "",
    time_column: str = "",
    state: str = "",
    tracking_uri: str = "",
    performance: Optional[dsl.Input[dsl.Artifact]] = None,
) -> bool:
    """Decides whether a model is to be trained again: once for a batch, and not again before a cool-down is over.

    It looks at drift, performance, the model's age and the volume of data. The decision is kept in `state`: the same
    model, batch and policy get the same answer with the same id, also from a run that was killed and starts again.
    It reads what other runs have decided: never cached, set `.set_caching_options(False)` on it.

    Args:
        drift: From report_drift.
        policy: Keys on_drift (of "drift", "prediction_drift"), max_share_drifted, on_performance, require ("any",
            "all"), max_age_days, min_rows (1,000), min_labelled_rows (0), cool_down_days (7), patience (batches in a
            row, 1). By default drift or lost performance of one batch calls for a training.
        as_of: The moment to decide for (ISO 8601), for a replay of the past; empty: now.
        time_column: The training data's column of times, whose latest value the model's age counts from; empty: it
            counts from the registration. Only where the policy has max_age_days.
        state: A folder or bucket (`gs://`, `s3://`) where decisions are kept; empty: in the folder of local runs. On
            storage without conditional writes two runs at the very same moment may both decide for a training.
        tracking_uri: The registry, for the model's age; empty: the environment's MLFLOW_TRACKING_URI.
        performance: From report_performance, where labels have arrived.

    Returns:
        decision: JSON with the answer, its id, each reason as a sentence, each trigger and each guard.
        verdict: JSON with a check for each trigger and guard; passed where the model may stay.
        verdict_text: The verdict for people.
        Output: Whether to train again.

    Raises:
        InputError: For a policy, a moment or a state that is not one.
        DataError: Where the training data has no such column of times.
        ContractError: Where a report or what is kept is damaged, or the reports are of different models.
        ServiceError: Where the state or the registry does not answer.
    """
    from pipeparts.components.monitoring.decide_retraining import logic

    decided = logic.decide_retraining(
        drift_path=drift.path,
        performance_path=performance.path if performance else None,
        decision_path=decision.path,
        verdict_path=verdict.path,
        verdict_text_path=verdict_text.path,
        policy=policy,
        as_of=as_of,
        time_column=time_column,
        state=state,
        tracking_uri=tracking_uri,
    )
    decision.metadata.update(
        {"id": decided.id, "retrain": decided.retrain, "as_of": decided.as_of, "model": decided.model}
    )
    verdict.metadata.update(logic.verdict(decided).metadata())
    return decided.retrain
