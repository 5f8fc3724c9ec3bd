"""Tests of the logic of `evaluate_model`, and of the metrics and slices behind it."""

import json
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.validation.evaluate_model import logic
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime import metrics as m
from pipeparts.runtime.evaluation import evaluate, predict_table, read_evaluation
from pipeparts.runtime.models import LoadedModel
from pipeparts.runtime.slices import MISSING, MOST_VALUES, OTHERS, Slicer
from pipeparts.runtime.tables import Table, write_table


@pytest.fixture
def run(tmp_path, flights_table):
    def run_logic(model, table=None, **options):
        return logic.evaluate_model(
            model_path=model,
            table_path=table or flights_table,
            evaluation_path=tmp_path / "evaluation.json",
            metrics_path=tmp_path / "metrics.json",
            classification_path=tmp_path / "classification.json",
            page_path=tmp_path / "page.html",
            **options,
        )

    return run_logic


def reference_binary(y, p, threshold):
    from sklearn import metrics as sk

    predicted = p >= threshold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "roc_auc": sk.roc_auc_score(y, p),
            "average_precision": sk.average_precision_score(y, p),
            "brier_score": sk.brier_score_loss(y, p),
            "log_loss": sk.log_loss(y, p, labels=[0, 1]),
            "accuracy": sk.accuracy_score(y, predicted),
            "precision": sk.precision_score(y, predicted, zero_division=np.nan),
            "recall": sk.recall_score(y, predicted),
            "f1": sk.f1_score(y, predicted),
            "share_predicted_positive": predicted.mean(),
            "base_rate": y.mean(),
        }


def ours_binary(y, p, threshold):
    order = m.falling(p)
    return m.binary_metrics(y[order], p[order], p[order] >= threshold)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=80).filter(
        lambda rows: 0 < sum(flag for flag, _ in rows) < len(rows)
    ),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)
def test_binary_metrics_are_those_of_scikit_learn_ties_included(rows, threshold):
    y = np.array([flag for flag, _ in rows], dtype=np.int8)
    p = np.array([score / 12 for _, score in rows])
    ours = ours_binary(y, p, threshold)
    for name, expected in reference_binary(y, p, threshold).items():
        got = np.nan if ours[name] is None else ours[name]
        assert got == pytest.approx(expected, abs=1e-12, nan_ok=True), name


def test_multiclass_metrics_are_those_of_scikit_learn():
    from sklearn import metrics as sk

    generator = np.random.default_rng(0)
    y = generator.integers(0, 4, 500)
    p = generator.dirichlet(np.ones(4), 500)
    predicted = p.argmax(axis=1)
    ours = m.multiclass_metrics(y, p, predicted)
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, predicted))
    assert ours["macro_f1"] == pytest.approx(sk.f1_score(y, predicted, average="macro"))
    assert ours["weighted_f1"] == pytest.approx(sk.f1_score(y, predicted, average="weighted"))
    assert ours["log_loss"] == pytest.approx(sk.log_loss(y, p))
    assert ours["roc_auc_ovr"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"))
    assert (m.confusion(y, predicted, 4) == sk.confusion_matrix(y, predicted)).all()


def test_regression_metrics_are_those_of_scikit_learn():
    from sklearn import metrics as sk

    generator = np.random.default_rng(0)
    y = generator.normal(5, 2, 301)
    p = y + generator.normal(0, 1, 301)
    ours = m.regression_metrics(y, p)
    assert ours["rmse"] == pytest.approx(sk.root_mean_squared_error(y, p))
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y, p))
    assert ours["r2"] == pytest.approx(sk.r2_score(y, p))
    assert ours["median_absolute_error"] == pytest.approx(sk.median_absolute_error(y, p))
    assert ours["mape"] == pytest.approx(sk.mean_absolute_percentage_error(y, p))
    assert ours["mean_error"] == pytest.approx((p - y).mean())


