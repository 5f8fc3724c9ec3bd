"""Tests of the logic of `fit_features`."""

import datetime
import json
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.feature_engineering.fit_features import logic
from pipeparts.errors import ContractError, DataError, InputError
from pipeparts.runtime.feature_fitting import fitting
from pipeparts.runtime.feature_fitting.declared import parse_features
from pipeparts.runtime.feature_fitting.fitting import Moments, Sample
from pipeparts.runtime.feature_fitting.sketch import QuantileSketch
from pipeparts.runtime.serving.transform import Transform, TransformError
from pipeparts.runtime.tables import write_table

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"
EXAMPLE = yaml.safe_load((Path(__file__).parents[1] / "example.yaml").read_text())["parameters"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    """The real flights, as a table."""
    types = {"time_hour": pa.timestamp("us", "UTC")}
    convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)
    rows = pyarrow.csv.read_csv(FLIGHTS, convert_options=convert)
    path = tmp_path_factory.mktemp("flights") / "table"
    write_table(path, rows, source="flights.csv")
    return path


def fit(table, features, folder=None, **more):
    folder = folder or Path(table).parent
    logic.fit_features(
        table_path=table, transform_path=folder / "t.json", page_path=folder / "p.html", features=features, **more
    )
    return Transform.load(folder / "t.json")


def small(tmp_path, **columns):
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    write_table(tmp_path / "table", pa.table(arrays), source="test")
    return tmp_path / "table"


def numbers(transform, **columns):
    return transform.apply(columns).numeric.astype(float).tolist()


def ids(transform, **columns):
    return transform.apply(columns).categories.tolist()


def real(flights, column):
    from pipeparts.runtime.tables import Table

    return Table(flights).read([column])[column]


def test_the_example_on_real_flights(flights, tmp_path):
    metadata = logic.fit_features(
        table_path=flights, transform_path=tmp_path / "t.json", page_path=tmp_path / "p.html", **EXAMPLE
    )
    transform = Transform.load(tmp_path / "t.json")
    assert metadata["fingerprint"] == transform.fingerprint
    assert metadata["rows"] == 2005
    assert transform.columns == {
        "carrier": "string", "dest": "string", "distance": "int64", "origin": "string", "sched_dep_time": "int64",
        "temp": "float64", "time_hour": "timestamp_utc",
    }  # fmt: skip
    assert transform.numeric_names == [
        "distance", "temp", "temp.missing", "time_hour.hour_of_day.sin", "time_hour.hour_of_day.cos",
        "time_hour.day_of_year.sin", "time_hour.day_of_year.cos",
    ]  # fmt: skip
    assert dict(zip(transform.category_names, transform.category_sizes, strict=True)) == {
        "carrier": 14, "route": 65, "sched_time": 5,
        "time_hour.month": 13, "time_hour.weekday": 8, "time_hour.hour": 25,
    }  # fmt: skip
    page = (tmp_path / "p.html").read_text()
    assert "What each raw column becomes" in page
    assert "origin (string), dest (string)" in page
    assert "<svg" in page


def test_the_same_input_gives_the_same_bytes_whatever_the_order_written(flights, tmp_path):
    for name, features in [("a", EXAMPLE["features"]), ("b", dict(reversed(EXAMPLE["features"].items())))]:
        (tmp_path / name).mkdir()
        fit(flights, features, tmp_path / name)
    assert (tmp_path / "a/t.json").read_bytes() == (tmp_path / "b/t.json").read_bytes()
    assert (tmp_path / "a/p.html").read_bytes() == (tmp_path / "b/p.html").read_bytes()


