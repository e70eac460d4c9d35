"""The exception tree of adledger.

Every error that a user may see is an `AdledgerError`: it says what is wrong, where, and what to do.

    AdledgerError                  exit code 1
    ├── UsageError                 exit code 2: the command line or the settings are wrong
    ├── LogError                   the log is not usable
    │   ├── CommitFenced           this member no longer owns the lane; another does
    │   ├── CommitRefused          surely not committed, and this member may still own the lane: it may commit a new intent
    │   ├── CommitUnknown          no answer to a commit: leave the group, join as a new member
    │   ├── OffsetOutOfRange       the log no longer holds (or does not yet hold) the offset
    │   │   └── LogRewritten       it holds other records than were read, or may: a leader lacked them
    │   └── UnreadableBatch        a record batch is damaged, the broker can't read it, or there is no memory for it
    ├── SinkError                  ClickHouse is not usable
    │   ├── SinkUnavailable        no connection; nothing was sent
    │   ├── InsertRefused          the server answered no; `late` tells that the deadline had passed
    │   └── InsertUnknown          sent, but no answer: in doubt
    ├── LaneStopped                a lane was stopped while it waited; its next owner settles its batch
    └── LaneHalted                a lane found what it must not guess about; an operator decides
"""

from collections.abc import Mapping

from adledger.pipeline.halts import HaltReason


class AdledgerError(Exception):
    """Base of all errors for users: `message` says what is wrong and where, `remedy` says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


class UsageError(AdledgerError):
    """The command line, a setting or a file the user named is wrong."""

    exit_code = 2


class LogError(AdledgerError):
    """The log can't be read or written as requested."""


class CommitFenced(LogError):  # noqa: N818 - an outcome, named as Kafka names it
    """The commit was refused: generation or member id are no longer current."""


class CommitRefused(LogError):  # noqa: N818
    """Nothing was or will be committed, for a reason other than ownership; a new intent may be committed."""


class CommitUnknown(LogError):  # noqa: N818
    """The commit's outcome is unknown; it must never be sent again by this member."""


class OffsetOutOfRange(LogError):  # noqa: N818
    """The log does not hold the offset that the ledger says comes next."""


class LogRewritten(OffsetOutOfRange):
    """The log holds other records before the position than those that were read, or may: topic -> `since` which offset."""

    def __init__(self, message: str, *, since: Mapping[int, int], remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.since = since


class UnreadableBatch(LogError):  # noqa: N818
    """A record batch can't be read now: offsets `start` up to (without) `end` of a topic, as far as is known.

    `no_memory`: for lack of memory, which says nothing about the batch. It never becomes a dead letter.
    `end_guessed`: only the damaged header says where the batch ends.
    """

    def __init__(
        self, message: str, *, topic: int, start: int, end: int, no_memory: bool = False, end_guessed: bool = False,
        remedy: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message, remedy=remedy)
        self.topic, self.start, self.end = topic, start, end
        self.no_memory, self.end_guessed = no_memory, end_guessed


class SinkError(AdledgerError):
    """ClickHouse can't be used as requested."""


class SinkUnavailable(SinkError):  # noqa: N818
    """No connection to ClickHouse; nothing was sent.

    `refused`: a server answered and rejected the client (password, certificates, protocol): retrying is pointless.
    """

    def __init__(self, message: str, *, refused: bool = False, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.refused = refused


class InsertRefused(SinkError):  # noqa: N818
    """The server answered an insert with an exception. `late`: the block came after its deadline."""

    def __init__(self, message: str, *, late: bool = False, code: int = 0, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.late = late
        self.code = code


class InsertUnknown(SinkError):  # noqa: N818
    """An insert was sent and no answer came: it may have happened, may yet happen, or never will."""


class LaneStopped(AdledgerError):  # noqa: N818
    """The lane was stopped while it waited for a server or a deadline."""


class LaneHalted(AdledgerError):  # noqa: N818
    """A lane found a state that it must not guess about. It halts until an operator resolves it, as `reason` says."""

    def __init__(self, message: str, *, reason: HaltReason, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
