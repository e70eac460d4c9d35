"""The pages of a worker: /livez, /readyz, /lanes, /metrics, /publishers/ID/live, and an index. They are read-only."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from faust.web import Request, Response, View

from adledger import __version__
from adledger.pipeline.control.metrics import LaneMetrics
from adledger.pipeline.control.readiness import LaneActivity, Readiness
from adledger.pipeline.control.watch import PublisherWatch

PUBLISHER_ID_MAX = 2**32 - 1
JSON_TYPE = "application/json"

SILENT_SECONDS_MAX = 15.0
"""A worker is not ready once no broker has answered for this long: leader elections and a new bootstrap take less."""

INDEX = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>adledger</title><style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 45rem; margin: 1rem auto; padding: 0 1rem }}</style></head><body>
<h1>adledger {__version__}: a worker</h1>
<ul>
<li><a href="livez">livez</a>: the process answers</li>
<li><a href="readyz">readyz</a>: its lanes move; 503 names the stalled lanes</li>
<li><a href="lanes">lanes</a>: the phase of each of its lanes</li>
<li><a href="metrics">metrics</a>: for Prometheus</li>
<li><a href="publishers/1/live">publishers/1/live</a>: the last minutes of a publisher, here number 1</li>
</ul></body></html>
"""


@dataclass(frozen=True, slots=True)
class PageData:
    """The data that the pages show."""

    joined: Callable[[], bool]
    readiness: Readiness
    publishers: PublisherWatch
    metrics: LaneMetrics
    brokers_silent_seconds: Callable[[], float]


def add_pages(app: Any, data: PageData) -> None:
    """Add the pages to a Faust app."""

    @app.page("/", name="index")
    async def index(self: View, request: Request) -> Response:  # noqa: ARG001 - Faust's signature, as below
        return self.html(INDEX)

    @app.page("/livez", name="livez")
    async def livez(self: View, request: Request) -> Response:  # noqa: ARG001
        return self.text(liveness_text(data.brokers_silent_seconds()), content_type="text/plain")

    @app.page("/readyz", name="readyz")
    async def readyz(self: View, request: Request) -> Response:  # noqa: ARG001
        ready, body = readiness_body(
            joined=data.joined(), readiness=data.readiness, silent_seconds=data.brokers_silent_seconds()
        )
        return _json(self, body, 200 if ready else 503)

    @app.page("/lanes", name="lanes")
    async def lanes(self: View, request: Request) -> Response:  # noqa: ARG001
        return _json(self, {"lanes": [_lane(lane) for lane in data.readiness.lanes()]})

    @app.page("/metrics", name="metrics")
    async def metrics(self: View, request: Request) -> Response:  # noqa: ARG001
        return self.bytes(data.metrics.render(), headers={"Content-Type": data.metrics.content_type})

    @app.page("/publishers/{publisher_id}/live", name="publisher-live")
    async def publisher_live(self: View, request: Request, publisher_id: str) -> Response:  # noqa: ARG001
        number = publisher_number(publisher_id)
        if number is None:
            why = f"a publisher is a number from 0 to {PUBLISHER_ID_MAX}"
            return _json(self, {"error": why}, 404)
        return _json(self, data.publishers.live(number))


def liveness_text(silent_seconds: float) -> str:
    """Return the text of /livez. It is ok even without brokers, which a restart would not bring back, but then names that."""
    if silent_seconds <= SILENT_SECONDS_MAX:
        return "ok\n"
    return f"ok, but no Kafka broker has answered for {silent_seconds:.0f} s\n"


def readiness_body(
    *, joined: bool, readiness: Readiness, silent_seconds: float
) -> tuple[bool, dict[str, object]]:
    """Return whether a worker is ready, and the reasons as a JSON object."""
    stalled = readiness.stalled()
    silent = silent_seconds > SILENT_SECONDS_MAX
    ready = joined and not stalled and not silent
    return ready, {
        "ready": ready,
        "joined": joined,
        "brokers_silent_seconds": round(silent_seconds) if silent else 0,
        "stalled": [_lane(lane) for lane in stalled],
        "lanes": len(readiness.lanes()),
    }


def publisher_number(text: str) -> int | None:
    """Return a publisher's number, or None if the text is not one."""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(PUBLISHER_ID_MAX)):
        return None
    number = int(text)
    return number if number <= PUBLISHER_ID_MAX else None


def _lane(lane: LaneActivity) -> dict[str, object]:
    since = datetime.fromtimestamp(lane.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "lane": lane.lane, "phase": lane.phase, "since": since, "detail": lane.detail,
        "halt_reason": lane.halt_reason, "remedy": lane.remedy,
    }  # fmt: skip


def _json(view: View, body: object, status: int = 200) -> Response:
    return view.bytes(
        orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        content_type=JSON_TYPE,
        status=status,
    )
