"""Drift statistics against scipy's and Evidently's own, on the same full data; and when drift is said, and when not."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from pipeparts.runtime import drift_statistics as stats
from pipeparts.runtime.drift import BINS, TOP, Measured, compared, conclude, data_of, judge, parse_limits
from pipeparts.runtime.monitoring import Drift
from pipeparts.runtime.profiles import Profile
from pipeparts.runtime.profiling import DEFAULT_BINS, DEFAULT_TOP, profile_of
from pipeparts.runtime.tables import Table, write_table

KINDS = ("normal", "far", "lognormal", "cauchy", "uniform", "whole", "zeros", "outliers")
SHIFTS = (0.0, 0.05, 0.5)


def numbers(kind: str, rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    match kind:
        case "normal":
            return random.normal(shift, 1, rows)
        case "far":
            return random.normal(1e6 + shift, 1, rows)
        case "lognormal":
            return random.lognormal(shift, 1, rows)
        case "cauchy":
            return random.standard_cauchy(rows) + shift
        case "uniform":
            return random.random(rows) + shift
        case "whole":
            return random.poisson(50 + 7 * shift, rows)
        case "zeros":
            return np.where(random.random(rows) < 0.6, 0.0, random.normal(5 + shift, 1, rows))
        case _:
            values = random.normal(shift, 1, rows)
            values[: rows // 1000] *= 1e12
            return values


def profile(path: Path, columns: Mapping[str, Any], *, bins: int = BINS, top: int = TOP) -> Profile:
    write_table(path / "table", pa.table(columns), source="test")
    return profile_of(Table(path / "table"), bins=bins, top=top)


def measure(
    path: Path, reference: Mapping[str, Any], current: Mapping[str, Any], **options: int
) -> dict[str, Measured]:
    theirs, mine = profile(path, reference, **options), profile(path, current)
    return {column.name: column for column in compared(theirs, mine, dict.fromkeys(reference, "other"))}


def decide(path: Path, reference: Any, current: Any, limits: dict[str, Any] | None = None, **options: int) -> Drift:
    parsed = parse_limits(limits)
    theirs, mine = profile(path, reference, **options), profile(path, current)
    roles = dict.fromkeys(theirs.names, "other")
    measured = compared(theirs, mine, roles, by_name=theirs.names)
    return conclude(judge(measured, parsed), parsed, model="", reference=data_of(theirs), current=data_of(mine))


def evidently(reference: Any, current: Any, column: str, method: str, *, is_number: bool) -> float:
    """Evidently's `ValueDrift`, through its public interface."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports, and a scipy of its own time
        from evidently import DataDefinition, Dataset, Report
        from evidently.metrics import ValueDrift

        kind = {"numerical_columns": [column]} if is_number else {"categorical_columns": [column]}
        frames = (pd.DataFrame({column: values}) for values in (current, reference))
        sides = [Dataset.from_pandas(frame, data_definition=DataDefinition(**kind)) for frame in frames]
        snapshot = Report([ValueDrift(column=column, method=method)]).run(*sides)
        return float(snapshot.dict()["metrics"][0]["value"])


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_agree_exactly_while_all_values_are_counted(kind: str, shift: float, tmp_path: Path) -> None:
    one, other = numbers(kind, 20_000, 1), numbers(kind, 30_000, 2, shift)
    found = measure(tmp_path, {"x": one}, {"x": other})["x"]
    theirs = scipy_stats.ks_2samp(one, other, method="asymp")
    assert found.statistics["kolmogorov_smirnov"] == pytest.approx(theirs.statistic, abs=1e-12)
    assert found.p_values["p_value"] == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-300)
    # Half a rank of 1e12 is more than a double keeps of the rest of the sum: hence a relative tolerance.
    distance = scipy_stats.wasserstein_distance(one, other) / np.std(one)
    assert found.statistics["wasserstein"] == pytest.approx(distance, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bins", "ks", "psi"), [(BINS, 1e-4, 0.002), (DEFAULT_BINS, 1e-3, 0.02)])
def test_numbers_agree_in_buckets(kind: str, bins: int, ks: float, psi: float, tmp_path: Path) -> None:
    """Beyond 65,536 values: 1e-4 for the fine buckets of two tables, 1e-3 for those that travel with a model.

    PSI to within 0.2 % or 2 % of its value, or 0.0001, of that with cuts at the reference's very deciles.
    """
    for shift in SHIFTS:
        one, other = numbers(kind, 200_000, 1), numbers(kind, 200_000, 2, shift)
        found = measure(tmp_path, {"x": one}, {"x": other}, bins=bins)["x"].statistics
        theirs = scipy_stats.ks_2samp(one, other, method="asymp").statistic
        assert found["kolmogorov_smirnov"] == pytest.approx(theirs, abs=ks)
        distance = scipy_stats.wasserstein_distance(one, other) / np.std(one)
        assert found["wasserstein"] == pytest.approx(distance, rel=2e-3, abs=2e-4)
        if kind not in ("whole", "zeros"):  # where one value is a decile or more, the cuts are ours
            cuts = np.quantile(one, np.arange(1, 10) / 10)
            shares = [np.bincount(np.searchsorted(cuts, side), minlength=10) / len(side) for side in (one, other)]
            exact = stats.population_stability_index(*shares)
            assert found["psi"] == pytest.approx(exact, rel=psi, abs=1e-4)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32), st.sampled_from([1, 7, 1000]))