def test_scales_are_those_of_scikit_learn(flights, tmp_path):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    columns = ["temp", "precip", "distance", "seats", "wind_gust"]
    scalers = {
        "standardize": preprocessing.StandardScaler(),
        "minmax": preprocessing.MinMaxScaler(),
        "quantile": preprocessing.QuantileTransformer(n_quantiles=1_000, subsample=None),
    }
    for scale, scaler in scalers.items():
        features = {c: {"kind": "numeric", "scale": scale, "indicator": False} for c in columns}
        transform = fit(flights, features, tmp_path)
        for name in columns:
            raw = np.array(real(flights, name).cast(pa.float64()).to_numpy(zero_copy_only=False))
            expected = scaler.fit_transform(raw[:, None])[:, 0]
            found = transform.apply(dict.fromkeys(columns, raw)).numeric[:, transform.numeric_names.index(name)]
            present = ~np.isnan(raw)
            apart = np.abs(found[present] - expected[present])
            if scale == "quantile":
                # Theirs jumps at a value that repeats; ours goes on without a jump, so that the last digit of a
                # logarithm decides nothing. That moves only rare values between frequent ones.
                assert apart.max() < 0.02, name
                assert (apart > 1e-6).mean() < 0.05, name
            else:
                assert apart.max() < 1e-6 * max(1, np.abs(expected[present]).max()), f"{name} {scale}"


def test_clip_then_logarithm_then_statistics_then_fill(tmp_path):
    table = small(tmp_path, x=[-5.0, 0.0, 10.0, 1000.0, None])
    transform = fit(table, {"x": {"kind": "numeric", "clip": [0, 100], "log": True, "missing": 10}})
    logs = np.log1p([0.0, 0.0, 10.0, 100.0])
    scaled = (np.log1p([0.0, 10.0, 100.0]) - logs.mean()) / logs.std()
    found = numbers(transform, x=[-1.0, np.nan, 5000.0])
    assert np.allclose(found, [[scaled[0], 0], [scaled[1], 1], [scaled[2], 0]])


def test_the_logarithm_of_negative_numbers_is_the_mirror_image(tmp_path):
    table = small(tmp_path, x=[-7.0, 7.0])
    transform = fit(table, {"x": {"kind": "numeric", "scale": "none", "log": True}})
    assert np.allclose(numbers(transform, x=[-7.0, 0.0, 7.0]), [[-np.log(8)], [0], [np.log(8)]])


@pytest.mark.parametrize(("missing", "filled"), [("mean", 4.0), ("median", 2.0), (7, 7.0)])
def test_what_stands_for_missing(tmp_path, missing, filled):
    table = small(tmp_path, x=[1.0, 2.0, 9.0, None])
    transform = fit(table, {"x": {"kind": "numeric", "scale": "none", "missing": missing}})
    assert numbers(transform, x=[None, 3.0]) == [[filled, 1.0], [3.0, 0.0]]


@pytest.mark.parametrize(
    ("indicator", "values", "expected"),
    [("auto", [1.0, None], True), ("auto", [1.0, 2.0], False), (True, [1.0, 2.0], True), (False, [1.0, None], False)],
)
def test_indicators(tmp_path, indicator, values, expected):
    transform = fit(small(tmp_path, x=values), {"x": {"kind": "numeric", "indicator": indicator}})
    assert ("x.missing" in transform.numeric_names) is expected


@pytest.mark.parametrize("scale", ["standardize", "minmax", "quantile"])
@pytest.mark.parametrize("values", [[3.5, 3.5], [0.1] * 1000, [None, None], [np.nan, np.inf]])
def test_columns_without_variation_are_always_zero(tmp_path, scale, values, caplog):
    table = small(tmp_path, x=pa.array(values, pa.float64()))
    with caplog.at_level(logging.WARNING):
        transform = fit(table, {"x": {"kind": "numeric", "scale": scale, "indicator": False}})
    assert numbers(transform, x=[3.5, 1e300, -1.0, None]) == [[0.0]] * 4
    assert "feature x" in caplog.text


