"""Every check on every component, by discovery: a new folder is tested without being named anywhere."""

from __future__ import annotations

import ast
import datetime
import hashlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeparts import catalog, compiling, docgen
from pipeparts.runtime.models import read_model_info
from pipeparts.runtime.tables import Table
from pipeparts.runtime.verdict import read_verdict

ENTRIES = catalog.components()
every_component = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)

#: Its start costs 4 to 7 CPU seconds and 500 MB.
NEED_TENSORFLOW = {"train_keras"}

METADATA_KEYS = ["name", "stability", "dependencies", "lastVerified", "tags", "links"]
FILES = ["__init__.py", "component.py", "logic.py", "metadata.yaml", "OWNERS", "example.yaml", "README.md"]


def test_there_are_components() -> None:
    assert len(ENTRIES) > 10


@every_component
def test_folder_is_whole(entry: catalog.Entry) -> None:
    missing = [name for name in FILES if not (entry.folder / name).is_file()]
    assert not missing, (
        f"missing in {entry.folder}: {missing}; `make component` shows a whole one, `make docs` the README"
    )
    assert list((entry.folder / "tests").glob("test_*.py")), "no tests of its logic"


@every_component
def test_name_is_a_verb_and_a_noun(entry: catalog.Entry) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", entry.name)
    assert entry.stage in catalog.STAGES


@every_component
def test_package_file_holds_a_docstring_only(entry: catalog.Entry) -> None:
    for path in (entry.folder / "__init__.py", entry.folder.parent / "__init__.py"):
        tree = ast.parse(path.read_text())
        assert len(tree.body) == 1, f"{path}: a re-export breaks the container"
        assert ast.get_docstring(tree)


@every_component
def test_metadata_follows_the_shared_catalogs_schema(entry: catalog.Entry) -> None:
    metadata = yaml.safe_load((entry.folder / "metadata.yaml").read_text())
    assert list(metadata) == [key for key in METADATA_KEYS if key in metadata]
    assert metadata["name"] == entry.name
    assert metadata["stability"] in {"experimental", "alpha", "beta", "stable"}
    kubeflow = metadata["dependencies"]["kubeflow"]
    assert [dependency["name"] for dependency in kubeflow] == ["Pipelines"]
    assert set(metadata["dependencies"]) <= {"kubeflow", "external_services"}
    for dependencies in metadata["dependencies"].values():
        for dependency in dependencies:
            assert re.fullmatch(r"(>=|<=|==|>|<|~=)?\d+\.\d+\.\d+", dependency["version"])
    age = datetime.datetime.now(datetime.UTC) - metadata["lastVerified"]
    assert age < datetime.timedelta(days=365), f"verified {age.days} days ago: look again, then set lastVerified"
    owners = yaml.safe_load((entry.folder / "OWNERS").read_text())
    assert owners["approvers"]


@every_component
def test_interface_is_thin(entry: catalog.Entry) -> None:
    source = entry.source.read_text()
    tree = ast.parse(source)
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported <= {"kfp", "typing"}, f"module level imports: {imported}"
    assert "print(" not in source
    text = compiling.to_yaml(compiling.compile_spec(entry.name))
    assert len(text) < 20_000, f"{len(text)} bytes for one use: the work belongs into logic.py"
    assert "pip install" not in text


@every_component
def test_parameters_have_defaults_that_run_anywhere(entry: catalog.Entry) -> None:
    parameters = [port for port in entry.inputs if not port.is_artifact]
    assert len(parameters) <= 10, "about eight parameters at most"
    allowed = {"str", "int", "float", "bool", "dict", "list", "PipelineTaskFinalStatus"}
    assert {port.type for port in parameters} <= allowed
    for port in parameters:
        if port.type in ("str", "int", "float", "bool") and not port.required:
            assert port.default is not None, f"{port.name}: an empty string or an honest default, not None"


@every_component
def test_docs_are_complete(entry: catalog.Entry) -> None:
    assert entry.summary.endswith("."), "the first line is a sentence"
    assert len(entry.summary) < 120
    assert not entry.summary.lower().startswith(("component", "this "))
    assert re.match(r"[A-Z][a-z]+s\b|Says|Has", entry.summary), "the first line says the effect: 'Splits a table ...'"
    undocumented = [port.name for port in [*entry.inputs, *entry.outputs] if not port.doc]
    assert not undocumented, f"without a description: {undocumented} (inputs under Args:, outputs under Returns:)"
    documented = set(re.findall(r"^    (\w+): ", inspect.cleandoc(_docstring(entry)), re.MULTILINE))
    known = {port.name for port in [*entry.inputs, *entry.outputs]} | {name for name, _ in entry.raises}
    assert documented <= known, f"documented but not there: {documented - known}"


@every_component
def test_the_consoles_show_the_docs(entry: catalog.Entry) -> None:
    component = next(iter(entry.load().pipeline_spec.components.values()))
    for port in entry.inputs:
        definitions = component.input_definitions
        where = definitions.artifacts if port.is_artifact else definitions.parameters
        if port.type != "PipelineTaskFinalStatus":
            assert where[port.name].description, f"{port.name} has no description in the YAML"
    for port in entry.outputs:
        if port.is_artifact:
            assert component.output_definitions.artifacts[port.name].description, f"{port.name}: none in the YAML"


