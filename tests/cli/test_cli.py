"""The command: what it prints, its exit codes, and how quickly it answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeparts import __version__, catalog, compiling, datasets
from pipeparts.cli import app

PIPELINE = """
from kfp import compiler, dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def say(text: str, times: int = 1) -> str:
    from pipeparts.runtime.errors import InputError

    if times < 1:
        raise InputError("too few times", parameter="times", allowed="1 or more", received=times)
    return " ".join([text] * times)


@dsl.pipeline(name="talk")
def talk(text: str, times: int = 1, options: dict = {}) -> str:
    return say(text=text, times=times).output


compiler.Compiler().compile(talk, "talk.yaml")
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    (folder / "talk.py").write_text(PIPELINE)
    subprocess.run([sys.executable, "talk.py"], cwd=folder, check=True)
    return folder / "talk.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "150", "NO_COLOR": "1"})


def test_the_version() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert result.stdout == f"pipeparts {__version__}\n"


def test_list_names_every_component_and_pipeline() -> None:
    result = call("list")
    assert result.exit_code == 0
    for entry in [*catalog.components(), *catalog.pipelines()]:
        assert f"  {entry.name}  " in result.stdout
    assert "data validation\n" in "\n".join(line.rstrip() for line in result.stdout.splitlines())
    assert "train_and_register" not in call("list", "components").stdout
    assert "require_verdict" not in call("list", "pipelines").stdout


def test_list_as_json() -> None:
    found = json.loads(call("list", "--json").stdout)
    assert {"name", "kind", "stage", "summary"} == set(found[0])
    assert len(found) == len(catalog.components()) + len(catalog.pipelines())


def test_show_a_component() -> None:
    result = call("show", "require_verdict")
    assert result.exit_code == 0
    for text in (
        "require_verdict  component, stage data validation, image family data",
        "Stops the run where a verdict has not passed",
        "Inputs",
        "verdict  Artifact  required",
        "Outputs",
        "Output  bool",
        "ContractError: Where the artifact is no verdict.",
        "from pipeparts.components import require_verdict",
    ):
        assert text in result.stdout
    found = json.loads(call("show", "require-verdict", "--json").stdout)
    assert found["inputs"][0]["name"] == "verdict"
    assert found["outputs"][0]["type"] == "bool"


def test_show_what_is_not_there() -> None:
    result = call("show", "require_verdikt")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: no component or pipeline of this name\n  parameter: name\n")
    assert "hint: did you mean 'require_verdict'?" in result.stderr


def test_compile_prints_or_writes(here: Path) -> None:
    printed = call("compile", "require_verdict")
    assert printed.exit_code == 0
    spec = yaml.safe_load(printed.stdout)
    assert spec["deploymentSpec"]["executors"]["exec-require-verdict"]["container"]["image"] == "pipeparts-python-data"
    written = call("compile", "require_verdict", "-o", "deep/one.yaml")
    assert written.exit_code == 0
    assert (here / "deep" / "one.yaml").read_text() == printed.stdout
    assert compiling.spec_hash(compiling.read_yaml(here / "deep" / "one.yaml"))


def test_compile_with_images(here: Path) -> None:
    result = call("compile", "require_verdict", "--registry", "registry.example/team")
    assert f"image: registry.example/team/pipeparts-python-data:{__version__}-" in result.stdout
    (here / "images.yaml").write_text(f"data: registry.example/data@sha256:{'0' * 64}\n")
    result = call("compile", "require_verdict", "--images", "images.yaml")
    assert "image: registry.example/data@sha256:000" in result.stdout
    (here / "images.yaml").write_text("data: registry.example/data:latest\n")
    result = call("compile", "require_verdict", "--images", "images.yaml")
    assert result.exit_code == 2
    assert "an image that can change under its name" in result.stderr


def test_compile_for_a_platform(here: Path) -> None:
    (here / "kubeflow.yaml").write_text(
        "registry: registry.example/team\n"
        "defaults: {memory: 2Gi, pod_labels: {team: a}}\n"
        "steps: {require_verdict: {timeout_seconds: 60}}\n"
    )
    result = call("compile", "require_verdict", "--target", "kubeflow", "--target-config", "kubeflow.yaml")
    assert result.exit_code == 0, result.output
    core, platform = yaml.safe_load_all(result.stdout)
    container = core["deploymentSpec"]["executors"]["exec-require-verdict"]["container"]
    assert container["image"].startswith("registry.example/team/pipeparts-python-data:")
    assert container["resources"]["resourceMemoryLimit"] == "2Gi"
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    expected = {"activeDeadlineSeconds": "60", "podMetadata": {"labels": {"team": "a"}}}
    assert executors == {"exec-require-verdict": expected}
    (here / "configs").mkdir()
    required = "project: p\nlocation: l\npipeline_root: gs://b\n"
    (here / "configs" / "vertex.yaml").write_text(f"{required}defaults: {{pod_labels: {{team: a}}}}\n")
    result = call("compile", "require_verdict", "--target", "vertex", "-o", "variant.yaml")
    assert "note: Vertex AI has no use for the setting pod_labels: left out of require-verdict" in result.stderr
    assert compiling.read_yaml("variant.yaml") == compiling.compile_spec("require_verdict")
    result = call("compile", "require_verdict", "--target-config", "kubeflow.yaml")
    assert result.exit_code == 2
    assert "settings of a target, and no target" in result.stderr


