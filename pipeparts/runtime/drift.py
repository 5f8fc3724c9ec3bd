"""Whether a table has drifted from a reference: each column measured, ranked and judged, then the whole."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pydantic

from pipeparts.runtime import drift_statistics as stats
from pipeparts.runtime.drift_statistics import Correction
from pipeparts.runtime.drift_vectors import VectorDifference
from pipeparts.runtime.errors import ContractError, DataError, InputError, suggest
from pipeparts.runtime.monitoring import ColumnDrift, ColumnKind, ColumnRole, Data, Drift, Finding
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.profiles import (
    ColumnProfile,
    Floats,
    Histogram,
    Ints,
    Profile,
    TopValue,
    bucket_bounds,
)

logger = logging.getLogger(__name__)

#: What profiles that are made for a comparison hold: every value of columns that are counted exactly, and more
#: frequent values than a profile lists for people.
BINS = 65_536
TOP = 1_000

#: Whole numbers with so few values in the reference are compared as categories, as Evidently does.
_FEW_VALUES = 20
#: A text whose listed values are less than this share of its rows cannot be compared by them.
_LEAST_COVERAGE = 0.5
_LEAST_ROWS_OF_AN_ID = 100
#: A reference without any spread has none to measure a distance in: Evidently's floor.
_LEAST_SPREAD = 0.001
_MOST_CATEGORIES_NAMED = 20
_DIGITS = 10

_STATISTICS: dict[ColumnKind, tuple[str, ...]] = {
    "number": ("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein", "missing_change"),
    "category": ("psi", "jensen_shannon", "missing_change"),
    "vector": ("distance", "missing_change"),
    "unsupported": (),
}

Limit = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)] | None
Share = Annotated[float, pydantic.Field(gt=0, le=1)]


class ColumnLimits(Params):
    """From where on a column has drifted, statistic by statistic; null: this statistic is measured, not judged.

    Attributes:
        psi: Population stability index.
        jensen_shannon: Jensen-Shannon distance.
        kolmogorov_smirnov: Greatest distance of the two distribution functions.
        wasserstein: Wasserstein distance, in standard deviations of the reference.
        missing_change: Difference of the two shares of missing values.
        distance: Of vectors: Mahalanobis distance of their means and of random features.
    """

    psi: Limit = None
    jensen_shannon: Limit = None
    kolmogorov_smirnov: Limit = None
    wasserstein: Limit = None
    missing_change: Limit = None
    distance: Limit = None


class DriftLimits(ColumnLimits):
    """From where on a table has drifted.

    A column drifts where a statistic reaches its limit and the difference is more than chance: by Kolmogorov-Smirnov's
    test or by Rosenbaum's (values beyond the reference's range) for numbers, by chi-square for categories and missing
    values, by Hotelling's for vectors.

    The defaults: PSI 0.2 is the custom of credit scoring for a change to act on (Siddiqi 2006 has 0.25 for a major
    one, 0.1 for none; Yurdakul 2018). A PSI of 0.2 between two normal distributions is a shift by 0.45 standard
    deviations: hence the limits of `wasserstein`, which sees the tails that bins of equal weight do not, and of
    `distance`. Half the columns is Evidently's limit for the whole. Five points more or less of missing values is
    ours.

    Attributes:
        psi: For features; that of predictions is `prediction_psi`.
        wasserstein: As above.
        missing_change: As above.
        distance: As above.
        share_drifted: The whole drifted where so large a share of the features did.
        prediction_psi: The whole drifted too where the model's answers reach this PSI, or `missing_change`: of the
            statistics of features no other holds for them, unless `columns` names one.
        alpha: The p-value, after correction, below which a difference is more than chance.
        correction: For the number of tests: "benjamini_hochberg", "holm" or "none".
        columns: Column to limits of its own; those it does not name stay.
    """

    psi: Limit = 0.2
    wasserstein: Limit = 0.45
    missing_change: Limit = 0.05
    distance: Limit = 0.45
    share_drifted: Share = 0.5
    prediction_psi: Limit = 0.2
    alpha: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.05
    correction: Correction = "benjamini_hochberg"
    columns: dict[str, ColumnLimits] = {}

    def of(self, name: str, kind: ColumnKind, role: ColumnRole) -> dict[str, float]:
        """The limits of a column, by statistic."""
        own = self.columns.get(name)
        found = {}
        for statistic in _STATISTICS[kind]:
            limit = getattr(self, statistic)
            if role == "prediction" and statistic != "missing_change":
                limit = self.prediction_psi if statistic == "psi" else None
            if own is not None and statistic in own.model_fields_set:
                limit = getattr(own, statistic)
            if limit is not None:
                found[statistic] = limit
        return found


def parse_limits(value: Mapping[str, Any] | None) -> DriftLimits:
    """Reads the parameter `limits`.

    Raises:
        InputError: Naming each wrong key or value.
    """
    return parse_params(DriftLimits, value, parameter="limits")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A column's differences, before they are judged.

    Attributes:
        name: The column.
        role: Whether the model takes it, gives it, or neither.
        kind: How it was compared.
        statistics: Effect sizes and test statistics; None where not defined on these rows.
        p_values: Of the tests, by the names that they have among a column's statistics: `p_value` of the values,
            `outside_p_value` of numbers beyond the reference's range, `missing_p_value`.
        missing: The shares of the reference and of the current rows.
        new: Values that the reference surely does not have.
        vanished: Values of the reference that surely do not occur any more.
        note: Why it is not compared, where it is not.
    """

    name: str
    role: ColumnRole
    kind: ColumnKind
    statistics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    p_values: dict[str, float] = dataclasses.field(default_factory=dict)
    missing: tuple[float, float] = (0.0, 0.0)
    new: tuple[TopValue, ...] = ()
    vanished: tuple[TopValue, ...] = ()
    note: str = ""