def test_infinities_count_as_missing_and_huge_values_stay_finite(tmp_path):
    table = small(tmp_path, x=[1.0, 3.0, np.inf, -np.inf, 1e308, -1e308])
    transform = fit(table, {"x": "numeric", "y": {"kind": "numeric", "column": "x", "scale": "none"}})
    assert transform.statistics["x"] | {"missing": 2, "infinite": 2} == transform.statistics["x"]
    found = np.array(numbers(transform, x=[np.inf, 1e308, 1.0]))
    assert np.isfinite(found).all()
    assert list(found[:, 1]) == [1.0, 0.0, 0.0]


def test_buckets_of_huge_values(tmp_path):
    table = small(tmp_path, x=[1.0, 1e308, -1e308, 1.5e308])
    transform = fit(table, {"x": {"kind": "bucketize", "buckets": 2}})
    assert ids(transform, x=[-1e308, 1.0, 1.7e308]) == [[1], [1], [2]]


def test_numbers_too_small_for_a_processor_are_zero(tmp_path):
    transform = fit(small(tmp_path, x=[0.0, 1.0]), {"x": {"kind": "category", "min_count": 1}})
    assert ids(transform, x=[5e-324, -5e-324, -0.0, 1.0]) == [[1], [1], [1], [2]]


def test_scaled_values_far_outside_are_limited(tmp_path):
    transform = fit(small(tmp_path, x=[1.0, 2.0]), {"x": "numeric"})
    assert numbers(transform, x=[1e140, -1e140]) == [[1e6], [-1e6]]


def test_bools_and_decimals_are_numbers(tmp_path):
    decimals = pa.array(["1.5", None, "2.5"]).cast(pa.decimal128(9, 2))
    table = small(tmp_path, flag=[True, False, None], money=decimals)
    features = {name: {"kind": "numeric", "scale": "none", "missing": 0} for name in ("flag", "money")}
    transform = fit(table, features)
    assert transform.columns == {"flag": "bool", "money": "float64"}
    found = numbers(transform, flag=[True, False, None], money=decimals)
    assert found == [[1, 0, 1.5, 0], [0, 0, 0, 1], [0, 1, 2.5, 0]]


def test_buckets_at_boundaries(tmp_path):
    transform = fit(small(tmp_path, x=[1.0]), {"x": {"kind": "bucketize", "boundaries": [0, 10]}})
    assert ids(transform, x=[-0.1, 0.0, 9.9, 10.0, None, np.inf]) == [[1], [2], [2], [3], [0], [0]]
    assert transform.category_sizes == [4]


def test_buckets_of_about_as_many_rows(flights, tmp_path):
    transform = fit(flights, {"distance": {"kind": "bucketize", "buckets": 4}}, tmp_path)
    raw = real(flights, "distance").to_numpy()
    found = transform.apply({"distance": raw}).categories[:, 0]
    assert np.bincount(found, minlength=5)[0] == 0
    assert (np.abs(np.bincount(found)[1:] / len(raw) - 0.25) < 0.06).all()
    assert list(transform.features[0].boundaries) == list(np.quantile(raw, [0.25, 0.5, 0.75]))


def test_buckets_of_values_that_repeat_and_of_nothing(tmp_path):
    table = small(tmp_path, x=[5.0] * 9 + [6.0], y=pa.array([None] * 10, pa.float64()))
    transform = fit(table, {name: {"kind": "bucketize", "buckets": 10} for name in "xy"})
    assert ids(transform, x=[4.0, 5.0, 6.0, None], y=[1.0, None, 1.0, None]) == [[1, 1], [1, 0], [2, 1], [0, 0]]


def test_the_vocabulary_is_by_frequency_and_then_by_value(tmp_path):
    table = small(tmp_path, c=["b", "a", "é", "b", "a", "z", "once", None, "", "z"])
    transform = fit(table, {"c": {"kind": "category", "min_count": 2, "oov_buckets": 2}})
    assert transform.features[0].vocabulary == ("a", "b", "z")
    assert transform.category_sizes == [6]
    found = [row[0] for row in ids(transform, c=["a", "b", "z", None, "", np.nan, "once", "never seen"])]
    assert found[:6] == [1, 2, 3, 0, 0, 0]
    assert set(found[6:]) <= {4, 5}
    assert transform.statistics["c"] | {"missing": 2, "distinct": 5, "coverage": 6 / 8} == transform.statistics["c"]