def test_calibration_error_is_the_distance_over_equal_bins():
    y = np.array([0, 1, 1, 1], dtype=np.int8)
    p = np.array([0.1, 0.1, 0.9, 0.9])
    # Half of the rows are predicted 0.1 and happen half of the time; the others 0.9 and always.
    assert ours_binary(y, p, 0.5)["expected_calibration_error"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


def test_flights_with_missing_labels_are_counted_and_left_out(run, make_model, flights, tmp_path):
    evaluation = run(make_model(), threshold=0.3)
    late = flights["late"].to_pandas()
    assert evaluation.counts["rows"] == 2005
    assert evaluation.counts["rows_without_label"] == late.isna().sum() > 0
    assert evaluation.counts["rows_by_class"] == {"0": (late == 0).sum(), "1": (late == 1).sum()}
    known = late.notna().to_numpy()
    p = LoadedModel(tmp_path / "model").predict(flights.to_pandas())["probability"].to_numpy()[known]
    expected = reference_binary(late[known].to_numpy().astype(np.int8), p, 0.3)
    assert {name: evaluation.metrics[name] for name in expected} == pytest.approx(expected)
    assert evaluation.curves["confusion"][1][1] == (late[known].to_numpy(bool) & (p >= 0.3)).sum()


def test_the_baseline_is_the_majority_class_with_the_base_rate(run, make_model):
    evaluation = run(make_model(), threshold=0.1)
    rate = evaluation.metrics["base_rate"]
    assert evaluation.baseline["roc_auc"] == 0.5
    assert evaluation.baseline["brier_score"] == pytest.approx(rate * (1 - rate))
    assert evaluation.baseline["accuracy"] == pytest.approx(1 - rate)  # whatever the threshold
    assert evaluation.baseline["precision"] is None
    assert evaluation.baseline_name.startswith("always class 0")


@pytest.mark.parametrize("batch_rows", [13, 97, 5000])
def test_batches_change_nothing(make_model, flights_table, batch_rows):
    model, table = LoadedModel(make_model()), Table(flights_table)
    whole = evaluate(predict_table(model, table, slices=["origin"]), model.info, table)
    rows = predict_table(model, table, slices=["origin"], batch_rows=batch_rows)
    assert evaluate(rows, model.info, table) == whole


def test_slices_are_the_metrics_of_their_rows(run, make_model, flights, tmp_path):
    evaluation = run(make_model(), slices=["origin", "origin+dest"])
    by_origin, crossed = evaluation.slices
    assert [part["value"] for part in by_origin["values"]] == ["EWR", "JFK", "LGA"]
    for part in by_origin["values"]:
        rows = flights.filter(pc.equal(flights["origin"], part["value"]))
        write_table(tmp_path / part["value"], rows, source="flights")
        model, table = LoadedModel(tmp_path / "model"), Table(tmp_path / part["value"])
        alone = evaluate(predict_table(model, table), model.info, table)
        assert part["rows"] == alone.counts["rows_evaluated"]
        assert part["metrics"] == pytest.approx(alone.metrics)
    assert len(crossed["values"]) == MOST_VALUES + 1
    assert crossed["values"][-1]["value"] == OTHERS
    assert sum(part["rows"] for part in crossed["values"]) == evaluation.counts["rows_evaluated"]
    assert crossed["values"][0]["value"].count(" + ") == 1


def slicing_of(values, name="x"):
    batch = pa.record_batch({name: values})
    slicer = Slicer([name], batch.schema)
    slicer.add(batch.slice(0, 3))
    slicer.add(batch.slice(3))
    return slicer.finish()[0]


def test_many_numbers_go_into_buckets_of_equal_count():
    slicing = slicing_of(pa.array([*range(100), None], pa.int64()))
    assert slicing.values == ("[0, 19)", "[19, 39)", "[39, 59)", "[59, 79)", "[79, 99]", MISSING)
    assert np.bincount(slicing.codes).tolist() == [19, 20, 20, 20, 21, 1]


def test_few_numbers_times_and_truths_are_slices_each():
    assert slicing_of(pa.array([3, 1, None, 10, 1], pa.float64())).values == ("1", "3", "10", MISSING)
    assert slicing_of(pa.array([True, False, None, True])).values == ("false", "true", MISSING)
    days = pa.array(["2013-01-02", "2013-01-01", None, "2013-01-02"]).cast(pa.date32())
    assert slicing_of(days).values == ("2013-01-01", "2013-01-02", MISSING)
    assert slicing_of(days.cast(pa.timestamp("us"))).values[0] == "2013-01-01 00:00:00"


def test_text_slices_come_by_size_with_missing_last():
    slicing = slicing_of(pa.array([None, "b", None, "a", "b", None, "ü"]))
    assert slicing.values == ("b", "a", "ü", MISSING)
    assert slicing.codes.tolist() == [3, 0, 3, 1, 0, 3, 2]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=32)), min_size=1, max_size=200))
def test_every_row_is_in_one_slice(values):
    slicing = slicing_of(pa.array(values, pa.float64()))
    assert len(slicing.codes) == len(values)
    assert slicing.codes.min() >= 0
    assert slicing.codes.max() < len(slicing.values)


def test_a_key_makes_no_slices():
    with pytest.raises(DataError, match="too many values") as error:
        slicing_of(pa.array([str(i) for i in range(100_002)]))
    assert "column x" in str(error.value)


