"""The command `pipeparts`.

A module holds the commands of one kind. Anything heavier than typer is imported where it is used: the command answers
`--help` at once.
"""

from pipeparts.cli import (  # noqa: F401 (they register their commands)
    catalog_commands,
    diff_command,
    lint_command,
    local_commands,
    publish_command,
    remote_commands,
)
from pipeparts.cli.app import app, main

__all__ = ["app", "main"]
