"""Tests of the logic of `validate_table`."""

import datetime
import json
import math
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeparts.components.data_validation.validate_table import rows
from pipeparts.components.data_validation.validate_table.logic import validate_table
from pipeparts.components.data_validation.validate_table.schema import infer_schema
from pipeparts.errors import ContractError, InputError
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.tables import Table, TableWriter, write_table
from pipeparts.runtime.verdict import read_verdict

FLIGHTS = Path(__file__).parents[4] / "tests" / "data" / "flights.csv"


class Case:
    """A table with its profile, and one call to validate it."""

    def __init__(self, folder, columns, **options):
        self.folder = folder
        data = columns if isinstance(columns, pa.Table) else pa.table(columns)
        write_table(folder / "table", data, source="a test")
        self.profile = profile_of(Table(folder / "table"), **options)
        write_profile(folder / "profile.json", self.profile)

    def run(self, schema=None, *, reference=None):
        verdict = validate_table(
            table_path=self.folder / "table",
            profile_path=self.folder / "profile.json",
            verdict_path=self.folder / "verdict.json",
            verdict_text_path=self.folder / "verdict.md",
            schema_used_path=self.folder / "schema.yaml",
            page_path=self.folder / "page.html",
            schema=schema,
            reference_profile_path=reference.folder / "profile.json" if reference else None,
        )
        assert read_verdict(self.folder / "verdict.json") == verdict
        return verdict

    def check(self, rules, name, *, column="x", reference=None):
        """The one check of this name, for a schema of one column."""
        verdict = self.run({"columns": {column: rules}}, reference=reference)
        return next(check for check in verdict.checks if check.name == f"{name}:{column}")

    def refusal(self, schema, *, reference=None):
        with pytest.raises(InputError) as error:
            self.run(schema, reference=reference)
        assert not (self.folder / "verdict.json").exists()
        return error.value


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    options = pa.csv.ConvertOptions(strings_can_be_null=True)
    return Case(tmp_path_factory.mktemp("flights"), pa.csv.read_csv(FLIGHTS, convert_options=options))


def test_without_a_schema_real_checks_are_made_and_the_verdict_says_which(flights):
    verdict = flights.run()
    assert verdict.passed
    assert [check.name for check in verdict.checks] == ["rows", "all_missing", "schema"]
    assert "holds by construction" in verdict.checks[-1].reason


def test_the_inferred_schema_is_yaml_that_can_be_given_back(flights):
    flights.run()
    text = (flights.folder / "schema.yaml").read_text()
    assert text.startswith("# No schema was given: this one was inferred from the table itself.")
    assert "#   min, max " in text
    schema = yaml.safe_load(text)
    assert schema["columns"]["origin"]["allowed"] == ["EWR", "JFK", "LGA"]
    assert schema["columns"]["flight_id"]["unique"] is True
    assert schema["columns"]["distance"]["min"] == 0
    verdict = flights.run(schema)
    assert verdict.passed
    assert len(verdict.checks) > 150
    again = yaml.safe_load((flights.folder / "schema.yaml").read_text())
    assert again == schema


def test_the_outputs_are_the_same_bytes_twice(flights):
    names = ("verdict.json", "verdict.md", "schema.yaml", "page.html")
    schema = {"columns": {"distance": {"max": 500}}}
    outputs = []
    for _ in range(2):
        flights.run(schema)
        outputs.append([(flights.folder / name).read_bytes() for name in names])
    assert outputs[0] == outputs[1]


def test_violations_come_with_their_number_and_rows(flights):
    schema = {
        "unique_key": ["flight_id"],
        "extra_columns": "forbid",
        "columns": {
            "distance": {"min": 100, "max": 2000},
            "dest": {"allowed": ["IAH", "ORD"], "min_share": 0.5},
            "tailnum": {"pattern": "N[0-9]{3}[A-Z]{2}", "max_missing_share": 0.001},
            "carier": {},
            "time_hour": {"max": "2013-06-01T00:00:00Z"},
            "month": {"unique": True},
        },
    }
    verdict = flights.run(schema)
    frame = pa.csv.read_csv(FLIGHTS, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True)).to_pandas()
    checks = {check.name: check for check in verdict.checks}
    outside = (frame["distance"] < 100) | (frame["distance"] > 2000)
    distance = checks["range:distance"]
    assert distance.value == outside.sum()
    assert f"{outside.sum()} of 2,005 values are outside the range 100 to 2,000" in distance.reason
    first = int(np.flatnonzero(outside)[0])
    assert distance.samples[0] == {
        "row": first + 1,
        "distance": frame["distance"][first],
        "flight_id": frame["flight_id"][first],
    }
    assert len(distance.samples) == 5
    assert checks["allowed:dest"].value == pytest.approx(frame["dest"].isin(["IAH", "ORD"]).mean())
    assert not checks["pattern:tailnum"].passed
    assert checks["missing:tailnum"].samples[0]["tailnum"] is None
    assert "did you mean 'carrier'?" in checks["required:carier"].reason
    assert checks["range:time_hour"].samples[0]["time_hour"].startswith("2013-0")
    assert checks["unique:month"].value == 2005 - 12
    assert checks["unique:month"].samples[0]["again in row"] == 2
    assert checks["unique_key"].passed
    assert "and 32 more" in checks["extra_columns"].reason
    page = (flights.folder / "page.html").read_text()
    assert page.index("not passed") < page.index("Violations") < page.index("Every check")


