"""HTML and SVG by construction: every text is escaped, unless it is markup that was made here."""

import html

VOID = {"br", "hr", "meta"}
"""Elements of HTML that have no end tag."""

_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\t\n"} | {
    0x7F: "\N{REPLACEMENT CHARACTER}"
}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Return an element. An attribute that is None is left out; `class_` is class, `stroke_width` stroke-width."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escaped(shown)}"')
    parts.append(">")
    if name not in VOID:
        parts += [joined(*children), f"</{name}>"]
    return Markup("".join(parts))


def joined(*children: str) -> Markup:
    """Return markup and texts one after the other, texts escaped."""
    return Markup("".join(child if isinstance(child, Markup) else escaped(child) for child in children))


def escaped(text: str) -> Markup:
    """Return a text as markup. What HTML and XML forbid (control characters, half surrogates) shows as replaced."""
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(encodable.translate(_CONTROLS)))
