from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts.components.data_validation.validate_statistics_tfdv import logic
from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.tfdv import names, write_schema, write_statistics
from pipeparts.runtime.verdict import Verdict, read_verdict

pytestmark = pytest.mark.tfx

ROWS = 2000
Change = Callable[[Any], Any]


def frame() -> Any:
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "carrier": random.choice(["AA", "UA", "DL"], ROWS, p=[0.5, 0.3, 0.2]),
            "tail": [f"N{i}" for i in range(ROWS)],
            "delay": random.normal(10, 5, ROWS),
            "distance": random.integers(100, 1000, ROWS),
        }
    )


def as_it_is(data: Any) -> Any:
    return data


def statistics_of(data: Any, folder: Path) -> Path:
    import tensorflow_data_validation as tfdv

    write_statistics(folder, tfdv.generate_statistics_from_dataframe(data), split="train")
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import schema_pb2

    folder = tmp_path_factory.mktemp("reference")
    statistics_of(frame(), folder / "statistics")
    schema = tfdv.infer_schema(tfdv.generate_statistics_from_dataframe(frame()))
    schema.default_environment.extend(["TRAINING", "SERVING"])
    features = names(schema.feature)
    features["delay"].not_in_environment.append("SERVING")
    features["distance"].int_domain.CopyFrom(schema_pb2.IntDomain(min=0, max=1000))
    write_schema(folder / "schema", schema)
    return folder


def validate(reference: Path, folder: Path, change: Change = as_it_is, **given: Any) -> Verdict:
    others = {
        f"{name}_path": statistics_of(given.pop(name)(frame()), folder / name)
        for name in ("previous_statistics", "serving_statistics")
        if name in given
    }
    arguments: dict[str, Any] = {
        "statistics_path": statistics_of(change(frame()), folder / "statistics"), "schema_path": reference / "schema",
        "environment": "", "drift_thresholds": None, "skew_thresholds": None, "extra_columns": "forbid",
        "previous_statistics_path": None, "serving_statistics_path": None,
    }  # fmt: skip
    verdict = logic.validate_statistics(
        anomalies_path=folder / "anomalies",
        verdict_path=folder / "verdict",
        verdict_text_path=folder / "verdict.md",
        page_path=folder / "page.html",
        **{**arguments, **others, **given},
    )
    assert read_verdict(folder / "verdict") == verdict
    return verdict


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.failures]


def unseen(data: Any) -> Any:
    data.loc[5, "carrier"] = "ZZ"
    return data


def half_missing(data: Any) -> Any:
    data.loc[: ROWS // 2, "carrier"] = None
    return data


def more_of_one(data: Any) -> Any:
    data.loc[: ROWS // 4, "carrier"] = "DL"
    return data


def later(data: Any) -> Any:
    data["delay"] = data["delay"] + 8
    return data


def test_the_same_data_has_no_anomaly_no_drift_and_no_skew(reference: Path, tmp_path: Path) -> None:
    every = {"*": {"jensen_shannon": 0.0, "l_infinity": 0.0}}
    verdict = validate(
        reference,
        tmp_path,
        previous_statistics=as_it_is,
        serving_statistics=as_it_is,
        drift_thresholds=every,
        skew_thresholds=every,
    )
    assert verdict.passed
    measured = {check.name: check.value for check in verdict.checks if check.value is not None}
    assert {name for name in measured if name.startswith("drift")} == {
        "drift_l_infinity:carrier",
        "drift_jensen_shannon:carrier",
        "drift_jensen_shannon:delay",
        "drift_jensen_shannon:distance",
    }, "a column of keys is not compared by `*`"
    assert set(measured.values()) == {0.0}
    assert {check.name for check in verdict.checks} >= {f"schema:{name}" for name in frame().columns}


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (unseen, "enum_type_unexpected_string_values:carrier", "ZZ"),
        (lambda data: data.drop(columns="carrier"), "schema_missing_column:carrier", "missing"),
        (lambda data: data.assign(distance=data["distance"].astype(str)), "unexpected_data_type:distance", "INT"),
        (
            lambda data: data.assign(distance=data["distance"] + 5000),
            "int_type_big_int:distance",
            "5999. The schema's max is 1,000.",
        ),
        (lambda data: data.assign(distance=-data["distance"]), "int_type_small_int:distance", "The schema's min is 0."),
        (half_missing, "feature_type_low_fraction_present:carrier", "expected"),
        (lambda data: data.assign(more=1), "schema_new_column:more", "not in schema"),
    ],
)
def test_a_planted_anomaly_is_found_and_said(
    reference: Path, tmp_path: Path, change: Change, name: str, words: str
) -> None:
    import tensorflow_data_validation as tfdv

    verdict = validate(reference, tmp_path, change)
    assert name in failed(verdict)
    column = name.partition(":")[2]
    assert {check.partition(":")[2] for check in failed(verdict)} == {column}, "and nothing else"
    assert words in next(check.reason for check in verdict.failures if check.name == name)
    assert list(tfdv.load_anomalies_text(str(tmp_path / "anomalies")).anomaly_info) == [column]
    page = (tmp_path / "page.html").read_text()
    assert f"<td>{column}</td><td>{name.partition(':')[0]}</td>" in page
    assert f"**{name}**" in (tmp_path / "verdict.md").read_text()


def test_extra_columns_can_be_allowed(reference: Path, tmp_path: Path) -> None:
    verdict = validate(reference, tmp_path, lambda data: data.assign(more=1), extra_columns="allow")
    assert verdict.passed
    assert "are allowed" in next(check.reason for check in verdict.checks if check.name == "schema_new_column:more")