def test_compile_all_needs_a_folder() -> None:
    result = call("compile", "all")
    assert result.exit_code == 2
    assert "`all` needs a folder to write to" in result.stderr


def test_a_run_and_what_comes_after_it(here: Path, compiled: Path) -> None:
    result = call("run", compiled, "--param", "text=hello", "-p", "times=2")
    assert result.exit_code == 0, result.output
    # A step may start and end between two looks: that it runs is said where it was seen to.
    first, *lines = [line for line in result.stdout.splitlines() if not line.endswith("say: running")]
    assert first.startswith("run 2")
    assert " of talk, 1 steps, in .pipeparts/runs/" in first
    assert re.search(r"say: done, [0-9.]+ s$", lines[0])
    assert lines[1].startswith("✓ talk succeeded in ")
    assert lines[1].endswith(": 1 done")
    assert lines[2] == "Output = hello hello"
    assert ".pipeparts/runs/" in lines[3]
    assert result.stderr == ""

    again = call("run", compiled, "--param", "text=hello", "-p", "times=2")
    assert "say: from the cache (run 2" in again.stdout
    assert "1 from the cache" in again.stdout

    found = json.loads(call("runs", "--json").stdout)
    assert [run["state"] for run in found] == ["succeeded"] * 2
    assert found[0]["arguments"] == {"text": "hello", "times": 2, "options": {}}
    assert "1 from the cache" in call("runs").stdout
    assert len(json.loads(call("runs", "--json", "--limit", "1").stdout)) == 1

    report = call("report", found[1]["run_id"])
    assert report.exit_code == 0
    assert report.stdout == f".pipeparts/runs/{found[1]['run_id']}/report.html\n"
    assert "<html" in Path(report.stdout.strip()).read_text()

    assert call("clean", "--keep", "0").stdout.startswith("removed 2 runs, ")
    assert call("runs").stdout == "no runs in .pipeparts\n"
    missing = call("report")
    assert missing.exit_code == 2
    assert "there are no runs here" in missing.stderr


def test_a_failing_step_shows_its_own_error(here: Path, compiled: Path) -> None:
    result = call("run", compiled, "--param", "text=hello", "-p", "times=0")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[:5] == [
        "error: say failed",
        "  too few times",
        "    parameter: times",
        "    allowed: 1 or more",
        "    received: 0",
    ]
    assert lines[5].startswith("    log: .pipeparts/runs/")
    assert len(lines) == 6
    assert "✗ talk failed after" in result.stdout
    assert "when that is mended, run the same command again: it goes on from the steps that finished" in result.stdout


def test_parameters_from_a_file(here: Path, compiled: Path) -> None:
    (here / "p.yaml").write_text(f"pipeline: {compiled}\nparameters: {{text: from the file, times: 2}}\n")
    result = call("run", "--params", "p.yaml", "-p", "times=1")
    assert result.exit_code == 0, result.output
    assert "Output = from the file\n" in result.stdout
    assert call("run", compiled, "--config", "p.yaml", "--no-cache", "--root", "other").exit_code == 0
    assert (here / "other" / "runs").is_dir()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run"], "error: no pipeline is named\n"),
        (["run", "none.yaml"], "error: cannot read the pipeline\n"),
        (["run", "COMPILED"], "error: pipeline 'talk' needs a parameter that was not given\n"),
        (["run", "COMPILED", "-p", "txt=a"], "error: pipeline 'talk' has no parameter of this name\n"),
        (["run", "COMPILED", "-p", "text"], "error: not a setting\n"),
        (
            ["run", "COMPILED", "-p", "text=a", "-p", "times=many"],
            "error: parameter 'times' has a value of the wrong type\n",
        ),
        (["run", "COMPILED", "-p", "text=a", "--params", "none.yaml"], "error: cannot read the file of parameters\n"),
        (
            ["run", "COMPILED", "-p", "text=a", "--target-config", "none.yaml"],
            "error: cannot read the configuration of",
        ),
        (["data", "nothing", "--to", "x"], "error: no such data set\n"),
    ],
)
def test_wrong_usage(here: Path, compiled: Path, arguments: list[str], error: str) -> None:
    result = call(*[str(compiled) if argument == "COMPILED" else argument for argument in arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(error)
    assert "Traceback" not in result.output
    assert not (here / ".pipeparts").exists()


def test_an_unknown_command_and_option() -> None:
    assert call("lits").exit_code == 2
    assert call("list", "--jsn").exit_code == 2


def test_debug_shows_the_traceback(here: Path) -> None:
    result = call("--debug", "show", "nothing")
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "InputError"


def test_data(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(datasets, "write_dataset", lambda name, folder: calls.append((name, folder)))
    assert call("data", "flights", "--to", "f").exit_code == 0
    assert calls == [("flights", Path("f"))]
    (here / "f").mkdir()
    assert call("data", "flights", "--to", "f", "--if-missing").exit_code == 0
    assert len(calls) == 2  # an empty folder is not the data
    (here / "f" / "x.csv").touch()
    result = call("data", "flights", "--to", "f", "--if-missing")
    assert result.stdout == "f is there already\n"
    assert len(calls) == 2


def test_help_and_list_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pipeparts.cli import app\n"
        "CliRunner().invoke(app, ['list'])\n"
        "print([m for m in ('kfp', 'pyarrow', 'numpy', 'pandas', 'tensorflow', 'mlflow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"
