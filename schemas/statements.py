"""Migration files to statements: splitting at semicolons, and filling in placeholders for one server or a cluster."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

CLUSTER_ONLY = "-- with a cluster only"
"""A statement that begins with this comment line is left out where no cluster is set."""

_TOKEN = re.compile(
    r"""
      '(?:[^'\\]|\\.|'')*'      # text
    | "(?:[^"\\]|\\.|"")*"      # quoted identifiers
    | `(?:[^`\\]|\\.|``)*`
    | --[^\n]*                  # comments
    | /\*.*?\*/
    | ;
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"\s*(?:--[^\n]*(?:\n|\Z)|/\*.*?\*/)", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the tables go. With `cluster` (its name on the server) they are Replicated, ON CLUSTER and Distributed."""

    database: str
    cluster: str | None = None

    def placeholders(self) -> dict[str, str]:
        """Return what each `{name}` of a migration stands for.

        `{shard}`, `{replica}` and `{table}` in the values are ClickHouse's own macros, filled in by each server.
        """
        if self.cluster is None:
            return {
                "database": self.database,
                "all": "",
                "cluster": "",
                "on_cluster": "",
                "merge_tree": "MergeTree",
                "replacing_merge_tree": "ReplacingMergeTree",
                "merge_tree_of_all_shards": "MergeTree",
            }
        here = f"'/clickhouse/tables/{{shard}}/{self.database}/{{table}}', '{{replica}}'"
        everywhere = f"'/clickhouse/tables/all/{self.database}/{{table}}', '{{shard}}-{{replica}}'"
        return {
            "database": self.database,
            "all": "_all",
            "cluster": self.cluster,
            "on_cluster": f"ON CLUSTER {self.cluster}",
            "merge_tree": f"ReplicatedMergeTree({here})",
            "replacing_merge_tree": f"ReplicatedReplacingMergeTree({here})",
            "merge_tree_of_all_shards": f"ReplicatedMergeTree({everywhere})",
        }


def split(sql: str) -> list[str]:
    """Return the statements of a file, without the semicolons; a file of comments alone has none.

    Semicolons in quotes and comments don't split. A comment stays with the statement that follows it.
    """
    statements, start = [], 0
    for token in _TOKEN.finditer(sql):
        if token.group() == ";":
            statements.append(sql[start : token.start()])
            start = token.end()
    statements.append(sql[start:])
    return [text for s in statements if (text := s.strip()) and _without_comments(text)]


def render(sql: str, target: Target) -> list[str]:
    """Return the statements of a file for a target. Raises ValueError naming a placeholder that is unknown."""
    return list(_render(sql, target))


def _render(sql: str, target: Target) -> Iterator[str]:
    values = target.placeholders()
    for statement in split(sql):
        if target.cluster is None and any(line.strip() == CLUSTER_ONLY for line in statement.splitlines()):
            continue
        yield _fill(_without_comments(statement), values)


def _fill(statement: str, values: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            raise ValueError(f"unknown placeholder {{{name}}}; known are {', '.join(sorted(values))}")
        return values[name]

    return _PLACEHOLDER.sub(value, statement).strip()


def _without_comments(statement: str) -> str:
    """Return the statement from its first word that is not a comment."""
    end = 0
    while comment := _COMMENT.match(statement, end):
        end = comment.end()
    return statement[end:].strip()