@pytest.mark.parametrize(("kind", "other"), [("drift", "previous_statistics"), ("skew", "serving_statistics")])
def test_planted_drift_and_skew_are_found(reference: Path, tmp_path: Path, kind: str, other: str) -> None:
    thresholds = {"*": {"jensen_shannon": 0.05}, "carrier": {"l_infinity": 0.1, "jensen_shannon": 1.0}}
    verdict = validate(
        reference,
        tmp_path,
        lambda data: later(more_of_one(data)),
        **{other: as_it_is, f"{kind}_thresholds": thresholds},
    )
    assert sorted(failed(verdict)) == [f"{kind}_jensen_shannon:delay", f"{kind}_l_infinity:carrier"]
    by_name = {check.name: check for check in verdict.checks}
    moved = by_name[f"{kind}_l_infinity:carrier"]
    assert moved.value == pytest.approx(0.2, abs=0.03)  # a quarter of the rows, four fifths of which were others
    assert (moved.threshold, by_name[f"{kind}_jensen_shannon:carrier"].passed) == (0.1, True)
    assert by_name[f"{kind}_jensen_shannon:distance"].passed
    assert "above 0.1" in moved.reason


def test_thresholds_of_the_schema_hold_without_a_parameter(reference: Path, tmp_path: Path) -> None:
    from pipeparts.runtime.tfdv import read_schema

    schema = read_schema(reference / "schema")
    names(schema.feature)["delay"].drift_comparator.jensen_shannon_divergence.threshold = 0.05
    write_schema(tmp_path / "schema", schema)
    verdict = validate(reference, tmp_path, later, previous_statistics=as_it_is, schema_path=tmp_path / "schema")
    assert failed(verdict) == ["drift_jensen_shannon:delay"]


def test_a_column_may_miss_where_its_environment_says_so(reference: Path, tmp_path: Path) -> None:
    def without(data: Any) -> Any:
        return data.drop(columns="delay")

    assert validate(reference, tmp_path / "serving", without, environment="SERVING").passed
    assert failed(validate(reference, tmp_path / "training", without, environment="TRAINING")) == [
        "schema_missing_column:delay"
    ]


def test_slices_do_not_hide_all_rows(reference: Path, tmp_path: Path) -> None:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    from pipeparts.runtime.tfdv import read_statistics

    whole = read_statistics(reference / "statistics").datasets[0]
    both = statistics_pb2.DatasetFeatureStatisticsList()
    for name in ("carrier_AA", "All Examples"):
        whole.name = name
        both.datasets.append(whole)
    write_statistics(tmp_path / "sliced", both, split="eval")
    assert validate(reference, tmp_path, statistics_path=tmp_path / "sliced").passed
    del both.datasets[1]
    both.datasets.append(both.datasets[0])
    write_statistics(tmp_path / "slices", both, split="eval")
    with pytest.raises(ContractError, match="slices alone"):
        validate(reference, tmp_path, statistics_path=tmp_path / "slices")


def test_two_runs_write_the_same_bytes(reference: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        validate(
            reference,
            tmp_path / name,
            unseen,
            previous_statistics=later,
            drift_thresholds={"*": {"jensen_shannon": 0.1}},
        )
    for name in ("anomalies", "verdict", "verdict.md", "page.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"environment": "SERVNG"}, ["parameter: environment", "did you mean 'SERVING'"]),
        ({"extra_columns": "alow"}, ["extra_columns", "did you mean 'allow'"]),
        ({"drift_thresholds": {"*": {"jensen_shannon": 0.1}}}, ["drift_thresholds", "no previous_statistics"]),
        ({"skew_thresholds": {"*": {"jensen_shannon": 0.1}}}, ["skew_thresholds", "no serving_statistics"]),
        ({"previous_statistics": as_it_is}, ["drift_thresholds", "no threshold to compare by"]),
        ({"serving_statistics": as_it_is}, ["skew_thresholds", "no threshold to compare by"]),
        (
            {"previous_statistics": as_it_is, "drift_thresholds": {"carier": {"l_infinity": 0.1}}},
            ["drift_thresholds", "did you mean 'carrier'"],
        ),
        (
            {"previous_statistics": as_it_is, "drift_thresholds": {"delay": {"l_infinity": 0.1}}},
            ["drift_thresholds.delay", "FLOAT"],
        ),
        (
            {"previous_statistics": as_it_is, "drift_thresholds": {"carrier": {"l_inf": 0.1}}},
            ["drift_thresholds.carrier.l_inf", "did you mean 'l_infinity'"],
        ),
        (
            {"previous_statistics": as_it_is, "drift_thresholds": {"carrier": {"l_infinity": 2}}},
            ["drift_thresholds.carrier.l_infinity"],
        ),
        ({"previous_statistics": as_it_is, "drift_thresholds": {"carrier": {}}}, ["drift_thresholds.carrier"]),
        ({"previous_statistics": as_it_is, "drift_thresholds": {"carrier": 0.1}}, ["not a dictionary"]),
        ({"previous_statistics": as_it_is, "drift_thresholds": [0.1]}, ["no dictionary"]),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    reference: Path, tmp_path: Path, given: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        validate(reference, tmp_path, **given)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "verdict").exists()


def test_inputs_that_are_damaged_or_missing_are_refused(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no statistics of TFDV here"):
        validate(reference, tmp_path, statistics_path=tmp_path / "nowhere")
    (tmp_path / "schema.pbtxt").write_text("feature { name: 'x' type: NUMBER }")
    with pytest.raises(ContractError, match="line 1"):
        validate(reference, tmp_path, schema_path=tmp_path / "schema.pbtxt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContractError, match="an empty folder"):
        validate(reference, tmp_path, schema_path=tmp_path / "empty")
