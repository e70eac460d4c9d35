"""Import rules: one list, in pyproject.toml as contracts and in docs/architecture.md as a table."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| .+ \| (.+?) \|$", re.MULTILINE)


def contracts() -> list[dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]


def layers() -> list[tuple[list[str], bool]]:
    """Return (packages, whether they may import each other) of each layer, the lowest first."""
    (found,) = (c["layers"] for c in contracts() if c["type"] == "layers")
    return [(re.findall(r"[\w.]+", layer), ":" in layer) for layer in reversed(found)]


def may_import(layer: int, package: str, siblings: bool) -> str:
    """Return what the page says of a package, derived from the contracts."""
    if layer == 1:
        return "each other" if siblings else "nothing of ours"
    not_these = sorted(
        module.removeprefix("adledger.").replace(".", "/")
        for contract in contracts()
        if contract["type"] == "forbidden" and package in contract["source_modules"]
        for module in contract["forbidden_modules"]
    )
    below = "layer 1" if layer == 2 else f"layers 1 to {layer - 1}"
    return below + (
        f", but not {', '.join(not_these)}" if not_these else ", and each other" if siblings else ""
    )


def module(link: str) -> str:
    return "adledger." + link.removeprefix("adledger/").rstrip("/").removesuffix(".py").replace("/", ".")


def test_the_page_and_the_contracts_are_one_list():
    """Each row of the page's table names a package, its layer and what it may import, as the contracts do."""
    expected = {
        (number, package, may_import(number, package, siblings))
        for number, (packages, siblings) in enumerate(layers(), 1)
        for package in packages
    }
    documented = {
        (int(number), module(re.sub(r"\\\\?", "", target)), rule)
        for number, packages, rule in ROW.findall(PAGE.read_text("utf-8"))
        for target in re.findall(r"\]\(\.\./([^)]+)\)", packages)
    }
    assert documented == expected


def test_every_package_has_a_layer():
    """A new package or module of pipeline/ must be put into a layer, or the contracts would not cover it."""
    placed = {package for packages, _ in layers() for package in packages}
    found = {
        f"adledger.pipeline.{path.stem}"
        for path in (ROOT / "pipeline").iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert found | {"adledger.__main__", "adledger.schemas", "adledger.sinks", "adledger.loadtest"} == placed