def test_a_table_without_rows_and_a_column_without_values_fail_without_a_schema(tmp_path):
    none = Case(tmp_path / "0", {"x": pa.array([], pa.int64())}).run()
    assert [check.name for check in none.failures] == ["rows"]
    assert "0 rows, where 1 or more are allowed" in none.failures[0].reason
    gone = Case(tmp_path / "1", {"x": [1, 2], "y": pa.nulls(2, pa.string())})
    assert [check.name for check in gone.run().failures] == ["all_missing"]
    assert gone.run({"columns": {"y": {"max_missing_share": 1}}}).passed


def test_a_table_without_columns(tmp_path):
    assert not Case(tmp_path, {}).run().passed


@pytest.mark.parametrize(
    ("schema", "passed"), [({"min_rows": 3}, True), ({"min_rows": 4}, False), ({"max_rows": 2}, False)]
)
def test_the_number_of_rows(tmp_path, schema, passed):
    assert Case(tmp_path, {"x": [1, 2, 3]}).run(schema).passed is passed


def test_types(tmp_path):
    case = Case(tmp_path, {"x": ["1", "2"]})
    assert case.check({"type": "string"}, "type").passed
    check = case.check({"type": "int64", "min": 0}, "type")
    assert (check.passed, check.value, check.threshold) == (False, "string", "int64")
    assert "so the values were not checked" in check.reason
    (tmp_path / "verdict.json").unlink()
    assert case.refusal({"columns": {"x": {"type": "strin"}}}).facts["hint"] == "did you mean 'string'?"


def test_types_that_arrow_writes_with_parameters(tmp_path):
    case = Case(tmp_path, {"x": pa.array([datetime.datetime(2013, 1, 1)], pa.timestamp("ms", tz="UTC"))})
    case.run()
    assert case.run(yaml.safe_load((tmp_path / "schema.yaml").read_text())).passed
    check = case.check({"type": "decimal128(9, 2)"}, "type")
    assert (check.passed, check.value) == (False, "timestamp[ms, tz=UTC]")


def test_missing_and_nan_are_limited_apart(tmp_path):
    case = Case(tmp_path, {"x": [1.0, None, math.nan, 2.0]})
    assert case.check({"max_missing_share": 0.25}, "missing").passed
    missing = case.check({"max_missing_share": 0.2}, "missing")
    assert missing.samples == ({"row": 2, "x": None},)
    nan = case.check({"max_nan_share": 0}, "nan")
    assert nan.samples == ({"row": 3, "x": "nan"},)
    assert "1 of 4 rows are NaN, 25.00% where 0.00% is the most" in nan.reason


@pytest.mark.parametrize(
    ("values", "rules", "outside"),
    [
        (pa.array([1, 5, 9, None]), {"min": 1, "max": 9}, 0),
        (pa.array([1, 5, 9, None]), {"min": 1.5}, 1),
        (pa.array([2**53 + 1, -(2**63)]), {"min": -1.5, "max": 1e40}, 1),
        (pa.array([1, 2]), {"min": -(10**30), "max": 10**30}, 0),
        (pa.array([1.0, math.inf, -math.inf]), {"max": 9}, 1),
        (pa.array([math.inf]), {"min": 0}, 0),
        (pa.array([2**63 + 2048, 1], pa.uint64()), {"max": 10}, 1),
        (pa.array([1, 2], pa.int8()).cast(pa.decimal128(9, 2)), {"max": 1.5}, 1),
        (pa.array([datetime.date(2013, 1, 1)]), {"min": "2013-01-01", "max": "2013-01-01"}, 0),
        (pa.array([datetime.date(2013, 1, 1)]), {"min": "2013-01-02"}, 1),
        (pa.array([datetime.datetime(2013, 1, 1, 5)], pa.timestamp("us")), {"max": "2013-01-01T04:59:59"}, 1),
        (pa.array([datetime.time(12)]), {"min": "13:00"}, 1),
        (pa.nulls(2, pa.int64()), {"min": 1}, 0),
    ],
)
def test_ranges(tmp_path, values, rules, outside):
    check = Case(tmp_path, {"x": values}).check(rules, "range")
    assert (check.passed, check.value) == (outside == 0, outside)
    assert len(check.samples) == outside


