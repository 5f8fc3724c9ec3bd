"""Tests of the logic of `report_performance`."""

import dataclasses
import datetime as dt
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.monitoring.report_performance import logic
from pipeparts.components.monitoring.report_performance.judging import Limits, Measured, loss_of
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime.bootstrap import standard_error
from pipeparts.runtime.evaluation import Predictions, evaluate, kind_of, metrics_of
from pipeparts.runtime.models import FORMAT, INFO_FILE, ModelInfo, read_model_info
from pipeparts.runtime.monitoring import Performance, read_report
from pipeparts.runtime.slices import MISSING, OTHERS, Slicer
from pipeparts.runtime.tables import Table, write_table

OURS = "ab" * 16
QUICK = {"bootstrap_samples": 50}


@pytest.fixture(scope="session")
def flights():
    """The 2,005 real flights of the repository, with the probability that a simple model gives."""
    table = pyarrow.csv.read_csv("tests/data/flights.csv")
    frame = table.select(["hour", "wind_speed"]).to_pandas().fillna(0.0)
    chances = 1 / (1 + np.exp(2.8 - 0.12 * frame["hour"] - 0.02 * frame["wind_speed"]))
    return table.append_column("probability", pa.array(chances))


def write_model(folder, task="classification", classes=(0, 1), label="late", fingerprint=OURS):
    """A model's card is all that is read of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text("")
    info = ModelInfo(
        task=task, label=label, classes=tuple(classes), columns={}, framework="lightgbm", fingerprint=fingerprint,
        training_fingerprint="", training_rows=1, seed=0, package_version="0",
    )  # fmt: skip
    document = {"format": FORMAT, **dataclasses.asdict(info), "classes": list(classes)}
    (folder / INFO_FILE).write_text(json.dumps(document))
    return folder


def write_evaluation(path, model, labels, scores, *, predicted=None, slices=None, threshold=0.5):
    """What the model was at registration, on rows that are given."""
    info = read_model_info(model)
    slices = slices or {}
    table = pa.table({**slices, "label": labels})
    write_table(path.parent / "registered_table", table, source="registered")
    slicer = Slicer(list(slices), table.schema)
    for batch in table.to_batches():
        slicer.add(batch)
    predictions = Predictions(
        kind_of(info), np.asarray(labels), np.asarray(scores), predicted, slicer.finish(), len(labels)
    )
    evaluation = evaluate(predictions, info, Table(path.parent / "registered_table"), threshold=threshold)
    evaluation.write(path)
    return evaluation


class World:
    """A model, its evaluation, and a batch that it predicted; each test changes what it is about."""

    def __init__(self, folder, flights):
        self.folder = folder
        self.model = write_model(folder / "model")
        self.labels = flights.drop_columns(["probability"])
        chances = flights["probability"].to_numpy()
        self.predictions = pa.table(
            {
                "flight_id": flights["flight_id"],
                "prediction": (chances >= 0.5).astype(np.int64),
                "probability": chances,
                "model_version": [OURS] * len(chances),
            }
        )
        self.evaluation = folder / "evaluation.json"
        known = np.asarray(pc.is_valid(flights["late"]))
        self.registered = write_evaluation(
            self.evaluation,
            self.model,
            flights["late"].to_numpy()[known].astype(np.int8),
            chances[known],
            slices={name: flights[name].filter(pa.array(known)) for name in ("origin", "distance", "month")},
        )

    def run(self, *, predictions=None, labels=None, evaluation=True, model=True, **options):
        folder = self.folder
        for name, table in (("predictions", predictions), ("labels", labels)):
            table = getattr(self, name) if table is None else table
            write_table(folder / name, table, source=f"{name}.csv")
        return self.again(evaluation=evaluation, model=model, **options)

    def again(self, *, evaluation=True, model=True, **options):
        folder = self.folder
        options.setdefault("keys", ["flight_id"])
        options["limits"] = {**QUICK, **options.get("limits", {})}
        return logic.report_performance(
            predictions_path=folder / "predictions",
            labels_path=options.pop("labels_path", folder / "labels"),
            performance_path=folder / "performance.json",
            metrics_path=folder / "metrics.json",
            page_path=folder / "page.html",
            model_path=self.model if model is True else model,
            evaluation_path=self.evaluation if evaluation is True else evaluation,
            **options,
        )

    def shuffled(self, name, seed=0):
        table = getattr(self, name)
        return table.take(np.random.default_rng(seed).permutation(table.num_rows))

    def with_scores(self, change):
        """The predictions with other probabilities: `change` gets them and the labels' rows."""
        scores = change(self.predictions["probability"].to_numpy().copy(), self.labels.to_pandas())
        return self.predictions.set_column(2, "probability", pa.array(scores))


@pytest.fixture
def world(tmp_path, flights):
    return World(tmp_path, flights)


def finding(report, name):
    found = [item for item in report.findings if item.name == name]
    assert len(found) == 1, [item.name for item in report.findings]
    return found[0]


def reference(frame, threshold=0.5):
    from sklearn import metrics as sk

    y, p = frame["late"], frame["probability"]
    return {
        "roc_auc": sk.roc_auc_score(y, p) if y.nunique() > 1 else None,
        "average_precision": sk.average_precision_score(y, p) if y.any() else None,
        "brier_score": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p, labels=[0, 1]),
        "accuracy": sk.accuracy_score(y, p >= threshold),
        "base_rate": y.mean(),
        "mean_probability": p.mean(),
        "share_predicted_positive": (p >= threshold).mean(),
    }


