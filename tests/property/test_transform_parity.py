"""The same row gives the same features, whichever interpreter computes them and however the row comes in.

Ids are exactly equal. Numbers are equal to 1e-6 of their size (of 1 where they are smaller): the two
interpreters' logarithm, sine and cosine differ in the last digits.
"""

from __future__ import annotations

import ast
import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeparts.components.feature_engineering.fit_features.logic import learn
from pipeparts.runtime import serving
from pipeparts.runtime.feature_fitting.declared import parse_features
from pipeparts.runtime.serving import times
from pipeparts.runtime.serving.transform import Features, Transform
from pipeparts.runtime.tables import TYPES

COLUMNS = {
    "date": "date",
    "flag": "bool",
    "number": "float64",
    "other": "string",
    "text": "string",
    "time": "timestamp",
    "utc": "timestamp_utc",
    "whole": "int64",
}
SERVING = Path(serving.__file__).parent

#: Every kind with every option, fitted once and traced once.
EVERYTHING = {
    "standard": {"kind": "numeric", "column": "number"},
    "logged": {"kind": "numeric", "column": "number", "log": True, "clip": [-1e6, None], "missing": "median"},
    "minmax": {"kind": "numeric", "column": "whole", "scale": "minmax", "missing": -1, "indicator": True},
    "plain": {"kind": "numeric", "column": "number", "scale": "none", "indicator": False},
    "ranked": {"kind": "numeric", "column": "number", "scale": "quantile", "quantiles": 7},
    "flagged": {"kind": "numeric", "column": "flag"},
    "bins": {"kind": "bucketize", "column": "number", "boundaries": [-1, 0, 0.5, 1e9]},
    "bins_hot": {"kind": "bucketize", "column": "whole", "buckets": 4, "encode": "one_hot"},
    "words": {"kind": "category", "column": "text", "min_count": 1, "max_values": 6, "oov_buckets": 3},
    "words_hot": {"kind": "category", "column": "text", "min_count": 2, "encode": "one_hot"},
    "words_hash": {"kind": "category", "column": "text", "encode": "hash", "buckets": 17},
    "codes": {"kind": "category", "column": "whole", "min_count": 1, "oov_buckets": 2},
    "codes_hash": {"kind": "category", "column": "whole", "encode": "hash", "buckets": 11},
    "fractions": {"kind": "category", "column": "number", "min_count": 1, "oov_buckets": 5},
    "flags": {"kind": "category", "column": "flag", "min_count": 1},
    "pair": {"kind": "category", "columns": ["text", "other"], "min_count": 1, "oov_buckets": 4},
    "triple_hash": {"kind": "category", "columns": ["flag", "text", "whole"], "encode": "hash", "buckets": 64},
    "day": {
        "kind": "time", "column": "date", "parts": ["day", "month", "quarter", "weekday"], "cycles": ["day_of_year"],
    },
    "clock": {
        "kind": "time", "column": "time", "parts": ["hour", "minute"], "encode": "one_hot",
        "cycles": ["hour_of_day", "day_of_week", "day_of_month", "day_of_year"],
    },
    "local": {
        "kind": "time", "column": "utc", "parts": ["hour", "weekday", "day"], "time_zone": "America/New_York",
        "cycles": ["hour_of_day"],
    },
}  # fmt: skip

WORDS = ["UA", "B6", "é", "日本", "a", "A", " ", "x" * 300, "naïve", "\U0001f6eb", "nan", "None", "0", "\x1f"]

