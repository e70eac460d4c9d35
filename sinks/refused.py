"""Queries that ClickHouse refused, as errors with a remedy; missing grants with the roles that have them."""

from clickhouse_driver.errors import ServerException

from adledger.pipeline.errors import SinkError, SinkUnavailable
from adledger.schemas.roles import ACCESS_DENIED, grant_remedy
from adledger.sinks.connection import first_line

NO_SUCH_NAME = frozenset({16, 60, 81})
"""No such column, table, database."""

ABORTED = 236
"""The server is shutting down."""


def query_refused(error: ServerException) -> SinkError:
    """Return the SinkError of a query that the server refused: SinkUnavailable if it is shutting down."""
    message = first_line(error)
    if error.code == ABORTED:
        return SinkUnavailable(
            f"ClickHouse ended a query with code {error.code}: {message}", remedy="try again when it is back"
        )
    return SinkError(
        f"ClickHouse refused a query with code {error.code}: {message}",
        remedy=refused_remedy(error.code, message),
    )


def refused_remedy(code: int, message: str) -> str:
    """Return what to do about a refusal, by its code and the server's message."""
    if code in NO_SUCH_NAME:
        return "adledger migrate"
    if code == ACCESS_DENIED:
        return grant_remedy(message)
    return "see ClickHouse's log"