@every_component
def test_embedded_source_runs_in_an_empty_namespace(entry: catalog.Entry, tmp_path: Path) -> None:
    """What ships is the function's source alone: a constant of the module would be a NameError in the task."""
    container = next(iter(entry.load().pipeline_spec.deployment_spec["executors"].values()))["container"]
    source = list(container["command"])[-1]
    (tmp_path / "ephemeral.py").write_text(source)
    script = (
        "import runpy, sys; namespace = runpy.run_path(sys.argv[1]);"
        "code = namespace[sys.argv[2]].__code__; import builtins;"
        "names = [n for n in code.co_names if n not in namespace and not hasattr(builtins, n)];"
        "print(','.join(names))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "ephemeral.py"), entry.name],
        env={"_KFP_RUNTIME": "true", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    attributes = _attributes(source)
    unknown = [name for name in result.stdout.strip().split(",") if name and name not in attributes]
    assert not unknown, f"names that the shipped source does not have: {unknown}"


@every_component
def test_logic_and_runtime_import_no_kfp(entry: catalog.Entry) -> None:
    script = (
        f"import sys, pipeparts.components.{entry.stage}.{entry.name}.logic;"
        "heavy = [m for m in ('kfp', 'tensorflow', 'mlflow', 'matplotlib', 'sklearn') if m in sys.modules];"
        "print(','.join(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not result.stdout.strip(), f"imported at module level: {result.stdout}"


@pytest.mark.slow
@every_component
def test_compiled_command_runs_on_the_example(entry: catalog.Entry, examples) -> None:
    run = examples.run(entry.name)
    for port in entry.outputs:
        if port.is_artifact:
            _check_contract(entry, port, run.artifacts[port.name])
    if any(port.name == "Output" for port in entry.outputs):
        assert run.value is not None


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.family != "tfx"], ids=lambda entry: entry.name)
def test_only_steps_that_need_tensorflow_import_it(entry: catalog.Entry, examples) -> None:
    imported = examples.run(entry.name).imported
    assert {"kfp", "pipeparts"} <= imported  # the process was seen
    assert ("tensorflow" in imported) == (entry.name in NEED_TENSORFLOW)


@pytest.mark.slow
@every_component
def test_same_input_same_bytes(entry: catalog.Entry, examples, tmp_path: Path) -> None:
    if entry.stage in ("registry", "monitoring"):
        pytest.skip("acts on the outside: what it writes names the time and the version it made")
    first = examples.run(entry.name)
    second = examples.run_again(entry.name, tmp_path / entry.name)
    for port in entry.outputs:
        if port.is_artifact:
            one, other = first.artifacts[port.name], second.artifacts[port.name]
            assert _digest(one, port.type) == _digest(other, port.type), f"{port.name} differs from run to run"
    assert first.value == second.value


@every_component
def test_readme_is_fresh(entry: catalog.Entry) -> None:
    assert (entry.folder / "README.md").read_text() == docgen.component_readme(entry), "run `make docs`"


def _docstring(entry: catalog.Entry) -> str:
    for node in ast.walk(ast.parse(entry.source.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == entry.name:
            return ast.get_docstring(node) or ""
    return ""


def _attributes(source: str) -> set[str]:
    """Names that are attributes or imported inside: not looked up in the module."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names.update([node.module or "", *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return names


def _check_contract(entry: catalog.Entry, port: catalog.Port, artifact: dict) -> None:
    path = Path(artifact["uri"])
    if port.type == "Dataset":
        table = Table(path)
        assert sum(batch.num_rows for batch in table.batches()) == table.rows
        assert artifact["metadata"]["fingerprint"] == table.info.fingerprint
        assert artifact["metadata"]["rows"] == table.rows
    elif port.type == "Model":
        info = read_model_info(path)
        assert artifact["metadata"]["fingerprint"] == info.fingerprint
    elif port.name == "verdict":
        assert artifact["metadata"]["passed"] is read_verdict(path).passed
    elif port.type == "HTML":
        text = path.read_text()
        assert text[:15].lower() == "<!doctype html>"
        assert not re.findall(r"""(?<![.\w])(?:src|href)=["']https?://""", text), "a page must stand alone"
        assert len(text) < 5_000_000
    elif port.type == "Markdown":
        assert path.read_text().startswith("# ")
    elif port.type in ("Metrics", "ClassificationMetrics"):
        assert artifact["metadata"], "no metric was logged"
    else:
        assert path.exists()


def _digest(artifact: dict, kind: str) -> str:
    path = Path(artifact["uri"])
    if kind == "Model":  # MLflow writes its own time and a random id into MLmodel
        return read_model_info(path).fingerprint
    if not path.exists():
        return json.dumps(artifact["metadata"], sort_keys=True)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(path)).encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
