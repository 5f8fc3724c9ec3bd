"""The KFP interface of `send_alert`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def send_alert(
    alert: dsl.Output[dsl.Markdown],
    to: Optional[list] = None,
    subject: str = "",
    text: str = "",
    links: Optional[dict] = None,
    key: str = "",
    state: str = "",
    decision: Optional[dsl.Input[dsl.Artifact]] = None,
    drift: Optional[dsl.Input[dsl.Artifact]] = None,
    performance: Optional[dsl.Input[dsl.Artifact]] = None,
) -> int:
    """Tells people what was found and decided, once: by mail, Slack, Teams, PagerDuty, webhook and more.

    Everybody is told once, however often the step starts again: a receipt for each is written as soon as he has been
    told. A mail's Message-ID, a PagerDuty incident's key and a webhook's Idempotency-Key header are the same every
    time, so that the receiver can drop a second delivery after a crash between the two. One channel that fails keeps
    no other from being told; what is temporary is tried again. It acts on the outside, so it may never be cached: set
    `.set_caching_options(False)` on it.

    Args:
        to: Addresses of apprise (`mailtos://smtp.example.com/ops@example.com?from=ml@example.com`, `slack://...`), or
            references `env:NAME` and `file:/path` to texts that hold such addresses, one a line. An address with a
            password or a token in it has to be a reference. Empty: nobody is told, and a warning is logged.
        subject: The first line; empty: made from what is given.
        text: What else to say.
        links: Title to address, as {"Report": "https://..."}.
        key: What makes it this alert: who has got one of this key does not get another. Empty: the decision's id with
            the subject, else of all that the alert says.
        state: A folder or bucket for the receipts; empty: in the folder of local runs.
        decision: A decision of decide_retraining: its reasons become the alert's.
        drift: A drift report of report_drift, for its key figures.
        performance: A performance report of report_performance, for its key figures.

    Returns:
        alert: The alert as Markdown.
        Output: How many were told now; those who had been told before are not counted.

    Raises:
        InputError: For an alert that says nothing, an address that is none, or a password in the open.
        ServiceError: Naming everybody who could not be told, and why.
        ContractError: Where an input is not what it should be.
    """
    from pipeparts.components.monitoring.send_alert import logic

    delivery = logic.send_alert(
        alert_path=alert.path,
        to=to,
        subject=subject,
        text=text,
        links=links,
        key=key,
        state=state,
        decision_path=decision.path if decision else None,
        drift_path=drift.path if drift else None,
        performance_path=performance.path if performance else None,
    )
    alert.metadata.update(delivery.metadata())
    return len(delivery.told)
