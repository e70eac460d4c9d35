"""A Faust agent that keeps its state as Faust's guide does, in tables with changelogs: what survives a restart."""

import os

import faust
from tally import arguments, nanos

servers, topic, tally = arguments()
app = faust.App(
    "contestant-faust-tables-" + tally.folder.name, broker=f"kafka://{servers}", store="memory://", web_enabled=False,
    consumer_auto_offset_reset="earliest", topic_disable_leader=True, topic_partitions=4,
    datadir=str(tally.folder / "faust"),
)  # fmt: skip


class TableEvent(faust.Record, serializer="json"):
    """The fields that the job needs; Faust ignores the others."""

    event_type: str
    event_id: str
    event_time: int
    publisher_id: int
    price_micros: int


seen = app.Table("seen", default=bool)
minutes = app.Table("minutes", default=list)


@app.agent(app.topic(topic, value_type=TableEvent))
async def count(events: faust.Stream[TableEvent]) -> None:
    """Count the first of each event id; each partition counts its own share of a minute, as a table's partitions need."""
    async for event in events:
        tally.was_read(1)
        if not seen[event.event_id]:
            seen[event.event_id] = True
            key = f"{events.current_event.message.partition}:{event.publisher_id}:{event.event_time // 60_000 * 60}"
            counts = minutes[key] or [0, 0, 0]
            counts[event.event_type == "click"] += 1
            counts[2] += nanos({"price_micros": event.price_micros, "event_type": event.event_type})
            minutes[key] = counts
        if tally.done:
            for key, counts in minutes.items():
                _, publisher, minute = key.split(":")
                whole = tally.minutes.setdefault((int(publisher), int(minute)), [0, 0, 0])
                for i in range(3):
                    whole[i] += counts[i]
            tally.finish()
            os._exit(0)  # the bench is over; Faust would go on forever


faust.Worker(app, loglevel="warning").execute_from_commandline()
