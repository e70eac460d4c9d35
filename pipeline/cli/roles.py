"""`adledger roles sql|users-xml`: who may do what with the tables, as ClickHouse statements or configuration."""

from typing import Annotated

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import out

roles = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Publisher = Annotated[
    list[int] | None,
    typer.Option("--publisher", metavar="ID", min=0, help="A publisher with its own login. Repeatable."),
]


@roles.callback()
def root() -> None:
    """Print roles for ClickHouse.

    The roles are pipeline_writer, billing_reader, fraud_analyst, operator and publisher, each with the least privileges that it needs.

    \b
    Examples:
      adledger roles sql --publisher 42 | clickhouse-client --multiquery
      adledger roles users-xml > /etc/clickhouse-server/users.d/adledger-roles.xml
    """


@roles.command("sql")
@options.deployment("database")
def sql(given: options.Deployment, *, publisher: Publisher = None) -> None:
    """Print the roles as SQL statements; running them twice is safe.

    \b
    Examples:
      adledger roles sql | clickhouse-client --multiquery
      adledger roles sql --database ads --publisher 42 --publisher 43
    """
    from adledger.schemas import roles as source

    target = source.RoleTarget(given.settings.database, given.settings.cluster, tuple(publisher or ()))
    out("\n".join(f"{statement};" for statement in source.sql(target)))


@roles.command("users-xml")
@options.deployment("database")
def users_xml(given: options.Deployment, *, publisher: Publisher = None) -> None:
    """Print the roles as a file for users.d, for servers that keep users in files.

    \b
    Examples:
      adledger roles users-xml > /etc/clickhouse-server/users.d/adledger-roles.xml
    """
    from adledger.schemas import roles as source

    target = source.RoleTarget(given.settings.database, given.settings.cluster, tuple(publisher or ()))
    out(source.users_xml(target).rstrip("\n"))
