"""The run report: one HTML file that says what a local run did, and links to what it made."""

from __future__ import annotations

import contextlib
import datetime
import html
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeparts.errors import ContractError
from pipeparts.graphs import Node, graph_svg, in_order
from pipeparts.runtime.files import read_json, whole_file
from pipeparts.runtime.pages import BLUE, GREY, Html, Page, new_figure
from pipeparts.runtime.verdict import Verdict, format_value, read_verdict

Record = Mapping[str, Any]

_STEP_KINDS = ("step", "importer")
_WORDS = {
    "succeeded": "good",
    "cached": "good",
    "failed": "bad",
    "interrupted": "warn",
    "skipped": "",
    "not_run": "",
}
_STATE_NAMES = {"not_run": "not run"}
_LONGEST_PARAMETER = 120
_MOST_PASSED_CHECKS = 10
#: What a reader looks for first, of those that the evaluation has.
_FIRST_METRICS = ("roc_auc", "average_precision", "brier_score", "f1_macro", "rmse", "mae", "r2")


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Writes `report.html` into a run's folder, from its `run.json`.

    Args:
        run_folder: The run's folder.

    Returns:
        The report's path.

    Raises:
        ContractError: Where the folder has no readable `run.json`.
    """
    folder = Path(run_folder)
    record = read_json(folder / "run.json", what="a run's record")
    if not isinstance(record, dict) or "tasks" not in record:
        raise ContractError("not a run's record", where=str(folder / "run.json"), received=str(record)[:80])
    page = Page(f"{record['pipeline']}: {_state_name(record['state'])}", _subtitle(record))
    steps = [task for task in record["tasks"] if task["kind"] in _STEP_KINDS]
    _add_outcome(page, folder, record, steps)
    _add_errors(page, record)
    page.heading("Steps")
    page.html(f'<div class="scroll graph">{graph_svg(_graph(record), title=record["pipeline"])}</div>')
    _add_verdicts(page, folder, steps)
    _add_metrics(page, steps)
    _add_plots(page, steps)
    _add_pages(page, folder, steps)
    _add_steps(page, steps)
    _add_parameters(page, record)
    _add_lineage(page, record, steps)
    path = folder / "report.html"
    page.write(path)
    return path


def highlights(run_folder: str | os.PathLike[str], record: Record) -> list[str]:
    """What a person wants to know at once: what was registered, what was decided, or which checks stood in the way.

    Args:
        run_folder: The run's folder.
        record: Its record.

    Returns:
        Lines of text, the gates in the order of the flow.
    """
    folder = Path(run_folder)
    steps = [task for task in record["tasks"] if task["kind"] in _STEP_KINDS]
    lines = []
    for step, verdict in _verdicts(folder, steps):
        lines += [f"{step['display_name']}: {check.name}: {check.reason}" for check in verdict.failures]
    if registration := _registration(folder, steps):
        alias = f", alias {registration['alias']}" if registration.get("promoted") else ""
        lines.append(f"registered: {registration['name']} version {registration['version']}{alias}")
    for step in steps:
        outputs = step["outputs"]
        if step["component"] == "decide_retraining" and "Output" in outputs:
            lines.append(f"decision: {'train again' if outputs['Output']['value'] else 'the model stays'}")
        if step["component"] == "record_batch" and "page" in outputs:
            lines.append(f"all batches side by side: {os.path.relpath(folder / _copied(step, 'page', '.html'))}")
    return lines


def _subtitle(record: Record) -> str:
    started = datetime.datetime.fromtimestamp(record["started"]).astimezone()
    return f"run {record['run_id']}, started {started:%Y-%m-%d %H:%M:%S %Z}"


def _add_outcome(page: Page, folder: Path, record: Record, steps: Sequence[Record]) -> None:
    states = [step["state"] for step in steps]
    facts: dict[str, Any] = {
        "state": Html(f'<span class="{_WORDS.get(record["state"], "")}">{_state_name(record["state"])}</span>'),
        "took": _duration(record["seconds"]),
        "steps run": states.count("succeeded") + states.count("failed"),
        "from the cache": states.count("cached"),
    }
    if registration := _registration(folder, steps):
        facts["registered"] = _registered(registration)
        facts["alias"] = registration.get("alias", "")
    elif any(step["component"] == "register_mlflow" and step["state"] == "skipped" for step in steps):
        facts["registered"] = "no: the gate did not let it through"
    page.facts(facts)
    metrics = {
        name: value
        for step in steps
        if step["component"] == "evaluate_model"
        for name, value in (step["outputs"].get("metrics", {}).get("metadata") or {}).items()
    }
    if shown := {name.replace("_", " "): metrics[name] for name in _FIRST_METRICS if name in metrics}:
        page.facts(shown)


def _registered(document: Mapping[str, Any]) -> Html:
    text = html.escape(f"{document.get('name')} version {document.get('version')}")
    link = str(document.get("link") or "")
    return Html(f'<a href="{html.escape(link)}">{text}</a>' if link.startswith("http") else text)


def _add_errors(page: Page, record: Record) -> None:
    if record["error"]:
        page.html(f"<pre>{html.escape(record['error'])}</pre>")
    for task in record["tasks"]:
        for part in task.get("iterations") or [task]:
            error = part.get("error")
            if part["state"] != "failed" or not error:
                continue
            page.heading(f"{task['display_name']} failed", level=3)
            text = error["message"] if error.get("pipeparts") else f"{error['type']}: {error['message']}"
            page.html(f'<pre class="bad">{html.escape(text)}</pre>')
            if error.get("traceback"):
                lines = html.escape("\n".join(error["traceback"]))
                page.html(f"<details><summary>the last lines of the traceback</summary><pre>{lines}</pre></details>")
            if part.get("log"):
                page.html(f'<p><a href="{html.escape(part["log"])}">the whole log</a></p>')


def _graph(record: Record) -> list[Node]:
    tasks = {task["id"]: task for task in record["tasks"]}
    members: dict[str, list[str]] = {}
    for task in record["tasks"]:
        if task["kind"] in _STEP_KINDS:
            for group in _ancestors(task, tasks):
                members.setdefault(group["id"], []).append(task["id"])
    nodes: dict[str, Node] = {}
    for task in record["tasks"]:
        if task["kind"] not in _STEP_KINDS:
            continue
        groups = list(_ancestors(task, tasks))
        needs = [origin[key] for origin in task["inputs"].values() for key in ("task", "status_of") if key in origin]
        for member in [task, *groups]:
            needs += member["dependencies"]
        steps = [step for need in needs for step in members.get(need, [need])]
        status = any("status_of" in origin for origin in task["inputs"].values())
        nodes[task["id"]] = Node(
            id=task["id"],
            label=task["display_name"],
            needs=tuple(dict.fromkeys(step for step in steps if step != task["id"])),
            note=_note(task, groups),
            state={"not_run": "pending", "queued": "pending"}.get(task["state"], task["state"]),
            is_exit=status,
            link=f"#step-{task['id']}",
        )
    return [nodes[name] for name in in_order({name: node.needs for name, node in nodes.items()})]


def _ancestors(task: Record, tasks: Mapping[str, Record]) -> Iterator[Record]:
    while task["parent"]:
        task = tasks[task["parent"]]
        yield task


def _note(task: Record, groups: Sequence[Record]) -> str:
    condition = next((f"if {group['display_name']}" for group in groups if group["kind"] == "condition"), "")
    state = _state_name(task["state"])
    if task["state"] == "succeeded":
        state = _duration(task["seconds"])
    if task["state"] == "skipped" and condition:
        return f"skipped: not {groups[0]['display_name']}"
    return f"{condition}: {state}" if condition else state


def _verdicts(folder: Path, steps: Sequence[Record]) -> Iterator[tuple[Record, Verdict]]:
    """Each step that judged, with its verdict; one that cannot be read is left out."""
    for step in steps:
        for output in step["outputs"].values():
            if output["type"] == "system.Artifact" and "passed" in (output.get("metadata") or {}):
                with contextlib.suppress(ContractError):
                    yield step, read_verdict(folder / output["uri"])


def _add_verdicts(page: Page, folder: Path, steps: Sequence[Record]) -> None:
    for step, verdict in _verdicts(folder, steps):
        page.heading(f"Verdict of {step['display_name']}")
        page.verdict(verdict, fold_above=_MOST_PASSED_CHECKS)


def _add_metrics(page: Page, steps: Sequence[Record]) -> None:
    tables = []
    for step in steps:
        for output in step["outputs"].values():
            if output["type"] == "system.Metrics" and output.get("metadata"):
                rows = "".join(
                    f'<tr><td>{html.escape(name)}</td><td class="number">{html.escape(format_value(value))}</td></tr>'
                    for name, value in output["metadata"].items()
                )
                tables.append(f"<div><h3>{html.escape(step['display_name'])}</h3><table>{rows}</table></div>")
    if tables:
        page.heading("Metrics")
        page.html(f'<div class="side-by-side">{"".join(tables)}</div>')


def _add_plots(page: Page, steps: Sequence[Record]) -> None:
    for step in steps:
        for output in step["outputs"].values():
            metadata = output.get("metadata") or {}
            if output["type"] != "system.ClassificationMetrics" or not metadata:
                continue
            figures = []
            if metadata.get("confidenceMetrics"):
                figures.append((_roc(metadata["confidenceMetrics"]), "ROC curve; the diagonal is a guess"))
            if metadata.get("confusionMatrix"):
                figures.append((_confusion(metadata["confusionMatrix"]), "Confusion matrix: rows of the test table"))
            page.heading(f"Plots of {step['display_name']}")
            page.plots(figures)


def _roc(points: Sequence[Mapping[str, float]]) -> Any:
    figure, axes = new_figure(4.6, 3.6)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.plot([p["falsePositiveRate"] for p in points], [p["recall"] for p in points], color=BLUE, linewidth=2)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    return figure


def _confusion(matrix: Mapping[str, Any]) -> Any:
    names = [str(item["displayName"]) for item in matrix["annotationSpecs"]]
    counts = [row["row"] for row in matrix["rows"]]
    figure, axes = new_figure(4.6, 3.6)
    shares = [[value / max(sum(row), 1) for value in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    for i, row in enumerate(counts):
        for j, value in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{value:,.0f}", ha="center", va="center", color=colour)
    return figure


def _copied(step: Record, name: str, ending: str) -> str:
    """Where the copy of a page is, seen from the run's folder."""
    return f"pages/{step['id']}-{name}{ending}"


