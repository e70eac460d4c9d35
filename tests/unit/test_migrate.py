"""Which migrations are still to be applied, and when none may be."""

from pathlib import Path

import pytest

from adledger.pipeline.errors import SinkError
from adledger.schemas.migrate import Migration, load, pending

MIGRATIONS = [Migration(n, f"m{n}", "SELECT 1", f"sum{n}") for n in (1, 2, 3)]


def test_recorded_migrations_are_not_applied_again() -> None:
    """The rest follow in order; a version that two workers recorded at once counts once."""
    assert pending(MIGRATIONS, [], "db") == MIGRATIONS
    assert pending(MIGRATIONS, [(1, "sum1"), (1, "sum1"), (2, "sum2")], "db") == MIGRATIONS[2:]
    assert pending(MIGRATIONS, [(n, f"sum{n}") for n in (1, 2, 3)], "db") == []


def test_an_edited_migration_is_refused_by_name() -> None:
    """The error says which file differs from what was applied, and the remedy."""
    with pytest.raises(SinkError, match=r"0002_m2\.sql") as e:
        pending(MIGRATIONS, [(1, "sum1"), (2, "other")], "db")
    assert "restore" in e.value.remedy


def test_a_database_ahead_of_the_code_is_refused() -> None:
    """An older release must not write to newer tables."""
    with pytest.raises(SinkError, match="at migration 4"):
        pending(MIGRATIONS, [(4, "sum4")], "db")


@pytest.mark.parametrize("names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["1_a.sql"], ["0001_A.sql"]])
def test_files_are_numbered_without_a_gap(tmp_path: Path, names: list[str]) -> None:
    """A gap or a malformed name is an error in the repository."""
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ValueError, match="expected"):
        load(tmp_path)


def test_crlf_line_endings_are_not_an_edit(tmp_path: Path) -> None:
    """A checkout with CRLF has the same checksums."""
    unix, windows = tmp_path / "a", tmp_path / "b"
    for folder, newline in ((unix, "\n"), (windows, "\r\n")):
        folder.mkdir()
        (folder / "0001_a.sql").write_text("SELECT 1\n", newline=newline)
    assert load(unix) == load(windows)
