"""The guides, followed to the letter: each file that they show is written, each command that they show is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.client import KF_PIPELINES_SA_TOKEN_PATH
from typer.main import get_command

from pipeparts import compiling
from pipeparts.cli import app
from pipeparts.config import KubeflowConfig
from pipeparts.schedules import Schedule
from pipeparts.targets.base import PlannedSchedule
from pipeparts.targets.kubeflow import KubeflowTarget
from tests.targets.kubeflow_server import PREFIX, KubeflowServer, kubeflow_server
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer, vertex_server

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FLIGHTS = ROOT / "tests" / "data" / "flights.csv"


def blocks(guide: str, kind: str) -> list[str]:
    text = (DOCS / guide).read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ pipeparts ")]


def follow(guide: str, folder: Path, replace: dict[str, str], environment: dict[str, str]) -> list[str]:
    """Writes the guide's files, runs its commands in their order, and gives what they printed."""
    for block in blocks(guide, "yaml"):
        name = re.match(r"# ([a-z-]+\.yaml)\n", block)
        if name:
            for old, new in replace.items():
                block = block.replace(old, new)
            (folder / name[1]).write_text(block)
    said = []
    for block in blocks(guide, "console"):
        for command in commands(block):
            done = subprocess.run(
                [sys.executable, "-m", "pipeparts.cli", *shlex.split(command)[1:]],
                cwd=folder,
                env={**os.environ, **environment, "COLUMNS": "160", "NO_COLOR": "1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
    return said


@pytest.fixture
def kubeflow() -> Iterator[KubeflowServer]:
    with kubeflow_server() as server:
        yield server


@pytest.fixture
def vertex(tmp_path: Path) -> Iterator[VertexServer]:
    (tmp_path / "server").mkdir()
    with vertex_server(tmp_path / "server") as server:
        yield server


@pytest.mark.slow
def test_kubeflow_from_an_empty_namespace_to_a_schedule(kubeflow: KubeflowServer, tmp_path: Path) -> None:
    kubeflow.multi_user = True
    kubeflow.token = "the-token"
    replace = {
        "https://kubeflow.example.org/pipeline": kubeflow.host,
        "gs://my-bucket/flights/*.csv.gz": str(FLIGHTS),
    }
    said = follow("kubeflow.md", tmp_path, replace, {"KUBEFLOW_TOKEN": "the-token", "HOME": str(tmp_path)})
    (run,) = kubeflow.runs.values()
    assert run["display_name"] == "train-and-register-first"
    beside = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert beside["exec-train-lightgbm"]["secretAsEnv"][0]["secretName"] == "mlflow"
    core = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert core["exec-train-lightgbm"]["container"]["resources"]["resourceMemoryLimit"] == "32Gi"
    (schedule,) = kubeflow.recurring.values()
    assert schedule["display_name"] == "train-and-register-flights"
    assert schedule["status"] == "ENABLED"
    pods = schedule["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (token,) = yaml.safe_load_all((tmp_path / "token.yaml").read_text())
    label = token["spec"]["selector"]["matchLabels"]
    assert pods["exec-trigger-pipeline"]["podMetadata"]["labels"] == label, "the step that submits gets its token"
    (mount,) = token["spec"]["volumeMounts"]
    assert f"{mount['mountPath']}/token" == KF_PIPELINES_SA_TOKEN_PATH, "where KFP's client looks"
    assert any("succeeded" in text for text in said)
    assert "train-and-register-flights" in said[-1]


def test_each_role_of_the_vertex_guide_is_given_by_a_command() -> None:
    table = re.findall(r"^\| (submitter|runner) \| `(roles/[\w.]+)` \|", (DOCS / "vertex.md").read_text(), re.MULTILINE)
    (script,) = [block for block in blocks("vertex.md", "bash") if "RUNNER=" in block]
    loop, rest = script.split("done\n")
    given = {("runner", role) for role in re.findall(r"\$RUNNER.*--role=(\S+)", rest)}
    given |= {
        (account, role) for role in re.findall(r"\$ACCOUNT.*--role=(\S+)", loop) for account in ("runner", "submitter")
    }
    assert given == set(table)


#: What Kubeflow's API asks of a role for each request, by its source (backend/src/apiserver/server/*_server.go).
VERBS = {
    r"GET /experiments": ("experiments", "list"),
    r"POST /experiments": ("experiments", "create"),
    r"GET /runs": ("runs", "list"),
    r"POST /runs": ("runs", "create"),
    r"GET /runs/[^/:]+": ("runs", "get"),
    r"POST /runs/[^/:]+:terminate": ("runs", "terminate"),
    r"GET /recurringruns": ("jobs", "list"),
    r"POST /recurringruns": ("jobs", "create"),
    r"POST /recurringruns/[^/:]+:enable": ("jobs", "enable"),
    r"POST /recurringruns/[^/:]+:disable": ("jobs", "disable"),
    r"DELETE /recurringruns/[^/:]+": ("jobs", "delete"),
    r"GET /pipelines(/[^/:]+/versions)?": ("pipelines", "list"),
    r"GET /pipelines/[^/:]+/versions/[^/:]+": ("pipelines", "get"),
    r"POST /pipelines/upload(_version)?": ("pipelines", "create"),
    r"GET /healthz": None,
}


def asked_for(request: str) -> tuple[str, str] | None:
    (found,) = [asked for pattern, asked in VERBS.items() if re.fullmatch(pattern, request.replace(PREFIX, ""))]
    return found


def test_the_role_of_the_guide_allows_what_is_asked_for_and_no_more(
    kubeflow: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    kubeflow.multi_user, kubeflow.states = True, ["RUNNING"]
    settings = {"host": kubeflow.host, "namespace": "team", "registry": "registry.example.org/team"}
    target = KubeflowTarget(KubeflowConfig(**settings, upload=True))
    spec = compiling.compile_spec("train_and_register")
    arguments = {
        "source": str(FLIGHTS),
        "label": "late",
        "model_name": "late-flights",
        "features": {"carrier": "category"},
    }
    run = target.submit(spec, arguments, key="k1")
    assert [each.run_id for each in target.runs()] == [run.run_id]
    planned = PlannedSchedule("nightly", spec, {**arguments, "source_version": "1"}, Schedule(cron="0 6 * * 1"))
    target.schedule(planned)
    assert [each.state for each in (target.pause("nightly"), target.resume("nightly"))] == ["paused", "active"]
    target.unschedule("nightly")
    KubeflowTarget(KubeflowConfig(**settings)).status(run.run_id)  # another process, that has not seen the version
    assert target.cancel(run.run_id).state == "interrupted"
    (text,) = [block for block in blocks("kubeflow.md", "yaml") if "kind: Role\n" in block]
    documents = {each["kind"]: each for each in yaml.safe_load_all(text)}
    rules = documents["Role"]["rules"]
    allowed = {(name, verb) for rule in rules for name in rule["resources"] for verb in rule["verbs"]}
    assert {asked_for(request) for request in kubeflow.requests} - {None} == allowed
    binding = documents["RoleBinding"]
    assert binding["roleRef"]["name"] == documents["Role"]["metadata"]["name"]
    assert [each["name"] for each in binding["subjects"]] == [documents["ServiceAccount"]["metadata"]["name"]]
    assert {each["metadata"]["namespace"] for each in documents.values()} == {"team"}


@pytest.mark.slow
def test_vertex_from_an_empty_project_to_a_schedule(vertex: VertexServer, tmp_path: Path) -> None:
    replace = {
        "project: my-project": f"project: {PROJECT}\nendpoint: {vertex.endpoint}",
        "location: europe-west4": f"location: {LOCATION}",
        "gs://my-bucket/pipelines": f"gs://{BUCKET}/pipelines",
        "gs://my-bucket/flights/*.csv.gz": str(FLIGHTS),
    }
    said = follow("vertex.md", tmp_path, replace, vertex.environment)
    (job,) = vertex.jobs.values()
    assert job.service_account == "runner@my-project.iam.gserviceaccount.com"
    assert job.labels["team"] == "flights"
    text = (tmp_path / "training.yaml").read_text()
    assert "secrets/mlflow-token/versions/1" in text
    (schedule,) = vertex.schedules.values()
    assert schedule.cron == "TZ=Europe/Amsterdam 0 6 * * 1"
    assert schedule.state.name == "ACTIVE"
    assert "train-and-register-flights" in said[-1]


def command_lines() -> list[tuple[str, str]]:
    """Every call of pipeparts in the README, in the guides and in the examples of continuous integration."""
    found = []
    for line in re.findall(r"^(?:\$ )?(pipeparts [a-z].*)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        found.append(("README.md", line.partition(" #")[0].strip()))
    for guide in sorted(DOCS.glob("*.md")):
        for block in blocks(guide.name, "console"):
            found += [(guide.name, command) for command in commands(block)]
    for path in sorted((ROOT / "configs" / "ci").glob("*.yml")):
        for line in path.read_text().splitlines():
            if match := re.search(
                r"(?:run: |- |^\s+)(pipeparts (?:compile|lint|diff|submit|schedule|publish)\b.*)", line
            ):
                found.append((path.name, match[1].partition(" > ")[0]))
    return found


@pytest.mark.parametrize(("where", "line"), command_lines())
def test_every_command_that_is_shown_is_one(where: str, line: str) -> None:
    """Its options and arguments are those of the command; nothing is run."""
    command: Any = get_command(app)
    words = shlex.split(line)[1:]
    context = command.context_class(command)
    while hasattr(command, "get_command"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"{where}: there is no command {name!r}"
        command, context = found, found.context_class(found, parent=context)
    command.parse_args(context, words)


#: What each stage does, by what stands in its commands.
STAGES = {
    "check": ("pipeparts compile", "pipeparts lint", "pipeparts diff", "--fail-on breaking", "python -m pytest"),
    "images": ("docker build", "docker push", "RepoDigests"),
    "staging": ("pipeparts submit", "--once", "--wait"),
    "production": ("pipeparts schedule create", "pipeparts publish", "--images images.yaml"),
}


def test_the_stages_of_github_follow_each_other() -> None:
    text = (ROOT / "configs" / "ci" / "github-actions.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert list(jobs) == list(STAGES)
    for name, words in STAGES.items():
        said = "\n".join(step.get("run", "") for step in jobs[name]["steps"])
        assert [word for word in words if word not in said] == [], name
    assert jobs["images"]["needs"] == "check"
    assert jobs["staging"]["needs"] == "images"
    assert set(jobs["production"]["needs"]) == {"images", "staging"}
    (output,) = jobs["images"]["outputs"]
    for name in ("staging", "production"):
        handed = jobs[name]["env"]["PIPEPARTS_IMAGES_TENSORFLOW"]
        assert handed == f"${{{{ needs.images.outputs.{output} }}}}", "what was built is what runs"
        assert jobs[name]["environment"] == name
    assert "credentials_json" not in text


def test_the_stages_of_gitlab_follow_each_other() -> None:
    document = yaml.safe_load((ROOT / "configs" / "ci" / "gitlab-ci.yml").read_text())
    assert document["stages"] == list(STAGES)
    jobs = {job["stage"]: job for job in document.values() if isinstance(job, dict) and "stage" in job}
    assert list(jobs) == list(STAGES)
    for name, words in STAGES.items():
        said = "\n".join(jobs[name]["script"])
        assert [word for word in words if word not in said] == [], name
    assert jobs["images"]["artifacts"]["reports"] == {"dotenv": "images.env"}
    assert "PIPEPARTS_IMAGES_TENSORFLOW=" in jobs["images"]["script"][-1]
    (rule,) = jobs["production"]["rules"]
    assert rule["when"] == "manual"
    assert not document["default"]["image"].endswith("-slim"), "the image has git, which `pipeparts diff` calls"
    (token,) = document[".google"]["id_tokens"].values()
    assert token["aud"].startswith("https://iam.googleapis.com/"), "what Google takes unless told another"


def test_the_image_of_the_examples_is_what_a_run_takes(kubeflow: KubeflowServer, tmp_path: Path) -> None:
    """A family by the environment, the others by the registry."""
    (tmp_path / "kubeflow.yaml").write_text(f"host: {kubeflow.host}\nregistry: registry.example/ml\n")
    image = f"registry.example/ml/training@sha256:{'0' * 64}"
    command = "compile train_and_register --target kubeflow --target-config kubeflow.yaml -o out.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "pipeparts.cli", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PIPEPARTS_IMAGES_TENSORFLOW": image},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text()))
    images = {
        name: executor["container"]["image"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
        if "container" in executor
    }
    assert images["exec-train-lightgbm"] == image
    assert images["exec-ingest-files"].startswith("registry.example/ml/pipeparts-python-data:")


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for link, part in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", path.read_text()):
        if "://" in link:
            continue
        file = path.parent / link if link else path
        assert file.exists(), f"{path.name}: {link}"
        if part:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            known = {re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert part in known, f"{path.name}: {link}#{part}"
