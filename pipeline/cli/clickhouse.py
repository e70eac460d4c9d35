"""`adledger clickhouse`: the embedded server on its own, for several workers and for exploring."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli.output import err

if TYPE_CHECKING:
    from adledger.sinks.embedded.owner import Listening

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def clickhouse() -> None:
    """Run the embedded ClickHouse server on its own.

    \b
    Examples:
      adledger clickhouse serve data/clickhouse
    """


@app.command()
def serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The data folder; created if missing.")],
    port: Annotated[
        int,
        typer.Option("--port", metavar="N", min=0, max=65535, help="Native protocol; 0 takes a free one."),
    ] = 9000,
    http_port: Annotated[
        int, typer.Option("--http-port", metavar="N", min=0, max=65535, help="HTTP; 0 takes a free one.")
    ] = 8123,
) -> None:
    """Serve DIR on the loopback until interrupted (Ctrl-C or SIGTERM).

    It is the real engine, for demos and tests: one process, no passwords, one server per folder. Workers and other commands share it through the clickhouse:// address that it prints.

    \b
    Examples:
      adledger clickhouse serve data/clickhouse
      adledger clickhouse serve data/clickhouse --port 0 --http-port 0
      adledger clickhouse serve data/demo
    """
    from adledger.pipeline.extras import require

    require("embedded", "the embedded ClickHouse")
    from adledger.sinks.embedded import process
    from adledger.sinks.embedded.folder import served_folder

    folder = served_folder(directory)
    if folder != directory:
        err(f"{directory} is a demo's folder: serving {folder}")
    process.serve(folder, port, http_port, _announce)


def _announce(listening: "Listening") -> None:
    host, port, http_port = listening.host, listening.port, listening.http_port
    err(
        f"""process {listening.pid} listens on {host}:{port} (native) and {http_port} (HTTP); Ctrl-C stops it
  adledger query 'SHOW DATABASES' --clickhouse 'clickhouse://{host}:{port}/?http_port={http_port}'
  clickhouse-client --host {host} --port {port}
  curl 'http://{host}:{http_port}/?query=SHOW+DATABASES'"""
    )