def joined(world):
    frame = world.labels.to_pandas().merge(world.predictions.to_pandas(), on="flight_id", suffixes=("", "_predicted"))
    return frame[frame["late"].notna()]


# The numbers.


def test_metrics_are_those_of_scikit_learn_on_the_joined_rows(world):
    report = world.run(
        predictions=world.shuffled("predictions"), labels=world.shuffled("labels", 1),
        slices=["origin", "origin+month"], time_column="time_hour", window="month",
    )  # fmt: skip
    frame = joined(world)
    frame["month_utc"] = pd.to_datetime(frame["time_hour"], utc=True).dt.strftime("%Y-%m-01")
    wanted = reference(frame)
    assert {name: report.metrics[name] for name in wanted} == pytest.approx(wanted)
    for part in report.windows:
        rows = frame[frame["month_utc"] == part.value]
        assert part.rows == len(rows)
        assert {name: part.metrics[name] for name in wanted} == pytest.approx(reference(rows))
    assert [part.value for part in report.windows] == sorted(frame["month_utc"].unique())
    origins = {part.value: part for part in report.slices if part.name == "origin"}
    for value, rows in frame.groupby("origin"):
        assert {name: origins[value].metrics[name] for name in wanted} == pytest.approx(reference(rows))
    assert (report.rows, report.rows_labelled, report.rows_unmatched) == (2005, len(frame), 0)
    assert report.batch.rows == 2005


def test_classes_of_many(tmp_path, flights):
    from sklearn import metrics as sk

    classes = ["EWR", "JFK", "LGA"]
    random = np.random.default_rng(0)
    truth = flights["origin"].to_numpy(zero_copy_only=False)
    scores = random.dirichlet([1, 1, 1], len(truth))
    scores[np.arange(len(truth)), [classes.index(name) for name in truth]] += 0.4
    scores /= scores.sum(axis=1, keepdims=True)
    predicted = np.array(classes)[scores.argmax(axis=1)]
    world = World(tmp_path, flights)
    world.model = write_model(tmp_path / "model", classes=classes, label="origin")
    codes = np.array([classes.index(name) for name in truth], dtype=np.int16)
    write_evaluation(
        world.evaluation,
        world.model,
        codes,
        scores.astype(np.float32),
        predicted=scores.argmax(axis=1).astype(np.int16),
    )
    table = pa.table({"flight_id": flights["flight_id"], "prediction": pa.array(predicted).dictionary_encode()})
    for i, name in enumerate(classes):
        table = table.append_column(f"probability_{name}", pa.array(scores[:, i]))
    report = world.run(predictions=table, slices=["month"])
    assert report.kind == "multiclass"
    assert report.metric == "roc_auc_ovr"
    assert not report.degraded
    assert report.metrics["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert report.metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    areas = sk.roc_auc_score(truth, scores, multi_class="ovr", labels=classes)
    assert report.metrics["roc_auc_ovr"] == pytest.approx(areas, abs=1e-6)
    assert report.metrics["mean_confidence"] == pytest.approx(scores.max(axis=1).mean(), abs=1e-6)
    page = (tmp_path / "page.html").read_text()
    assert "Confusion matrix" in page


def regression(tmp_path, flights, noise=8.0):
    world = World(tmp_path, flights)
    world.model = write_model(tmp_path / "model", task="regression", classes=(), label="air_time")
    truth = flights["air_time"]
    known = np.asarray(pc.is_valid(truth))
    values = pc.fill_null(truth, 0).to_numpy().astype(np.float64)
    random = np.random.default_rng(0)
    before = values + random.normal(0, 8.0, len(values))
    write_evaluation(world.evaluation, world.model, values[known], before[known])
    now = values + random.normal(0, noise, len(values))
    world.predictions = pa.table({"flight_id": flights["flight_id"], "prediction": now})
    return world, values[known], now[known]


def test_a_regression(tmp_path, flights):
    from sklearn import metrics as sk

    world, truth, now = regression(tmp_path, flights)
    report = world.run(time_column="time_hour", window="month", slices=["carrier"])
    assert report.metric == "rmse"
    assert report.metrics["rmse"] == pytest.approx(sk.root_mean_squared_error(truth, now))
    assert report.metrics["mae"] == pytest.approx(sk.mean_absolute_error(truth, now))
    assert report.metrics["r2"] == pytest.approx(sk.r2_score(truth, now))
    assert report.metrics["mean_prediction"] == pytest.approx(now.mean())
    assert report.metrics["mean_label"] == pytest.approx(truth.mean())
    assert report.rows_labelled == len(truth) < report.rows
    assert not report.degraded
    assert "Errors: predicted minus actual" in (tmp_path / "page.html").read_text()


def test_losses_of_a_regression_are_shares(tmp_path, flights):
    world, _, _ = regression(tmp_path, flights, noise=10.0)
    report = world.run()
    assert report.degraded
    found = finding(report, "rmse")
    assert found.limit == pytest.approx(1.05 * report.registered["rmse"])
    assert found.value > found.limit
    assert "% lost (" in found.reason
    assert "more than the 5.0% allowed" in found.reason
    assert not world.again(limits={"max_loss": 0.4}).degraded
    assert world.again(limits={"max_loss": 1.0, "relative": False}).degraded
    assert not world.again(limits={"max_loss": 3.0, "relative": False}).degraded


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), kept=st.floats(0.1, 1.0), window=st.sampled_from(["day", "week", "month"]))
def test_the_order_of_rows_does_not_matter_and_parts_add_up(tmp_path_factory, flights, seed, kept, window):
    world = World(tmp_path_factory.mktemp("world"), flights)
    random = np.random.default_rng(seed)
    arrived = world.labels.take(random.permutation(2005)[: max(60, int(kept * 2005))])
    options = {"slices": ["origin", "month"], "time_column": "time_hour", "window": window}
    first = world.run(labels=arrived, **options)
    second = world.run(
        labels=arrived.take(random.permutation(arrived.num_rows)),
        predictions=world.predictions.take(random.permutation(2005)),
        **options,
    )
    assert second.metrics == pytest.approx(first.metrics)
    assert [(part.name, part.value, part.rows) for part in second.slices] == [
        (part.name, part.value, part.rows) for part in first.slices
    ]
    # Windows and slices partition the labelled rows.
    assert sum(part.rows for part in first.windows) == first.rows_labelled
    for name in ("origin", "month"):
        assert sum(part.rows for part in first.slices if part.name == name) == first.rows_labelled
    positives = sum(part.rows * part.metrics["base_rate"] for part in first.windows)
    assert positives == pytest.approx(first.rows_labelled * first.metrics["base_rate"])
    # Every predicted row is counted once.
    null = sum(1 for late in arrived["late"].to_pylist() if late is None)
    assert first.rows == first.rows_labelled + first.rows_unmatched + null == 2005
    assert [part.value for part in first.windows] == sorted(part.value for part in first.windows)