floats = st.one_of(
    st.none(),
    st.floats(),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e9, 2.0**53, 1e150, -1e300, np.inf, -np.inf, np.nan]),
    st.sampled_from([5e-324, -5e-324, 2e-308]),
    st.floats(-100, 100, width=32),
)
# Beyond 2**53 a number is what float64 makes of it; a category of such numbers is refused when it is fitted.
wholes = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3))
characters = st.characters(exclude_categories=["Cs"])
texts = st.one_of(st.none(), st.sampled_from(["", *WORDS]), st.text(characters, max_size=40))
dates = st.one_of(st.none(), st.dates(), st.dates(datetime.date(2012, 1, 1), datetime.date(2014, 1, 1)))
moments = st.one_of(
    st.none(), st.datetimes(), st.datetimes(datetime.datetime(2012, 1, 1), datetime.datetime(2014, 1, 1))
)
VALUES = {
    "date": dates, "flag": st.sampled_from([None, True, False]), "number": floats, "other": texts, "text": texts,
    "time": moments, "utc": moments, "whole": wholes,
}  # fmt: skip

rows_of_values = st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=8)

NUMERIC = st.fixed_dictionaries(
    {"kind": st.just("numeric"), "column": st.sampled_from(["number", "whole", "flag"])},
    optional={
        "scale": st.sampled_from(["standardize", "quantile", "minmax", "none"]),
        "log": st.booleans(),
        "clip": st.sampled_from([None, [0, 10], [None, 1e12], [-2.5, None]]),
        "missing": st.sampled_from(["mean", "median", 0, -3.25, 1e100]),
        "indicator": st.sampled_from(["auto", True, False]),
        "quantiles": st.integers(2, 20),
    },
)
BUCKETIZE = st.fixed_dictionaries(
    {"kind": st.just("bucketize"), "column": st.sampled_from(["number", "whole"])},
    optional={"buckets": st.integers(2, 5), "encode": st.sampled_from(["embedding", "one_hot"])},
)
CATEGORY = st.fixed_dictionaries(
    {"kind": st.just("category"), "min_count": st.integers(1, 3), "oov_buckets": st.integers(1, 5)},
    optional={"encode": st.sampled_from(["embedding", "one_hot"]), "max_values": st.integers(1, 4)},
).flatmap(
    lambda base: st.one_of(
        st.sampled_from(["text", "other", "flag"]).map(lambda column: base | {"column": column}),
        st.sampled_from([["text", "flag"], ["flag", "other", "text"]]).map(lambda columns: base | {"columns": columns}),
    )
)
HASH = st.fixed_dictionaries(
    {"kind": st.just("category"), "column": st.sampled_from(["text", "flag"]), "encode": st.just("hash")},
    optional={"buckets": st.integers(1, 50)},
)
TIME = st.fixed_dictionaries(
    {
        "kind": st.just("time"),
        "column": st.sampled_from(["date", "time", "utc"]),
        "parts": st.lists(st.sampled_from(["quarter", "month", "day", "weekday"]), unique=True),
        "cycles": st.lists(st.sampled_from(["day_of_week", "day_of_month", "day_of_year"]), unique=True),
    },
    optional={"encode": st.sampled_from(["embedding", "one_hot"])},
)
feature_sets = st.dictionaries(
    st.sampled_from(["f", "g", "h", "i", "j"]), st.one_of(NUMERIC, BUCKETIZE, CATEGORY, HASH, TIME), min_size=1
)


def as_arrow(rows: list[dict]) -> pa.Table:
    arrays = {}
    for name, type_name in COLUMNS.items():
        arrays[name] = pa.array([row[name] for row in rows], TYPES[type_name])
    return pa.table(arrays)


