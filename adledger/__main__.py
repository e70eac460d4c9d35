"""`python -m adledger`: the command where its script is not on the PATH."""

from adledger.pipeline.cli import main

main()
