"""Tests of the logic of `validate_model`, of its bootstrap and of the serving check."""

import dataclasses
import json
import os
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.validation.evaluate_model.logic import evaluate_model
from pipeparts.components.validation.validate_model import logic
from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.runtime.bootstrap import gain_interval, poisson_weights, statistic
from pipeparts.runtime.evaluation import Predictions, metrics_of
from pipeparts.runtime.metrics import metric_names
from pipeparts.runtime.models import INFO_FILE, LoadedModel, read_model_info
from pipeparts.runtime.serving_check import ServingCheck
from pipeparts.runtime.tables import write_table
from pipeparts.runtime.verdict import Check, read_verdict

GOOD = {"hour": 0.12, "distance": -0.0001, "wind_speed": 0.02}
WORSE = {"hour": 0.12, "distance": 0.002, "wind_speed": 0.02}
QUICK = {"bootstrap_samples": 100, "min_slice_rows": 100}


@pytest.fixture
def no_process(monkeypatch):
    """Leaves the clean process out where a test is about something else."""

    class Stand:
        def __init__(self, path, info, *, timeout_seconds):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *failure):
            pass

        def checks(self, model):
            return [Check("serving:loads", True)]

    monkeypatch.setattr(logic, "ServingCheck", Stand)


@pytest.fixture
def run(tmp_path, flights_table):
    def run_logic(model, champion="", table=None, slices=None, evaluated=None, **options):
        evaluate_model(
            model_path=evaluated or model,
            table_path=table or flights_table,
            evaluation_path=tmp_path / "evaluation.json",
            metrics_path=tmp_path / "metrics.json",
            classification_path=tmp_path / "classification.json",
            page_path=tmp_path / "evaluation.html",
            slices=slices,
        )
        return validate(tmp_path, model, table or flights_table, champion, **options)

    return run_logic


def validate(folder, model, table, champion="", **options):
    options.setdefault("gate", QUICK)
    return logic.validate_model(
        model_path=model,
        table_path=table,
        evaluation_path=folder / "evaluation.json",
        verdict_path=folder / "verdict.json",
        verdict_text_path=folder / "verdict.md",
        page_path=folder / "page.html",
        champion=str(champion),
        **options,
    )


def check(verdict, name):
    found = [item for item in verdict.checks if item.name == name]
    assert len(found) == 1, [item.name for item in verdict.checks]
    return found[0]


# The whole gate, with the clean process.


@pytest.mark.slow
def test_a_better_model_passes_and_all_is_written(run, make_model, tmp_path):
    champion = make_model("champion", WORSE)
    verdict = run(make_model("model", GOOD), champion, slices=["origin"], gate={**QUICK, "min_gain": 0.01})
    assert verdict.passed, verdict.failures
    assert check(verdict, "gain:roc_auc").value > 0.01
    assert {"slice:origin=EWR", "serving:loads", "serving:answers", "serving:same_answer"} <= {
        item.name for item in verdict.checks
    }
    assert read_verdict(tmp_path / "verdict.json") == verdict
    assert (tmp_path / "verdict.md").read_text().startswith("# validate_model: passed")
    page = (tmp_path / "page.html").read_text()
    assert "Challenger and champion" in page
    assert page.count("<svg") == 4


@pytest.mark.slow
def test_the_component_returns_the_outcome_and_fills_its_artifacts(run, make_model, tmp_path, flights_table):
    from kfp import dsl

    from pipeparts.components.validation.validate_model.component import validate_model

    model = make_model()
    run(model)
    made = {name: kind(uri=str(tmp_path / "out" / name)) for name, kind in {
        "verdict": dsl.Artifact, "verdict_text": dsl.Markdown, "page": dsl.HTML,
    }.items()}  # fmt: skip
    passed = validate_model.python_func(
        model=dsl.Model(uri=str(model)),
        table=dsl.Dataset(uri=str(flights_table)),
        evaluation=dsl.Artifact(uri=str(tmp_path / "evaluation.json")),
        **made,
    )
    assert passed is True
    assert made["verdict"].metadata["passed"] is True
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(made)


# Thresholds and the baseline.


@pytest.mark.usefixtures("no_process")
def test_thresholds_say_what_was_wanted(run, make_model):
    gate = {"thresholds": {"roc_auc": {"min": 0.9}, "brier_score": {"max": 0.5}, "accuracy": {"min": 0.1, "max": 0.2}}}
    verdict = run(make_model(), gate=gate)
    assert [item.name for item in verdict.failures] == ["threshold:roc_auc", "threshold:accuracy"]
    assert "is not at least 0.9" in check(verdict, "threshold:roc_auc").reason
    assert "not at least 0.1 and at most 0.2" in check(verdict, "threshold:accuracy").reason


