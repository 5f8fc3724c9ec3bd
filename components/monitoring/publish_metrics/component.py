"""The KFP interface of `publish_metrics`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def publish_metrics(
    receipt: dsl.Output[dsl.Artifact],
    pushgateway: str = "",
    job: str = "pipeparts",
    labels: Optional[dict] = None,
    user: str = "",
    password: str = "",
    drift: Optional[dsl.Input[dsl.Artifact]] = None,
    performance: Optional[dsl.Input[dsl.Artifact]] = None,
    decision: Optional[dsl.Input[dsl.Artifact]] = None,
) -> None:
    """Publishes drift, performance and the decision as metrics, through a Prometheus Pushgateway.

    They replace what was published before under the same job and labels, so a step that starts again leaves the same.
    The dashboard in configs/grafana and the rules in configs/prometheus are made for them. What is missing or not
    finite is left out, so that no rule takes it for a number. It acts on the outside, so it may never be cached: set
    `.set_caching_options(False)` on it.

    Args:
        pushgateway: The gateway's address, `http(s)://host:9091`; empty: nothing is published, and a warning is logged.
        job: The label `job` of all that is published.
        labels: Labels that tell apart what would otherwise replace each other, as {"environment": "staging"}. The
            registered model's name is the label `model` unless it is given here.
        user: The user where the gateway asks for a login, or a reference `env:NAME` or `file:/path`; empty: none.
        password: A reference to the password, `env:NAME` or `file:/path`.
        drift: A drift report of report_drift.
        performance: A performance report of report_performance.
        decision: A decision of decide_retraining.

    Returns:
        receipt: What was published, and where: JSON with each metric, its labels and its value, and what was left out.

    Raises:
        InputError: For an address, a job, a label or a login that cannot be used, or where no report is given.
        ServiceError: Where the gateway does not answer, or does not take the metrics.
        ContractError: Where a report is not what it should be, or the reports are of different models.
    """
    from pipeparts.components.monitoring.publish_metrics import logic

    receipt.metadata.update(
        logic.publish_metrics(
            receipt_path=receipt.path,
            pushgateway=pushgateway,
            job=job,
            labels=labels,
            user=user,
            password=password,
            drift_path=drift.path if drift else None,
            performance_path=performance.path if performance else None,
            decision_path=decision.path if decision else None,
        )
    )