def test_most_values_of_a_vocabulary(tmp_path):
    table = small(tmp_path, c=list("aaabbcd"))
    transform = fit(table, {"c": {"kind": "category", "min_count": 1, "max_values": 2}})
    assert transform.features[0].vocabulary == ("a", "b")
    assert ids(transform, c=["c", "d"]) == [[3], [3]]


def test_one_hot_has_a_number_for_each_id(tmp_path):
    table = small(tmp_path, c=["a", "a", "b", None])
    transform = fit(table, {"c": {"kind": "category", "encode": "one_hot", "min_count": 1}})
    assert transform.numeric_names == ["c.missing", "c=a", "c=b", "c.other"]
    assert numbers(transform, c=["a", None, "x"]) == [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


def test_categories_of_numbers_and_bools(tmp_path):
    table = small(tmp_path, i=[7, 7, -1, None], f=[1.5, 1.5, np.nan, -0.0], b=[True, True, False, None])
    transform = fit(table, {name: {"kind": "category", "min_count": 1} for name in "ifb"})
    assert [feature.vocabulary for feature in transform.features] == [(1, 0), (1.5, 0), (7, -1)]
    found = ids(transform, i=[7.0, -1, 8, None], f=[1.5, 0.0, 2.5, np.inf], b=[True, False, None, None])
    assert found == [[1, 1, 1], [2, 2, 2], [0, 3, 3], [0, 0, 0]]


def test_hashes_are_stable_and_do_not_depend_on_the_column_type(tmp_path):
    table = small(tmp_path, s=["7", "x"], i=[7, 8])
    transform = fit(table, {name: {"kind": "category", "encode": "hash", "buckets": 1000} for name in "si"})
    found = ids(transform, s=["7", "x", None], i=[7, 8, None])
    assert found[0][0] == found[0][1]
    assert found == [[found[0][0]] * 2, [876, 103], [0, 0]] or found[2] == [0, 0]
    assert all(0 < value <= 1000 for row in found[:2] for value in row)


def test_several_columns_together(tmp_path):
    table = small(tmp_path, a=["x", "x", "y", None, None], b=["1", "1", "2", "2", None])
    transform = fit(table, {"ab": {"kind": "category", "columns": ["a", "b"], "min_count": 1}})
    assert ids(transform, a=["x", "y", None, None, "y"], b=["1", "2", "2", None, "1"]) == [[1], [3], [2], [0], [4]]


def test_a_value_that_looks_like_a_label_of_ours(tmp_path):
    table = small(tmp_path, c=["<missing>", "missing", ".missing", "other"])
    transform = fit(table, {"c": {"kind": "category", "encode": "one_hot", "min_count": 1}})
    assert len(set(transform.numeric_names)) == 6


def test_times_by_the_clock_of_a_zone(tmp_path):
    utc = pa.array([datetime.datetime(2013, 7, 1, 3), None], pa.timestamp("us", "UTC"))
    features = {"t": {"kind": "time", "parts": ["weekday", "hour"], "time_zone": "America/New_York"}}
    transform = fit(small(tmp_path, t=utc), features)
    # 3 o'clock on Monday in UTC is 23 o'clock on Sunday in New York.
    assert ids(transform, t=utc) == [[7, 24], [0, 0]]
    assert ids(transform, t=["2013-07-01T03:00:00Z", "2013-07-01T05:00:00+02:00"]) == [[7, 24]] * 2


def test_cycles_lie_on_the_circle_and_missing_in_its_middle(tmp_path):
    dates = pa.array([datetime.date(2012, 1, 1), datetime.date(2012, 12, 31), None])
    transform = fit(small(tmp_path, t=dates), {"t": {"kind": "time", "cycles": ["day_of_year"]}})
    found = np.array(numbers(transform, t=dates))
    assert np.allclose(found[0], [0, 1])
    assert np.allclose(found[1], [np.sin(-2 * np.pi / 366), np.cos(2 * np.pi / 366)])
    assert list(found[2]) == [0, 0]


def test_a_time_in_short_form_has_the_cycles_that_fit(tmp_path):
    table = small(tmp_path, d=pa.array([datetime.date(2012, 1, 1)]), t=pa.array([datetime.datetime(2012, 1, 1)]))
    transform = fit(table, {"d": "time", "t": "time"})
    assert [name for name in transform.numeric_names if name.endswith("sin")] == [
        "d.day_of_week.sin", "d.day_of_year.sin", "t.hour_of_day.sin", "t.day_of_week.sin", "t.day_of_year.sin",
    ]  # fmt: skip


def test_numbers_of_parameters_come_as_floats_from_kfp(tmp_path):
    transform = fit(small(tmp_path, c=["a"] * 3), {"c": {"kind": "category", "max_values": 5.0, "min_count": 2.0}})
    assert transform.category_sizes == [3]


WRONG = [
    ({}, "no features are declared", "received: nothing"),
    (["carrier"], "no features are declared", "received: list"),
    ({"carrier": 3}, "neither a kind nor a dictionary", "received: int: 3"),
    ({"carrier": "categori"}, "a feature of no known kind", "did you mean 'category'?"),
    ({"carrier": {}}, "a feature of no known kind", "allowed: numeric, bucketize, category, time"),
    ({"carier": "category"}, "the table has no such column", "did you mean 'carrier'?"),
    ({"late": "category"}, "the label is among the features", "allowed: any column but 'late'"),
    ({"x": {"kind": "category", "column": "late"}}, "the label is among the features", "features.x"),
    ({"x": {"kind": "category", "columns": ["carrier", "late"]}}, "the label is among the features", "received: late"),
    ({"carrier": "numeric"}, "does not fit the column's type", "hint: kind: category takes string"),
    ({"carrier": "time"}, "does not fit the column's type", "allowed: kind: time takes date, timestamp, timestamp_utc"),
    ({"time_hour": "category"}, "does not fit the column's type", "hint: kind: time takes timestamp_utc"),
    ({"temp": {"kind": "numeric", "scal": "none"}}, "has a key that is not known", "did you mean 'scale'?"),
    ({"temp": {"kind": "numeric", "scale": "robust"}}, "has a value that is not allowed", "'standardize', 'quantile'"),
    ({"temp": {"kind": "numeric", "clip": [5]}}, "has a value that is not allowed", "a list of two numbers"),
    ({"temp": {"kind": "numeric", "clip": [5, 1]}}, "has a value that is not allowed", "the least below the greatest"),
    ({"temp": {"kind": "numeric", "missing": "mode"}}, "has a value that is not allowed", "mean, median or a number"),
    ({"temp": {"kind": "numeric", "missing": float("nan")}}, "not allowed", "mean, median or a number"),
    ({"temp": {"kind": "numeric", "indicator": "yes"}}, "not allowed", "auto, true or false"),
    ({"temp": {"kind": "bucketize", "boundaries": [3, 3]}}, "not allowed", "1 to 1,000 rising numbers"),
    ({"temp": {"kind": "bucketize", "boundaries": [3], "buckets": 4}}, "not allowed", "not both"),
    ({"temp": {"kind": "bucketize", "buckets": 1}}, "not allowed", "greater than or equal to 2"),
    ({"carrier": {"kind": "category", "buckets": 4}}, "not allowed", "buckets only with encode: hash or one_hot"),
    ({"carrier": {"kind": "category", "encode": "hash", "min_count": 4}}, "not allowed", "only with a vocabulary"),
    ({"carrier": {"kind": "category", "encode": "one_hot", "max_values": 5000}}, "not allowed", "at most 1,000 ids"),
    ({"x": {"kind": "category", "columns": ["carrier"]}}, "not allowed", "2 to 8 different columns"),
    ({"time_hour": {"kind": "time", "parts": ["year"]}}, "not allowed", "'quarter', 'month'"),
    ({"time_hour": {"kind": "time", "time_zone": "Mars/Olympus"}}, "a time zone that is not known", "Europe/Berlin"),
    ({"x.missing": {"kind": "numeric", "column": "temp"}, "x": {"kind": "numeric", "column": "temp"}},
     "two features of the same name", "received: x.missing"),
]  # fmt: skip


@pytest.mark.parametrize(("features", "headline", "fact"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_declarations_say_what_is_allowed(flights, tmp_path, features, headline, fact):
    with pytest.raises(InputError, match=headline) as error:
        fit(flights, features, tmp_path, label="late")
    assert fact in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_is_not_there(flights, tmp_path):
    with pytest.raises(InputError, match="no such column") as error:
        fit(flights, {"carrier": "category"}, tmp_path, label="lat")
    assert "parameter: label" in str(error.value)
    assert "'late'" in str(error.value)


def test_dates_have_no_hours_and_only_utc_has_a_zone(tmp_path):
    table = small(tmp_path, d=pa.array([datetime.date(2012, 1, 1)]))
    with pytest.raises(InputError, match="a part of the day from a column of dates") as error:
        fit(table, {"d": {"kind": "time", "parts": ["month", "hour"]}})
    assert "received: hour" in str(error.value)
    assert "quarter, month, day, weekday" in str(error.value)
    with pytest.raises(InputError, match="a time zone for a column whose times have none") as error:
        fit(table, {"d": {"kind": "time", "time_zone": "Europe/Berlin"}})
    assert "timestamp_utc" in str(error.value)


@pytest.mark.parametrize(
    "values", [pa.array([{"a": 1}]), pa.array([b"x"]), pa.array([None]), pa.array([1], pa.duration("s"))]
)
def test_types_that_no_kind_takes(tmp_path, values):
    with pytest.raises(InputError, match="does not fit the column's type") as error:
        fit(small(tmp_path, x=values), {"x": "category"})
    assert f"received: {values.type}" in str(error.value)


def test_an_empty_table(tmp_path):
    with pytest.raises(DataError, match="no rows to fit features on"):
        fit(small(tmp_path, x=pa.array([], pa.float64())), {"x": "numeric"})


def test_a_truncated_table(tmp_path):
    table = small(tmp_path, x=np.random.default_rng(0).normal(size=5000))
    part = next(table.glob("part-*"))
    part.write_bytes(part.read_bytes()[:-2000])
    with pytest.raises(ContractError):
        fit(table, {"x": "numeric"})
    assert not (tmp_path / "t.json").exists()


def test_integers_beyond_what_float64_tells_apart_are_no_category(tmp_path):
    table = small(tmp_path, x=[2**53 + 2, 1], y=[2**60, 1])
    with pytest.raises(DataError, match="too large to be told apart") as error:
        fit(table, {"x": "category"})
    assert "9007199254740994" in str(error.value)
    assert "type string" in str(error.value)
    assert fit(table, {"y": "numeric"}).numeric_names == ["y"]


def test_too_many_values_to_count(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_BYTES", 1_000_000)
    table = small(tmp_path, x=[f"user-{i}" for i in range(10_000)])
    with pytest.raises(DataError, match="too many different values") as error:
        fit(table, {"x": "category"})
    assert "features.x, column x" in str(error.value)
    assert "encode: hash" in str(error.value)
    assert fit(table, {"x": {"kind": "category", "encode": "hash"}}).category_sizes == [65]


def test_markup_in_the_data_is_text_on_the_page(tmp_path):
    table = small(tmp_path, **{"<b>": ["<script>alert(1)</script>"] * 6 + ["$x^$"] * 6})
    fit(table, {"<b>": "category"})
    page = (tmp_path / "p.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("change", "headline"),
    [
        (lambda text: "", "cannot read a transform"),
        (lambda text: text[: len(text) // 2], "cannot read a transform"),
        (lambda text: "[]", "not a transform"),
        (lambda text: text.replace("transform/1", "transform/9"), "not a transform"),
        (lambda text: text.replace('"center": 2.0', '"center": 3.0'), "not what its fingerprint says"),
        (lambda text: text.replace('"kind": "numeric"', '"kind": "other"'), "a kind of feature that is not known"),
        (lambda text: text.replace('"factor"', '"faktor"'), "a damaged transform"),
        (lambda text: text.replace('"columns": {', '"kolumns": {'), "a damaged transform"),
        (lambda text: text.replace('"x": "float64"', '"x": "int128"'), "a damaged transform"),
    ],
)
def test_a_damaged_transform(tmp_path, change, headline):
    fit(small(tmp_path, x=[1.0, 2.0, 3.0]), {"x": "numeric"})
    path = tmp_path / "t.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(TransformError, match=headline) as error:
        Transform.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("columns", "headline", "fact"),
    [
        ({"n": [1.0]}, "a raw column is missing", "where: column 's' (string)"),
        ({"n": [1.0], "S": ["a"], "t": []}, "a raw column is missing", "received: n, S, t"),
        ({"n": [1.0, 2.0], "s": ["a"], "t": [None]}, "columns of different lengths", "received: n: 2, s: 1, t: 1"),
        ({"n": ["1"], "s": ["a"], "t": [None]}, "a column of another type", "received: str: '1'"),
        ({"n": np.array(["1"]), "s": ["a"], "t": [None]}, "a column of another type", "allowed: numbers"),
        ({"n": [1.0], "s": [3], "t": [None]}, "a column of another type", "allowed: strings"),
        ({"n": [1.0], "s": np.array([3]), "t": [None]}, "a column of another type", "received: int64"),
        ({"n": [1.0], "s": pa.array([3]), "t": [None]}, "a column of another type", "received: int64"),
        ({"n": pa.array(["1"]), "s": ["a"], "t": [None]}, "a column of another type", "received: string"),
        ({"n": [1.0], "s": ["a"], "t": [12]}, "a column of another type", "allowed: times"),
        ({"n": [1.0], "s": ["a"], "t": ["31.1.2013"]}, "a time that cannot be read", "allowed: ISO 8601"),
        ({"n": [1.0], "s": ["a"], "t": ["2013-01-31T00:00:00Z"]}, "a time that cannot be read", "received: '2013"),
        ({"n": np.zeros((1, 1)), "s": ["a"], "t": [None]}, "not one-dimensional", "received: 1, 1"),
    ],
)
def test_wrong_rows_say_what_is_allowed(columns, headline, fact):
    kinds = {"n": "float64", "s": "string", "t": "timestamp"}
    wanted = parse_features({"n": "numeric", "s": "category", "t": "time"})
    transform = logic.learn([], kinds, wanted, rows=0)
    with pytest.raises(TransformError, match=headline) as error:
        transform.apply(columns)
    assert fact in str(error.value)


def test_no_rows_give_no_features():
    wanted = parse_features({"n": "numeric", "s": "category"})
    transform = logic.learn([], {"n": "float64", "s": "string"}, wanted, rows=0)
    for columns in ({"n": [], "s": []}, pa.table({"n": pa.array([], pa.float64()), "s": pa.array([], pa.string())})):
        found = transform.apply(columns)
        assert found.numeric.shape == (0, 1)
        assert found.categories.shape == (0, 1)


@given(st.lists(st.floats(-1e150, 1e150), min_size=1, max_size=60), st.integers(1, 60))
def test_moments_in_batches_are_those_of_the_whole(values, cut):
    moments = Moments()
    for part in (values[:cut], values[cut:]):
        moments.update(np.array(part))
    assert moments.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9 * max(map(abs, values)))
    assert moments.deviation == pytest.approx(np.std(values), rel=1e-6, abs=1e-9 * max(map(abs, values)))


def test_moments_are_stable_far_from_zero():
    rng = np.random.default_rng(1)
    moments = Moments()
    for _ in range(50):
        moments.update(1e12 + rng.normal(size=1000))
    assert moments.deviation == pytest.approx(1.0, abs=0.02)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_the_sketch_of_few_numbers_is_exact(values, ranks):
    sketch = QuantileSketch()
    sketch.update(np.array(values))
    ranks = np.sort(ranks)
    assert np.allclose(sketch.quantiles(ranks), np.quantile(values, ranks), rtol=1e-9, atol=1e-6)
    assert sketch.rank_error == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["random", "rising", "falling", "sawtooth", "heavy tail", "few values"])
def test_the_sketch_of_many_numbers_keeps_its_bound(order):
    rng = np.random.default_rng(2)
    values = {
        "random": lambda: rng.normal(size=1_500_000),
        "rising": lambda: np.arange(1_500_000.0),
        "falling": lambda: -np.arange(1_500_000.0),
        "sawtooth": lambda: np.arange(1_500_000.0) % 4096,
        "heavy tail": lambda: np.exp(5 * rng.normal(size=1_500_000)),
        "few values": lambda: rng.integers(0, 5, 1_500_000).astype(float),
    }[order]()
    sketch = QuantileSketch()
    for start in range(0, len(values), 70_001):
        sketch.update(values[start : start + 70_001])
    ranks = np.linspace(0, 1, 201)
    found = sketch.quantiles(ranks)
    ordered = np.sort(values)
    low = np.searchsorted(ordered, found, "left") / len(values)
    high = np.searchsorted(ordered, found, "right") / len(values)
    assert sketch.rank_error < 0.0006
    off = np.maximum(np.maximum(low - ranks, ranks - high), 0)
    assert off.max() <= sketch.rank_error + 2 / len(values)
    assert found[0] == ordered[0]
    assert found[-1] == ordered[-1]


@given(st.lists(st.integers(0, 9000), max_size=20))
@settings(max_examples=40)
def test_the_sample_is_every_kth(lengths):
    sample, seen = Sample(), 0
    for length in lengths:
        sample.update(np.arange(seen, seen + length, dtype=float))
        seen += length
    values = sample.values
    assert len(values) <= 40_000
    stride = values[1] - values[0] if len(values) > 1 else 1
    assert np.array_equal(values, np.arange(0, seen, stride))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows():
    rng = np.random.default_rng(3)
    wanted = parse_features(
        {"x": {"kind": "numeric", "scale": "quantile"}, "s": {"kind": "category", "encode": "hash"}, "c": "category"}
    )

    def batches(count):
        for i in range(count):
            names = pa.array(np.arange(i * 20_000, (i + 1) * 20_000)).cast(pa.string())
            few = pa.array(rng.integers(0, 1000, 20_000)).cast(pa.string())
            yield pa.record_batch({"c": few, "s": names, "x": rng.normal(size=20_000)})

    peaks = []
    for count in (20, 80):
        tracemalloc.start()
        logic.learn(batches(count), {"c": "string", "s": "string", "x": "float64"}, wanted, rows=count * 20_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] < 10e6


def test_as_dict_is_json_without_nan(flights, tmp_path):
    transform = fit(flights, {"wind_gust": "numeric", "tailnum": "category"}, tmp_path)
    document = json.loads(json.dumps(transform.as_dict(), allow_nan=False))
    assert Transform.from_dict(document).fingerprint == transform.fingerprint
