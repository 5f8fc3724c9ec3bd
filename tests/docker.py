"""Docker for tests: what a command of it answers, and what a command in one of our images does."""

from __future__ import annotations

import subprocess

from pipeparts import compiling


def docker(*arguments: str) -> str:
    """What docker answers; a failure with its words otherwise."""
    answer = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert answer.returncode == 0, f"docker {' '.join(arguments)}: {answer.stdout}{answer.stderr}"
    return answer.stdout


def in_image(family: str, *command: str, options: tuple[str, ...] = ()) -> str:
    """Runs a command in a family's image, with no network and nothing to write to but /tmp."""
    fixed = ("--rm", "--read-only", "--network", "none", "--volume", "/tmp")
    return docker("run", *fixed, *options, compiling.image_name(family), *command)
