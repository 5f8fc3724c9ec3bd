"""The Docker runner: each step of a local run in a container of the image that the compiled pipeline names.

A step's command becomes one that starts `docker run` with it (`docker_step`), so that whatever runs the steps, their
records, logs, cache and ends stay as without containers.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.targets.local_spec import Spec, family_of, function_of, interpreter_variable

#: What the images' own user is, and so who the steps are where this process is root: no step is.
IMAGE_USER = (10001, 10001)

#: The environment variable with what `docker_step` has to know of the run, as JSON.
SETTINGS_VARIABLE = "PIPEPARTS_DOCKER"
#: The interpreter that runs `docker_step`; in a variable, so that no path gets into the cache's key.
INTERPRETER_VARIABLE = "PIPEPARTS_DOCKER_PYTHON"
#: Where the step's wrapper is mounted: this release's, also in images that hold none.
WRAPPER = "/run/pipeparts/local_step.py"

#: Runs here, and not in a container: it starts another run, with containers of its own.
_STARTS_RUNS = "trigger_pipeline"
_LABEL = "io.pipeparts.run"
#: Variables that a step has from this process, besides those that the configuration names.
_PASSED = ("PIPEPARTS_", "MLFLOW_", "_MLFLOW_", "TF_CPP_", "AWS_", "GOOGLE_", "FSSPEC_")
_NOT_PASSED = ("PIPEPARTS_PYTHON_", "PIPEPARTS_DOCKER", "PIPEPARTS_RUN_GROUP", "PIPEPARTS_CACHE")


@dataclasses.dataclass(frozen=True)
class DockerRunner:
    """What the steps of one run are given.

    Attributes:
        images: The image of each executor's label.
        run_id: The run; its containers have it as a label.
        config: The configuration of the run.
    """

    images: Mapping[str, str]
    run_id: str
    config: LocalConfig

    def rewrite(self, local_spec: Spec) -> Spec:
        """A localized spec whose steps run in containers; the one that is given stays as it is."""
        rewritten = copy.deepcopy(local_spec)
        for _, container in compiling.containers(rewritten):
            if function_of(container) == _STARTS_RUNS:
                continue
            command = [
                part.replace("-m pipeparts.runtime.local_step", WRAPPER) for part in container.get("command", [])
            ]
            names = ",".join(variable["name"] for variable in container.get("env", []))
            script = f'exec "${INTERPRETER_VARIABLE}" -m pipeparts.targets.docker_step "$0" "$@"'
            container["command"] = ["sh", "-c", script, container["image"], names, *command]
        return rewritten

    def environment(self, root: Path) -> dict[str, str]:
        """What the environment of the steps' commands has besides.

        Args:
            root: The folder for runs, which the steps write into.
        """
        settings = {
            "run": self.run_id,
            "root": str(root),
            "network": self.config.docker_network,
            "volumes": [_volume(text) for text in self.config.docker_volumes],
            "environment": sorted(self.config.environment),
            "stop_seconds": self.config.stop_seconds / 2,
        }
        return {
            SETTINGS_VARIABLE: json.dumps(settings),
            INTERPRETER_VARIABLE: sys.executable,
            # A step that starts a run of its own starts one like this.
            "PIPEPARTS_RUNNER": "docker",
            "PIPEPARTS_DOCKER_NETWORK": self.config.docker_network,
            "PIPEPARTS_DOCKER_VOLUMES": ",".join(self.config.docker_volumes),
        }

    def give_folders(self, root: Path, run_folder: Path) -> None:
        """Lets the steps' user write where steps write: below the root folder, but not into other runs."""
        if os.getuid() != 0:
            return
        for path in [root, run_folder, run_folder / "steps"]:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, *IMAGE_USER)
        for path in root.iterdir():
            if path.name not in ("runs", "cache"):
                give(path)

    def remove_containers(self) -> None:
        """Ends what still runs of the run."""
        found = ask_docker(["ps", "--all", "--quiet", "--filter", f"label={_LABEL}={self.run_id}"]).stdout.split()
        if found:
            ask_docker(["rm", "--force", "--volumes", *found])