@pytest.mark.parametrize("top", [1, 100])
@pytest.mark.parametrize(
    ("values", "allowed"),
    [(["a", "b", None, "c"], ["a", "b"]), ([1, 2, None, 3], [1.0, 2.0]), ([1.5, 2.0, None, math.nan], [1.5, 2])],
)
def test_allowed_values_from_the_profile_and_from_the_rows(tmp_path, values, allowed, top):
    case = Case(tmp_path, {"x": values}, top=top)
    check = case.check({"allowed": allowed}, "allowed")
    assert (check.passed, check.value) == (False, pytest.approx(2 / 3))
    assert [sample["row"] for sample in check.samples] == [4]
    assert case.check({"allowed": allowed, "min_share": 0.6}, "allowed").passed


def test_allowed_booleans(tmp_path):
    check = Case(tmp_path, {"x": [True, False, None]}).check({"allowed": [True]}, "allowed")
    assert check.samples == ({"row": 2, "x": False},)


@pytest.mark.parametrize("top", [1, 100])
def test_a_pattern_matches_the_whole_text(tmp_path, top):
    case = Case(tmp_path, {"x": ["N12", "N12\n", "xN12", None, ""]}, top=top)
    check = case.check({"pattern": "N[0-9]+|"}, "pattern")
    assert (check.value, [sample["row"] for sample in check.samples]) == (2, [2, 3])
    assert case.check({"pattern": "(?s).*"}, "pattern").passed


@pytest.mark.parametrize("at_once", [7, 8_000_000])
def test_repeated_values_are_found_in_parts_too(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(rows, "_HASHES_AT_ONCE", at_once)
    values = [*range(50), 3, 3, 7, None, None]
    case = Case(tmp_path, {"x": values, "s": [f"t{v}" for v in values], "k": [v and v % 2 for v in values]})
    table = Table(case.folder / "table")
    found = rows.find_duplicates(table, ["x"])
    assert found.count == 3
    assert found.samples == ({"row": 4, "x": 3, "again in row": 51}, {"row": 8, "x": 7, "again in row": 53})
    # Together a missing value counts: the two rows of None are one value.
    assert rows.find_duplicates(table, ["x", "k"], key=["s"]).count == 4
    assert not case.run({"unique_key": ["x", "k"]}).passed


def test_different_values_with_one_hash_are_not_taken_for_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "hash_array", lambda values: np.arange(len(values), dtype=np.uint64) // 2)
    case = Case(tmp_path, {"x": ["a", "b", "c", "d", "d", "d"]})
    found = rows.find_duplicates(Table(case.folder / "table"), ["x"])
    # Three pairs share a hash, and of them only the d and d are equal; the c and the third d share theirs with a d.
    assert [sample["x"] for sample in found.samples] == ["d"]
    assert found.count <= 2


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=60), st.integers(1, 20))
def test_the_number_of_repeats_is_what_counting_gives(tmp_path_factory, values, at_once):
    folder = tmp_path_factory.mktemp("repeats")
    write_table(folder / "table", pa.table({"x": pa.array(values, pa.int64())}), source="a test")
    before, rows._HASHES_AT_ONCE = rows._HASHES_AT_ONCE, at_once
    try:
        found = rows.find_duplicates(Table(folder / "table"), ["x"])
    finally:
        rows._HASHES_AT_ONCE = before
    there = [value for value in values if value is not None]
    assert found.count == len(there) - len(set(there))


def test_uniqueness_beyond_what_the_profile_counts(tmp_path):
    texts = [f"id {i}" for i in range(70_000)]
    assert Case(tmp_path / "1", {"x": texts}).check({"unique": True}, "unique").passed
    check = Case(tmp_path / "2", {"x": [*texts, "id 5"]}).check({"unique": True}, "unique")
    assert (check.value, check.samples) == (1, ({"row": 6, "x": "id 5", "again in row": 70_001},))


