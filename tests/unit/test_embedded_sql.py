"""What the embedded server understands of SQL: as little as it needs, and never wrongly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.sinks.embedded.insert_query import parse_insert
from adledger.sinks.embedded.sql import (
    format_clause,
    processes_reads,
    quote,
    quote_name,
    replaced,
    second_statement,
    tokens,
    without_format,
)


@given(st.binary(max_size=200))
def test_tokens_cover_the_text(sql):
    """Any text is tokens separated by spaces and comments only: none is lost, none overlaps."""
    at = 0
    for token in tokens(sql):
        assert at <= token.start < token.end
        assert sql[token.start : token.end] == token.text
        assert not list(tokens(sql[at : token.start]))
        at = token.end


@given(st.binary(max_size=50).filter(lambda b: b"\0" not in b))
def test_a_quoted_text_is_one_token(text):
    """Nothing within quotes ends them."""
    for quoted in (quote(text), quote_name(text)):
        assert [token.text for token in tokens(b"SELECT " + quoted + b" x")] == [b"SELECT", quoted, b"x"]


@pytest.mark.parametrize(
    ("sql", "source", "columns", "row_format", "rows"),
    [
        (b"INSERT INTO t VALUES", b"t", b"*", b"Values", b""),
        (b"insert into d.t (a, `b c`) values (1, ')')", b"d.t", b"a, `b c`", b"Values", b" (1, ')')"),
        (b"INSERT INTO TABLE `d x`.t FORMAT CSV\n1,2", b"`d x`.t", b"*", b"CSV", b"\n1,2"),
        (b"INSERT INTO t (* EXCEPT(a)) VALUES", b"t", b"* EXCEPT(a)", b"Values", b""),
        (b"INSERT INTO t SETTINGS a=1, b='VALUES' FORMAT Native", b"t", b"*", b"Native", b""),
        (b"INSERT INTO FUNCTION null('a Int8, b String') (a) VALUES", b"null('a Int8, b String')", b"a", b"Values", b""),
        (b"/* VALUES */ INSERT INTO t -- FORMAT x\n (a) FORMAT Native", b"t", b"a", b"Native", b""),
    ],
)  # fmt: skip
def test_an_insert_with_rows_is_split_into_its_parts(sql, source, columns, row_format, rows):
    """The parts are target, columns, format, and the start of the rows."""
    insert = parse_insert(sql)
    assert insert is not None
    assert (insert.source, insert.columns, insert.format, sql[insert.data_at :]) == (
        source,
        columns,
        row_format,
        rows,
    )


@pytest.mark.parametrize(
    "sql",
    [
        b"SELECT 1", b"", b"INSERT INTO t SELECT 1", b"INSERT INTO t (a) SELECT 1 FORMAT CSV", b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t WITH 1 AS x SELECT x", b"INSERT INTO t FROM INFILE 'f' FORMAT CSV", b"INSERT INTO t",
        b"INSERT INTO t (a) SETTINGS x = 1 SELECT 1", b"INSERT", b"INSERT INTO", b"INSERT INTO VALUES", b"-- INSERT INTO t VALUES",
    ],
)  # fmt: skip
def test_statements_without_rows_are_left_to_the_engine(sql):
    """An INSERT ... SELECT, an insert from a file, and any other or incomplete statement go to the engine."""
    assert parse_insert(sql) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_an_insert_from_a_file_keeps_table_and_columns(table, column):
    """The statement for the engine names the same table and columns, however odd their names."""
    sql = b"INSERT INTO " + quote_name(table.encode()) + b" (" + quote_name(column.encode()) + b") VALUES"
    insert = parse_insert(sql)
    assert insert is not None
    texts = [token.text for token in tokens(insert.from_file("/a b'c", b"Native"))]
    assert texts == [
        b"INSERT", b"INTO", quote_name(table.encode()), b"(", quote_name(column.encode()), b")", b"FROM", b"INFILE",
        b"'/a b\\'c'", b"COMPRESSION", b"'none'", b"FORMAT", b"Native",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "name", "rest"),
    [
        (b"SELECT 1 FORMAT JSON", b"JSON", b"SELECT 1 "),
        (b"SELECT 1 format `CSV` ; ", b"`CSV`", b"SELECT 1  "),
        (b"SELECT 1 FORMAT Null SETTINGS a=1", b"Null", b"SELECT 1  SETTINGS a=1"),
        (b"SELECT format FROM t", None, b"SELECT format FROM t"),
        (b"SELECT 'x FORMAT CSV'", None, b"SELECT 'x FORMAT CSV'"),
        (b"SELECT 1 AS format;", None, b"SELECT 1 AS format"),
    ],
)
def test_a_format_clause_is_found_and_can_be_left_out(sql, name, rest):
    """Over the native protocol the client formats; the clause is at the end, before SETTINGS."""
    clause = format_clause(sql)
    assert (clause[1].text if clause else None) == name
    assert without_format(sql).split() == rest.split()


def test_a_second_statement_is_noticed():
    """A semicolon at the end or within a string begins no statement."""
    assert second_statement(b"SELECT ';'; -- ;\n") is None
    assert second_statement(b"SELECT 1; SELECT 2") == 10


def test_reads_of_the_process_list_are_found():
    """They are found however the name is quoted, and not within strings."""
    sql = b"SELECT 'system.processes' FROM system.processes AS p, `system` . \"processes\", system.parts"
    assert (
        replaced(sql, processes_reads(sql), b"X") == b"SELECT 'system.processes' FROM X AS p, X, system.parts"
    )
