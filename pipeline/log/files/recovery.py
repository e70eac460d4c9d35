"""Recovery above a partition's durable end: complete batches are kept, everything from the first torn one on is cut off."""

import logging
import os
from pathlib import Path

import numpy as np

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files.durable import not_read, not_written, sync_folder
from adledger.pipeline.log.files.ends import End
from adledger.pipeline.log.files.segments import SEGMENT_SUFFIX, segment_bases, segment_name
from adledger.pipeline.records.batch_format import HEADER_BYTES
from adledger.pipeline.records.record_batch import BatchHeader, checksum_matches, parse_header

_log = logging.getLogger("adledger.log")


def recover(folder: Path, durable: End) -> End:
    """Return where the next batch goes: after the last complete batch that an earlier writer left.

    The first incomplete batch above the durable end (short, or its checksum fails) and everything after it are cut off,
    with a warning that names the place and the size: they were never acknowledged.
    Raises LogError when the partition is shorter than its durable end.
    """
    bases = segment_bases(folder)
    if durable.position and durable.segment not in bases:
        raise LogError(
            f"{folder.name}: the segment {durable.segment:020d}{SEGMENT_SUFFIX} is missing",
            remedy="Restore the partition from its source.",
        )
    end, torn = durable, False
    for base in [b for b in bases if b >= durable.segment]:
        path = folder / segment_name(base)
        if torn or base not in {end.offset, durable.segment}:
            torn = True
            _log.warning("removed %s: it comes after an incompletely written record batch", path)
            _remove(path)
            continue
        if base != end.segment:
            end = End(end.offset, base, 0, end.log_time_max)
        end, torn = _keep_whole(path, end)
    if end != durable or torn:
        _sync(folder)
    return end


def _keep_whole(path: Path, end: End) -> tuple[End, bool]:
    """Return the end after the segment's last complete batch, and whether a torn batch was cut off there."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError as error:
        raise not_read(path, error) from error
    try:
        size = os.fstat(fd).st_size
        if size < end.position:
            raise LogError(
                f"{path} has {size} bytes, but {end.position} were durable",
                remedy="The log was truncated; restore the partition from its source.",
            )
        if size == end.position:
            return end, False
        while (header := _whole_batch(fd, end, size, path)) is not None:
            end = End(
                header.next_offset,
                end.segment,
                end.position + header.size_bytes,
                max(end.log_time_max, header.max_timestamp),
            )
        torn = size > end.position
        if torn:
            _log.warning(
                "%s: cut off %d bytes at offset %d, an incompletely written record batch",
                path, size - end.position, end.offset,
            )  # fmt: skip
            os.ftruncate(fd, end.position)
        os.fsync(fd)  # the dead writer may not have synced it
    except OSError as error:
        raise not_written(path, error) from error
    else:
        return end, torn
    finally:
        os.close(fd)


def _whole_batch(fd: int, end: End, size: int, path: Path) -> BatchHeader | None:
    """Return the header of the batch at the end's position, or None when there is no complete batch of ours."""
    if size - end.position < HEADER_BYTES:
        return None
    try:
        header = parse_header(os.pread(fd, HEADER_BYTES, end.position), 0, path.name)
    except LogError:
        return None
    if header.base_offset != end.offset or header.size_bytes > size - end.position:
        return None
    data = np.frombuffer(os.pread(fd, header.size_bytes, end.position), np.uint8)
    return header if checksum_matches(data, 0, header) else None


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise not_written(path, error) from error


def _sync(folder: Path) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        raise not_written(folder, error) from error