def test_the_same_input_gives_the_same_bytes(world):
    options = {"slices": ["origin"], "time_column": "time_hour", "window": "month"}
    world.run(**options)
    names = ["performance.json", "metrics.json", "page.html"]
    first = [(world.folder / name).read_bytes() for name in names]
    world.again(**options)
    assert [(world.folder / name).read_bytes() for name in names] == first


def test_what_is_written_is_what_is_returned(world):
    report = world.run(slices=["origin"], time_column="time_hour", window="week")
    assert read_report(Performance, world.folder / "performance.json") == report
    metrics = json.loads((world.folder / "metrics.json").read_text())
    assert metrics["roc_auc"] == report.metrics["roc_auc"]
    assert metrics["registered_roc_auc"] == report.registered["roc_auc"]
    assert metrics["degraded"] == 0
    page = (world.folder / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.index("Judgement") < page.index("By week") < page.index("Metrics") < page.index("Slices")
    assert page.count("<svg") == 5  # the metric and the means by week, calibration, confusion, slices


# The judgement.


def test_the_rows_of_the_registration_lose_nothing(world):
    report = world.run(slices=["origin", "distance"], limits={"min_slice_rows": 100})
    assert not report.degraded
    assert report.metrics["roc_auc"] == pytest.approx(report.registered["roc_auc"])
    assert report.metrics["mean_probability"] == pytest.approx(report.registered["mean_probability"])
    assert report.reason.endswith("at registration: nothing lost")
    losses = [part.loss for part in report.slices if part.registered]
    assert losses == [pytest.approx(0, abs=1e-12)] * len(losses)
    # The buckets of a number are those of the registration.
    buckets = [part.value for part in report.slices if part.name == "distance"]
    assert buckets == [part["value"] for part in world.registered.slices[1]["values"]]


def test_a_model_that_guesses_is_degraded(world):
    guessing = world.with_scores(lambda scores, _: np.random.default_rng(0).permutation(scores))
    report = world.run(predictions=guessing, time_column="time_hour", window="month")
    assert report.degraded
    found = finding(report, "roc_auc")
    assert found.exceeded
    assert found.limit == pytest.approx(report.registered["roc_auc"] - 0.02)
    assert found.value == report.metrics["roc_auc"] < 0.55
    assert "lost (" in found.reason
    assert found.reason.endswith("more than the 0.02 allowed")
    assert report.reason == found.reason
    assert '<span class="bad">degraded</span>' in (world.folder / "page.html").read_text()


def noisy(world, amount):
    noise = np.random.default_rng(4).normal(0, amount, 2005)
    return world.with_scores(lambda scores, _: np.clip(scores + noise, 0.0, 1.0))


def test_a_loss_that_may_be_chance_does_not_count(world):
    """A fifth of the labels has arrived: the same loss that counts on all rows."""
    some = world.labels.take(np.random.default_rng(1).permutation(2005)[:500])
    report = world.run(predictions=noisy(world, 0.08), labels=some, limits={"min_rows": 100, "max_loss": 0.01})
    assert not report.degraded
    found = finding(report, "roc_auc")
    assert found.value < found.limit
    assert found.reason.endswith("more than the 0.01 allowed, but it may be chance")


def test_the_lower_end_of_the_loss_is_stricter(world):
    worse = world.with_scores(lambda scores, _: np.random.default_rng(0).permutation(scores))
    loss = world.run(predictions=worse, limits={"max_loss": 0.0}).registered["roc_auc"] - 0.5
    assert world.again(limits={"max_loss": loss - 0.02}).degraded
    assert not world.again(limits={"max_loss": loss - 0.02, "loss_bound": "lower"}).degraded
    assert world.again(limits={"max_loss": 0.02, "loss_bound": "lower"}).degraded


def test_few_rows_at_registration_are_unsure_too(world):
    worse = noisy(world, 0.12)
    sure = world.run(predictions=worse)
    document = json.loads(world.evaluation.read_text())
    document["counts"]["rows_evaluated"] = 100
    world.evaluation.write_text(json.dumps(document))
    unsure = world.run(predictions=worse)
    assert finding(sure, "roc_auc").value == finding(unsure, "roc_auc").value
    assert sure.degraded
    assert not unsure.degraded
    assert "it may be chance" in unsure.reason


def test_the_interval_of_a_loss_holds_as_often_as_it_says():
    """Without any change, over 300 pairs of a registration (4,000 rows) and a batch (2,000)."""
    random = np.random.default_rng(0)
    limits = Limits(metric="roc_auc").of_kind("binary")

    def draw(rows):
        scores = random.beta(2, 5, rows)
        labels = (random.random(rows) < scores).astype(np.int8)
        return Predictions("binary", labels, scores, None, (), rows)

    held = alarms = 0
    for number in range(300):
        before, now = draw(4_000), draw(2_000)
        error = standard_error("roc_auc", now, threshold=0.5, samples=100, seed=(number,), most_rows=10_000)
        part = Measured("", "", 2_000, metrics_of(now), metrics_of(before), 4_000, error)
        loss = loss_of(part, limits, 0.02)
        held += loss.low <= 0.0 <= loss.high
        alarms += loss.exceeded
    assert 0.92 <= held / 300 <= 0.98
    assert alarms / 300 <= 0.05


def test_bounds_hold_whatever_it_was_at_registration(world):
    bounds = {"roc_auc": {"min": 0.9}, "brier_score": {"max": 0.5}, "base_rate": {"min": 0.1, "max": 0.15}}
    report = world.run(limits={"bounds": bounds})
    assert report.degraded
    assert [item.name for item in report.findings if item.exceeded] == ["bound:roc_auc", "bound:base_rate"]
    assert finding(report, "bound:roc_auc").limit == 0.9
    assert "is not at least 0.9" in report.reason
    assert report.reason.endswith("; and 1 other limit not kept")
    assert "not at least 0.1 and at most 0.15" in finding(report, "bound:base_rate").reason
    assert finding(report, "bound:base_rate").limit == 0.15
    assert "is at most 0.5" in finding(report, "bound:brier_score").reason


def test_without_registered_values_bounds_alone_are_judged(world):
    report = world.run(evaluation=None, limits={"bounds": {"roc_auc": {"min": 0.9}}})
    assert report.degraded
    assert report.registered == {}
    assert "what it was at registration is not known: not compared" in finding(report, "roc_auc").reason
    assert not world.again(evaluation=None).degraded


def spoil_jfk(scores, rows):
    spoilt = scores.copy()
    here = (rows["origin"] == "JFK").to_numpy()
    spoilt[here] = 1 - spoilt[here]
    return spoilt


def test_a_slice_that_is_lost_is_named(world):
    spoilt = world.with_scores(spoil_jfk)
    limits = {"max_loss": 0.5, "min_slice_rows": 100}
    report = world.run(predictions=spoilt, slices=["origin", "distance"], limits=limits)
    assert report.degraded
    jfk = finding(report, "slice:origin=JFK")
    assert jfk.exceeded
    assert jfk.reason.startswith("origin JFK: ROC AUC")
    assert [part.value for part in report.slices if part.name == "origin" and part.exceeded] == ["JFK"]
    assert "slices judged" in finding(report, "slices").reason
    page = (world.folder / "page.html").read_text()
    slices = page[page.index(">Slices<") :]
    assert slices.index(">JFK<") < slices.index(">EWR<"), "the worst first"
    assert not world.again(slices=["origin"], limits={**limits, "judge_slices": False}).degraded
    assert not world.again(slices=["origin"], limits={**limits, "max_slice_loss": 0.9}).degraded


def test_small_and_new_slices_are_not_judged(world):
    moved = world.labels.to_pandas()
    moved.loc[moved["origin"] == "LGA", "origin"] = "SWF"
    spoilt = world.with_scores(lambda scores, _: 1 - scores)
    report = world.run(
        predictions=spoilt,
        labels=pa.Table.from_pandas(moved, preserve_index=False),
        slices=["origin", "month"],
    )
    judged = {part.value for part in report.slices if part.loss is not None}
    assert judged == {"EWR", "JFK"}
    assert "12 with fewer than 500 rows; 1 without a value at registration" in finding(report, "slices").reason
    page = (world.folder / "page.html").read_text()
    assert "not known at registration" in page
    assert "too few rows" in page


def test_values_beyond_the_registered_buckets_have_their_own(world):
    far = world.labels.to_pandas()
    far = far[far["late"].notna()].reset_index(drop=True)
    far["distance"] = far["distance"].astype(float)
    far.loc[:9, "distance"], far.loc[10:14, "distance"], far.loc[15:17, "distance"] = 3.0, 99_999.0, np.nan
    report = world.run(labels=pa.Table.from_pandas(far, preserve_index=False), slices=["distance"])
    rows = {part.value: part for part in report.slices}
    low = next(name for name in rows if name.startswith("below "))
    high = next(name for name in rows if name.startswith("above "))
    assert (rows[low].rows, rows[high].rows, rows[MISSING].rows) == (10, 5, 3)
    assert rows[low].registered == {}
    assert sum(part.rows for part in report.slices) == report.rows_labelled


def test_what_is_left_over_is_not_compared(world):
    dests = world.labels["dest"]
    known = np.asarray(pc.is_valid(world.labels["late"]))
    write_evaluation(
        world.evaluation, world.model, world.labels["late"].to_numpy()[known].astype(np.int8),
        world.predictions["probability"].to_numpy()[known], slices={"dest": dests.filter(pa.array(known))},
    )  # fmt: skip
    report = world.run(slices=["dest"], limits={"min_slice_rows": 1})
    others = next(part for part in report.slices if part.value == OTHERS)
    assert others.registered == {}
    assert others.loss is None
    assert any(part.registered for part in report.slices)


def test_windows_are_judged_where_it_is_asked_for(world):
    def spoil_march(scores, rows):
        return np.where(rows["month"] == 3, 1 - scores, scores)

    limits = {"max_loss": 0.5, "min_slice_rows": 100}
    options = {"time_column": "time_hour", "window": "month"}
    report = world.run(predictions=world.with_scores(spoil_march), limits=limits, **options)
    assert not report.degraded
    report = world.again(limits={**limits, "max_window_loss": 0.1}, **options)
    assert report.degraded
    assert finding(report, "window:2013-03-01").exceeded
    assert [part.value for part in report.windows if part.exceeded] == ["2013-03-01"]


def test_on_few_rows_nothing_is_judged(world):
    worse = world.with_scores(lambda scores, _: 1 - scores)
    limits = {"bounds": {"roc_auc": {"min": 0.99}}, "min_slice_rows": 10}
    report = world.run(predictions=worse, labels=world.labels.slice(0, 300), slices=["origin"], limits=limits)
    assert not report.degraded
    assert report.reason.startswith("Not judged: 2")
    assert report.reason.endswith("fewer than the 500 from which the model is judged")
    assert not any(part.exceeded for part in report.slices)
    assert world.again(limits={"min_rows": 100}).degraded


# Labels that have not arrived, answers that are none.


def test_labels_that_have_not_arrived_are_counted(world):
    labels = world.labels.to_pandas()
    labels["late"] = labels["late"].where(labels.index % 3 > 0)
    later = labels.iloc[:900]
    missing = int(later["late"].isna().sum())
    report = world.run(labels=pa.Table.from_pandas(later, preserve_index=False))
    assert (report.rows, report.rows_unmatched) == (2005, 1105)
    assert report.rows_labelled == 900 - missing
    page = (world.folder / "page.html").read_text()
    assert "the label has not arrived: no row of labels</td><td>1,105" in page
    assert f"the label has not arrived: it is empty</td><td>{missing}" in page


@pytest.mark.parametrize("how", ["no row matches", "every label is null", "no row of labels"])
def test_without_any_label_nothing_could_be_measured(world, how):
    labels = world.labels.to_pandas()
    if how == "no row matches":
        labels["flight_id"] = "x" + labels["flight_id"]
    elif how == "every label is null":
        labels["late"] = pd.array([None] * len(labels), dtype="Int64")
    table = pa.Table.from_pandas(labels, preserve_index=False, schema=world.labels.schema)
    table = table.slice(0, 0) if how == "no row of labels" else table
    report = world.run(labels=table, slices=["origin"], time_column="time_hour")
    assert not report.degraded
    assert report.reason == "No label of the 2,005 predicted rows has arrived: nothing could be measured"
    assert (report.rows_labelled, report.metrics, report.windows, report.slices) == (0, {}, (), ())
    assert finding(report, "labelled_rows").value == 0
    assert json.loads((world.folder / "metrics.json").read_text())["rows_labelled"] == 0
    page = (world.folder / "page.html").read_text()
    assert '<span class="warn">not judged</span>: No label of the 2,005 predicted rows' in page
    assert '<span class="warn">too few</span>' in page


def test_no_predictions_at_all(world):
    report = world.run(predictions=world.predictions.slice(0, 0))
    assert (report.rows, report.rows_labelled, report.labels_unmatched) == (0, 0, 2005)
    assert not report.degraded


def test_rows_without_a_usable_prediction_are_counted(world):
    def spoil(scores, _):
        scores[:40] = [np.nan, np.inf, -np.inf, 1.5, -0.5] * 8
        return scores

    labelled = int(pc.sum(pc.is_valid(world.labels["late"].slice(0, 40))).as_py())
    report = world.run(predictions=world.with_scores(spoil), slices=["origin"], time_column="time_hour")
    assert report.rows_without_prediction == labelled
    assert not report.degraded
    assert sum(part.rows for part in report.windows) == report.rows_labelled - labelled
    found = finding(report, "rows_without_prediction")
    assert found.reason.startswith(f"{labelled} rows with a label without a usable prediction")
    assert world.again(limits={"max_unpredicted_share": 0.01}).degraded
    assert not world.again(limits={"max_unpredicted_share": 0.05}).degraded


def test_no_usable_prediction_at_all(world):
    report = world.run(
        predictions=world.with_scores(lambda scores, _: scores * np.nan), slices=["origin"], time_column="time_hour"
    )
    assert not report.degraded
    assert report.rows_without_prediction == report.rows_labelled > 0
    assert report.metrics["roc_auc"] is None
    assert report.reason.startswith("Not judged: 0 rows with a label and a prediction")


def test_one_class_alone_is_not_judged(world):
    quiet = world.labels.to_pandas()
    quiet["late"] = quiet["late"].where(quiet["late"].isna(), 0.0)
    report = world.run(labels=pa.Table.from_pandas(quiet, preserve_index=False))
    assert not report.degraded
    assert report.reason == "ROC AUC is not defined on these rows: not judged"


# What is which.


def test_an_unknown_label_is_an_error(world):
    strange = world.labels.set_column(world.labels.schema.get_field_index("late"), "late", pa.array([7] * 2005))
    with pytest.raises(DataError, match="labels that the model does not know") as error:
        world.run(labels=strange)
    assert error.value.facts["allowed"] == "0, 1"
    assert error.value.facts["received"] == "7"
    assert not (world.folder / "performance.json").exists()


def test_a_label_of_another_type_is_an_error(world):
    strange = world.labels.set_column(world.labels.schema.get_field_index("late"), "late", pa.array([b"1"] * 2005))
    with pytest.raises(ContractError, match="label is of another type"):
        world.run(labels=strange)


def test_a_repeated_key_is_an_error(world):
    with pytest.raises(DataError, match="more than once in the table of labels") as error:
        world.run(labels=pa.concat_tables([world.labels, world.labels.slice(3, 1)]))
    assert world.labels["flight_id"][3].as_py() in error.value.facts["received"]
    with pytest.raises(DataError, match="more than once in the table of predictions"):
        world.run(predictions=pa.concat_tables([world.predictions, world.predictions.slice(3, 1)]))


def test_without_keys_the_predictions_hold_the_label(world):
    whole = world.predictions.append_column("late", world.labels["late"]).append_column(
        "time_hour", world.labels["time_hour"]
    )
    report = world.run()
    alone = world.run(
        predictions=whole, keys=[], labels_path=world.folder / "predictions", time_column="time_hour", window="month"
    )
    assert alone.metrics == pytest.approx(report.metrics)
    assert sum(part.rows for part in alone.windows) == alone.rows_labelled


def test_without_keys_two_tables_do_not_meet(world):
    with pytest.raises(InputError, match="without keys a prediction cannot find its label") as error:
        world.run(keys=None)
    assert error.value.facts["hint"] == "both tables have flight_id"


@pytest.mark.parametrize("keys", ["flight_id", [3], [""], [None]])
def test_keys_are_a_list_of_columns(world, keys):
    with pytest.raises(InputError, match="the keys are not a list of columns"):
        world.run(keys=keys)


def test_slices_and_times_may_be_in_the_predictions(world):
    kept = world.predictions.append_column("origin", world.labels["origin"])
    kept = kept.append_column("time_hour", world.labels["time_hour"])
    options = {"slices": ["origin", "origin+month"], "time_column": "time_hour", "window": "month"}
    first = world.run(**options)
    second = world.run(
        predictions=kept.take(np.random.default_rng(0).permutation(2005)),
        labels=world.shuffled("labels").drop_columns(["origin", "time_hour"]),
        **options,
    )
    assert [(part.name, part.value, part.rows) for part in second.slices] == [
        (part.name, part.value, part.rows) for part in first.slices
    ]
    for one, other in zip(first.windows, second.windows, strict=True):
        assert one.metrics == pytest.approx(other.metrics)


def test_a_column_that_neither_has(world):
    with pytest.raises(InputError, match="neither the predictions nor the labels") as error:
        world.run(slices=["orign"])
    assert error.value.facts["parameter"] == "slices"
    assert error.value.facts["hint"] == "did you mean 'origin'?"
    with pytest.raises(InputError, match="neither the predictions nor the labels") as error:
        world.run(time_column="time")
    assert error.value.facts["parameter"] == "time_column"
    with pytest.raises(InputError, match="the table has no such column") as error:
        world.run(label="delayed")
    assert error.value.facts["parameter"] == "label"


def test_the_label_may_have_another_name(world):
    renamed = world.labels.rename_columns({"late": "was_late"})
    report = world.run(labels=renamed, label="was_late")
    assert report.label == "was_late"
    assert not report.degraded


@pytest.mark.parametrize("missing", ["probability", "prediction"])
def test_a_table_without_predictions_is_an_error(world, missing):
    with pytest.raises(ContractError, match="not the predictions of this model") as error:
        world.run(predictions=world.predictions.drop_columns([missing]))
    assert error.value.facts["allowed"].startswith("the columns prediction, probability")
    assert error.value.facts["received"].startswith(f"no {missing} among")


def test_predictions_that_are_no_numbers_are_an_error(world):
    texts = world.predictions.set_column(2, "probability", pc.cast(world.predictions["probability"], pa.string()))
    with pytest.raises(ContractError, match="the predictions are not numbers") as error:
        world.run(predictions=texts)
    assert error.value.facts["received"] == "string"


def test_a_damaged_table_is_an_error(world):
    world.run()
    part = world.folder / "labels" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ContractError, match="a damaged table"):
        world.again()


