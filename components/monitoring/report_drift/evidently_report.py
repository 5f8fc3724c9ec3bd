"""Evidently's report of a drift that is decided: its plots and tables on a sample, our verdict on all rows.

Evidently takes drift methods of one's own. Here each statistic that a column was judged by is one, and answers with
what was measured on all rows, so that page, snapshot and verdict never contradict each other. What Evidently itself
measures on the sample stands beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import html
import json
import logging
import math
import os
import re
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeparts.runtime.files import whole_folder, write_json, write_text
from pipeparts.runtime.monitoring import ColumnDrift, Drift, Finding

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SNAPSHOT = "snapshot.json"
RESULTS = "report.json"

#: The snapshot's time: the same input gives the same bytes. A workspace gets the batch's time from publish_evidently.
_NO_TIME = dt.datetime(1970, 1, 1)
_MOST_VALUES = 20
_OTHERS = "(other values)"
_SMALL_BINS = 12
_ROWS_ON_A_PAGE = 50
_IDS = uuid.UUID("1b0c1d5e-6a8f-5c0e-9a53-5d7f0c6f2e11")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_SAID = {
    "psi": "PSI",
    "jensen_shannon": "Jensen-Shannon distance",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov distance",
    "wasserstein": "Wasserstein distance (normed)",
    "missing_change": "change of the missing share",
}
# What Evidently calls the same statistic; its Kolmogorov-Smirnov and chi-square methods give p-values instead.
_EVIDENTLYS = {"psi": "psi", "jensen_shannon": "jensenshannon", "wasserstein": "wasserstein"}


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A column of the report.

    Attributes:
        drift: What was decided.
        statistic: The one that went furthest beyond, or came closest to, its limit.
        value: Of it, on all rows.
        limit: Of it.
        reference: The sample's values: float64 without infinity, or text; missing ones are None or NaN.
        current: The same of the current rows.
    """

    drift: ColumnDrift
    statistic: str
    value: float
    limit: float
    reference: pd.Series
    current: pd.Series

    @property
    def is_number(self) -> bool:
        """Whether it is a number, and not a category."""
        return self.drift.kind == "number"

    @property
    def method(self) -> str:
        """The name of its drift method in Evidently."""
        return f"{self.statistic}_all_rows"


class _LeftOutError(Exception):
    """Why a column is not in the report."""


def write_evidently(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drift: Drift,
    *,
    html_path: str | os.PathLike[str],
    snapshot_path: str | os.PathLike[str],
    title: str,
) -> None:
    """Writes the report as a page, as a snapshot that an Evidently workspace takes, and as Evidently's plain results.

    The same input gives the same bytes. A column that Evidently cannot take is left out, and named in the report.

    Args:
        reference: Sampled rows of the reference.
        current: Sampled rows of the current table.
        drift: What was decided on all rows.
        html_path: Where the page goes: one file that needs no other.
        snapshot_path: The folder for `snapshot.json` and `report.json`.
        title: The report's name.
    """
    with _quiet():
        import uuid6

        first = str(uuid6.uuid7())
        snapshot = _snapshot(reference, current, drift, title)
        model = json.loads(snapshot.dumps())
        results = json.loads(snapshot.json())
        page = snapshot.get_html_str(as_iframe=False)
        last = str(uuid6.uuid7())
    rename = _renaming(first, last)
    dumped = rename(json.dumps(_finite(model), sort_keys=True, allow_nan=False, separators=(",", ":")))
    with whole_folder(snapshot_path) as folder:
        write_text(folder / SNAPSHOT, dumped + "\n")
        write_json(folder / RESULTS, _finite(results))
    write_text(html_path, rename(_page(page, title)))
    logger.info("wrote Evidently's report of %d columns", len(snapshot.metric_results) - 1)


# --- The report ----------------------------------------------------------------------------------------------------


