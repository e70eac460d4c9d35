"""Migration files are split into statements, and filled in, without an SQL parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.schemas.migrate import bootstrap, load
from adledger.schemas.statements import CLUSTER_ONLY, Target, render, split

ONE = Target("db")
MANY = Target("db", cluster="main")

PIECES = st.sampled_from(
    [
        "SELECT 1",
        "'a;b'",
        "'it''s; \\' ;'",
        '"x;y"',
        "`q;r`",
        "-- no; not here\n",
        "/* ; \n ; */",
        "\n",
        " x ",
        "--\n",
    ]
)


@given(st.lists(st.lists(PIECES, min_size=1, max_size=5).map(" ".join), max_size=5))
def test_splitting_is_the_inverse_of_joining(statements: list[str]) -> None:
    """Semicolons in quotes and comments don't split; only empty statements and comments alone are dropped."""
    alone = [split(s) for s in statements]
    assert all(len(parts) <= 1 for parts in alone)
    assert split(";\n".join(statements)) == [part for parts in alone for part in parts]


def test_comments_alone_are_no_statement() -> None:
    """A file that ends with a comment ends with its last statement."""
    assert split("SELECT 1; -- the end;\n/* really; */ ;;") == ["SELECT 1"]


def test_cluster_statements_are_left_out_on_one_server() -> None:
    """The marker belongs to the statement that follows it, and to no other."""
    sql = f"CREATE a {{on_cluster}};\n{CLUSTER_ONLY}\nCREATE b {{on_cluster}};\nCREATE c"
    assert render(sql, ONE) == ["CREATE a", "CREATE c"]
    assert render(sql, MANY) == ["CREATE a ON CLUSTER main", "CREATE b ON CLUSTER main", "CREATE c"]


def test_clickhouses_own_macros_stay() -> None:
    """Each server fills in {shard} and {replica}, not adledger."""
    (statement,) = render("ENGINE = {merge_tree}", MANY)
    assert statement == "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/db/{table}', '{replica}')"


def test_an_unknown_placeholder_is_named() -> None:
    """A typo in a migration fails when it is rendered, not on the server."""
    with pytest.raises(ValueError, match="on_clutser"):
        render("CREATE TABLE t {on_clutser}", ONE)


@pytest.mark.parametrize("target", [ONE, MANY])
def test_every_statement_may_run_twice(target: Target) -> None:
    """An interrupted migration is run again from its first statement, so each must be harmless the second time."""
    again = ("CREATE DATABASE IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS", "CREATE OR REPLACE VIEW")
    statements = [s for m in load() for s in render(m.sql, target)] + bootstrap(target)
    for statement in statements:
        harmless = any(w in statement for w in ("IF NOT EXISTS", " MODIFY SETTING ", " MODIFY COLUMN "))
        guarded = statement.startswith(again) or ("ALTER" in statement and harmless)
        assert guarded, statement
        assert target.cluster is None or "ON CLUSTER main" in statement, statement