def _add_pages(page: Page, folder: Path, steps: Sequence[Record]) -> None:
    """Copies each page under a name that a browser knows how to show, and links to it."""
    rows = []
    for step in steps:
        for name, output in step["outputs"].items():
            ending = {"system.HTML": ".html", "system.Markdown": ".txt"}.get(output["type"])
            if ending is None or not output.get("uri") or not (folder / output["uri"]).is_file():
                continue
            copied = _copied(step, name, ending)
            with whole_file(folder / copied) as partial:
                shutil.copyfile(folder / output["uri"], partial)
            rows.append([step["display_name"], Html(f'<a href="{html.escape(copied)}">{html.escape(name)}</a>')])
    if rows:
        page.heading("Pages")
        page.table(rows, columns=["step", "page"])


def _add_steps(page: Page, steps: Sequence[Record]) -> None:
    page.heading("Every step")
    rows = []
    for step in steps:
        state = _state_name(step["state"])
        if step.get("cached_from"):
            state += f" (run {step['cached_from']})"
        mark = f'<span id="step-{html.escape(step["id"])}"></span>{html.escape(step["display_name"])}'
        log = f'<a href="{html.escape(step["log"])}">log</a>' if step.get("log") else ""
        memory = step.get("peak_memory_bytes")
        rows.append(
            [
                Html(mark),
                Html(f'<span class="{_WORDS.get(step["state"], "")}">{html.escape(state)}</span>'),
                _duration(step["seconds"]) if step["state"] != "cached" else "",
                _duration(step["cpu_seconds"]) if step.get("cpu_seconds") is not None else "",
                f"{memory / 1e6:,.0f} MB" if memory else "",
                Html(_outputs(step)),
                Html(log),
            ]
        )
    page.table(rows, columns=["step", "state", "time", "CPU", "memory", "outputs", ""])


