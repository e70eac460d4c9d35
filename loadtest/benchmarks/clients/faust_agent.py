"""A naive Faust agent: a Record a message, `async for`, a set and a dictionary of Python's."""

import os

import faust
from tally import Minute, arguments, nanos

servers, topic, tally = arguments()
app = faust.App(
    "contestant-faust-" + tally.folder.name, broker=f"kafka://{servers}", store="memory://", web_enabled=False,
    consumer_auto_offset_reset="earliest", topic_disable_leader=True, datadir=str(tally.folder / "faust"),
)  # fmt: skip


class AgentEvent(faust.Record, serializer="json"):
    """The fields that the job needs; Faust ignores the others."""

    event_type: str
    event_id: str
    event_time: int
    publisher_id: int
    price_micros: int


@app.agent(app.topic(topic, value_type=AgentEvent))
async def count(events: faust.Stream[AgentEvent]) -> None:
    """Count the first of each event id."""
    async for event in events:
        tally.was_read(1)
        if event.event_id not in tally.seen:
            tally.seen.add(event.event_id)
            key: Minute = event.publisher_id, event.event_time // 60_000 * 60
            counts = tally.minutes.setdefault(key, [0, 0, 0])
            counts[event.event_type == "click"] += 1
            counts[2] += nanos({"price_micros": event.price_micros, "event_type": event.event_type})
        if tally.done:
            tally.finish()
            os._exit(0)  # the bench is over; Faust would go on forever


faust.Worker(app, loglevel="warning").execute_from_commandline()