@pytest.mark.usefixtures("no_process")
def test_a_model_worse_than_the_baseline_fails(run, make_model):
    verdict = run(make_model(weights={"hour": -0.1}))
    assert [item.name for item in verdict.failures] == ["better_than_baseline"]
    assert "always class 0" in verdict.failures[0].reason


@pytest.mark.usefixtures("no_process")
def test_unusable_answers_fail_with_their_number(run, make_model):
    champion = make_model("champion", WORSE)
    verdict = run(make_model(nan_rows=7), champion)
    assert {item.name for item in verdict.failures} == {"finite_predictions", "gain:roc_auc"}
    assert check(verdict, "finite_predictions").reason.startswith("7 of 1,947 rows have no usable answer")


@pytest.mark.usefixtures("no_process")
def test_one_class_alone_fails_and_says_why(run, make_model, flights, tmp_path):
    write_table(tmp_path / "late", flights.filter(pc.equal(flights["late"], 1)), source="flights")
    verdict = run(make_model(), make_model("champion", WORSE), tmp_path / "late")
    failed = {item.name: item.reason for item in verdict.failures}
    assert failed["gain:roc_auc"] == "ROC AUC is not defined on these rows"
    assert "better_than_baseline" in failed


# The champion.


@pytest.mark.usefixtures("no_process")
def test_a_worse_model_fails_with_the_interval(run, make_model):
    verdict = run(make_model("model", WORSE), make_model("champion", GOOD), slices=["origin"])
    failed = {item.name for item in verdict.failures}
    assert {"gain:roc_auc", "loss:roc_auc"} <= failed
    assert any(name.startswith("slice:origin=") for name in failed)
    assert "95% interval -" in check(verdict, "gain:roc_auc").reason


@pytest.mark.usefixtures("no_process")
def test_the_same_model_gains_nothing(run, make_model, tmp_path, flights_table):
    model = make_model()
    verdict = run(model, model)
    assert verdict.passed
    assert check(verdict, "gain:roc_auc").value == check(verdict, "loss:roc_auc").value == 0.0
    stricter = validate(tmp_path, model, flights_table, model, gate={**QUICK, "min_gain": 1e-6})
    assert [item.name for item in stricter.failures] == ["gain:roc_auc"]


@pytest.mark.usefixtures("no_process")
def test_the_bound_decides_what_is_held_to_the_gain(run, make_model, tmp_path, flights_table):
    model, champion = make_model("model", GOOD), make_model("champion", WORSE)
    estimate = check(run(model, champion), "gain:roc_auc").value
    gate = {**QUICK, "min_gain": estimate - 1e-9}
    assert validate(tmp_path, model, flights_table, champion, gate=gate).passed
    lower = validate(tmp_path, model, flights_table, champion, gate={**gate, "gain_bound": "lower"})
    assert [item.name for item in lower.failures] == ["gain:roc_auc"]
    assert "lower end of the gain" in lower.failures[0].reason


@pytest.mark.usefixtures("no_process")
def test_a_regressions_margins_are_shares_of_the_champion(run, make_model):
    options = {"task": "regression", "label": "arr_delay", "bias": -8.0}
    champion = make_model("champion", {"hour": 3.0}, **options)
    verdict = run(make_model("model", {"hour": 1.0}, **options), champion, gate={**QUICK, "min_gain": 0.001})
    gain = check(verdict, "gain:rmse")
    assert gain.passed
    assert 0 < gain.value < 1
    assert "%" in gain.reason
    assert check(verdict, "better_than_baseline").passed


@pytest.mark.usefixtures("no_process")
def test_more_than_two_classes(run, make_model):
    options = {"label": "origin", "classes": ("EWR", "JFK", "LGA")}
    champion = make_model("champion", {"hour": 0.1}, bias=-1.5, **options)
    verdict = run(make_model("model", {"hour": 0.1, "distance": -0.01}, bias=6.0, **options), champion)
    assert check(verdict, "gain:roc_auc_ovr").value is not None
    assert check(verdict, "champion").passed


