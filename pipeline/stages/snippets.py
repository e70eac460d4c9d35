"""Showing what a producer sent: bounded, and with nothing in it that a terminal or a log would interpret."""

from typing import Self

from adledger.pipeline.stages.json_text import INTEGER_DIGITS_MAX, Members

SNIPPET_CHARS_MAX = 60
"""At most this much of a value is shown, escapes included."""
MORE = "..."


def escaped(text: str) -> str:
    """Return text that is safe on a terminal and loses nothing: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def snippet(text: str) -> str:
    """Return the beginning of a text, escaped, of at most SNIPPET_CHARS_MAX characters and then MORE."""
    shown = escaped(text[: SNIPPET_CHARS_MAX + 1])
    return shown if len(shown) <= SNIPPET_CHARS_MAX else shown[:SNIPPET_CHARS_MAX] + MORE


def bytes_snippet(value: bytes) -> str:
    r"""Return the beginning of bytes likewise; those that are not UTF-8 as `\xNN`."""
    return snippet(value[: 4 * SNIPPET_CHARS_MAX + 4].decode("utf-8", "backslashreplace"))


class SentFloat(float):
    """A number with a fraction or an exponent, and how it was written."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Return the number that `text` is."""
        found = super().__new__(cls, text)
        found.text = text
        return found


def json_snippet(value: object) -> str:
    """Return a JSON value, as adledger.pipeline.stages.json_text.parse returns it, in short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return snippet(value.text if isinstance(value, SentFloat) else repr(value))
    assert isinstance(value, list)
    if isinstance(value, Members):
        return f"an object of {len(value):,} field{'' if len(value) == 1 else 's'}"
    return f"an array of {len(value):,}"


def _string(value: str) -> str:
    begin = value[: SNIPPET_CHARS_MAX + 1].replace("\\", "\\\\").replace('"', '\\"')
    shown = escaped(begin)
    size = len(value.encode("utf-8", "surrogatepass"))
    if len(shown) > SNIPPET_CHARS_MAX:
        return f'"{shown[:SNIPPET_CHARS_MAX]}"{MORE} ({size:,} bytes)'
    return f'"{shown}"' if size == len(value) else f'"{shown}" ({size:,} bytes)'


def _integer(value: int) -> str:
    if abs(value) >= 10**INTEGER_DIGITS_MAX:
        return f"an integer of more than {INTEGER_DIGITS_MAX:,} digits"
    digits = str(value)
    if len(digits) <= SNIPPET_CHARS_MAX:
        return digits
    return f"{digits[:SNIPPET_CHARS_MAX]}{MORE} ({len(digits.lstrip('-')):,} digits)"
