"""The command `adledger`: one module per command, imported only when the command is used."""

from adledger.pipeline.cli.app import main

__all__ = ["main"]