@pytest.mark.usefixtures("no_process")
def test_no_champion_is_fine_unless_one_is_required(run, make_model, tmp_path, flights_table):
    model = make_model()
    assert run(model).passed
    verdict = validate(tmp_path, model, flights_table, gate={"require_champion": True})
    assert [item.reason for item in verdict.failures] == ["there is no champion yet, and the gate requires one"]


def broken(make_model, how):
    if how == "another label":
        return make_model("champion", GOOD, label="year")
    if how == "another task":
        return make_model("champion", {"hour": 1.0}, task="regression")
    if how == "other classes":
        return make_model("champion", GOOD, classes=(1, 0))
    if how == "other columns":
        return make_model("champion", {"hour": 0.1, "gate_number": 1.0})
    if how == "does not load":
        return make_model("champion", GOOD, extra="import a_package_that_is_gone")
    if how == "raises":
        return make_model("champion", GOOD, hook="raise RuntimeError('out of order')")
    if how == "no numbers":
        return make_model("champion", GOOD, nan_rows=3)
    folder = make_model("champion", GOOD)
    (folder / INFO_FILE).unlink()
    return folder


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("another label", "it is of another label (allowed: late; received: year)"),
        ("another task", "it is of another task"),
        ("other classes", "it is of another classes (allowed: (0, 1); received: (1, 0))"),
        ("other columns", "gate_number is missing"),
        ("does not load", "a_package_that_is_gone"),
        ("raises", "RuntimeError: out of order"),
        ("no numbers", "it gives no usable answer for 3 rows"),
        ("no card", "cannot read a model's card"),
    ],
)
def test_a_broken_champion_fails_or_is_ignored(run, make_model, tmp_path, flights_table, how, reason):
    model, champion = make_model(), broken(make_model, how)
    verdict = run(model, champion)
    assert [item.name for item in verdict.failures] == ["champion"]
    assert reason in verdict.failures[0].reason
    assert 'on_broken_champion: "ignore"' in verdict.failures[0].reason
    ignored = validate(tmp_path, model, flights_table, champion, gate={"on_broken_champion": "ignore"})
    assert ignored.passed
    assert "ignored, as the gate says" in check(ignored, "champion").reason


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("champion", "hint"),
    [("models:/late@champion", "find_champion_mlflow"), ("nowhere", None), ("s3://bucket/model", None)],
)
def test_a_champion_that_is_neither_version_nor_folder(run, make_model, champion, hint):
    with pytest.raises(InputError, match="a champion that cannot be found") as error:
        run(make_model(), champion)
    assert 'allowed: "models:/NAME/VERSION"' in str(error.value)
    assert f"received: {champion}" in str(error.value)
    assert hint is None or hint in str(error.value)


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
@pytest.mark.filterwarnings("ignore")  # MLflow's SQLite store leaves connections and warns of its own types
def test_a_champion_from_a_registry(run, make_model, tmp_path, flights_table, monkeypatch):
    import mlflow

    uri = f"sqlite:///{tmp_path}/registry.db"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("late")
    client.create_model_version("late", source=str(make_model("champion", WORSE)))
    model = make_model("model", GOOD)
    verdict = run(model, "models:/late/1", tracking_uri=uri)
    assert verdict.passed, verdict.failures
    assert check(verdict, "champion").value == "models:/late/1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert validate(tmp_path, model, flights_table, "models:/late/1") == verdict
    absent = validate(tmp_path, model, flights_table, "models:/late/7")
    assert "the registry has no such version" in check(absent, "champion").reason
    (tmp_path / "champion").rename(tmp_path / "gone")
    gone = validate(tmp_path, model, flights_table, "models:/late/1")
    assert "not its files" in check(gone, "champion").reason
    assert os.environ["MLFLOW_TRACKING_URI"] == uri


@pytest.mark.usefixtures("no_process")
def test_no_registry_named_anywhere(run, make_model, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="no MLflow tracking URI is set"):
        run(make_model(), "models:/late/1")


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
def test_a_registry_that_does_not_answer_can_be_retried(run, make_model):
    with pytest.raises(ServiceError) as error:
        run(make_model(), "models:/late/1", tracking_uri="http://127.0.0.1:9")
    assert error.value.retryable


# Slices.


@pytest.mark.usefixtures("no_process")
def test_small_slices_are_not_compared(run, make_model, tmp_path):
    gate = {**QUICK, "slices": ["carrier"], "min_slice_rows": 250}
    verdict = run(make_model("model", GOOD), make_model("champion", WORSE), gate=gate)
    compared = [item.name for item in verdict.checks if item.name.startswith("slice:")]
    assert set(compared) == {"slice:carrier=UA", "slice:carrier=EV", "slice:carrier=B6", "slice:carrier=DL"}
    assert "4 of 15 slices compared; 11 with fewer than 250 rows" in check(verdict, "slices").reason
    assert "not compared" in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("no_process")