def measure_column(
    reference: ColumnProfile, current: ColumnProfile, role: ColumnRole = "other", *, by_name: bool = False
) -> Measured:
    """Measures how a column of numbers, texts, booleans or times differs between two profiles.

    NaN counts as missing, an infinity as the least or the greatest value; it has no Wasserstein distance.

    Args:
        reference: The column in the reference.
        current: The same in the current table.
        role: Whether the model takes it, gives it, or neither.
        by_name: Whether it was asked for by name: then times and identifiers are compared too.

    Raises:
        ContractError: Where the two are of another kind.
    """
    _require_kind(reference, current)
    kind, note = _kind_of(reference, current, role, by_name)
    if kind == "unsupported":
        return Measured(reference.name, role, kind, note=note)
    gaps = _gaps(reference), _gaps(current)
    statistics, p_values = _numbers(reference, current) if kind == "number" else _categories(reference, current)
    new, vanished = ((), ()) if kind == "number" else _new_and_vanished(reference, current)
    return _measured(reference.name, role, kind, statistics, p_values, gaps, new, vanished)


def measure_vectors(name: str, found: VectorDifference, role: ColumnRole) -> Measured:
    """What `drift_vectors.compare_vectors` found, in the form of every column."""
    statistics = {"distance": found.distance, "auc": found.auc}
    p_values = {} if found.p_value is None else {"p_value": found.p_value}
    return _measured(name, role, "vector", statistics, p_values, (found.reference_gaps, found.current_gaps))


def judge(measured: Iterable[Measured], limits: DriftLimits) -> tuple[ColumnDrift, ...]:
    """Judges columns together, since their p-values are corrected for their number.

    Returns:
        One entry a column: those that drifted first, then the others, each by its score; at the end those that are
        not compared.

    Raises:
        InputError: Where `limits` names a column that was not compared, or a statistic that it does not have.
    """
    columns = list(measured)
    _check_named(limits, columns)
    tests = [(i, name) for i, column in enumerate(columns) for name in column.p_values]
    p_values = stats.corrected([columns[i].p_values[name] for i, name in tests], limits.correction)
    corrected: list[dict[str, float]] = [{} for _ in columns]
    for (i, name), p_value in zip(tests, p_values, strict=True):
        corrected[i][name] = p_value
    judged = [_judge(column, limits, p) for column, p in zip(columns, corrected, strict=True)]
    return tuple(sorted(judged, key=_rank))


