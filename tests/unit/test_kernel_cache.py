"""The cache of compiled kernels is named after everything that is compiled into them (ADR 6)."""

import ast
import re
from pathlib import Path

from adledger.pipeline.kernels.jit import ROOT, SOURCES

CI = ROOT / ".github" / "workflows" / "ci.yml"


def imported_files(path: Path) -> set[Path]:
    """Return our files that a module's import statements name, wherever in the module they are."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    ours = (ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py") for name in names if "." in name)
    return {p for p in ours if p.is_file()}


def test_the_key_covers_every_module_that_a_kernel_imports():
    """Constants are compiled in, so every module of ours that a kernel imports, however indirectly, is part of the key."""
    key = {path for pattern in SOURCES for path in ROOT.glob(pattern)}
    todo = {path for pattern in SOURCES if "kernels" in pattern for path in ROOT.glob(pattern)}
    assert len(todo) > 20
    reached: set[Path] = set()
    while todo:
        path = todo.pop()
        reached.add(path)
        todo |= imported_files(path) - reached
    missing = sorted(p.relative_to(ROOT).as_posix() for p in reached - key)
    assert missing == [], f"add to SOURCES in pipeline/kernels/jit.py: {', '.join(missing)}"
    assert ROOT / "pipeline" / "records" / "batch_format.py" in reached


def test_ci_keeps_compiled_kernels_under_the_same_key():
    """CI restores compiled kernels only where the sources that name the folder are unchanged."""
    hashed = re.search(r"key: kernels-.*hashFiles\((.*?)\)", CI.read_text("utf-8"))
    assert hashed, "ci.yml keeps no compiled kernels"
    assert set(re.findall(r"'([^']*)'", hashed.group(1))) - {"constraints.txt"} == set(SOURCES)