def test_a_slice_without_one_of_the_classes_is_not_compared(run, make_model):
    gate = {**QUICK, "slices": ["late"]}
    verdict = run(make_model("model", GOOD), make_model("champion", WORSE), gate=gate)
    assert "0 of 2 slices compared; 0 with fewer than 100 rows, 2 where" in check(verdict, "slices").reason


@pytest.mark.usefixtures("no_process")
def test_the_slice_bound_decides_how_sure_a_loss_must_be(run, make_model, tmp_path, flights_table):
    model, champion = make_model("model", WORSE), make_model("champion", GOOD)
    estimate = check(run(model, champion, slices=["origin"]), "slice:origin=JFK").value
    margin, failed = -estimate + 1e-9, {}  # the estimate just holds
    for bound in ("upper", "estimate", "lower"):
        gate = {**QUICK, "slice_margin": margin, "slice_bound": bound}
        verdict = validate(tmp_path, model, flights_table, champion, gate=gate)
        failed[bound] = {item.name for item in verdict.failures if item.name.startswith("slice:")}
    assert failed["upper"] <= failed["estimate"] <= failed["lower"]
    assert "slice:origin=JFK" in failed["lower"] - failed["estimate"]


# Wrong input.


@pytest.mark.usefixtures("no_process")
@pytest.mark.parametrize(
    ("gate", "headline", "part"),
    [
        ({"metric": "roc_acu"}, "a metric that is not known", "did you mean 'roc_auc'?"),
        ({"metric": "rmse"}, "not a metric of a binary model", "received: rmse"),
        ({"metric": "base_rate"}, "neither more nor less is better", "allowed: roc_auc"),
        ({"thresholds": {"brier": {"max": 1}}}, "a metric that is not known", "gate.thresholds"),
        ({"thresholds": {"roc_auc": {}}}, "a value that is not allowed", "min, max or both"),
        ({"thresholds": {"roc_auc": {"mni": 0.5}}}, "a key that is not known", "did you mean 'min'?"),
        ({"min_gian": 0.1}, "a key that is not known", "did you mean 'min_gain'?"),
        ({"confidence": 95}, "a value that is not allowed", "less than 1"),
        ({"slices": ["orgin"]}, "the table has no such column", "did you mean 'origin'?"),
        ({"on_broken_champion": "skip"}, "a value that is not allowed", "'fail' or 'ignore'"),
    ],
)
def test_a_wrong_gate_is_explained(run, make_model, gate, headline, part):
    with pytest.raises(InputError, match=headline) as error:
        run(make_model(), gate=gate)
    assert part in str(error.value)


@pytest.mark.usefixtures("no_process")
def test_an_evaluation_of_something_else_is_refused(run, make_model, flights, tmp_path):
    model, other = make_model("model"), make_model("other", WORSE)
    with pytest.raises(ContractError, match="the evaluation is of another model"):
        run(model, evaluated=other)
    write_table(tmp_path / "fewer", flights.slice(1), source="flights")
    run(model)
    with pytest.raises(ContractError, match="the evaluation is of another table") as error:
        validate(tmp_path, model, tmp_path / "fewer")
    assert "the same model and table as evaluate_model" in str(error.value)


@pytest.mark.usefixtures("no_process")
def test_the_same_input_is_the_same_bytes(run, make_model, tmp_path, flights_table):
    model, champion = make_model("model", GOOD), make_model("champion", WORSE)
    files = ("verdict.json", "verdict.md", "page.html")
    run(model, champion, slices=["origin"])
    first = [(tmp_path / name).read_bytes() for name in files]
    validate(tmp_path, model, flights_table, champion)
    assert [(tmp_path / name).read_bytes() for name in files] == first


# The bootstrap.