def test_a_failure_leaves_no_report(world, monkeypatch):
    monkeypatch.setattr(logic, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        world.run()
    assert not (world.folder / "performance.json").exists()
    assert not list(world.folder.glob(".*partial"))


# Windows.


@pytest.mark.parametrize(
    ("window", "starts"),
    [
        ("day", ["2013-12-29", "2013-12-30", "2013-12-31", "2014-01-05", "2014-01-06"]),
        ("week", ["2013-12-23", "2013-12-30", "2014-01-06"]),  # from Monday
        ("month", ["2013-12-01", "2014-01-01"]),
    ],
)
@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms"), pa.timestamp("ns", tz="America/New_York"), pa.date32(), pa.date64()]
)
def test_windows_in_utc(world, window, starts, kind):
    days = [dt.datetime(2013, 12, 29), dt.datetime(2013, 12, 30), dt.datetime(2013, 12, 31, 23, 59),
            dt.datetime(2014, 1, 5, 23), dt.datetime(2014, 1, 6), None]  # fmt: skip
    # In New York it is still the day before.
    times = pa.array([days[i % 6] for i in range(2005)], pa.timestamp("us"))
    times = (
        times.cast(pa.timestamp("us", tz="UTC")).cast(kind)
        if pa.types.is_timestamp(kind) and kind.tz
        else times.cast(kind, safe=False)
    )
    report = world.run(labels=world.labels.append_column("when", times), time_column="when", window=window)
    assert [part.value for part in report.windows] == [*starts, MISSING]
    assert sum(part.rows for part in report.windows) == report.rows_labelled


