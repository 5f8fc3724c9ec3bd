"""The KFP interface of `require_verdict`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def require_verdict(verdict: dsl.Input[dsl.Artifact]) -> bool:
    """Stops the run where a verdict has not passed, with the reasons as the error.

    A gate itself ends well either way, so that its verdict and its page stay to be looked at; this
    step is what turns the run red.

    Args:
        verdict: The verdict (JSON) of any gate of this library.

    Returns:
        Always true; a verdict that has not passed fails the step.

    Raises:
        DataError: Naming the gate and each check that failed, with its reason.
        ContractError: Where the artifact is no verdict.
    """
    from pipeparts.components.data_validation.require_verdict import logic

    return logic.require_verdict(verdict_path=verdict.path)
