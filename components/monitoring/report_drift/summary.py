"""The drift report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeparts.runtime.markdown import inline
from pipeparts.runtime.monitoring import ColumnDrift, Drift
from pipeparts.runtime.verdict import format_value

_MOST_COLUMNS = 100
_MOST_CATEGORIES = 5


def summary_of(found: Drift) -> str:
    """The decision, what it was held against, and every column, the worst first."""
    return "\n".join([*_head(found), *_columns(found.columns), *_categories(found.columns)]) + "\n"


def _head(found: Drift) -> Iterator[str]:
    yield f"# {'Drifted' if found.drifted else 'Not drifted'}"
    yield ""
    yield inline(found.reason)
    yield ""
    against = f"the training data of {found.model}" if found.model else found.reference.source or "a reference table"
    yield (
        f"{found.current.rows:,} rows from {inline(found.current.source or 'an unnamed source')}, against "
        f"{found.reference.rows:,} rows: {inline(against)}. Decided on all rows; Evidently's report shows at "
        f"most {found.sample_rows:,} of each side."
    )
    yield ""
    yield "| | limit passed | value | limit | |"
    yield "|---|---|---|---|---|"
    for finding in found.findings:
        passed = "**yes**" if finding.exceeded else "no"
        yield (
            f"| {inline(finding.name)} | {passed} | {format_value(finding.value)} | {format_value(finding.limit)} "
            f"| {inline(finding.reason)} |"
        )


def _columns(columns: Sequence[ColumnDrift]) -> Iterator[str]:
    compared = [column for column in columns if column.kind != "unsupported"]
    yield ""
    yield "## Columns"
    yield ""
    yield "| column | drifted | times its limit | PSI | Jensen-Shannon | KS | Wasserstein | missing | why |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for column in compared[:_MOST_COLUMNS]:
        yield "| " + " | ".join(_cells(column)) + " |"
    if len(compared) > _MOST_COLUMNS:
        yield ""
        yield f"And {len(compared) - _MOST_COLUMNS:,} more: the JSON has them all."
    left_out = [column for column in columns if column.kind == "unsupported"]
    if left_out:
        yield ""
        yield "## Not compared"
        yield ""
        for column in left_out:
            yield f"- {inline(column.name)}: {inline(column.reason)}"


def _cells(column: ColumnDrift) -> tuple[str, ...]:
    statistics = column.statistics
    far = statistics.get("distance" if column.kind == "vector" else "wasserstein")
    before, now = column.reference_missing_share, column.current_missing_share
    name = inline(column.name) + (" (prediction)" if column.role == "prediction" else "")
    return (
        name,
        "**yes**" if column.drifted else "no",
        f"{column.score:.2f}",
        _number(statistics.get("psi")),
        _number(statistics.get("jensen_shannon")),
        _number(statistics.get("kolmogorov_smirnov")),
        _number(far),
        f"{before:.1%}" if before == now else f"{before:.1%} to {now:.1%}",
        inline(column.reason),
    )


def _categories(columns: Sequence[ColumnDrift]) -> Iterator[str]:
    lines = []
    for column in columns:
        for what, items in (("new", column.new_categories), ("gone", column.vanished_categories)):
            if items:
                listed = ", ".join(f"{inline(str(item.value))} ({item.count:,})" for item in items[:_MOST_CATEGORIES])
                more = f", and {len(items) - _MOST_CATEGORIES} more" if len(items) > _MOST_CATEGORIES else ""
                lines.append(f"- {inline(column.name)}, {what}: {listed}{more}")
    if lines:
        yield from ("", "## New and vanished categories", "", *lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