def predictions(kind, rows=400, seed=0, noise=1.0, labels_seed=0):
    labels_from, generator = np.random.default_rng(labels_seed), np.random.default_rng(seed)
    if kind == "regression":
        labels = labels_from.normal(5, 2, rows)
        return Predictions(kind, labels, labels + generator.normal(0, noise, rows), None, (), rows)
    if kind == "binary":
        labels = (labels_from.random(rows) < 0.3).astype(np.int8)
        scores = 1 / (1 + np.exp(-(labels + generator.normal(-1, noise, rows))))
        return Predictions(kind, labels, np.round(scores, 2), None, (), rows)  # rounded: with ties
    labels = labels_from.integers(0, 3, rows).astype(np.int16)
    logits = np.eye(3)[labels] + generator.normal(0, noise, (rows, 3))
    scores = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return Predictions(kind, labels, scores, scores.argmax(axis=1).astype(np.int16), (), rows)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [(kind, name) for kind in ("binary", "multiclass", "regression") for name in metric_names(kind, ranked=True)],
)
def test_a_weight_is_the_row_that_many_times(kind, metric):
    for rows in (401, 30):
        given_rows = predictions(kind, rows)
        measure = statistic(metric, given_rows, 0.4)
        ones = np.ones((1, rows), dtype=np.uint8)
        assert measure(ones)[0] == pytest.approx(metrics_of(given_rows, threshold=0.4)[metric], rel=1e-6)
        weights = poisson_weights(np.random.default_rng(3), 4, rows)
        for row in range(4):
            repeated = given_rows.take(np.repeat(np.arange(rows), weights[row]))
            expected = metrics_of(repeated, threshold=0.4)[metric]
            assert measure(weights)[row] == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
    st.sampled_from(["roc_auc", "average_precision"]),
)
def test_ranked_replicates_are_the_metric_of_the_repeated_rows(rows, metric):
    labels = np.array([flag for flag, _, _ in rows], dtype=np.int8)
    scores = np.array([score / 5 for _, score, _ in rows])
    weights = np.array([[weight for _, _, weight in rows]], dtype=np.uint8)
    given_rows = Predictions("binary", labels, scores, None, (), len(rows))
    got = statistic(metric, given_rows, 0.5)(weights)[0]
    repeated = given_rows.take(np.repeat(np.arange(len(rows)), weights[0]))
    expected = metrics_of(repeated)[metric]
    assert got == pytest.approx(np.nan if expected is None else expected, nan_ok=True)


def interval(metric, first, second, **options):
    settings_ = {"samples": 1000, "confidence": 0.95, "seed": (0,), "most_rows": 10**6, "threshold": 0.5, "scale": 1.0}
    values = [metrics_of(part)[metric] for part in (first, second)]
    return gain_interval(metric, first, second, estimate=values[0] - values[1], **settings_ | options)


def test_weights_have_the_mean_and_variance_of_poisson():
    weights = poisson_weights(np.random.default_rng(0), 200, 5000)
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights.var() == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_the_interval_is_that_of_resampling_rows_by_hand():
    from sklearn.metrics import roc_auc_score

    first, second = predictions("binary", 600, seed=1, noise=0.8), predictions("binary", 600, seed=2, noise=1.2)
    found = interval("roc_auc", first, second, samples=4000)
    generator = np.random.default_rng(9)
    gains = []
    for _ in range(800):
        rows = generator.integers(0, 600, 600)
        labels = first.labels[rows]
        gains.append(roc_auc_score(labels, first.scores[rows]) - roc_auc_score(labels, second.scores[rows]))
    low, high = np.quantile(gains, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.008)
    assert found.high == pytest.approx(high, abs=0.008)
    assert found.low < found.estimate < found.high


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    # Two models of the same quality: the gain is 0 in truth.
    covered = 0
    for trial in range(120):
        pair = [predictions("binary", 300, seed=1000 * side + trial, labels_seed=trial) for side in (1, 2)]
        found = interval("roc_auc", *pair, samples=300, confidence=0.9)
        covered += found.low <= 0 <= found.high
    assert 0.82 <= covered / 120 <= 0.97


def test_a_part_of_the_rows_gives_about_the_same_interval():
    first, second = predictions("binary", 20_000, seed=1, noise=0.9), predictions("binary", 20_000, seed=2)
    whole = interval("roc_auc", first, second)
    part = interval("roc_auc", first, second, most_rows=4000)
    assert part.estimate == whole.estimate
    assert part.high - part.low == pytest.approx(whole.high - whole.low, rel=0.15)
    assert part.low == pytest.approx(whole.low, abs=0.002)


def test_another_seed_is_another_interval_and_the_same_seed_the_same():
    pair = predictions("binary", seed=1), predictions("binary", seed=2)
    assert interval("roc_auc", *pair) == interval("roc_auc", *pair)
    assert interval("roc_auc", *pair) != interval("roc_auc", *pair, seed=(1,))