def conclude(
    columns: tuple[ColumnDrift, ...],
    limits: DriftLimits,
    *,
    model: str,
    reference: Data,
    current: Data,
    without_predictions: str = "no predictions were given",
) -> Drift:
    """Judges the whole.

    Args:
        columns: What `judge` gave.
        limits: The limits.
        model: The model whose reference it is; "" for a table.
        reference: The reference's rows.
        current: The current rows.
        without_predictions: Why no predictions were compared, where none were.

    Raises:
        DataError: Where no column could be compared.
    """
    if not any(column.kind != "unsupported" for column in columns):
        raise DataError(
            "no column can be compared",
            allowed="a number, a category or a vector that both sides have",
            received=[f"{column.name}: {column.reason}" for column in columns],
        )
    features = [column for column in columns if column.role != "prediction" and column.kind != "unsupported"]
    predictions = [column for column in columns if column.role == "prediction" and column.kind != "unsupported"]
    drifted = sum(column.drifted for column in features)
    share = _tidy(drifted / len(features)) or 0.0 if features else 0.0
    findings = (
        Finding(
            name="share_drifted",
            exceeded=drifted > 0 and drifted / len(features) >= limits.share_drifted,
            value=share,
            limit=limits.share_drifted,
            reason=f"{drifted} of {_count(len(features), 'column')} drifted ({share:.0%}; limit "
            f"{limits.share_drifted:.0%})",
        ),
        _prediction_finding(predictions, limits, without_predictions),
    )
    reason = "; ".join(finding.reason for finding in findings)
    return Drift(
        model=model,
        reference=reference,
        current=current,
        drifted=any(finding.exceeded for finding in findings),
        reason=f"{reason[:1].upper()}{reason[1:]}.",
        findings=findings,
        share_drifted=share,
        columns=columns,
    )


def require_columns(
    reference: Mapping[str, str], current: Mapping[str, str], *, where: str, whose: str = "the model's"
) -> None:
    """Checks that the current table has the reference's columns, each of its kind.

    Args:
        reference: Column to kind of its profile ("number", "text", ...).
        current: The same of the current table.
        where: The current table, for the message.
        whose: Whose the columns are, for the message.

    Raises:
        ContractError: With every column that is missing or of another kind.
    """
    absent = [name for name in reference if name not in current]
    other = [
        f"{name} ({current[name]}, not {kind})"
        for name, kind in reference.items()
        if name in current and "empty" not in (kind, current[name]) and current[name] != kind
    ]
    if not absent and not other:
        return
    problems = ([f"without {', '.join(absent)}"] if absent else []) + (
        [f"of another kind: {', '.join(other)}"] if other else []
    )
    raise ContractError(
        f"the current table does not have {whose} columns",
        where=where,
        allowed=", ".join(f"{name}: {kind}" for name, kind in reference.items()),
        received="; ".join(problems),
        hint=next((hint for name in absent if (hint := suggest(name, current))), None),
    )


def _prediction_finding(predictions: Sequence[ColumnDrift], limits: DriftLimits, without: str) -> Finding:
    if not predictions:
        return Finding(name="prediction_drift", exceeded=False, limit=limits.prediction_psi, reason=without)
    worst = max(predictions, key=lambda column: column.statistics.get("psi") or 0.0)
    drifted = [column.name for column in predictions if column.drifted]
    psi = worst.statistics.get("psi")
    said = f"PSI {psi:.3g} of {worst.name}" if psi is not None else "no PSI is defined"
    return Finding(
        name="prediction_drift",
        exceeded=bool(drifted),
        value=psi,
        limit=limits.prediction_psi,
        reason=f"the predictions {'drifted' if drifted else 'did not drift'} ({said}"
        + (f"; limit {limits.prediction_psi:g})" if limits.prediction_psi is not None else ")"),
    )


def _rank(column: ColumnDrift) -> tuple[bool, bool, float, str]:
    return column.kind == "unsupported", not column.drifted, -column.score, column.name