def test_times_before_1970(world):
    times = pa.array([dt.datetime(1969, 12, 31, 23, 59, 59)] * 2005, pa.timestamp("us"))
    report = world.run(labels=world.labels.append_column("when", times), time_column="when", window="day")
    assert [part.value for part in report.windows] == ["1969-12-31"]


def test_a_time_that_is_text_is_an_error(world):
    with pytest.raises(ContractError, match="the time is of a wrong type") as error:
        world.run(time_column="origin")
    assert error.value.facts["received"] == "string"
    assert "timestamp_utc" in error.value.facts["hint"]


def test_too_many_windows_are_an_error(world):
    times = pa.array(range(2005), pa.date32())
    with pytest.raises(InputError, match="too many windows of time") as error:
        world.run(labels=world.labels.append_column("when", times), time_column="when")
    assert "of a day each, from 1970-01-01 to 1975-" in error.value.facts["received"]


@pytest.mark.parametrize("window", ["hour", "", "weekly", None])
def test_a_window_that_is_not_known(world, window):
    with pytest.raises(InputError, match="a window that is not known") as error:
        world.run(window=window)
    assert error.value.facts["allowed"] == "day, week, month"


# Which model.


def test_rows_of_other_models_are_left_out(world):
    versions = pa.array([OURS if i % 2 else "cd" * 16 for i in range(2004)] + [None])
    mixed = world.predictions.set_column(3, "model_version", versions)
    report = world.run(predictions=mixed)
    assert (report.rows, report.rows_other_model) == (1002, 1003)
    odd = world.run(predictions=world.predictions.take(list(range(1, 2004, 2))))
    assert odd.metrics == report.metrics
    assert odd.rows_labelled == report.rows_labelled


