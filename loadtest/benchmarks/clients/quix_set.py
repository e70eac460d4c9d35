"""Quix Streams without its state: a set and a dictionary of Python's, which no restart survives."""

from typing import Any

from quixstreams import Application
from tally import arguments, nanos

servers, topic, tally = arguments()
app = Application(
    broker_address=servers, consumer_group="contestant-quix-set-" + tally.folder.name, auto_offset_reset="earliest",
    state_dir=tally.folder / "state", loglevel="WARNING",
    # librdkafka's default of 1 s lets its queue run empty a third of the time.
    consumer_extra_config={"fetch.queue.backoff.ms": 20},
)  # fmt: skip


def count(event: dict[str, Any]) -> None:
    """Count the first of each event id."""
    tally.was_read(1)
    if event["event_id"] not in tally.seen:
        tally.seen.add(event["event_id"])
        counts = tally.minutes.setdefault(
            (event["publisher_id"], event["event_time"] // 60_000 * 60), [0, 0, 0]
        )
        counts[event["event_type"] == "click"] += 1
        counts[2] += nanos(event)
    if tally.done:
        app.stop()


app.dataframe(app.topic(topic, value_deserializer="json")).update(count)
app.run()
tally.finish()
