"""Optional parts: which extra brings what, and the error that names the extra where one is missing."""

from importlib.util import find_spec

from adledger.pipeline.errors import UsageError

EXTRAS = {
    "embedded": ("chdb",),
    "loadtest": ("hdrh", "jinja2", "scipy"),
}
"""Extra of pyproject.toml -> the modules that it installs and that adledger imports."""


def require(extra: str, what: str) -> None:
    """Raise UsageError, naming the extra, where a module of it is not installed. `what` needs it."""
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise UsageError(
            f"{what} needs {', '.join(missing)}, which this installation does not have",
            remedy=f"pip install 'adledger[{extra}]'",
        )