def _judge(column: Measured, limits: DriftLimits, corrected: Mapping[str, float]) -> ColumnDrift:
    statistics = {name: _tidy(value) for name, value in column.statistics.items()}
    for name, p_value in column.p_values.items():
        statistics[name] = _tidy(p_value)
        statistics[f"{name}_corrected"] = _tidy(corrected[name])
    held = limits.of(column.name, column.kind, column.role)
    parts = {name: value / held[name] for name in held if (value := statistics.get(name)) is not None}
    exceeded = [name for name in sorted(parts, key=lambda name: -parts[name]) if parts[name] >= 1]
    chance = {name: _chance(name, corrected) for name in exceeded}
    sure = [name for name, p in chance.items() if p is not None and p < limits.alpha]
    score = _tidy(max(parts.values(), default=0.0)) or 0.0
    return ColumnDrift(
        name=column.name,
        role=column.role,
        kind=column.kind,
        drifted=bool(sure),
        score=score,
        statistics=statistics,
        limits=held,
        exceeded=tuple(exceeded),
        reference_missing_share=_tidy(column.missing[0]) or 0.0,
        current_missing_share=_tidy(column.missing[1]) or 0.0,
        new_categories=column.new,
        vanished_categories=column.vanished,
        reason=column.note or _sentence(statistics, held, parts, exceeded, sure, chance),
    )


def _chance(statistic: str, p_values: Mapping[str, float]) -> float | None:
    """The p-value that a statistic stands or falls with; None where there is none."""
    if statistic == "missing_change":
        return p_values.get("missing_p_value")
    return min((p for name, p in p_values.items() if name != "missing_p_value"), default=None)


def _sentence(
    statistics: Mapping[str, float | None],
    held: Mapping[str, float],
    parts: Mapping[str, float],
    exceeded: Sequence[str],
    sure: Sequence[str],
    chance: Mapping[str, float | None],
) -> str:
    def said(name: str) -> str:
        return f"{name} {statistics[name]:.3g} (limit {held[name]:g})"

    if sure:
        others = [name for name in sure if name != sure[0]]
        return f"{' and '.join(map(said, (sure[0], *others)))}: more than chance (p {_p_text(chance[sure[0]])})"
    if exceeded:
        return f"{said(exceeded[0])}, which can be chance (p {_p_text(chance[exceeded[0]])})"
    if not parts:
        return "no statistic is defined on these rows, or none has a limit"
    worst = max(parts, key=lambda name: parts[name])
    return f"within its limits: {said(worst)}"


def _check_named(limits: DriftLimits, columns: Sequence[Measured]) -> None:
    kinds = {column.name: column.kind for column in columns}
    for name, own in limits.columns.items():
        if name not in kinds:
            raise InputError(
                "`limits` names a column that is not compared",
                parameter=f"limits.columns.{name}",
                allowed=list(kinds),
                received=name,
                hint=suggest(name, kinds),
            )
        wrong = sorted(own.model_fields_set - set(_STATISTICS[kinds[name]]))
        if wrong:
            raise InputError(
                f"a limit for what a column of this kind ({kinds[name]}) does not have",
                parameter=f"limits.columns.{name}",
                allowed=_STATISTICS[kinds[name]],
                received=wrong,
            )


def _measured(
    name: str,
    role: ColumnRole,
    kind: ColumnKind,
    statistics: dict[str, float | None],
    p_values: dict[str, float],
    gaps: tuple[tuple[int, int], tuple[int, int]],
    new: tuple[TopValue, ...] = (),
    vanished: tuple[TopValue, ...] = (),
) -> Measured:
    first, second = (missing / rows if rows else 0.0 for missing, rows in gaps)
    return Measured(
        name,
        role,
        kind,
        {**statistics, "missing_change": abs(second - first)},
        {**p_values, "missing_p_value": stats.share_p_value(*gaps)},
        (first, second),
        new,
        vanished,
    )


def _require_kind(reference: ColumnProfile, current: ColumnProfile) -> None:
    if len({reference.kind, current.kind} - {"empty"}) > 1:
        raise ContractError(
            "a column is of another kind than in the reference",
            where=f"column {reference.name}",
            allowed=f"{reference.kind} ({reference.type})",
            received=f"{current.kind} ({current.type})",
        )


