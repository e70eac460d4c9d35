"""The report's templates: files under templates/, whose values are escaped, and replaced where XML forbids them."""

import re
from functools import cache
from typing import Any

from adledger.loadtest.report import figures
from adledger.pipeline.extras import require

_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def render(template: str, **values: Any) -> str:
    """Return a template filled in. Raises UsageError where Jinja is not installed."""
    return str(_environment().get_template(template).render(values))


@cache
def _environment() -> Any:
    require("loadtest", "the report of a load test")
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - of an extra

    environment = Environment(
        loader=PackageLoader(__package__ or ""), autoescape=True, undefined=StrictUndefined, finalize=_printable,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {
        "moment": figures.moment, "number": figures.number, "plain": figures.plain, "unbroken": _unbroken,
    }  # fmt: skip
    return environment


def _printable(value: Any) -> Any:
    """Return a value whose control characters and half surrogates show as replaced: HTML and XML forbid them."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value) if type(value) is str else value


def _unbroken(text: str) -> str:
    """Return a text whose numbers stay with their units when a line ends between them."""
    return re.sub(r"(?<=\d) (?=(?:s|ms|µs|cores)\b)", "\u00a0", text)
