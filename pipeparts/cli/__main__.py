"""`python -m pipeparts.cli`: the command, where its script is not on the path."""

from pipeparts.cli import main

main()