def _snapshot(reference: pd.DataFrame, current: pd.DataFrame, drift: Drift, title: str) -> Any:
    from evidently.core.metric_types import metric_tests_widget
    from evidently.core.report import Snapshot, metric_tests_stats
    from evidently.core.serialization import ReportModel, SnapshotModel

    metrics = dict(_overall(drift))
    rows: list[Any] = []
    left_out: list[str] = []
    for column in drift.columns:
        try:
            shown = _prepared(column, reference, current)
            metric_id, result = _value_drift(shown)
            row = _row(shown, result)
        except _LeftOutError as error:
            left_out.append(f"{_plain(column.name)} ({_plain(str(error))})")
        except Exception as error:  # whatever a table holds: Evidently's trouble with a column is no reason to fail
            logger.warning("Evidently cannot show the column %s: %s: %s", column.name, type(error).__name__, error)
            left_out.append(f"{_plain(column.name)} (Evidently cannot show it: {type(error).__name__})")
        else:
            result.widget = None  # the table has it: once is enough
            metrics[metric_id] = result
            rows.append(row)
    tests = [test for result in metrics.values() for test in result.tests]
    model = SnapshotModel(
        report=ReportModel(items=[]),
        name=title,
        timestamp=_NO_TIME,
        metadata=_metadata(drift),
        tags=["drifted" if drift.drifted else "not drifted"],
        metric_results=metrics | dict(_scores(drift)),
        top_level_metrics=[*metrics, *dict(_scores(drift))],
        widgets=_head(drift, title, (len(reference), len(current)), left_out) + _table(rows),
        tests_widgets=[metric_tests_stats(tests), metric_tests_widget(tests)] if tests else [],
    )
    return Snapshot.load_model(model)


def _value_drift(shown: _Shown) -> tuple[str, Any]:
    """Evidently's ValueDrift of the column, with the statistic on all rows as its method."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.metrics import ValueDrift

    kind = ColumnType.Numerical if shown.is_number else ColumnType.Categorical
    said = f"{_said(shown.statistic)}, on all rows"
    test = StatTest(name=shown.method, display_name=said, allowed_feature_types=[kind])
    register_stattest(test, lambda *_: (shown.value, shown.drift.drifted))
    name = shown.drift.name
    definition = (
        DataDefinition(numerical_columns=[name]) if shown.is_number else DataDefinition(categorical_columns=[name])
    )
    reference, current = (
        Dataset.from_pandas(side.to_frame(name), data_definition=definition) for side in _drawn(shown)
    )
    metric = ValueDrift(column=name, method=shown.method, threshold=shown.limit)
    run = Report([metric], include_tests=True).run(current, reference, timestamp=_NO_TIME)
    found: tuple[str, Any] = next(iter(run.metric_results.items()))
    return found


def _overall(drift: Drift) -> Iterator[tuple[str, Any]]:
    """Evidently's DriftedColumnsCount, with the decision's own numbers: it counts vectors too."""
    from evidently.metrics import DriftedColumnsCount

    finding = _finding(drift, "share_drifted")
    limit = finding.limit if finding is not None and isinstance(finding.limit, (int, float)) else 0.5
    calculation = DriftedColumnsCount(drift_share=limit).to_calculation()
    result = calculation.result(len(_drifted_features(drift)), drift.share_drifted)
    result.set_metric_location(calculation.to_metric_config())
    yield calculation.id, result


def _scores(drift: Drift) -> Iterator[tuple[str, Any]]:
    """Each column's score, for the history: the same measure from batch to batch, whichever statistic went furthest."""
    from evidently.core.metric_types import MetricConfig, SingleValue, single_value_location

    for column in drift.columns:
        if column.kind == "unsupported":
            continue
        metric_id = hashlib.sha256(f"DriftScore:{column.name}".encode()).hexdigest()[:32]
        params = {"type": "evidently:metric_v2:DriftScore", "column": column.name, "role": column.role}
        location = single_value_location(MetricConfig(metric_id=metric_id, params=params))
        said = f"Drift of {column.name}, as a multiple of its limit"
        yield metric_id, SingleValue(value=column.score, display_name=said, metric_value_location=location)


def _metadata(drift: Drift) -> dict[str, str]:
    import evidently

    facts = {
        "model_id": drift.model,
        "dataset_id": drift.current.fingerprint,
        "reference_id": drift.reference.fingerprint,
        "decision": drift.reason,
        "current_rows": str(drift.current.rows),
        "reference_rows": str(drift.reference.rows),
        "evidently_version": evidently.__version__,
    }
    return {name: text for name, text in facts.items() if text}


# --- Columns -------------------------------------------------------------------------------------------------------


def _prepared(column: ColumnDrift, reference: pd.DataFrame, current: pd.DataFrame) -> _Shown:
    if column.kind not in ("number", "category"):
        raise _LeftOutError("a vector" if column.kind == "vector" else column.reason or "not compared")
    for frame, side in ((reference, "reference"), (current, "current")):
        if column.name not in frame.columns:
            raise _LeftOutError(f"not in the sample of the {side} rows")
    statistic = _decisive(column)
    if statistic is None:
        raise _LeftOutError("no statistic with a limit")
    shape = _numbers if column.kind == "number" else _texts
    sides = shape(reference[column.name]), shape(current[column.name])
    for values, side in zip(sides, ("reference", "current"), strict=True):
        if not values.notna().any():
            raise _LeftOutError(f"no values in the sample of the {side} rows")
    value = column.statistics[statistic]
    assert value is not None
    return _Shown(column, statistic, value, column.limits[statistic], *sides)


