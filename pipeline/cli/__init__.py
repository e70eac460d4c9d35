"""The command `adledger`: one module a command, each imported only when it is used."""

from adledger.pipeline.cli.app import main

__all__ = ["main"]