def _kind_of(
    reference: ColumnProfile, current: ColumnProfile, role: ColumnRole, by_name: bool
) -> tuple[ColumnKind, str]:
    """How a column is compared, and why not where it is not."""
    kind = current.kind if reference.kind == "empty" else reference.kind
    if kind == "number":
        if not by_name and role == "other" and _is_running_number(reference):
            return "unsupported", "a running number: name the column to compare it all the same"
        return ("category", "") if _has_few_values(reference) and current.top is not None else ("number", "")
    if kind == "time":
        return _kind_of_times(reference, current, by_name)
    if kind == "nested":
        return "unsupported", "structures and lists other than of floats cannot be compared"
    if kind in ("text", "binary") and not by_name and (note := _why_too_many_values(reference)):
        return "unsupported", note
    return "category", ""


def _kind_of_times(reference: ColumnProfile, current: ColumnProfile, by_name: bool) -> tuple[ColumnKind, str]:
    if not by_name:
        return "unsupported", "a time goes on by itself: name the column to compare it all the same"
    units = [(column.times.form, column.times.unit) for column in (reference, current) if column.times is not None]
    if len(set(units)) > 1:
        return "unsupported", f"a {units[0][0]} in {units[0][1]} against a {units[1][0]} in {units[1][1]}"
    return "number", ""


def _has_few_values(column: ColumnProfile) -> bool:
    if not column.type.startswith(("int", "uint")) or column.distinct is None or column.top is None:
        return False
    return column.top.complete and column.distinct.count <= _FEW_VALUES


def _is_running_number(column: ColumnProfile) -> bool:
    numbers, distinct = column.numbers, column.distinct
    if not column.type.startswith(("int", "uint")) or numbers is None or distinct is None:
        return False
    if numbers.minimum is None or numbers.maximum is None or column.count < _LEAST_ROWS_OF_AN_ID:
        return False
    # A quarter of the rows can be elsewhere, and an estimate can be 3 % off.
    return distinct.count >= 0.97 * column.count and numbers.maximum - numbers.minimum <= 1.34 * column.count


def _why_too_many_values(column: ColumnProfile) -> str:
    if column.distinct is None or column.top is None or column.count < _LEAST_ROWS_OF_AN_ID:
        return ""
    if column.distinct.count > column.count / 2:
        return "nearly every row has a value of its own: name the column to compare it all the same"
    covered = sum(item.count for item in column.top.values) / column.count
    if covered < _LEAST_COVERAGE:
        return (
            f"{column.distinct.count:,} different values, of which the {len(column.top.values)} that the reference "
            f"lists are {covered:.0%} of the rows: name the column to compare it all the same"
        )
    return ""


def _gaps(column: ColumnProfile) -> tuple[int, int]:
    """How many values are missing or NaN, and of how many."""
    return column.missing + (column.numbers.nan if column.numbers else 0), column.count + column.missing


def _numbers(reference: ColumnProfile, current: ColumnProfile) -> tuple[dict[str, float | None], dict[str, float]]:
    middle, first, second = _aligned(reference, current)
    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return dict.fromkeys(("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein", "outside_share")), {}
    p, q = first / n, second / m
    bins, pooled = stats.quantile_bins(p), stats.pooled_bins(p, q)
    distance, p_value = stats.kolmogorov_smirnov(first, second)
    outside_share, outside_p_value = stats.outside(first, second)
    return {
        "psi": stats.population_stability_index(stats.in_bins(p, bins), stats.in_bins(q, bins)),
        "jensen_shannon": stats.jensen_shannon_distance(stats.in_bins(p, pooled), stats.in_bins(q, pooled)),
        "kolmogorov_smirnov": distance,
        "wasserstein": _wasserstein(reference, middle, first, second),
        "outside_share": outside_share,
    }, {"p_value": p_value, "outside_p_value": outside_p_value}


