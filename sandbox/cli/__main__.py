"""`python -m sandbox.cli`: the command, wherever it is installed."""

from sandbox.cli.app import main

main()
