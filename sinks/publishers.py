"""The table `publishers`: each import adds a version of every publisher in it."""

# ruff: noqa: S608 - the database's name is a setting with a pattern

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adledger.sinks.connection import Client


@dataclass(frozen=True, slots=True)
class PublishersTable:
    """The table of one database, over a connection. Raises what the connection raises."""

    client: Client
    database: str

    def rows(self) -> list[tuple[int, str, str, str, str, str]]:
        """Return (id, status, name, since, author, reason) of each publisher, by id."""
        newest = ", ".join(
            f"argMax({name}, version)" for name in ("status", "name", "toString(since)", "author", "reason")
        )
        rows: list[tuple[int, str, str, str, str, str]] = self.client.execute(
            f"SELECT publisher_id, {newest} FROM {self.database}.publishers GROUP BY publisher_id ORDER BY publisher_id"
        )
        return rows

    def unknown(self) -> int:
        """Return how many publishers have events in the newest day of the rollups, but are in no import."""
        ((unknown,),) = self.client.execute(
            f"SELECT uniqExact(publisher_id) FROM {self.database}.rollup_minute WHERE clock_day >= "
            f"(SELECT max(clock_day) FROM {self.database}.rollup_minute) AND publisher_id NOT IN "
            f"(SELECT publisher_id FROM {self.database}.publishers)"
        )
        return int(unknown)

    def add(self, rows: Sequence[Sequence[Any]], author: str, reason: str) -> int:
        """Add a version of publishers, rows of (id, status, name, since); returns the version."""
        ((version,),) = self.client.execute(
            f"SELECT greatest(toUnixTimestamp64Micro(now64(6)), max(version) + 1) FROM {self.database}.publishers"
        )
        self.client.execute(
            f"INSERT INTO {self.database}.publishers "
            "(publisher_id, status, name, since, author, reason, version) VALUES",
            [(*row, author, reason, version) for row in rows],
            settings={"async_insert": 0},
        )
        return int(version)