def test_predictions_of_another_model_are_an_error(world):
    versions = pa.array(["models:/late/1" if i % 2 else "models:/late/2" for i in range(2005)])
    with pytest.raises(ContractError, match="the predictions are of another model") as error:
        world.run(predictions=world.predictions.set_column(3, "model_version", versions))
    assert error.value.facts["allowed"] == OURS
    assert error.value.facts["received"] == "models:/late/1, models:/late/2"


def test_a_given_model_may_have_served_as_a_registered_one(world):
    versions = pa.array(["models:/late/1"] * 2005)
    report = world.run(predictions=world.predictions.set_column(3, "model_version", versions))
    assert report.rows == 2005
    assert report.model == OURS


def test_a_model_that_is_neither_given_nor_registered(world):
    with pytest.raises(InputError, match="the model that made the predictions is not registered") as error:
        world.run(model=None, evaluation=None)
    assert OURS in error.value.facts["received"]


def test_two_models_are_an_error(world):
    with pytest.raises(InputError, match="two models"):
        world.run(model_uri="models:/late/1")


def test_the_evaluation_of_another_model_is_an_error(world):
    world.model = write_model(world.folder / "other", fingerprint="cd" * 16)
    with pytest.raises(ContractError, match="the evaluation is of another model") as error:
        world.run(predictions=world.predictions.drop_columns(["model_version"]))
    assert error.value.facts["received"] == OURS