def _decisive(column: ColumnDrift) -> str | None:
    """The statistic that is furthest beyond its limit, or closest to it."""
    found = {
        name: value / limit
        for name, limit in column.limits.items()
        if limit > 0 and (value := column.statistics.get(name)) is not None and math.isfinite(value)
    }
    return max(found, key=lambda name: found[name]) if found else None


def _numbers(values: pd.Series) -> pd.Series:
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan), name=values.name)


def _texts(values: pd.Series) -> pd.Series:
    import pandas as pd

    missing = values.isna().to_numpy()
    texts = [None if gone else _text(value) for value, gone in zip(values.tolist(), missing, strict=True)]
    return pd.Series(texts, name=values.name, dtype=object)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _drawn(shown: _Shown) -> tuple[pd.Series, pd.Series]:
    """What Evidently draws: of a category's values the most frequent, and the others together.

    Evidently's work grows with the square of the number of values: ten thousand take minutes.
    """
    import pandas as pd

    if shown.is_number:
        return shown.reference, shown.current
    counts = pd.concat([shown.reference, shown.current]).value_counts()
    ranked = sorted(counts.index, key=lambda value: (-counts[value], value))
    if len(ranked) <= _MOST_VALUES + 1:
        return shown.reference, shown.current
    kept = set(ranked[:_MOST_VALUES])
    reference, current = (
        side.where(side.isna() | side.isin(kept), _OTHERS) for side in (shown.reference, shown.current)
    )
    return reference, current


def _evidentlys_own(shown: _Shown) -> str:
    """What Evidently measures on the sample, where it has the same statistic."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    name = _EVIDENTLYS.get(shown.statistic)
    if name is None:
        return ""
    kind = ColumnType.Numerical if shown.is_number else ColumnType.Categorical
    reference, current = shown.reference.dropna(), shown.current.dropna()
    value = get_stattest(reference, current, kind, name)(reference, current, kind, shown.limit).drift_score
    return f"{value:.3f}" if math.isfinite(value) else ""


# --- What people see -----------------------------------------------------------------------------------------------


def _head(drift: Drift, title: str, samples: tuple[int, int], left_out: Sequence[str]) -> list[Any]:
    from evidently.legacy.renderers.html_widgets import CounterData, counter, text_widget

    features = _features(drift)
    counters = [
        CounterData("decision on all rows", "Drift" if drift.drifted else "No drift"),
        CounterData("columns that drifted", f"{len(_drifted_features(drift))} of {len(features)}"),
    ]
    prediction = _finding(drift, "prediction_drift")
    if prediction is not None and isinstance(prediction.value, (int, float)):
        counters.append(CounterData("PSI of the predictions", f"{prediction.value:.3f}"))
    lines = [
        f"**{_plain(title)}**",
        "",
        _plain(drift.reason),
        "",
        f"- Current: {drift.current.rows:,} rows{_named(drift.current.source)}",
        f"- Reference: {drift.reference.rows:,} rows{_named(drift.model or drift.reference.source)}",
        f"- Verdicts, scores and missing shares are those of the decision, **on all rows**. The plots, and the column "
        f"“Evidently, on the sample”, are of a deterministic sample: **{samples[0]:,} reference and {samples[1]:,} "
        f"current rows**.",
    ]
    if left_out:
        lines.append(f"- Not in this report: {'; '.join(left_out)}")
    return [counter(counters=counters), text_widget(text="\n".join(lines))]


def _table(rows: Sequence[Any]) -> list[Any]:
    from evidently.legacy.renderers.html_widgets import ColumnDefinition, ColumnType, rich_table_data

    if not rows:
        return []
    histogram = {"xField": "x", "yField": "y", "color": "#ed0400"}
    columns = [
        ColumnDefinition("Column", "name"),
        ColumnDefinition("Kind", "kind"),
        ColumnDefinition("Reference", "reference", ColumnType.HISTOGRAM, options=histogram),
        ColumnDefinition("Current", "current", ColumnType.HISTOGRAM, options=histogram),
        ColumnDefinition("Missing", "missing"),
        ColumnDefinition("Drift, on all rows", "drift"),
        ColumnDefinition("Score, on all rows", "score"),
        ColumnDefinition("Statistic", "statistic"),
        ColumnDefinition("Evidently, on the sample", "sample"),
    ]
    title = "The columns, the one that went furthest first"
    return [rich_table_data(title=title, rows_per_page=_ROWS_ON_A_PAGE, columns=columns, data=list(rows))]


def _row(shown: _Shown, result: Any) -> Any:
    from evidently.legacy.renderers.html_widgets import RichTableDataRow, RowDetails, text_widget

    column = shown.drift
    before, after = column.reference_missing_share, column.current_missing_share
    reference, current = _small(shown)
    fields = {
        "name": column.name,
        "kind": {"feature": "", "other": "", "prediction": "prediction, "}[column.role] + column.kind,
        "reference": reference,
        "current": current,
        "missing": f"{before:.1%} → {after:.1%}" if before or after else "none",
        "drift": "Detected" if column.drifted else "Not detected",
        "score": round(shown.value, 4),
        "statistic": f"{_said(shown.statistic)}, limit {shown.limit:g}",
        "sample": _evidentlys_own(shown),
    }
    details = RowDetails()
    tabs = [tab for widget in result.widget for tab in widget.tabs]
    for tab in tabs:
        if tab.title == "DATA DISTRIBUTION":  # the other one goes by the rows' order, which a sample does not have
            details.with_part("DISTRIBUTION IN THE SAMPLE", tab.widget)
    details.with_part("WHY", text_widget(text=_why(column)))
    return RichTableDataRow(details=details, fields=fields)


def _why(column: ColumnDrift) -> str:
    lines = [_plain(f"{column.reason[:1].upper()}{column.reason[1:]}"), ""]
    for name, value in column.statistics.items():
        limit = f" (limit {column.limits[name]:g})" if name in column.limits else ""
        lines.append(f"- {_plain(_said(name))}: {'not defined' if value is None else f'{value:.4g}'}{limit}")
    for headline, values in (("New", column.new_categories), ("Gone", column.vanished_categories)):
        if values:
            said = "; ".join(f"{_plain(str(item.value))} ({item.count:,})" for item in values[:10])
            lines.append(f"- {headline}: {said}{f'; and {len(values) - 10} more' if len(values) > 10 else ''}")
    return "\n".join(lines)


def _small(shown: _Shown) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two small plots in the table, on one axis."""
    import numpy as np

    drawn = [side.dropna() for side in _drawn(shown)]
    marks: list[Any]
    if shown.is_number:
        edges = np.histogram_bin_edges(np.concatenate([side.to_numpy() for side in drawn]), _SMALL_BINS)
        marks = [float(edge) for edge in edges[:-1]]
        counts = [np.histogram(side.to_numpy(), edges)[0].tolist() for side in drawn]
    else:
        marks = sorted(set(drawn[0]) | set(drawn[1]), key=lambda mark: (mark == _OTHERS, mark))
        counts = [[int((side == mark).sum()) for mark in marks] for side in drawn]
    shares = [[count / max(1, sum(side)) for count in side] for side in counts]
    return {"x": marks, "y": shares[0]}, {"x": marks, "y": shares[1]}


