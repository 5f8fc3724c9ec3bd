"""What of a pipeline would not run everywhere: `lint`."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from pipeparts.cli.app import FAILED, app
from pipeparts.cli.output import make_console, print_json
from pipeparts.errors import InputError
from pipeparts.linting.findings import TARGETS, Severity, Target

if TYPE_CHECKING:
    from rich.console import Console

    from pipeparts.linting.document import Document, Version
    from pipeparts.linting.findings import Finding, Rule

_Target = enum.StrEnum("Target", {name.upper(): name for name in TARGETS})  # type: ignore[misc]
_Severity = enum.StrEnum("Severity", {name.upper(): name for name in get_args(Severity)})  # type: ignore[misc]
_LOWEST = _Severity("warning")
_SUFFIXES = (".yaml", ".yml", ".json")
_FOREIGN = ("node_modules", "site-packages", "__pycache__")
_STYLES = {"error": "bold red", "warning": "yellow"}


class Format(enum.StrEnum):
    """How findings are written."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


@app.command()
def lint(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Compiled YAML or JSON files, folders of them, or names of the catalog (`all`: all its pipelines).",
            metavar="FILE...",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[_Target] | None, typer.Option(help="Only what concerns this platform; repeat it for more (default: all).")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Leave a rule out, by id or name.", metavar="RULE")] = None,
    severity: Annotated[_Severity, typer.Option(help="Show from this severity on.")] = _LOWEST,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to write the findings.")] = Format.TEXT,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file (default: print).", metavar="FILE")
    ] = None,
    kubeflow_version: Annotated[
        str | None, typer.Option(help="The release of Kubeflow Pipelines, as 2.14.", metavar="X.Y")
    ] = None,
    air_gap: Annotated[
        bool, typer.Option("--air-gap", help="Prove that nothing is fetched at run time; see --allow-registry.")
    ] = False,
    allow_registry: Annotated[
        list[str] | None, typer.Option(help="Where images may come from; repeat it for more.", metavar="REGISTRY")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A host that is inside, as mlflow.corp.example.", metavar="HOST")
    ] = None,
    registry: Annotated[str, typer.Option(help="For names of the catalog: the registry of the images.")] = "",
    rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
    explain: Annotated[str | None, typer.Option(help="Explain a rule.", metavar="RULE")] = None,
) -> None:
    """Find what of a compiled pipeline would not run on Kubeflow, on Vertex AI or on a laptop."""
    from pipeparts.linting.air_gap import AirGap, is_proved, summary
    from pipeparts.linting.engine import find_rule, listed_rules
    from pipeparts.linting.engine import lint as run_rules

    if rules or explain:
        _print_rules([find_rule(explain)] if explain else listed_rules(), at_length=bool(explain))
        return
    if not files:
        raise InputError(
            "there is nothing to lint",
            parameter="FILE",
            allowed="compiled YAML files, folders, names of the catalog, or `all`",
            received="nothing",
        )
    if air_gap and not allow_registry:
        raise InputError(
            "an air gap needs the registries that images may come from",
            parameter="--allow-registry",
            allowed="a registry or a repository, as europe-docker.pkg.dev/project",
            received="nothing",
        )
    gap = AirGap(tuple(allow_registry or ()), tuple(allow_host or ())) if air_gap else None
    targets = [name for name in TARGETS if not target or name in target]
    version = _version(kubeflow_version)
    documents = _documents(files, registry)
    found = {
        document.file: run_rules(document, targets=targets, ignore=ignore or (), kubeflow_version=version, air_gap=gap)
        for document in documents
    }
    every = [finding for findings in found.values() for finding in findings]
    shown = [finding for finding in every if severity.value == "warning" or finding.severity == "error"]
    if format is Format.TEXT and output is None:
        _print_findings(make_console(), shown, [document.file for document in documents], targets)
        for document in documents:
            if gap and is_proved(document, gap):
                typer.echo(f"{document.file}: {summary(document, gap)}")
    else:
        _write(shown, documents, targets, format, output)
    if any(finding.severity == "error" or strict for finding in every):
        raise typer.Exit(FAILED)