def test_a_regression(run, make_model, flights, tmp_path):
    model = make_model(weights={"hour": 2.0}, task="regression", label="arr_delay", bias=-20.0)
    evaluation = run(model, slices=["origin"])
    known = flights.filter(pc.is_valid(flights["arr_delay"])).to_pandas()
    errors = 2.0 * known["hour"] - 20 - known["arr_delay"]
    assert evaluation.metrics["rmse"] == pytest.approx(np.sqrt((errors**2).mean()))
    assert evaluation.baseline["rmse"] == pytest.approx(known["arr_delay"].std(ddof=0))
    assert evaluation.threshold is None
    assert sum(band["rows"] for band in evaluation.curves["residual_bands"]) == len(known)
    assert json.loads((tmp_path / "classification.json").read_text()) == {}


def test_more_than_two_classes_of_text(run, make_model, tmp_path):
    model = make_model(weights={"hour": 0.1}, label="origin", classes=("EWR", "JFK", "LGA"), bias=-1.5)
    evaluation = run(model)
    assert list(evaluation.counts["rows_by_class"]) == ["EWR", "JFK", "LGA"]
    assert sum(map(sum, evaluation.curves["confusion"])) == 2005
    assert set(evaluation.curves["roc_by_class"]) == {"EWR", "JFK", "LGA"}
    curves = json.loads((tmp_path / "classification.json").read_text())
    assert curves["confusion_matrix"]["categories"] == ["EWR", "JFK", "LGA"]
    assert "roc_curve" not in curves


def test_the_evaluation_reads_back_and_is_the_same_bytes_again(run, make_model, tmp_path):
    model = make_model()
    evaluation = run(model, slices=["origin", "distance"])
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    files = ["evaluation.json", "metrics.json", "classification.json", "page.html"]
    first = [(tmp_path / name).read_bytes() for name in files]
    run(model, slices=["origin", "distance"])
    assert [(tmp_path / name).read_bytes() for name in files] == first


def test_the_page_stands_alone_and_tells_the_slices(run, make_model, tmp_path):
    run(make_model(), slices=["origin"])
    text = (tmp_path / "page.html").read_text()
    assert "By origin" in text
    assert text.count("<svg") == 6
    assert "<script" not in text
    assert 'src="http' not in text


def test_the_console_gets_finite_thinned_curves(run, make_model):
    from kfp import dsl

    evaluation = run(make_model())
    artifact = dsl.ClassificationMetrics()
    logic.log_curves(evaluation, artifact)
    json.dumps(artifact.metadata, allow_nan=False)
    points = artifact.metadata["confidenceMetrics"]
    assert 50 < len(points) <= 200
    assert (points[0]["recall"], points[-1]["recall"], points[-1]["falsePositiveRate"]) == (0.0, 1.0, 1.0)
    thresholds = [point["confidenceThreshold"] for point in points]
    assert thresholds == sorted(thresholds, reverse=True)
    assert len(artifact.metadata["confusionMatrix"]["rows"]) == 2


def test_a_thinned_curve_keeps_its_area(run, make_model):
    evaluation = run(make_model())
    roc = evaluation.curves["roc"]
    area = np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"])
    assert area == pytest.approx(evaluation.metrics["roc_auc"], abs=2e-3)


def test_the_component_fills_its_artifacts(make_model, flights_table, tmp_path):
    from kfp import dsl

    from pipeparts.components.validation.evaluate_model.component import evaluate_model

    made = {
        name: kind(name=name, uri=str(tmp_path / "out" / name))
        for name, kind in {
            "evaluation": dsl.Artifact,
            "metrics": dsl.Metrics,
            "classification": dsl.ClassificationMetrics,
            "page": dsl.HTML,
        }.items()
    }
    evaluate_model.python_func(
        model=dsl.Model(uri=str(make_model())), table=dsl.Dataset(uri=str(flights_table)), slices=["origin"], **made
    )
    assert made["metrics"].metadata["roc_auc"] == made["evaluation"].metadata["roc_auc"]
    assert all(isinstance(value, float) for value in made["metrics"].metadata.values())
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(made)  # the cache wants each as a file


def test_one_class_alone_leaves_the_curves_undefined(run, make_model, flights, tmp_path):
    write_table(tmp_path / "late", flights.filter(pc.equal(flights["late"], 1)), source="flights")
    evaluation = run(make_model(), tmp_path / "late", slices=["origin"])
    assert evaluation.metrics["roc_auc"] is None
    assert evaluation.metrics["brier_score"] > 0
    assert "roc_auc" not in json.loads((tmp_path / "metrics.json").read_text())
    assert "not defined" in (tmp_path / "page.html").read_text()
    assert "same class" in (tmp_path / "page.html").read_text()


