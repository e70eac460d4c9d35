"""A real headless browser for pages: measures its layout, and takes pictures.

python -m tests.support.browser PAGE.html PICTURE.png [WIDTH [HEIGHT]]

takes one. No driver and no DevTools: a harness page holds the page in a frame of the requested width, measures it with a
script, writes the result as JSON into its own document, and Chromium dumps that. Files only, no port.
"""

import html
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from adledger.pipeline.errors import UsageError
from tests.support.services import missing

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_SECONDS = 120
PAGE_MS = 2_000
"""Virtual time in which the page has settled; it does not run by the clock."""

HARNESS = """<!doctype html><html><head><meta charset="utf-8"><style>
html, body {{ margin: 0 }} iframe {{ border: 0; display: block; width: {width}px; height: {height}px }}
</style></head><body><iframe src="{source}"></iframe><pre id="found"></pre><script>
addEventListener("load", () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  const wide = [...page.querySelectorAll("body *")].filter(e => {{
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && (box.right > {width} + 0.5 || box.left < -0.5);
  }}).map(e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 60));
  const clipped = [...page.querySelectorAll("body *")].filter(e =>
    e.namespaceURI === root.namespaceURI && e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline"
  ).map(e => e.tagName + "." + (e.getAttribute("class") || ""));
  const drawn = [...page.querySelectorAll("svg.plot")].map(svg => ({{
    key: svg.closest("figure").id, title: svg.querySelector("title").textContent,
    width: svg.getBoundingClientRect().width, height: svg.getBoundingClientRect().height,
    lines: [...svg.querySelectorAll("path")].map(path => path.getTotalLength()),
    texts: [...svg.querySelectorAll("text.x")].map(t => t.getBoundingClientRect()).map(b => [b.left, b.right]),
  }}));
  const fetched = [...page.querySelectorAll("script, link, img, iframe, object, embed")].length;
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.scrollWidth, height: root.scrollHeight, wide, clipped, drawn, fetched,
    text: page.body.innerText, ground: getComputedStyle(page.body).backgroundColor,
  }});
}});
</script></body></html>"""


@dataclass(frozen=True, slots=True)
class RenderedPage:
    """How the browser laid out a page at a width: `wide` and `clipped` name what overflows."""

    width: int
    height: int
    wide: list[str]
    clipped: list[str]
    drawn: list[dict[str, Any]]
    fetched: int
    text: str
    ground: str


class Browser:
    """Chromium; its profile lives in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Skips the test (in CI: fails it) where there is no Chromium."""
        found = next((path for name in NAMES if (path := shutil.which(name))), None)
        if found is None:
            missing("Chromium", UsageError("there is none", remedy="on Debian: apt-get install chromium"))
        self._program, self._folder = found, folder

    def look(self, page: Path, width: int, *, dark: bool = False) -> RenderedPage:
        """Lay out the page at a width, and measure it."""
        out = self._run(self._harness(page, width, 2_000).resolve().as_uri(), "--dump-dom", dark=dark)
        found = out.rpartition('<pre id="found">')[2].partition("</pre>")[0]
        assert found.startswith("{"), f"the harness did not come to its end: {out[-500:]}"
        return RenderedPage(**json.loads(html.unescape(found)))

    def picture(self, page: Path, width: int, height: int, to: Path, *, dark: bool = False) -> Path:
        """Write a PNG of the page at a width."""
        harness = self._harness(page, width, height)
        self._run(
            harness.resolve().as_uri(),
            f"--screenshot={to}",
            f"--window-size={max(width, 500)},{height}",
            dark=dark,
        )
        return to

    def visit(self, url: str) -> str:
        """Open a page by its address, let its scripts run, and return the resulting document."""
        with subprocess.Popen(
            self._command(url, "--dump-dom", dark=False), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env={**os.environ, "HOME": str(self._folder)}, start_new_session=True,
        ) as running:  # fmt: skip
            alarm = threading.Timer(PATIENCE_SECONDS, os.killpg, (running.pid, signal.SIGKILL))
            alarm.start()
            assert running.stdout is not None
            document = ""
            while "</html>" not in document and (line := running.stdout.readline()):
                document += line
            alarm.cancel()
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # it may wait for connections that pages keep
        return document

    def _harness(self, page: Path, width: int, height: int) -> Path:
        harness = self._folder / f"harness-{width}.html"
        source = html.escape(page.resolve().as_uri())
        harness.write_text(HARNESS.format(width=width, height=height, source=source), "utf-8")
        return harness

    def _run(self, url: str, *arguments: str, dark: bool) -> str:
        done = subprocess.run(
            self._command(url, *arguments, dark=dark), capture_output=True, text=True, check=False,
            timeout=PATIENCE_SECONDS, env={**os.environ, "HOME": str(self._folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2_000:]
        return done.stdout

    def _command(self, url: str, *arguments: str, dark: bool) -> list[str]:
        return [
            self._program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-component-update", "--allow-file-access-from-files", f"--virtual-time-budget={PAGE_MS}",
            f"--user-data-dir={self._folder / 'profile'}",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            *arguments, url,
        ]  # fmt: skip


def main(page: str, picture: str, width: str = "1280", height: str = "1280") -> None:
    """Take a picture of a page's top, as the documentation shows it."""
    with TemporaryDirectory() as folder:
        Browser(Path(folder)).picture(Path(page), int(width), int(height), Path(picture).resolve())


if __name__ == "__main__":
    main(*sys.argv[1:])
