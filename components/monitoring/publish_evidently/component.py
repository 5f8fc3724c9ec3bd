"""The KFP interface of `publish_evidently`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def publish_evidently(
    evidently: dsl.Input[dsl.Artifact],
    receipt: dsl.Output[dsl.Artifact],
    workspace: str,
    project: str,
    name: str = "",
    as_of: str = "",
    tags: Optional[list] = None,
    secret: str = "",
) -> str:
    """Adds Evidently's report to an Evidently workspace, where `evidently ui` shows the history.

    The project is made where there is none of the name, with a dashboard: drift of the columns and of the predictions
    over time. A report that is there already is found by its content and not added again, so a retry is safe. It
    writes to the outside, so it may never be cached: set `.set_caching_options(False)` on it.

    Args:
        evidently: The report's snapshot, by report_drift.
        workspace: The `http(s)://` address of a running `evidently ui`, or a workspace's folder; empty: the folder
            `evidently` in the folder of local runs.
        project: The project's name, for all reports of one model.
        name: The report's name, for example the batch; empty: the title that it has.
        as_of: When the rows are from (ISO 8601): the place on the dashboard's time axis; empty: now.
        tags: Further tags of the report.
        secret: Where the secret of an `evidently ui --secret` is: `env:NAME` or `file:/path`; empty: none.

    Returns:
        receipt: What was published: JSON with project, report, name, as_of, added and link.
        Output: The link to the report, or its file in a folder.

    Raises:
        InputError: For a workspace, a name or a moment that cannot be used.
        ContractError: Where the snapshot is damaged, or not one of this version of Evidently.
        ServiceError: Where the workspace does not answer or refuses, or the folder cannot be written.
    """
    from pipeparts.components.monitoring.publish_evidently import logic

    published = logic.publish_evidently(
        evidently_path=evidently.path,
        receipt_path=receipt.path,
        workspace=workspace,
        project=project,
        name=name,
        as_of=as_of,
        tags=tags,
        secret=secret,
    )
    receipt.metadata.update(published)
    return str(published["link"])