def as_numpy(rows: list[dict]) -> dict[str, np.ndarray]:
    columns = {}
    for name, type_name in COLUMNS.items():
        values = [row[name] for row in rows]
        if type_name == "float64":
            columns[name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        elif type_name.startswith("timestamp"):
            columns[name] = np.array(values, dtype="datetime64[us]")
        else:
            columns[name] = np.empty(len(values), dtype=object)
            columns[name][:] = values
    return columns


def as_pandas(rows: list[dict]):
    import pandas as pd

    kinds = {"bool": "boolean", "int64": "Int64", "string": "string", "float64": "Float64"}
    frame = pd.DataFrame({"not needed": np.arange(len(rows))})
    for name, type_name in COLUMNS.items():
        values = [row[name] for row in rows]
        if type_name in kinds:
            frame[name] = pd.array(values, dtype=kinds[type_name])
        elif type_name == "date":
            frame[name] = pd.Series(values, dtype=object)
        else:
            zone = ", UTC" if type_name == "timestamp_utc" else ""
            stamps = pd.Series(np.array(values, dtype="datetime64[us]"))
            frame[name] = stamps.dt.tz_localize("UTC") if zone else stamps
    return frame


def as_tensors(rows: list[dict], transform: Transform) -> dict:
    import tensorflow as tf

    raw = {}
    for name, type_name in COLUMNS.items():
        if name not in transform.columns:
            continue
        values = [row[name] for row in rows]
        if type_name == "string":
            raw[name] = tf.constant([value or "" for value in values], tf.string)
        elif type_name in ("int64", "float64", "bool"):
            raw[name] = tf.constant([np.nan if value is None else float(value) for value in values], tf.float64)
        else:
            raw[name] = tf.constant(["" if value is None else value.isoformat() for value in values], tf.string)
    return raw


def assert_same(one: Features, other: Features, names: Transform) -> None:
    assert one.numeric.shape == other.numeric.shape
    assert one.categories.shape == other.categories.shape
    for place, name in enumerate(names.category_names):
        np.testing.assert_array_equal(other.categories[:, place], one.categories[:, place], err_msg=name)
    assert np.isfinite(one.numeric).all()
    allowed = 1e-6 * np.maximum(1.0, np.abs(one.numeric.astype(np.float64)))
    apart = np.abs(one.numeric.astype(np.float64) - other.numeric.astype(np.float64)) / allowed
    assert apart.size == 0 or apart.max() <= 1.0, names.numeric_names[int(np.argmax(apart.max(axis=0)))]


def fit(features: dict, table: pa.Table) -> Transform:
    wanted = parse_features(features)
    needed = {column for name, declaration in wanted.items() for column in declaration.raw_columns(name)}
    columns = {name: kind for name, kind in COLUMNS.items() if name in needed}
    transform = learn(table.select(list(columns)).to_batches(), columns, wanted, rows=len(table))
    return Transform.from_dict(json.loads(json.dumps(transform.as_dict(), allow_nan=False)))


def plain_rows(count: int) -> list[dict]:
    """Rows without anything nasty but missing values, to fit on."""
    rng = np.random.default_rng(5)
    start = datetime.datetime(2012, 12, 1)
    rows = []
    for i in range(count):
        moment = start + datetime.timedelta(minutes=int(rng.integers(0, 600_000)))
        row = {
            "date": moment.date(), "flag": bool(rng.integers(0, 2)), "number": float(np.round(rng.normal() * 3, 1)),
            "other": WORDS[int(rng.integers(0, 4))], "text": WORDS[int(rng.integers(0, 9)) * int(i % 3 > 0)],
            "time": moment, "utc": moment, "whole": int(rng.integers(-5, 6)),
        }  # fmt: skip
        rows.append({name: None if rng.random() < 0.08 else value for name, value in row.items()})
    return rows


@pytest.fixture(scope="module")
def everything() -> Transform:
    return fit(EVERYTHING, as_arrow(plain_rows(300)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(features=feature_sets, rows=rows_of_values, more=rows_of_values)
def test_numpy_rows_pandas_and_arrow_agree(features, rows, more):
    transform = fit(features, as_arrow(rows))
    rows = rows + more
    batch = transform.apply(as_numpy(rows))
    assert_same(batch, transform.apply(as_arrow(rows)), transform)
    assert_same(batch, transform.apply(as_pandas(rows)), transform)
    single = [transform.apply(as_numpy([row])) for row in rows]
    together = Features(*(np.concatenate(parts) for parts in zip(*single, strict=True)))
    np.testing.assert_array_equal(together.numeric, batch.numeric)
    np.testing.assert_array_equal(together.categories, batch.categories)
    for place, size in enumerate(transform.category_sizes):
        assert batch.categories[:, place].min() >= 0
        assert batch.categories[:, place].max() < size


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_values)
def test_everything_agrees_on_any_row(everything, rows):
    batch = everything.apply(as_numpy(rows))
    assert_same(batch, everything.apply(as_arrow(rows)), everything)
    assert_same(batch, everything.apply(as_pandas(rows)), everything)
    assert_same(batch, everything.apply({name: list(v) for name, v in as_numpy(rows).items()}), everything)


@pytest.fixture(scope="module")
def graphs(everything, tmp_path_factory):
    """The traced function, and the same from a SavedModel that was written and read again."""
    import tensorflow as tf

    from pipeparts.runtime.serving.transform_tf import apply_tf, input_signature

    @tf.function
    def traced(**raw):
        return dict(zip(Features._fields, apply_tf(everything, raw), strict=True))

    concrete = traced.get_concrete_function(**input_signature(everything))
    folder = str(tmp_path_factory.mktemp("saved") / "model")
    module = tf.Module()
    module.traced = traced
    tf.saved_model.save(module, folder, signatures={"serving_default": concrete})
    return {"traced": concrete, "saved": tf.saved_model.load(folder).signatures["serving_default"]}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["traced", "saved"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows_of_values)
def test_tensorflow_agrees_on_any_row(everything, graphs, form, rows):
    found = graphs[form](**as_tensors(rows, everything))
    tensors = Features(found["numeric"].numpy(), found["categories"].numpy())
    assert_same(everything.apply(as_numpy(rows)), tensors, everything)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(features=feature_sets, rows=rows_of_values, more=rows_of_values)
def test_tensorflow_agrees_for_any_feature_set(features, rows, more):
    import tensorflow as tf

    from pipeparts.runtime.serving.transform_tf import apply_tf, input_signature

    transform = fit(features, as_arrow(rows))
    rows = rows + more
    traced = tf.function(lambda **raw: apply_tf(transform, raw)).get_concrete_function(**input_signature(transform))
    numeric, categories = traced(**as_tensors(rows, transform))
    assert_same(transform.apply(as_numpy(rows)), Features(numeric.numpy(), categories.numpy()), transform)


TIMES = [
    ("2013-01-31", True), ("2013-01-31T10:00", True), ("2013-01-31 10:00:05", True),
    ("2013-01-31T10:00:05.123456789", True),
    ("0001-01-01", True), ("9999-12-31T23:59:59.999999", True), ("1969-12-31T23:59:59.5", True), ("2012-02-29", True),
    ("2013-02-29", False), ("2013-13-01", False), ("2013-00-10", False), ("2013-01-31T24:00", False),
    ("2013-01-31T10:60", False), ("01/02/2013", False), ("2013-1-1", False), ("2013-01-31T10", False), ("x", False),
    ("2013-01-31\n", False), (" 2013-01-31", False), ("٢٠١٣-01-31", False), ("2013-01-31T10:00:00.", False),
]  # fmt: skip
OFFSETS = [("", True), ("Z", True), ("+01:00", True), ("-0530", True), ("+05", True), ("+24:00", False), ("z", False)]


@pytest.mark.slow
def test_both_interpreters_read_the_same_times():
    import tensorflow as tf

    from pipeparts.runtime.serving.transform_tf import apply_tf

    for type_name, offsets in [("timestamp", [("", True), ("Z", False)]), ("timestamp_utc", OFFSETS)]:
        wanted = parse_features({"t": {"kind": "time", "parts": ["minute", "day"], "cycles": ["hour_of_day"]}})
        transform = learn([], {"t": type_name}, wanted, rows=0)
        traced = tf.function(lambda t, transform=transform: apply_tf(transform, {"t": t}))
        traced = traced.get_concrete_function(tf.TensorSpec([None], tf.string))
        for text, good in TIMES:
            for offset, offset_good in offsets if "T" in text or " 10" in text else [("", True)]:
                value = text + offset
                if good and offset_good:
                    numeric, categories = traced(tf.constant([value]))
                    found = Features(numeric.numpy(), categories.numpy())
                    assert_same(transform.apply({"t": [value]}), found, transform)
                    continue
                with pytest.raises(ValueError, match="a time that cannot be read"):
                    transform.apply({"t": [value]})
                with pytest.raises(tf.errors.InvalidArgumentError, match="a time that cannot be read"):
                    traced(tf.constant([value]))


@given(st.integers(-(10**7), 10**7))
def test_the_calendar_is_the_one_of_the_standard_library(day):
    year, month, day_of_month = times.civil_of(day)
    assert times.days_of(year, month, day_of_month) == day
    if 1 <= year <= 9999:
        assert datetime.date(year, month, day_of_month).toordinal() - datetime.date(1970, 1, 1).toordinal() == day


@settings(max_examples=200)
@given(st.datetimes(datetime.datetime(1900, 1, 2), datetime.datetime(2099, 12, 30)))
def test_a_time_zone_is_the_one_of_the_standard_library(zones, moment):
    import zoneinfo

    for name, transform in zones.items():
        local = moment.replace(tzinfo=datetime.UTC).astimezone(zoneinfo.ZoneInfo(name))
        found = transform.apply({"t": np.array([moment], "datetime64[us]")}).categories[0] - 1
        assert list(found) == [local.day - 1, local.hour, local.minute], name


@pytest.fixture(scope="module")
def zones():
    names = ["America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
    transforms = {}
    for name in names:
        parts = {"kind": "time", "parts": ["day", "hour", "minute"], "time_zone": name}
        transforms[name] = learn([], {"t": "timestamp_utc"}, parse_features({"t": parts}), rows=0)
    return transforms


def test_times_finer_than_microseconds_are_cut_downwards():
    wanted = parse_features({"t": {"kind": "time", "parts": ["minute"]}})
    transform = learn([], {"t": "timestamp"}, wanted, rows=0)
    before = np.array([-1, 0, 59_999_999_999, 60_000_000_000], "datetime64[ns]")
    assert list(transform.apply({"t": before}).categories[:, 0] - 1) == [59, 0, 0, 1]
    assert list(transform.apply({"t": pa.array(before)}).categories[:, 0] - 1) == [59, 0, 0, 1]


def test_times_as_far_as_arrow_has_them():
    transform = learn([], {"t": "timestamp"}, parse_features({"t": "time"}), rows=0)
    ends = pa.array([-(2**63) + 1, 2**63 - 1, None], pa.timestamp("s"))
    assert np.isfinite(transform.apply({"t": ends}).numeric).all()
    assert (transform.apply({"t": ends}).numeric[2] == 0).all()


def test_serving_code_imports_only_what_a_model_has():
    """The code goes into saved models, so an import of pipeparts there would break every served model."""
    for path in sorted(SERVING.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path.name}, line {node.lineno}: a relative import out of the package"
                names = [node.module or ""] if node.level == 0 else []
            for name in names:
                assert name.split(".")[0] != "pipeparts", f"{path.name}, line {node.lineno}: imports {name}"


def test_a_copy_works_without_pipeparts(tmp_path, everything):
    package = tmp_path / "serving_0123abcd"
    shutil.copytree(SERVING, package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "t.json").write_text(json.dumps(everything.as_dict()))
    script = (
        "import sys; sys.path.insert(0, '.'); sys.modules['pipeparts'] = None\n"
        "from serving_0123abcd.transform import Transform\n"
        "t = Transform.load('t.json')\n"
        "f = t.apply({n: [None, None] for n in t.columns})\n"
        "assert f.numeric.shape == (2, len(t.numeric_names)) and not f.categories.any()\n"
        "heavy = [n for n in ('pandas', 'pyarrow', 'tensorflow') if n in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