def _aligned(reference: ColumnProfile, current: ColumnProfile) -> tuple[Floats, Ints, Ints]:
    """The middle of each bucket of the grid that the two share, infinities at the ends, and the counts of both."""
    histograms = [column.histogram or _NO_VALUES for column in (reference, current)]
    shift = max(histogram.shift for histogram in histograms)
    keys = [histogram.keys(shift) for histogram in histograms]
    union = np.union1d(*keys)
    lower, upper = bucket_bounds(union, shift)
    middle = np.concatenate([[-np.inf], lower + (upper - lower) / 2, [np.inf]])
    counts = []
    for column, histogram, places in zip((reference, current), histograms, keys, strict=True):
        count = np.zeros(len(union) + 2, np.int64)
        np.add.at(count, 1 + np.searchsorted(union, places), np.array(histogram.counts, np.int64))
        if column.numbers is not None:
            count[0], count[-1] = column.numbers.negative_infinities, column.numbers.positive_infinities
        counts.append(count)
    return middle, counts[0], counts[1]


_NO_VALUES = Histogram(exact=True, shift=0, lower=(), counts=())


def _wasserstein(reference: ColumnProfile, middle: Floats, first: Ints, second: Ints) -> float | None:
    """In standard deviations of the reference, of the finite values."""
    first, second, middle = first[1:-1], second[1:-1], middle[1:-1]
    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        distance = stats.wasserstein(middle, first / n, second / m)
        spread = reference.numbers.standard_deviation if reference.numbers is not None else None
        if spread is not None:
            spread *= math.sqrt((n - 1) / n)  # the whole population's, as Evidently takes it
        else:
            mean = float(np.dot(middle, first / n))
            spread = math.sqrt(float(np.dot((middle - mean) ** 2, first / n)))
    return distance / spread if spread > 0 else distance / _LEAST_SPREAD


def _categories(reference: ColumnProfile, current: ColumnProfile) -> tuple[dict[str, float | None], dict[str, float]]:
    first, second = _category_counts(reference, current)
    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return dict.fromkeys(("psi", "jensen_shannon", "chi_square")), {}
    first, second = stats.group_rare(first, second)
    statistic, p_value = stats.chi_square(first, second)
    return {
        "psi": stats.population_stability_index(first / n, second / m),
        "jensen_shannon": stats.jensen_shannon_distance(first / n, second / m),
        "chi_square": statistic,
    }, {"p_value": p_value}


def _category_counts(reference: ColumnProfile, current: ColumnProfile) -> tuple[Ints, Ints]:
    """The counts of each value that the reference lists, of each other where its list is whole, and of the rest."""
    mine = reference.top.counts() if reference.top else {}
    theirs = current.top.counts() if current.top else {}
    is_whole = reference.top is None or reference.top.complete
    names = [*mine, *(name for name in theirs if is_whole and name not in mine)]
    found = []
    for column, counts in ((reference, mine), (current, theirs)):
        listed = [counts.get(name, 0) for name in names]
        found.append(np.array([*listed, column.count - sum(listed)], np.int64))
    return found[0], found[1]


def _new_and_vanished(
    reference: ColumnProfile, current: ColumnProfile
) -> tuple[tuple[TopValue, ...], tuple[TopValue, ...]]:
    """Only what is sure: a value is missing from a list for certain where the list is whole."""

    def absent(one: ColumnProfile, other: ColumnProfile) -> Iterator[TopValue]:
        if one.top is not None and other.top is not None and other.top.complete:
            known = other.top.counts()
            yield from (item for item in one.top.values if item.value not in known)

    return (
        tuple(absent(current, reference))[:_MOST_CATEGORIES_NAMED],
        tuple(absent(reference, current))[:_MOST_CATEGORIES_NAMED],
    )


def compared(
    reference: Profile, current: Profile, roles: Mapping[str, ColumnRole], *, by_name: Collection[str] = ()
) -> Iterator[Measured]:
    """Measures the columns of two profiles that `roles` names, but for vectors."""
    for name, role in roles.items():
        yield measure_column(reference.column(name), current.column(name), role, by_name=name in by_name)


def data_of(profile: Profile) -> Data:
    """Which rows a profile is of."""
    return Data(rows=profile.rows, fingerprint=profile.fingerprint, source=profile.source)


def _tidy(value: float | None) -> float | None:
    """A number of ten digits, so that the order of the rows does not show; None where it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None


def _p_text(value: float | None) -> str:
    if value is None:
        return "is not defined"
    return "< 1e-300" if value < 1e-300 else f"= {value:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