@pytest.mark.slow
def test_a_registered_model_brings_its_evaluation(world, tmp_path):
    from pipeparts.components.registry.register_mlflow.logic import register_mlflow
    from tests.mlflow_services import write_model as write_whole_model
    from tests.mlflow_services import write_verdict

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    model = write_whole_model(tmp_path / "whole", fingerprint=OURS, task="classification", label="late", classes=[0, 1])
    registered = register_mlflow(
        model_path=model, verdict_path=write_verdict(tmp_path), evaluation_path=world.evaluation,
        registration_path=tmp_path / "registration.json", model_name="late", tracking_uri=uri,
    )  # fmt: skip
    assert registered["version"] == "1"
    versions = pa.array(["models:/late/1"] * 2005)
    served = world.predictions.set_column(3, "model_version", versions)
    options = {"model": None, "evaluation": None, "tracking_uri": uri}
    report = world.run(predictions=served, **options)
    assert report.model == "models:/late/1"
    assert report.registered["roc_auc"] == world.registered.metrics["roc_auc"]
    assert world.again(model_uri="models:/late@champion", **options) == report
    with pytest.raises(ContractError, match="no such alias"):
        world.again(model_uri="models:/late@champ", **options)


# Limits.


@pytest.mark.parametrize(
    ("limits", "headline", "hint"),
    [
        ({"max_los": 0.1}, "`limits` has a key that is not known", "did you mean 'max_loss'?"),
        ({"metric": "roc_au"}, "a metric that is not known", "did you mean 'roc_auc'?"),
        ({"metric": "rmse"}, "not a metric of a binary model", None),
        ({"metric": "base_rate"}, "a metric of which neither more nor less is better", None),
        ({"bounds": {"rocauc": {"min": 1}}}, "a metric that is not known", "did you mean 'roc_auc'?"),
        ({"bounds": {"roc_auc": {}}}, "`limits` has a value that is not allowed", None),
        ({"bounds": {"roc_auc": {"min": 0.9, "max": 0.1}}}, "`limits` has a value that is not allowed", None),
        ({"bounds": {"roc_auc": {"minimum": 0.9}}}, "`limits` has a key that is not known", None),
        ({"max_loss": -0.1}, "`limits` has a value that is not allowed", None),
        ({"max_loss": float("nan")}, "`limits` has a value that is not allowed", None),
        ({"min_rows": 0}, "`limits` has a value that is not allowed", None),
        ({"confidence": 1}, "`limits` has a value that is not allowed", None),
        ({"loss_bound": "upper"}, "`limits` has a value that is not allowed", None),
    ],
)
def test_wrong_limits(world, limits, headline, hint):
    with pytest.raises(InputError, match=headline) as error:
        world.run(limits=limits)
    if hint:
        assert error.value.facts["hint"].startswith(hint)


