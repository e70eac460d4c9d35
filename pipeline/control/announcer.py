"""Sending `ad.rollups`: a batch's rollups by Faust's producer, keyed by lane, so that a lane's stay in order."""

import asyncio
from typing import Any

from aiokafka.errors import KafkaError
from faust.exceptions import FaustError

from pipeline.control.rollups_message import encode, record_key, split
from pipeline.errors import SinkUnavailable
from pipeline.lanes.ports import RolledUp


class Announcer:
    """Sends each batch's rollups to a Faust topic."""

    def __init__(self, topic: Any) -> None:
        self._topic = topic

    async def announce(self, batch: RolledUp) -> None:
        """Return when the brokers have every message of a batch. Raises SinkUnavailable."""
        messages = await asyncio.to_thread(_messages, batch)
        key = record_key(batch.lane)
        try:
            accepted = [await self._topic.send(key=key, value=message) for message in messages]
            await asyncio.gather(*accepted)
        except (KafkaError, FaustError, OSError) as error:
            raise SinkUnavailable(
                f"{self._topic.get_topic_name()} did not take the message of batch {batch.batch_no}: {error!r}",
                remedy="look at the brokers; it is sent again",
            ) from None


def _messages(batch: RolledUp) -> list[bytes]:
    parts = split(batch.epoch, batch.lane, batch.batch_no, batch.clock_after, batch.rollup)
    return [encode(part) for part in parts]