@settings(max_examples=60, deadline=None)
def test_the_p_value_of_small_samples_is_exact(n: int, m: int, seed: int, values: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.integers(0, values, n), random.integers(0, values + 3, m)
    places = np.arange(values + 3)
    counts = [np.bincount(side, minlength=len(places)) for side in (one, other)]
    distance, p_value = stats.kolmogorov_smirnov(*counts)
    theirs = scipy_stats.ks_2samp(one, other, method="exact")
    assert distance == pytest.approx(theirs.statistic, abs=1e-12)
    assert p_value == pytest.approx(theirs.pvalue, rel=1e-9)


@given(st.integers(200_000, 10_000_000), st.integers(200_000, 10_000_000), st.floats(0.1, 8))
@settings(max_examples=100, deadline=None)
def test_the_p_value_of_many_rows_is_scipys(n: int, m: int, size: float) -> None:
    moved = round(min(n, m) / 2 * min(1.0, size / math.sqrt(n * m / (n + m))))
    one, other = np.array([n // 2, n - n // 2]), np.array([m // 2 - moved, m - m // 2 + moved])
    distance, p_value = stats.kolmogorov_smirnov(one, other)
    theirs = scipy_stats.kstwo.sf(distance, round(n * m / (n + m)))
    assert p_value == pytest.approx(theirs, abs=1e-5)  # scipy takes a whole number of rows
    if theirs > 1e-30:
        assert p_value == pytest.approx(theirs, rel=0.01)


@given(st.integers(2, 5_000_000), st.integers(1, 5_000_000), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_the_probability_of_values_beyond_is_exact(n: int, m: int, part: float) -> None:
    beyond = 1 + round(part * min(m - 1, 40 * m / n))
    counts = np.array([0, n - 1, 1, 0]), np.array([beyond // 2, 0, m - beyond, beyond - beyond // 2])
    share, p_value = stats.outside(*counts)
    assert share == beyond / m
    # scipy takes the sum of what is likelier from 1, and loses digits by that.
    assert p_value == pytest.approx(float(scipy_stats.betabinom.sf(beyond - 1, m, 2, n - 1)), rel=1e-6, abs=1e-7)
    if n + m < 5_000:
        inner, all_ways = n + m - 1 - beyond, math.comb(n + m, n)
        assert p_value == pytest.approx(
            float(Fraction((beyond + 1) * math.comb(inner, n - 1) + math.comb(inner, n), all_ways)), rel=1e-9
        )


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=200, deadline=None)
def test_the_p_value_of_shares_is_scipys_with_yates_correction(a: int, b: int, c: int, d: int) -> None:
    p_value = stats.share_p_value((a, a + c), (b, b + d))
    theirs = scipy_stats.chi2_contingency([[a, c], [b, d]]).pvalue if a + b else 1.0
    assert p_value == pytest.approx(float(theirs), rel=1e-9, abs=1e-300)


def test_many_rows_are_judged_without_scipy_stats() -> None:
    """Its import costs as much as counting a million rows."""
    code = (
        "import sys, numpy as np; from pipeparts.runtime import drift_statistics as s;"
        "one, other = np.array([0, 500_000, 1]), np.array([3, 400_000, 99_000]);"
        "s.kolmogorov_smirnov(one, other), s.outside(one, other), s.chi_square(one, other);"
        "s.share_p_value((1, 9), (2, 9));"
        "sys.exit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["normal", "lognormal", "whole", "outliers"])
def test_numbers_agree_with_evidently(kind: str, tmp_path: Path) -> None:
    one, other = numbers(kind, 20_000, 1), numbers(kind, 15_000, 2, 0.03)
    found = measure(tmp_path, {"x": one}, {"x": other})["x"]
    assert found.p_values["p_value"] == pytest.approx(evidently(one, other, "x", "ks", is_number=True), rel=1e-6)
    distance = evidently(one, other, "x", "wasserstein", is_number=True)
    assert found.statistics["wasserstein"] == pytest.approx(distance, rel=1e-6)
    # Evidently cuts into bins of equal width, which one outlier stretches: with the same bins the values are the same.
    values, both = np.unique(np.concatenate([one, other]), return_inverse=True)
    counts = [np.bincount(both[part], minlength=len(values)) for part in (slice(len(one)), slice(len(one), None))]
    shares = [count / count.sum() for count in counts]
    for statistic, method, bins in (
        ("psi", "psi", stats.quantile_bins(shares[0])),
        ("jensen_shannon", "jensenshannon", stats.pooled_bins(*shares)),
    ):
        binned = [
            np.char.add("bin ", bins[both[part]].astype(str)) for part in (slice(len(one)), slice(len(one), None))
        ]
        theirs = evidently(*binned, "x", method, is_number=False)
        assert found.statistics[statistic] == pytest.approx(theirs, rel=1e-9)


def test_categories_agree_with_scipy_and_evidently(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    names = np.array([f"value {i}" for i in range(30)])
    weights = np.arange(1, 31) / np.arange(1, 31).sum()
    one = random.choice(names, 20_000, p=weights)
    other = random.choice(names, 10_000, p=weights[::-1] * 0.1 + weights * 0.9)
    found = measure(tmp_path, {"x": one}, {"x": other})["x"]
    cells = np.array([[np.count_nonzero(side == name) for name in names] for side in (one, other)])
    theirs = scipy_stats.chi2_contingency(cells, correction=False)
    assert found.statistics["chi_square"] == pytest.approx(theirs.statistic, rel=1e-9)
    assert found.p_values["p_value"] == pytest.approx(theirs.pvalue, rel=1e-6)
    for statistic, method in (("psi", "psi"), ("jensen_shannon", "jensenshannon")):
        value = evidently(one, other, "x", method, is_number=False)
        assert found.statistics[statistic] == pytest.approx(value, rel=1e-9)


def test_chi_square_agrees_with_evidently_where_the_reference_is_much_the_larger(tmp_path: Path) -> None:
    """Evidently takes the reference's shares for exact; with 1,000 times as many rows they nearly are."""
    random = np.random.default_rng(5)
    one = np.repeat(np.array(list("abcd")), [400_000, 300_000, 200_000, 100_000])
    other = random.choice(np.array(list("abcd")), 1_000, p=[0.36, 0.31, 0.21, 0.12])
    found = measure(tmp_path, {"x": one}, {"x": other})["x"]
    theirs = evidently(one, other, "x", "chisquare", is_number=False)
    assert found.p_values["p_value"] == pytest.approx(theirs, rel=0.01)
    assert 1e-6 < theirs < 0.5


def test_a_reference_of_listed_values_alone_agrees(tmp_path: Path) -> None:
    """What travels with a model: the 100 most frequent values; the rest is one category."""
    random = np.random.default_rng(7)
    one = random.geometric(0.02, 50_000).astype(str)
    other = random.geometric(0.025, 50_000).astype(str)
    whole = measure(tmp_path, {"x": one}, {"x": other})["x"]
    listed = measure(tmp_path, {"x": one}, {"x": other}, top=DEFAULT_TOP)["x"]
    # Putting values together can hide a part of a difference, never make one.
    assert 0.85 * whole.statistics["psi"] < listed.statistics["psi"] <= whole.statistics["psi"]
    assert listed.new == ()
    assert listed.p_values["p_value"] < 1e-10


# When drift is said.

floats = st.floats(allow_nan=True, allow_infinity=True)
columns = st.one_of(
    st.lists(st.none() | floats, min_size=1, max_size=60).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60).map(
        lambda v: pa.array(v, pa.int64())
    ),
    st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.int8())),
    st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=60).map(lambda v: pa.array(v, pa.bool_())),
    st.integers(1, 60).map(pa.nulls),
    st.tuples(floats, st.integers(1, 60)).map(lambda pair: pa.array([pair[0]] * pair[1], pa.float64())),
)


@given(column=columns, copies=st.integers(1, 4), bins=st.sampled_from([BINS, 16]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_never_drifts_from_itself(column: pa.Array, copies: int, bins: int, tmp_path: Path) -> None:
    """Whatever its values, also where one side holds each row more often, or is known in coarser buckets."""
    current = pa.concat_arrays([column.take(pa.array(range(len(column))[::-1]))] * copies)
    found = decide(tmp_path, {"x": column}, {"x": current}, bins=bins)
    assert not found.drifted
    assert found.share_drifted == 0
    only = found.columns[0]
    assert not only.drifted
    assert only.score == 0
    assert only.new_categories == only.vanished_categories == ()


@given(one=columns, other=columns)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_statistics_are_what_they_can_be(one: pa.Array, other: pa.Array, tmp_path: Path) -> None:
    if one.type != other.type and not pa.types.is_null(one.type) and not pa.types.is_null(other.type):
        return
    found = decide(tmp_path, {"x": one}, {"x": other}).columns[0]
    for name, value in found.statistics.items():
        assert value is None or (math.isfinite(value) and value >= 0), name
        if value is not None and (
            name.endswith(("p_value", "corrected")) or name in ("kolmogorov_smirnov", "outside_share", "missing_change")
        ):
            assert value <= 1
        if value is not None and name == "jensen_shannon":
            assert value <= math.sqrt(math.log(2)) + 1e-9


def test_a_probability_that_rounding_takes_above_one_is_one() -> None:
    distance, p_value = stats.kolmogorov_smirnov(np.array([7, 0]), np.array([6, 1]))
    assert distance == pytest.approx(1 / 7)
    assert 0.99 < p_value <= 1.0


ROWS = 4_000


def batch(seed: int, rows: int = ROWS) -> dict[str, pa.Array]:
    random = np.random.default_rng(seed)
    return {
        "normal": pa.array(random.normal(0, 1, rows)),
        "lognormal": pa.array(random.lognormal(0, 1, rows)),
        "amount": pa.array(random.normal(1e6, 10, rows)),
        "count": pa.array(random.poisson(100, rows)),
        "hour": pa.array(random.integers(0, 12, rows)),
        "place": pa.array(random.choice([f"place {i}" for i in range(40)], rows)),
        "flag": pa.array(random.random(rows) < 0.3),
        "share": pa.array(np.where(random.random(rows) < 0.7, 0.0, random.random(rows))),
    }


def plant(values: pa.Array, how: str, seed: int) -> pa.Array:
    random = np.random.default_rng(seed)
    chosen = random.random(len(values)) < 0.35
    array = values.to_numpy(zero_copy_only=False)
    match how:
        case "gaps":
            return pa.array(array, values.type, mask=chosen)
        case "move":
            return pa.array(array + np.std(array).astype(array.dtype))
        case "scale":
            middle = np.median(array)
            return pa.array(middle + (array - middle) * 3)
        case "unit":  # some rows in another unit: all beyond what was known
            return pa.array(np.where(random.random(len(array)) < 0.03, array * 1000, array))
        case "constant":
            return pa.array(np.full_like(array, array[0]), values.type)
        case _:
            return pa.array([None if c else v for c, v in zip(chosen, ["new"] * len(array), strict=True)], pa.string())


PLANTED = [
    *((name, "gaps") for name in batch(0)),
    *((name, "constant") for name in batch(0)),
    *((name, "move") for name in ("normal", "lognormal", "amount", "count")),
    *((name, "scale") for name in ("normal", "amount")),
    *((name, "unit") for name in ("normal", "lognormal", "amount")),
    ("place", "new"),
]


@pytest.mark.parametrize(("name", "how"), PLANTED, ids=lambda value: str(value))
@pytest.mark.parametrize("bins", [BINS, DEFAULT_BINS])
def test_a_planted_shift_is_found_and_its_column_ranked_first(name: str, how: str, bins: int, tmp_path: Path) -> None:
    current = batch(2)
    current[name] = plant(current[name], how, 9)
    found = decide(tmp_path, batch(1), current, bins=bins, top=100 if bins == DEFAULT_BINS else TOP)
    assert [column.name for column in found.drifted_columns] == [name]
    assert found.columns[0].name == name
    assert found.columns[0].score >= 1
    assert not found.drifted  # one column of eight


@pytest.mark.parametrize("rows", [1, 2, 5, 20, 100, 1000])
def test_a_small_sample_of_the_same_is_no_drift(rows: int, tmp_path: Path) -> None:
    """Where PSI alone would cry wolf: chance is told apart."""
    reference = batch(1)
    cried = alarms = 0
    for seed in range(20):
        found = decide(tmp_path, reference, batch(100 + seed, rows))
        alarms += bool(found.drifted_columns)
        cried += sum((column.statistics["psi"] or 0) >= 0.2 for column in found.columns)
    assert alarms <= 2  # of 20 tables: alpha is a twentieth
    assert rows > 20 or cried > 20


def test_a_sure_but_tiny_difference_of_many_rows_is_no_drift(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(0, 1, 1_000_000), random.normal(0.02, 1, 1_000_000)
    found = decide(tmp_path, {"x": one}, {"x": other}).columns[0]
    assert found.statistics["p_value_corrected"] < 1e-20
    assert not found.drifted
    assert found.reason.startswith("within its limits")


def test_corrections_agree_with_their_definitions() -> None:
    values = [0.01, 0.04, 0.03, 0.5, 0.005]
    assert stats.corrected(values, "none") == values
    assert stats.corrected(values, "holm") == pytest.approx([0.04, 0.09, 0.09, 0.5, 0.025])
    theirs = scipy_stats.false_discovery_control(values)
    assert stats.corrected(values, "benjamini_hochberg") == pytest.approx(list(theirs))


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=200).filter(lambda counts: sum(counts) > 0), st.integers(2, 30)
)
@settings(max_examples=200, deadline=None)
def test_bins_rise_and_are_about_even(counts: list[int], bins: int) -> None:
    shares = np.array(counts) / sum(counts)
    found = stats.quantile_bins(shares, bins)
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0
    weights = stats.in_bins(shares, found)
    for number in np.unique(found):
        here = shares[found == number]
        # A heavy value is alone; a bin of others holds no more than two bins' weight.
        assert len(here) == 1 if (here >= 1 / bins).any() else weights[number] <= 2.5 / bins
