"""Epochs: which log a ledger row belongs to. `ID,ID/16~1`: topic ids, partitions, and the number of truncations.

The part before the ~ is the log's own (`Topology.epoch`). The count is the ledger's: when an operator accepts a truncated
log, the lane continues in a new epoch, because offsets mean other records from then on.
"""


def log_of(epoch: str) -> str:
    """Return the log of an epoch: topic ids and partitions, without the count of its truncations."""
    return epoch.partition("~")[0]


def partitions_of(epoch: str) -> int:
    """Return the number of partitions of an epoch's log."""
    return int(log_of(epoch).rpartition("/")[2])


def ids_of(epoch: str) -> str:
    """Return the topic ids of an epoch."""
    return log_of(epoch).rpartition("/")[0]


def truncated(epoch: str) -> str:
    """Return the epoch after one more truncation of the same log: ID,ID/16~1."""
    log, _, count = epoch.partition("~")
    return f"{log}~{int(count or 0) + 1}"


def same_offsets(before: str, after: str) -> bool:
    """Whether an offset means the same record in both epochs: adding partitions does not change existing ones."""
    return ids_of(before) == ids_of(after) and before.partition("~")[2] == after.partition("~")[2]