def _documents(names: Sequence[str], registry: str) -> list[Document]:
    """Each file's document; a folder gives those of its files that are compiled pipelines."""
    from pipeparts import catalog, compiling
    from pipeparts.linting.document import Document

    documents: list[Document] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = sorted(_files(path))
            compiled = [file for file in files if _is_compiled(file)]
            if not compiled:
                raise InputError("the folder has no compiled pipeline", where=name, received=f"{len(files)} files")
            documents += [Document.read(file) for file in compiled]
        elif path.suffix in _SUFFIXES or path.is_file():
            documents.append(Document.read(path))
        else:
            entries = catalog.pipelines() if name == "all" else [catalog.find(name)]
            for entry in entries:
                spec = compiling.compile_spec(entry.name)
                if registry:
                    spec = compiling.resolve_images(spec, compiling.default_images(spec, registry=registry))
                documents.append(Document(compiling.to_yaml(spec), f"{entry.name} (compiled)"))
    return documents


def _files(folder: Path) -> Iterator[Path]:
    """The YAML and JSON files below a folder; hidden folders are left out, and what packages installed."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _FOREIGN]
        yield from (Path(parent, name) for name in names if name.endswith(_SUFFIXES))


def _is_compiled(path: Path) -> bool:
    """Whether a file of a folder is a pipeline: those of other kinds lie beside them."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(re.search(r"^\s*\"?(pipelineInfo|deploymentSpec)\"?:", text, re.MULTILINE))


def _version(text: str | None) -> Version | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,4}\.\d{1,4}(\.\d{1,4})?", text):
        raise InputError(
            "not a release of Kubeflow Pipelines",
            parameter="--kubeflow-version",
            allowed="as 2.14 or 2.16.1",
            received=text,
        )
    return tuple(int(part) for part in text.split("."))


def _write(
    findings: list[Finding], documents: list[Document], targets: list[Target], form: Format, output: Path | None
) -> None:
    from pipeparts.linting.formats import as_json, as_sarif
    from pipeparts.runtime.files import write_json, write_text

    if form is Format.TEXT:
        from io import StringIO

        from rich.console import Console

        text = StringIO()
        console = Console(file=text, width=120, highlight=False, emoji=False)
        _print_findings(console, findings, [document.file for document in documents], targets)
        assert output is not None
        write_text(output, text.getvalue())
        return
    value = as_sarif(findings) if form is Format.SARIF else as_json(findings)
    if output is None:
        print_json(value)
    else:
        write_json(output, value)


def _print_findings(console: Console, findings: list[Finding], files: list[str], targets: list[Target]) -> None:
    from rich.text import Text

    from pipeparts.linting.formats import message_of

    explained: set[str] = set()
    for finding in findings:
        places = ", ".join(
            target if severity == finding.severity else f"{target} ({severity})"
            for target, severity in finding.targets.items()
        )
        head = Text.assemble(
            f"{finding.file}:{finding.line}: ",
            (finding.severity, _STYLES[finding.severity]),
            (f" {finding.rule.id}", "bold"),
            f" {message_of(finding)} ",
            (f"[{places}]", "dim"),
        )
        console.print(head, soft_wrap=True)
        if finding.rule.id not in explained:
            explained.add(finding.rule.id)
            console.print(Text(f"    {finding.rule.why} {finding.rule.fix}", style="dim"), soft_wrap=True)
    counts = {level: sum(1 for f in findings if f.severity == level) for level in ("error", "warning")}
    said = ", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in counts.items() if number)
    where = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    console.print(Text(f"{said or 'nothing found'} in {where}, for {', '.join(targets)}"), soft_wrap=True)


def _print_rules(rules: list[Rule], *, at_length: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from pipeparts.linting.formats import severity_text

    console = make_console()
    if at_length:
        (rule,) = rules
        console.print(Text.assemble((f"{rule.id} {rule.name}", "bold"), f": {rule.summary}"), soft_wrap=True)
        for target in TARGETS:
            console.print(Text(f"  {target}: {severity_text(rule, target)}"), soft_wrap=True)
        for line in (rule.why, rule.fix, f"basis: {rule.basis}"):
            console.print(Text(f"  {line}"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("id", "rule", *TARGETS):
        table.add_column(title, no_wrap=title != "rule", overflow="fold")
    for rule in rules:
        table.add_row(rule.id, Text(rule.summary), *(severity_text(rule, target) for target in TARGETS))
    console.print(table)