columns = st.fixed_dictionaries(
    {
        "i": st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=3, max_size=3),
        "f": st.lists(st.one_of(st.none(), st.floats()), min_size=3, max_size=3),
        "s": st.lists(st.one_of(st.none(), st.text()), min_size=3, max_size=3),
        "b": st.lists(st.one_of(st.none(), st.booleans()), min_size=3, max_size=3),
    }
)
TYPES = {"i": pa.int64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()}


@settings(deadline=None, max_examples=50)
@given(columns, st.integers(1, 60))
def test_the_inferred_schema_holds_on_the_table_itself(tmp_path_factory, values, repeat):
    data = {name: pa.array(column * repeat, TYPES[name]) for name, column in values.items()}
    case = Case(tmp_path_factory.mktemp("inferred"), data)
    case.run()
    schema = yaml.safe_load((case.folder / "schema.yaml").read_text())
    verdict = case.run(schema)
    assert {check.name for check in verdict.failures} <= {"all_missing"}
    with_itself = case.run(reference=case)
    assert {check.name for check in with_itself.failures} <= {"all_missing", *_not_comparable(case)}


def _not_comparable(case):
    # A column of NaN or infinities alone has no histogram to compare.
    empty = [c.name for c in case.profile.columns if c.histogram is not None and not c.histogram.total]
    return {f"jensen_shannon:{name}" for name in empty}


def test_a_reference_gives_the_schema_and_the_limits_on_drift(tmp_path):
    rng = np.random.default_rng(0)
    old = Case(tmp_path / "old", {"x": rng.normal(0, 1, 5000), "s": rng.choice(["a", "b"], 5000, p=[0.5, 0.5])})
    same = Case(tmp_path / "same", {"x": rng.normal(0, 1, 3000), "s": rng.choice(["a", "b"], 3000, p=[0.5, 0.5])})
    verdict = same.run(reference=old)
    assert verdict.passed
    assert {"jensen_shannon:x", "l_infinity:s"} <= {check.name for check in verdict.checks}
    text = (same.folder / "schema.yaml").read_text()
    assert "inferred from the reference profile" in text
    moved = Case(tmp_path / "new", {"x": rng.normal(2, 1, 3000), "s": rng.choice(["a", "b"], 3000, p=[0.8, 0.2])})
    failed = {check.name: check for check in moved.run(reference=old).failures}
    assert set(failed) == {"jensen_shannon:x", "l_infinity:s"}
    assert failed["l_infinity:s"].value == pytest.approx(0.3, abs=0.03)
    assert "the share of 'a' differs by" in failed["l_infinity:s"].reason


def test_what_cannot_be_compared_fails_with_the_reason(tmp_path):
    here = Case(tmp_path / "1", {"x": [1, 2], "y": [1, 2], "z": [1, 2]})
    there = Case(tmp_path / "2", {"x": ["a", "b"], "z": pa.nulls(2, pa.int64())})
    limits = {name: {"max_jensen_shannon": 0.1} for name in ("x", "y", "z")}
    checks = {check.name: check for check in here.run({"columns": limits}, reference=there).failures}
    assert "there the column holds text values" in checks["jensen_shannon:x"].reason
    assert "no such column" in checks["jensen_shannon:y"].reason
    assert "without values" in checks["jensen_shannon:z"].reason