def test_too_few_rows_of_a_class_give_no_interval():
    labels = np.zeros(50, dtype=np.int8)
    rows = Predictions("binary", labels, np.linspace(0, 1, 50), None, (), 50)
    found = gain_interval("roc_auc", rows, rows, estimate=0.0, scale=1.0, threshold=0.5, samples=100, confidence=0.9,
                          seed=(0,), most_rows=100)  # fmt: skip
    assert found is None


def test_a_hundred_thousand_rows_take_a_few_seconds():
    pair = predictions("binary", 100_000, seed=1), predictions("binary", 100_000, seed=2)
    start = time.process_time()
    interval("roc_auc", *pair)
    assert time.process_time() - start < 8


# The serving check.


def serve(folder, timeout_seconds=120.0):
    with ServingCheck(folder, read_model_info(folder), timeout_seconds=timeout_seconds) as serving:
        try:
            model = LoadedModel(folder)
        except ContractError:
            model = None
        return {item.name: item for item in serving.checks(model)}


@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        ({"extra": "import pipeparts.runtime.files"}, "serving:loads", "No module named 'pipeparts'"),
        ({"extra": "import os; os._exit(7) if 'pipeparts.errors' not in __import__('sys').modules else None"},
         "serving:loads", "ended with exit code 7"),
        ({"hook": "raise ValueError('no such plane')"}, "serving:answers", "ValueError: no such plane (tiny_"),
        ({"hook": 'return pd.DataFrame({"prediction": [1] * len(rows)})'}, "serving:answers",
         "answers with the columns prediction, not prediction, probability"),
        ({"nan_rows": 1}, "serving:answers", "answers with probability that is no finite number"),
        ({"example": False}, "serving:answers", "has no input example"),
        ({"card": {"columns": {"hour": "float64", "seat": "string"}}}, "serving:answers", "its card names: seat"),
        ({"hook": "import sys; rows = rows + ('pipeparts.errors' in sys.modules)"}, "serving:same_answer",
         "answers otherwise in the clean process than in this one"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_served_says_why(make_model, options, name, reason):
    checks = serve(make_model(**options))
    assert not checks[name].passed
    assert reason in checks[name].reason
    assert [item.name for item in checks.values() if not item.passed] == [name]


def test_the_clean_process_leaves_the_model_as_it_is_and_knows_no_settings(make_model, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    extra = (
        "import os, sys; assert not {'PYTHONPATH', 'MLFLOW_TRACKING_URI'} & set(os.environ) or 'pytest' in sys.modules"
    )
    folder = make_model(extra=extra)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    checks = serve(folder)
    assert all(item.passed for item in checks.values()), checks
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_model_that_does_not_answer_in_time_is_stopped(make_model):
    slow = make_model(extra="import sys, time; 'pytest' in sys.modules or time.sleep(60)")
    start = time.monotonic()
    checks = serve(slow, timeout_seconds=3.0)
    assert "no answer within 3 s" in checks["serving:loads"].reason
    assert time.monotonic() - start < 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TensorFlow's own, on import
@pytest.mark.parametrize(("bias", "passed"), [(-2.8, True), (-2.7, False)])
def test_a_saved_model_answers_raw_columns_alike(make_model, bias, passed):
    import tensorflow as tf

    folder = make_model()
    names = list(read_model_info(folder).columns)

    class Net(tf.Module):
        @tf.function(input_signature=[{name: tf.TensorSpec([None], tf.float64, name=name) for name in names}])
        def serve(self, raw):
            total = sum(tf.constant(GOOD[name], tf.float64) * raw[name] for name in names)
            return {"probability": tf.sigmoid(total + bias)}

    net = Net()
    tf.saved_model.save(net, str(folder / "saved"), signatures={"serving_default": net.serve})
    card = json.loads((folder / INFO_FILE).read_text())
    card["extra"]["saved_model"] = "saved"
    (folder / INFO_FILE).write_text(json.dumps(card))
    check_ = serve(folder)["serving:savedmodel"]
    assert check_.passed is passed
    assert ("the same numbers" if passed else "answers otherwise") in check_.reason


def test_a_predictions_take_keeps_all_in_step():
    rows = predictions("multiclass", 10)
    part = rows.take(np.array([3, 1]))
    assert part.labels.tolist() == rows.labels[[3, 1]].tolist()
    assert dataclasses.replace(part, labels=rows.labels).rows == 10
    assert pa.array(part.predicted).to_pylist() == rows.predicted[[3, 1]].tolist()
