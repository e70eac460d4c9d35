"""Quix Streams as its documentation writes the job: a stateful filter by id, group_by, tumbling windows of a minute."""

from datetime import timedelta
from typing import Any

import quixstreams.dataframe.windows.aggregations as agg
from quixstreams import Application, State
from tally import arguments, nanos

OUT_OF_ORDER_MAX = timedelta(minutes=10)

servers, topic, tally = arguments()
app = Application(
    broker_address=servers, consumer_group="contestant-quix-" + tally.folder.name, auto_offset_reset="earliest",
    state_dir=tally.folder / "state", loglevel="WARNING",
    # librdkafka's default of 1 s lets its queue run empty a third of the time.
    consumer_extra_config={"fetch.queue.backoff.ms": 20},
)  # fmt: skip
counted = 0


def is_first(event: dict[str, Any], state: State) -> bool:
    """Keep the ids of each message key, which duplicates share with their first."""
    tally.was_read(1)
    if state.get(event["event_id"]) is not None:
        return False
    state.set(event["event_id"], True)  # noqa: FBT003 - Quix' signature
    return True


def take(window: dict[str, Any], key: Any, _timestamp: int, _headers: Any) -> None:
    """Remember a window's newest sums; each event updates one."""
    global counted  # noqa: PLW0603 - a script's own
    counted += 1
    tally.minutes[int(key), window["start"] // 1_000] = [
        window["impressions"],
        window["clicks"],
        window["nanos"],
    ]
    if counted == tally.unique:
        app.stop()


events = app.dataframe(
    app.topic(topic, value_deserializer="json", timestamp_extractor=lambda event, *_: event["event_time"])
)
windows = (
    events.filter(is_first, stateful=True)
    .apply(
        lambda event: {
            "publisher": event["publisher_id"],
            "impressions": int(event["event_type"] == "impression"),
            "clicks": int(event["event_type"] == "click"),
            "nanos": nanos(event),
        }
    )
    .group_by("publisher")
    .tumbling_window(timedelta(minutes=1), grace_ms=OUT_OF_ORDER_MAX)
    .agg(impressions=agg.Sum("impressions"), clicks=agg.Sum("clicks"), nanos=agg.Sum("nanos"))
    .current()
)
windows.update(take, metadata=True)
app.run()
tally.finish()
