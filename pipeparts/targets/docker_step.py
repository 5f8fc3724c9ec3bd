"""Runs one step in a container: `python -m pipeparts.targets.docker_step IMAGE VARIABLES COMMAND...`.

It takes the place of the step's own process: it ends as that ends, ends it when it is told to, and when the worker
is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from pipeparts.runtime import local_step
from pipeparts.targets import local_docker

#: A reference to a secret, as `runtime.secrets` reads it.
_REFERENCE = re.compile(r"\benv:([A-Za-z_][A-Za-z0-9_]*)")


def main(argv: list[str]) -> int:
    """Runs the step.

    Args:
        argv: The image, the names of the step's own variables with commas between, and the command.

    Returns:
        The container's exit code; docker's own 125 where it could not start one.
    """
    image, names, *command = argv
    settings = json.loads(os.environ[local_docker.SETTINGS_VARIABLE])
    given = local_step.argument(command, "--executor_input") or "{}"
    output_file = json.loads(given).get("outputs", {}).get("outputFile")
    if output_file:
        _give(Path(output_file).parent)
    # Variables that a parameter or a setting of the step refers to are for this step.
    step_settings = local_step.settings_of(Path(output_file).parent.name) if output_file else {}
    referred = _REFERENCE.findall(given + json.dumps(step_settings))
    name, docker = local_docker.run_command(
        settings, image, command, environ=os.environ, names=[*names.split(","), *referred]
    )
    signal.signal(signal.SIGTERM, _stop)
    local_step.end_with_worker()
    # In a session of its own: a signal to the whole group would end it before the step has cleaned up.
    process = subprocess.Popen(docker, stdin=subprocess.PIPE, start_new_session=True)
    try:
        return process.wait()
    except SystemExit as stopped:
        # The end of its standard input tells the step inside to stop.
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(settings["stop_seconds"])
        local_docker.ask_docker(["rm", "--force", "--volumes", name])
        process.wait()
        return int(str(stopped.code))


def _give(folder: Path) -> None:
    """Where this is root, the step's own folder is given to the user inside, who is not."""
    if os.getuid() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        local_docker.give(folder)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