def _features(drift: Drift) -> list[ColumnDrift]:
    return [column for column in drift.columns if column.role != "prediction" and column.kind != "unsupported"]


def _drifted_features(drift: Drift) -> list[ColumnDrift]:
    return [column for column in _features(drift) if column.drifted]


def _finding(drift: Drift, name: str) -> Finding | None:
    return next((finding for finding in drift.findings if finding.name == name), None)


def _said(statistic: str) -> str:
    return _SAID.get(statistic, statistic.replace("_", " "))


def _named(source: str) -> str:
    return f" ({_plain(source)})" if source else ""


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!])", r"\\\1", " ".join(text.split()))


# --- The same bytes, offline, whatever the data holds ----------------------------------------------------------------


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps to themselves the warnings of Evidently and of what it imports: nobody here can change their cause."""
    import numpy as np

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _renaming(first: str, last: str) -> Callable[[str], str]:
    """Numbers the random ids that were made between two of them; ids in the data are left as they are."""
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        found = match[0]
        if not first < found < last:
            return found
        return names.setdefault(found, str(uuid.uuid5(_IDS, str(len(names)))))

    return lambda text: _UUID7.sub(name, text)


def _page(page: str, title: str) -> str:
    """Evidently's page with a title, a fixed id, and no way out of its data block for what the data says."""
    match = re.search(r'<div id="root_(metric_[0-9a-f]{32})">', page)
    if match is None:
        raise RuntimeError("this version of Evidently writes its page in another form")
    start = page.index(f"var {match[1]} = ")
    end = page.rindex("</script>", start, match.start())
    page = page[:start] + page[start:end].replace("<", "\\u003c") + page[end:]
    page = page.replace(match[1], "metric_drift")
    return page.replace("<head>", f"<head>\n        <title>{html.escape(title)}</title>", 1).lstrip()


def _finite(value: Any) -> Any:
    """JSON without NaN and infinity, which it does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
