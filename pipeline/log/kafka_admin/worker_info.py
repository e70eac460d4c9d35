"""What a worker publishes in its group's member metadata, so that `adledger lane status` can find it."""

from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker's process (HOST:PID) and the URL of its pages ("" for none).

    The URL's host is the address that the pages listen on: 0.0.0.0 is every address of the member's host.
    """

    worker: str = ""
    pages: str = ""


NO_INFO = WorkerInfo()


def decode_worker_info(user_data: bytes | None) -> WorkerInfo:
    """Return the worker info in a member's user data; NO_INFO for members of another program or an older release."""
    try:
        decoded = orjson.loads(user_data or b"{}")
        return WorkerInfo(str(decoded.get("worker", "")), str(decoded.get("pages", "")))
    except (AttributeError, ValueError):
        return NO_INFO