@pytest.mark.parametrize(
    ("schema", "parameter", "words"),
    [
        ({"colums": {}}, "schema.colums", ["has a key that is not known", "did you mean 'columns'?"]),
        ({"columns": {"x": {"mim": 1}}}, "schema.columns.x.mim", ["did you mean 'min'?", "received: mim"]),
        ({"columns": {"x": {"min": 5, "max": 1}}}, "schema.columns.x.min", ["contradicts itself", "at most max, 1"]),
        ({"min_rows": 5, "max_rows": 1}, "schema.min_rows", ["contradicts itself", "at most max_rows, 1"]),
        ({"min_rows": -1}, "schema.min_rows", ["greater than or equal to 0"]),
        ({"columns": {"x": {"max_missing_share": 2}}}, "schema.columns.x.max_missing_share", ["less than or equal"]),
        ({"columns": {"x": {"min": "low"}}}, "schema.columns.x.min", ["a bound that is no number", "'low'"]),
        ({"columns": {"s": {"min": 1}}}, "schema.columns.s.min", ["only for numbers, dates", "type string"]),
        ({"columns": {"d": {"min": "01/02/2013"}}}, "schema.columns.d.min", ["ISO 8601 for date", "01/02/2013"]),
        ({"columns": {"d": {"min": "2013-02-01", "max": "2013-01-01"}}}, "schema.columns.d.min", ["contradicts"]),
        ({"columns": {"x": {"allowed": ["a"]}}}, "schema.columns.x.allowed", ["values of int64", "str: 'a'"]),
        ({"columns": {"x": {"allowed": []}}}, "schema.columns.x.allowed", ["one at least"]),
        ({"columns": {"s": {"pattern": "("}}}, "schema.columns.s.pattern", ["no regular expression", "missing )"]),
        ({"columns": {"x": {"pattern": "1"}}}, "schema.columns.x.pattern", ["only for text columns"]),
        ({"columns": {"n": {"unique": True}}}, "schema.columns.n.unique", ["not nested"]),
        ({"columns": {"x": {"max_nan_share": 0}}}, "schema.columns.x.max_nan_share", ["floating numbers"]),
        ({"columns": {"s": {"max_l_infinity": 0.1}}}, "schema.columns.s.max_l_infinity", ["`reference_profile`"]),
        ({"unique_key": ["x", "keyy"]}, "schema.unique_key", ["neither the table nor the schema", "'key'"]),
        ({"extra_columns": "maybe"}, "schema.extra_columns", ["'allow' or 'forbid'"]),
        ({"columns": ["x"]}, "schema.columns", ["dictionary"]),
        (["x"], "schema", ["a dictionary", "list: ['x']"]),
    ],
)
def test_a_bad_schema_is_refused_with_what_would_do(tmp_path, schema, parameter, words):
    data = {"x": [1], "s": ["a"], "d": [datetime.date(2013, 1, 1)], "n": [[1]], "key": [1]}
    error = Case(tmp_path, data).refusal(schema)
    assert error.facts["parameter"] == parameter
    for word in words:
        assert word in str(error)


def test_the_profile_of_another_table_is_refused(tmp_path):
    one, two = Case(tmp_path / "1", {"x": [1, 2]}), Case(tmp_path / "2", {"x": [1, 3]})
    (one.folder / "profile.json").write_bytes((two.folder / "profile.json").read_bytes())
    with pytest.raises(ContractError, match="the profile is of another table") as error:
        one.run()
    assert two.profile.fingerprint in error.value.facts["received"]
    assert error.value.facts["hint"] == "run profile_table on this very table"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_profile_is_refused(tmp_path, text):
    case = Case(tmp_path, {"x": [1]})
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(ContractError):
        case.run()


def test_names_and_values_that_yaml_would_misread_come_back_as_they_were(tmp_path):
    texts = ["yes", "no", "1e5", "2013-01-01", "null", "a: b # c", "", "\t", "é\u2028", "\x85"] * 20
    case = Case(tmp_path, {"on": texts, "a: b": texts, "x\ny": [1.0e-7] * len(texts)})
    case.run()
    schema = yaml.safe_load((tmp_path / "schema.yaml").read_text())
    assert set(schema["columns"]) == {"on", "a: b", "x\ny"}
    assert set(schema["columns"]["on"]["allowed"]) == set(texts)
    assert case.run(schema).passed
    json.dumps(schema)


def test_a_profile_answers_without_reading_a_row(tmp_path, monkeypatch):
    case = Case(tmp_path, {"x": list(range(200)), "s": ["a", "b"] * 100})

    def refuse(*args, **kwargs):
        raise AssertionError("the rows were read")

    monkeypatch.setattr(Table, "batches", refuse)
    schema = {"columns": {"x": {"min": 0, "unique": True}, "s": {"allowed": ["a", "b"], "pattern": "[ab]"}}}
    started = time.monotonic()
    assert case.run(schema).passed
    assert case.run().passed
    assert time.monotonic() - started < 5


def test_infinite_columns_infer_no_range(tmp_path):
    case = Case(tmp_path, {"x": [1.0, math.inf]})
    assert infer_schema(case.profile, drift=False).columns["x"].min is None


@pytest.mark.slow
def test_memory_of_uniqueness_stays_bounded(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(rows, "_HASHES_AT_ONCE", 100_000)
    schema = pa.schema([("x", pa.int64())])
    with TableWriter(tmp_path / "table", schema, source="ids", fingerprint=False) as writer:
        for start in range(0, 2_000_000, 200_000):
            writer.write(pa.table([pa.array(np.arange(start, start + 200_000))], schema=schema))
    tracemalloc.start()
    assert rows.find_duplicates(Table(tmp_path / "table"), ["x"]).count == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12_000_000