def test_another_metric_judges(world):
    report = world.run(limits={"metric": "brier_score", "max_loss": 0.1})
    assert report.metric == "brier_score"
    assert finding(report, "brier_score").limit == pytest.approx(report.registered["brier_score"] + 0.1)


# The component.


def test_the_component_returns_whether_it_is_degraded(world):
    from kfp import dsl

    from pipeparts.components.monitoring.report_performance.component import report_performance

    world.run()
    made = {name: kind(uri=str(world.folder / "out" / name)) for name, kind in {
        "performance": dsl.Artifact, "metrics": dsl.Metrics, "page": dsl.HTML,
    }.items()}  # fmt: skip
    degraded = report_performance.python_func(
        predictions=dsl.Dataset(uri=str(world.folder / "predictions")),
        labels=dsl.Dataset(uri=str(world.folder / "labels")),
        keys=["flight_id"],
        model=dsl.Model(uri=str(world.model)),
        evaluation=dsl.Artifact(uri=str(world.evaluation)),
        **made,
    )
    assert degraded is False
    assert made["performance"].metadata["degraded"] is False
    assert made["performance"].metadata["rows"] == 2005
    assert made["metrics"].metadata["roc_auc"] == made["performance"].metadata["value"]
    assert {path.name for path in (world.folder / "out").iterdir()} == set(made)


_BIG = """
import json, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeparts.components.monitoring.report_performance.logic import report_performance
from pipeparts.runtime.tables import TableWriter

folder, rows = Path(sys.argv[1]), 5_000_000

def write(name, seed, kind, columns):
    order = np.random.default_rng(seed).permutation(rows).astype(np.int32)
    schema = pa.schema([("id", kind), *columns])
    with TableWriter(folder / name, schema, source=name, fingerprint=False) as writer:
        for start in range(0, rows, 250_000):
            ids = order[start : start + 250_000].astype(np.int64)
            chance = (ids * 2654435761 % 1000003) / 1000003
            happened = (ids * 40503 % 65537) / 65537 < chance
            made = {
                "id": pa.array(ids).cast(kind), "prediction": pa.array((chance >= 0.5).astype(np.int64)),
                "probability": pa.array(chance), "late": pa.array(happened.astype(np.int64)),
                "origin": pa.array(np.array(["EWR", "JFK", "LGA"])[ids % 3]), "distance": pa.array(ids % 4000),
                "time": pa.array(ids % 30 * 86_400_000_000).cast(pa.timestamp("us")),
            }
            writer.write(pa.record_batch([made[field.name] for field in schema], schema=schema))

if sys.argv[2] == "write":
    write("predictions", 1, pa.int64(), [("prediction", pa.int64()), ("probability", pa.float64())])
    extra = [("late", pa.int64()), ("origin", pa.string()), ("distance", pa.int64()), ("time", pa.timestamp("us"))]
    write("labels", 2, pa.int32(), extra)
else:
    report = report_performance(
        predictions_path=folder / "predictions", labels_path=folder / "labels", keys=["id"],
        performance_path=folder / "performance.json", metrics_path=folder / "metrics.json",
        page_path=folder / "page.html", slices=["origin", "distance"], time_column="time", model_path=folder / "model",
    )
    assert report.rows_labelled == rows, report
    assert len(report.windows) == 30
    print(int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024)
"""


@pytest.mark.slow
def test_five_million_rows_in_a_gigabyte(tmp_path):
    write_model(tmp_path / "model")
    for step in ("write", "run"):
        done = subprocess.run(
            [sys.executable, "-c", _BIG, str(tmp_path), step], capture_output=True, text=True, check=False, timeout=500
        )
        assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000