def prepare(spec: Spec, config: LocalConfig, *, run_id: str) -> DockerRunner:
    """Looks whether docker answers and has (or can fetch) each image, before anything runs.

    Args:
        spec: The compiled pipeline. Families without an image get the one that `make images` builds.
        config: The configuration.
        run_id: The run.

    Raises:
        InputError: Where an image is missing, or a volume is no folder.
        ServiceError: Where docker does not answer.
    """
    resolved = compiling.resolve_images(spec, compiling.default_images(spec))
    images = {label: str(container["image"]) for label, container in compiling.containers(resolved)}
    runner = DockerRunner(images, run_id, config)
    for text in config.docker_volumes:
        _volume(text)
    answer = ask_docker(["version", "--format", "{{.Server.Version}}"])
    if answer.returncode != 0:
        raise ServiceError(
            "docker does not answer",
            parameter="runner",
            received=answer.stderr.strip(),
            hint="start its daemon, or run without --runner docker",
        )
    for label, image in images.items():
        _require_image(image, step=label.removeprefix("exec-"))
    return runner


def _require_image(image: str, *, step: str) -> None:
    if ask_docker(["image", "inspect", image]).returncode == 0:
        return
    answer = ask_docker(["pull", "--quiet", image])
    if answer.returncode != 0:
        raise InputError(
            "there is no such image here, and it cannot be fetched",
            parameter=step,
            received=f"{image}: {answer.stderr.strip()}",
            allowed="an image that docker has, or that its registry gives",
            hint=f"make images FAMILY={family_of(image)}" if image.startswith("pipeparts-python-") else None,
        )


def ask_docker(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Asks docker something.

    Raises:
        ServiceError: Where there is no docker.
    """
    if shutil.which("docker") is None:
        raise ServiceError(
            "there is no docker on this machine",
            parameter="runner",
            allowed="the command `docker` on the path",
            hint="run without --runner docker: no container is needed then",
        )
    return subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)


def run_command(
    settings: Mapping[str, Any], image: str, command: Sequence[str], *, environ: Mapping[str, str], names: Sequence[str]
) -> tuple[str, list[str]]:
    """The container's name, and the command that runs a step in it.

    Args:
        settings: What `DockerRunner.environment` wrote.
        image: The image.
        command: What runs inside; its first word takes the place of the image's entry point.
        environ: The environment of the step's command.
        names: The variables that the compiled step has of its own.
    """
    name = f"pipeparts-{settings['run']}-{secrets.token_hex(4)}"
    user = IMAGE_USER if os.getuid() == 0 else (os.getuid(), os.getgid())
    wrapper = Path(__file__).parents[1] / "runtime" / "local_step.py"
    volumes = [*settings["volumes"], f"{settings['root']}:{settings['root']}", f"{wrapper}:{WRAPPER}:ro"]
    passed = {
        variable
        for variable in environ
        if variable in {*names, *settings["environment"]}
        or (variable.startswith(_PASSED) and not variable.startswith(_NOT_PASSED))
    }
    options = [
        *("--rm", "--interactive", "--init", "--no-healthcheck", "--name", name),
        *("--label", f"{_LABEL}={settings['run']}"),
        *("--user", f"{user[0]}:{user[1]}", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--read-only", "--volume", "/tmp", "--env", "HOME=/tmp", "--workdir", str(Path.cwd())),
        *("--network", str(settings["network"])),
        *(word for volume in volumes for word in ("--volume", str(volume))),
        # The values stay off the command line, which every process of the machine can read.
        *(word for variable in sorted(passed) for word in ("--env", variable)),
        *("--env", f"{interpreter_variable(family_of(image))}=python3", "--env", "PIPEPARTS_STEP_LINK=stdin"),
    ]
    return name, ["docker", "run", *options, "--entrypoint", command[0], image, *command[1:]]


def give(path: Path) -> None:
    """Gives a file, or a folder with all in it, to the steps' user, as far as it is root's."""
    for item in [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else [])]:
        if item.lstat().st_uid == 0:
            os.chown(item, *IMAGE_USER, follow_symlinks=False)


def _volume(text: str) -> str:
    folder, colon, mode = text.partition(":")
    path = Path(folder).expanduser().resolve()
    if not path.exists() or (colon and mode not in ("ro", "rw")):
        raise InputError(
            "not a folder that the steps can be given",
            parameter="docker_volumes",
            allowed="FOLDER, FOLDER:ro or FOLDER:rw, of a folder that exists",
            received=text,
        )
    about = path.stat()
    if os.getuid() == 0 and path.is_dir() and about.st_uid != IMAGE_USER[0] and not about.st_mode & stat.S_IXOTH:
        raise InputError(
            "a folder that the steps' user cannot enter",
            parameter="docker_volumes",
            where=str(path),
            allowed="a folder that others than its owner can enter: steps do not run as root",
            received=stat.filemode(about.st_mode),
            hint=f"chmod o+rx {path}",
        )
    return f"{path}:{path}:{mode or 'ro'}"
