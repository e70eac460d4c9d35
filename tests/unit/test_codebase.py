"""Laws that hold for every file of the codebase, so that a reader can rely on them."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "schemas", "sinks", "loadtest")
MODULE_LINES_MAX = 320
FUNCTION_LINES_MAX = 60

PURE = (
    "pipeline/records",
    "pipeline/stages",
    "pipeline/kernels",
    "pipeline/control/monitor.py",
    "pipeline/control/rollups_message.py",
    "pipeline/rules",
    "pipeline/ledger/check.py",
    "pipeline/ledger/totals.py",
    "schemas",
)
"""The core: functions of values."""

IMPURE_MODULES = {
    "aiohttp", "aiokafka", "asyncio", "chdb", "clickhouse_driver", "faust", "http", "logging", "mode", "multiprocessing",
    "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl", "subprocess", "tempfile",
    "threading", "time", "uuid", "uvloop",
}  # fmt: skip
READS_FILES = {
    "pipeline/kernels/jit.py",
    "pipeline/rules/loader.py",
    "pipeline/rules/methodology.py",
    "pipeline/rules/schema.py",
    "pipeline/stages/event_schema.py",
    "schemas/migrate.py",
}
"""Of the core, these read files: kernels' sources for the cache's name, rule sets, migrations; schemas and methodology are printed."""


def modules(*packages: str) -> Iterator[Path]:
    for package in packages:
        path = ROOT / package
        yield from [path] if path.suffix else sorted(path.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_files(modules_imported: Iterator[str]) -> set[Path]:
    found = set()
    for module in modules_imported:
        base = ROOT.joinpath(*module.removeprefix("adledger.").split("."))
        found |= {p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()}
    return found


def reachable(path: Path) -> set[Path]:
    """Return every module of ours that importing this one runs."""
    seen, todo = set(), {path}
    while todo:
        here = todo.pop()
        seen.add(here)
        todo |= own_files(imported(here)) - seen
    return seen


@pytest.mark.parametrize("path", list(modules(*PURE)), ids=name)
def test_the_core_is_pure(path):
    """Modules that decide, and what they import, do no I/O, do not wait, and read no clock and no random source."""
    for used in reachable(path):
        impure = {m for m in imported(used) if m.split(".")[0] in IMPURE_MODULES}
        assert not impure, f"{name(path)} imports {', '.join(sorted(impure))}" + (
            f" through {name(used)}" if used != path else ""
        )


@pytest.mark.parametrize(
    "path", [p for p in modules(*PURE) if name(p) not in READS_FILES and "kernels" not in p.parts], ids=name
)
def test_the_core_opens_no_file_and_reads_no_clock(path):
    """Time, files and the environment are passed in. (A compiled kernel could not reach them.)"""
    forbidden = {
        "open",
        "print",
        "input",
        "now",
        "utcnow",
        "today",
        "getenv",
        "environ",
        "read_text",
        "read_bytes",
    }
    for node in ast.walk(tree(path)):
        called = (
            node.func if isinstance(node, ast.Call) else node if isinstance(node, ast.Attribute) else None
        )
        used = getattr(called, "id", None) or getattr(called, "attr", None)
        assert used not in forbidden, f"{name(path)}:{node.lineno} uses {used}"


@pytest.mark.parametrize("path", list(modules(*PACKAGES)), ids=name)
def test_a_module_is_one_idea(path):
    """A module can be read in one sitting, has a docstring, and each of its functions fits on a screen."""
    lines = path.read_text("utf-8").count("\n")
    assert lines <= MODULE_LINES_MAX, f"{name(path)} has {lines} lines"
    parsed = tree(path)
    assert not parsed.body or ast.get_docstring(parsed), f"{name(path)} does not say what it is"
    if "kernels" in path.parts:
        return  # compiled: one loop, no calls that cost
    for node in ast.walk(parsed):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{name(path)}: {node.name} has {length} lines"


def tracked_texts() -> list[Path]:
    """Return the text files that git tracks, or every text file outside a git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    suffixes = {".py", ".sql", ".md", ".toml", ".yml", ".yaml", ".svg"}
    return [p for n in names if (p := ROOT / n).suffix in suffixes and p.is_file()]


def test_nothing_is_left_for_later():
    """Unfinished work is an issue, not a comment."""
    marks = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HACK"]) + r")\b")
    left = [name(p) for p in tracked_texts() if p != Path(__file__) and marks.search(p.read_text("utf-8"))]
    assert left == []


def test_prose_and_names_use_the_glossarys_words():
    """Words that docs/glossary.md replaces, and translated phrases, are in no code, help text or page."""
    out = re.compile(
        r"\b(?:anew|again and again|by itself|so (?:many|long)|for ever|whoever|hears? of|told apart|all the same"
        r"|now and then|held against|(?:stand|stood)s? still|standing still|mend(?:s|ed|ing)?|judg(?:ed|ing)|lane clocks?"
        r"|(?:fast|slow) roads?|roads?_\w+|\w+_roads?|must-see|acceptance_hours\w*|idle_clock\w*|rules_look\w*|outage_hours\w*)\b",
        re.IGNORECASE,
    )
    kept = {
        "docs/glossary.md",
        "CHANGELOG.md",
        "pipeline/settings_layers.py",
        name(Path(__file__)),
    }  # they name them
    found = [
        f"{name(path)}:{number}: {word[0]}"
        for path in tracked_texts()
        if name(path) not in kept and "migrations" not in path.parts  # an applied migration is never edited
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for word in out.finditer(line)
    ]
    assert found == [], "docs/glossary.md has the words to use"


def test_nothing_names_one_machine():
    """A clone works anywhere: no file contains a path of the machine it was written on."""
    machine = re.compile(r"(?<![\w./-])/(work|root)/")
    named = [name(p) for p in tracked_texts() if p != Path(__file__) and machine.search(p.read_text("utf-8"))]
    assert named == []


def test_relative_links_in_the_docs_resolve():
    """Every relative link of every page leads to a file."""
    broken = [
        f"{name(page)} -> {target}"
        for page in tracked_texts()
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_imports_keep_the_contracts():
    """Imports point down, those within functions too, and no two modules import each other (docs/architecture.md)."""
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_public_class_names_are_unique():
    """A class name in a traceback, a log line or a review means exactly one class."""
    places: dict[str, list[str]] = {}
    for path in modules(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{name(path)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