def test_rows_without_a_usable_answer_are_counted(run, make_model, tmp_path, caplog):
    evaluation = run(make_model(nan_rows=7))
    assert evaluation.counts["rows_without_prediction"] == 7
    assert "no usable answer for 7 of 1,947 rows" in caplog.text
    assert "no usable answer for 7 rows" in (tmp_path / "page.html").read_text()


def test_no_usable_answer_at_all_is_still_an_evaluation(run, make_model):
    evaluation = run(make_model(nan_rows=10**6), slices=["origin"])
    assert evaluation.counts["rows_evaluated"] == 0
    assert set(evaluation.metrics.values()) == {None}


def test_probabilities_outside_0_to_1_are_no_answers(run, make_model):
    hook = 'return pd.DataFrame({"prediction": [0] * len(rows), "probability": np.linspace(-1, 2, len(rows))})'
    evaluation = run(make_model(hook=hook))
    assert 0 < evaluation.counts["rows_evaluated"] < evaluation.counts["rows_without_prediction"]


def test_a_failing_model_is_named_with_its_rows(run, make_model, tmp_path):
    with pytest.raises(ContractError, match="the model fails on the table's rows") as error:
        run(make_model(hook="raise KeyError('no such plane')"))
    assert "among rows 0 to" in str(error.value)
    assert "KeyError: 'no such plane'" in str(error.value)
    assert not (tmp_path / "evaluation.json").exists()


def test_a_model_that_answers_text_is_refused(run, make_model):
    hook = 'return pd.DataFrame({"prediction": 0, "probability": ["high"] * len(rows)})'
    with pytest.raises(ContractError, match="answer is not numbers"):
        run(make_model(hook=hook))


def test_an_empty_table_and_one_without_labels_are_refused(run, make_model, flights, tmp_path):
    write_table(tmp_path / "empty", flights.slice(0, 0), source="flights")
    with pytest.raises(DataError, match="no row to evaluate the model on") as error:
        run(make_model(), tmp_path / "empty")
    assert "received: an empty table" in str(error.value)
    write_table(tmp_path / "unknown", flights.filter(pc.is_null(flights["late"])), source="flights")
    with pytest.raises(DataError, match="no row to evaluate") as error:
        run(tmp_path / "model", tmp_path / "unknown")
    assert "58 rows, none with a label" in str(error.value)


def test_a_table_without_the_models_columns_is_refused(run, make_model, flights, tmp_path):
    odd = flights.drop_columns(["distance"])
    odd = odd.set_column(odd.schema.get_field_index("hour"), "hour", odd["hour"].cast(pa.string()))
    write_table(tmp_path / "odd", odd, source="flights")
    with pytest.raises(ContractError, match="the table is not what the model takes") as error:
        run(make_model(), tmp_path / "odd")
    assert "distance is missing; hour is string, not float64" in str(error.value)


def test_labels_that_the_model_does_not_know_are_named(run, make_model):
    with pytest.raises(DataError, match="labels that the model does not know") as error:
        run(make_model(label="origin", classes=("EWR", "JFK", "SFO")))
    assert "received: 'LGA'" in str(error.value)


def test_a_label_of_another_type_is_refused(run, make_model):
    with pytest.raises(ContractError, match="another type than the model's classes"):
        run(make_model(label="late", classes=("no", "yes")))


@pytest.mark.parametrize(
    ("options", "headline", "part"),
    [
        ({"slices": ["orgin"]}, "the table has no such column", "did you mean 'origin'?"),
        ({"slices": "origin"}, "the slices are not a list", "received: origin"),
        ({"slices": ["origin+"]}, "a slice that is not a column", "origin+"),
        ({"slices": [3]}, "a slice that is not a column", "received: 3"),
        ({"threshold": 1.5}, "a threshold that is no probability", "received: 1.5"),
        ({"threshold": float("nan")}, "a threshold that is no probability", "allowed: 0 to 1"),
    ],
)
def test_wrong_parameters_are_explained(run, make_model, options, headline, part):
    with pytest.raises(InputError, match=headline) as error:
        run(make_model(), **options)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "headline"),
    [
        ("", "not JSON"),
        ("[]", "not an evaluation"),
        ('{"format": "other"}', "not an evaluation"),
        ('{"format": "pipeparts.evaluation/1", "classes": [], "slices": []}', "a damaged evaluation"),
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path, text, headline):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(ContractError, match=headline):
        read_evaluation(tmp_path / "e.json")
