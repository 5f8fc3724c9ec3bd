"""Runs a step's command with what its platform cannot give it: `python3 -m pipeparts.runtime.launch ... -- COMMAND`.

Vertex AI has no secrets and no limit of time for a step. Its variant of a pipeline has this in front of the step's
command, with the names of the secrets' versions; their values are read here, when the step starts, and are in the
environment of its process alone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from pipeparts.runtime.errors import PipepartsError
from pipeparts.runtime.secret_manager import access_secret

#: How long a command that is told to stop has for its clean-up.
GRACE_SECONDS = 30.0
#: The exit code of a command whose time was over, as coreutils' `timeout` has it.
TIMED_OUT = 124
_FAILED = 1


def main(argv: list[str]) -> int:
    """Runs a command.

    Args:
        argv: The options, `--`, and the command with its arguments.

    Returns:
        The command's exit code; 124 where its time was over, 1 where a secret could not be read.
    """
    options, command = _parse(argv)
    environment = dict(os.environ)
    try:
        for name, version in options.secret:
            environment[name] = access_secret(version, parameter=name)
    except PipepartsError as error:
        sys.stderr.write(f"the step did not start: {error}\n")
        return _FAILED
    if options.timeout_seconds is None:
        _become(command, environment)
    return _run(command, environment, options.timeout_seconds)


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="pipeparts.runtime.launch", allow_abbrev=False)
    parser.add_argument("--timeout-seconds", type=float, help="how long the command may take")
    parser.add_argument(
        "--secret", action="append", default=[], type=_secret, metavar="NAME=VERSION", help="an environment variable"
    )
    separator = argv.index("--") if "--" in argv else len(argv)
    options, command = parser.parse_args(argv[:separator]), argv[separator + 1 :]
    if not command:
        parser.error("there is no command behind --")
    return options, command


def _secret(text: str) -> tuple[str, str]:
    name, separator, version = text.partition("=")
    if not (name and separator and version):
        raise argparse.ArgumentTypeError("NAME=projects/PROJECT/secrets/SECRET/versions/VERSION")
    return name, version


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Lets the command take this process's place."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise SystemExit(f"the step did not start: {command[0]}: {error.strerror or error}") from error


def _run(command: list[str], environment: dict[str, str], timeout_seconds: float) -> int:
    """Runs the command, and ends it and all that it started when its time is over."""
    asked: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for process in started:
            _signal(process, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        process = subprocess.Popen(command, env=environment, start_new_session=True)
    except OSError as error:
        raise SystemExit(f"the step did not start: {command[0]}: {error.strerror or error}") from error
    early = list(asked)
    started.append(process)
    for each in early:
        _signal(process, each)
    try:
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        sys.stderr.write(
            f"the step's time is over: it may take {timeout_seconds:g} seconds (setting timeout_seconds)\n"
        )
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        _signal(process, signal.SIGKILL)
        process.wait()
        return TIMED_OUT
    return code if code >= 0 else 128 - code


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to the command and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    logging.getLogger("pipeparts").setLevel(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
