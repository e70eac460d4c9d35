"""`adledger version`."""

from importlib import metadata
from typing import Annotated

import typer

from adledger import __version__
from adledger.pipeline.cli.output import out_json, out_table

PARTS = ("chdb-core", "clickhouse-driver", "aiokafka", "numba", "numpy")
"""The packages whose versions a bug report should name."""


def version(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False
) -> None:
    """Print the versions of adledger and its main dependencies.

    \b
    Examples:
      adledger version
      adledger version --json
    """
    parts = {name: _installed(name) for name in PARTS}
    if as_json:
        out_json({"adledger": __version__} | parts)
        return
    out_table(("part", "version"), [("adledger", __version__), *parts.items()])


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