def _outputs(step: Record) -> str:
    parts = []
    for name, output in step["outputs"].items():
        if "uri" in output:
            rows = (output.get("metadata") or {}).get("rows")
            count = f" ({rows:,} rows)" if isinstance(rows, int) else ""
            parts.append(f'<a href="{html.escape(output["uri"])}">{html.escape(name)}</a>{count}')
        elif output.get("value") not in (None, ""):
            label = "gave" if name == "Output" else html.escape(name)
            parts.append(f"{label} {html.escape(_short(output['value']))}")
    return "<br>".join(parts)


def _add_parameters(page: Page, record: Record) -> None:
    page.heading("Parameters")
    page.table([[name, _long(value)] for name, value in sorted(record["arguments"].items())], columns=["name", "value"])


def _add_lineage(page: Page, record: Record, steps: Sequence[Record]) -> None:
    page.heading("Lineage")
    rows = [
        ["run", record["run_id"]],
        ["compiled YAML (SHA-256)", record.get("pipeline_hash", "")],
        ["pipeparts", record.get("package_version", "")],
    ]
    for step in steps:
        for name, output in step["outputs"].items():
            metadata = output.get("metadata") or {}
            if output["type"] in ("system.Dataset", "system.Model") and metadata.get("fingerprint"):
                rows.append([f"{step['display_name']}: {name}", metadata["fingerprint"]])
    page.table([[name, Html(f"<code>{html.escape(str(value))}</code>")] for name, value in rows], columns=["what", ""])


def _registration(folder: Path, steps: Sequence[Record]) -> dict[str, Any] | None:
    """What a registering step wrote down; None where none did."""
    for step in steps:
        output = step["outputs"].get("registration")
        if output and output.get("uri"):
            try:
                document = read_json(folder / output["uri"], what="a registration")
            except ContractError:
                continue
            return document if isinstance(document, dict) else None
    return None


def _long(value: Any) -> Html:
    """A parameter's value; a long one is folded."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_PARAMETER:
        return Html(f"<code>{html.escape(text)}</code>")
    full = html.escape(text if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))
    return Html(f"<details><summary><code>{html.escape(_short(text))}</code></summary><pre>{full}</pre></details>")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else format_value(value)
    return text if len(text) <= _LONGEST_PARAMETER else f"{text[:_LONGEST_PARAMETER]}..."


def _state_name(state: str) -> str:
    return _STATE_NAMES.get(state, state)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
