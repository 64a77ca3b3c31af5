"""`python -m flows.cli`: the command line without its script."""

from flows.cli.main import main

main()
