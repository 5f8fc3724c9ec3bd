"""The KFP interface of `validate_model`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tensorflow", install_kfp_package=False)
def validate_model(
    model: dsl.Input[dsl.Model],
    table: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    verdict_text: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    champion: str = "",
    gate: Optional[dict] = None,
    tracking_uri: str = "",
) -> bool:
    """Judges a model: thresholds, the baseline, the champion overall and by slice, and a serving check.

    The champion is compared on the same rows, with an interval by paired bootstrap. For the serving check
    the model loads in a clean process and answers its own input example.

    Args:
        model: The challenger.
        table: The table that it was evaluated on.
        evaluation: That evaluation, by `evaluate_model`.
        champion: The model to beat: `models:/NAME/VERSION`, a folder, or empty for none.
        gate: `metric`; `thresholds` {metric: {min, max}}; `min_gain` (0), `gain_bound`, `max_loss` (0.01),
            `relative`; `slices` (those of the evaluation), `slice_margin` (0.05), `slice_bound`,
            `min_slice_rows` (500); `bootstrap_samples` (1000), `confidence` (0.95), `seed`;
            `require_champion`, `on_broken_champion` (fail or ignore); `serving_timeout_seconds` (300).
        tracking_uri: The registry's MLflow URI; empty: the environment's MLFLOW_TRACKING_URI.

    Returns:
        verdict: The outcome and each check with its value, threshold and reason (JSON).
        verdict_text: The same for people.
        page: Challenger and champion side by side, with plots.
        Output: Whether the model passed.

    Raises:
        InputError: For a wrong gate or champion.
        ContractError: Where model, table and evaluation do not belong together.
        ServiceError: Where the registry does not answer.
    """
    from pipeparts.components.validation.validate_model import logic

    result = logic.validate_model(
        model_path=model.path,
        table_path=table.path,
        evaluation_path=evaluation.path,
        verdict_path=verdict.path,
        verdict_text_path=verdict_text.path,
        page_path=page.path,
        champion=champion,
        gate=gate,
        tracking_uri=tracking_uri,
    )
    verdict.metadata.update(result.metadata())
    return result.passed
