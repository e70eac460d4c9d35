"""A refusal for lack of a grant names the roles that have it, and the grant itself."""

import pytest
from clickhouse_driver.errors import ServerException

from adledger.pipeline.errors import InsertRefused
from adledger.schemas.roles import (
    ACCESS_DENIED,
    BILLING,
    FRAUD,
    OPERATOR,
    PUBLISHER,
    ROLES,
    WRITER,
    RoleTarget,
    grant_remedy,
    roles_with,
    single_grants,
)
from adledger.sinks.outcomes import insert_outcome
from adledger.sinks.refused import query_refused


def refusal(grant: str) -> str:
    """Return the message of ClickHouse 26.7."""
    return (
        f"DB::Exception: mia: Not enough privileges. To execute this query, it's necessary to have the grant {grant}. "
        f"(Missing permissions: {grant}). Stack trace:\n\nframes"
    )


@pytest.mark.parametrize(
    ("grant", "roles"),
    [
        ("SELECT ON adledger.dead_letters", [WRITER, FRAUD]),
        ("SELECT(lane, offset) ON adledger.dead_letters", [WRITER, FRAUD, OPERATOR]),
        ("SELECT(lane, value) ON adledger.dead_letters", [WRITER, FRAUD]),
        ("INSERT(lane, batch_no) ON ads.lane_orders", [OPERATOR]),
        ("INSERT ON adledger.rules", [OPERATOR]),
        ("ALTER DELETE ON adledger.events", [WRITER]),
        ("SHOW COLUMNS ON adledger.v_ledger", [BILLING, FRAUD, OPERATOR]),
        ("SELECT ON adledger.ledger_all", [WRITER, BILLING, FRAUD, OPERATOR]),
        ("SELECT ON adledger.v_statement", [BILLING, FRAUD, PUBLISHER]),
        ("SELECT(query_id) ON system.processes", [WRITER, OPERATOR]),
    ],
)
def test_the_roles_that_have_the_grant_are_named(grant: str, roles: list[str]) -> None:
    """Each role that may do it is named, no other, and the statement that grants it alone."""
    error = query_refused(ServerException(refusal(grant), ACCESS_DENIED))
    assert error.remedy == (
        f"use a user with the role {' or '.join(roles)} (`adledger roles sql` prints it); or GRANT {grant} TO mia"
    )


@pytest.mark.parametrize("grant", ["CREATE TABLE ON adledger.x", "SELECT ON other.t", "READ ON REMOTE"])
def test_what_no_role_may_do_needs_an_administrator(grant: str) -> None:
    """Creating tables, other tables and other servers are in no role."""
    assert "an administrator's user" in grant_remedy(refusal(grant))
    assert grant in grant_remedy(refusal(grant))


def test_another_wording_has_a_remedy_too() -> None:
    """A message that another release words otherwise points to the roles."""
    assert "adledger roles sql" in grant_remedy("DB::Exception: access denied")


def test_an_insert_that_is_refused_has_the_same_remedy() -> None:
    """A worker whose user may not write names the writer's role."""
    error = insert_outcome("events", ServerException(refusal("INSERT ON adledger.events"), ACCESS_DENIED))
    assert isinstance(error, InsertRefused)
    assert f"the role {WRITER} " in error.remedy


@pytest.mark.parametrize("role", ROLES)
def test_every_grant_of_a_role_is_found_in_it(role: str) -> None:
    """What a role is granted, table by table, on a cluster too, `roles_with` finds again."""
    for grant in single_grants(role, RoleTarget("ads", "main")):
        privileges, table = grant.rsplit(" ON ", 1)
        assert role in roles_with(privileges, table), grant
