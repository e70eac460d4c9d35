"""What became of an insert, derived from how it failed."""

from clickhouse_driver.errors import Error, ServerException

from adledger.pipeline.errors import InsertRefused, InsertUnknown, SinkError
from adledger.sinks.connection import NETWORK_ERRORS, first_line
from adledger.sinks.refused import refused_remedy

VIOLATED_CONSTRAINT = 469
DEADLINE_CONSTRAINT = "in_time"

TOO_MANY_PARTS = 252
NOT_ENOUGH_SPACE = 243

OUTCOME_UNKNOWN = {
    159: "TIMEOUT_EXCEEDED",
    209: "SOCKET_TIMEOUT",
    210: "NETWORK_ERROR",
    236: "ABORTED",
    319: "UNKNOWN_STATUS_OF_INSERT",
    394: "QUERY_WAS_CANCELLED",
    735: "QUERY_WAS_CANCELLED_BY_CLIENT",
    999: "KEEPER_EXCEPTION",
    1000: "POCO_EXCEPTION",
    1001: "STD_EXCEPTION",
    1002: "UNKNOWN_EXCEPTION",
}
"""Server exceptions that leave open whether the rows were stored: they may come after the part was written."""


def insert_outcome(table: str, error: Exception) -> SinkError:
    """Return the SinkError for the failure of an insert that had been sent.

    Raises the error itself if neither the server nor the network caused it: a bug.
    """
    if isinstance(error, ServerException):
        return _answered(table, error)
    if isinstance(error, (*NETWORK_ERRORS, Error)):
        return InsertUnknown(
            f"no answer to an insert into {table}: {type(error).__name__} {first_line(error)}",
            remedy="the lane resolves it automatically after the deadline; if it persists, check ClickHouse and the network",
        )
    raise error


def _answered(table: str, error: ServerException) -> SinkError:
    message = f"ClickHouse answered an insert into {table} with code {error.code}: {first_line(error)}"
    if error.code in OUTCOME_UNKNOWN:
        return InsertUnknown(message, remedy="the lane resolves it automatically after the deadline")
    if error.code == VIOLATED_CONSTRAINT and f"`{DEADLINE_CONSTRAINT}`" in error.message:
        return InsertRefused(
            message,
            late=True,
            code=error.code,
            remedy="if this recurs, ClickHouse or the network is slow: raise write_deadline_seconds",
        )
    return InsertRefused(message, code=error.code, remedy=_remedy(error.code, message))


def _remedy(code: int, message: str) -> str:
    if code == TOO_MANY_PARTS:
        return "too many inserts a second, or merges that don't keep up: raise batch_age_ms_max"
    if code == NOT_ENOUGH_SPACE:
        return "free space on ClickHouse's disk; the lane then continues automatically"
    return refused_remedy(code, message)
