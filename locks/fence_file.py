"""Fencing tokens of the file lock: one counter for all keys of a folder.

A token is max(last + 1, wall clock in microseconds, floor + 1), so tokens grow even if the clock
steps back or the counter's file is deleted. To be right after a power failure without a disk flush
per token, the file names a reserve far ahead that is flushed first; a new boot goes on from there.
"""

import os
import time
from pathlib import Path

from locks.errors import LockUnavailable
from locks.flock import locked_file
from locks.host import UNKNOWN, boot_id

# Tokens grow by about 1,000,000 a second (microseconds): one flush a minute.
RESERVE = 60_000_000
# A process frozen or starved inside these few microseconds delays every key of the host.
PATIENCE_S = 1.0
_LINE_BYTES = 96


def mint(path: Path, floor: int) -> int:
    """A token greater than every earlier one of this file, and than `floor`."""
    with locked_file(path, create=True, patience_s=PATIENCE_S) as file:
        if file is None:
            raise LockUnavailable(f"The fence counter {path} is kept by a process that is stopped.")
        boot, last, reserved = _parse(path, os.pread(file, _LINE_BYTES, 0))
        if boot != boot_id():
            last = max(last, reserved)
        fence = max(last + 1, time.time_ns() // 1_000, floor + 1)
        must_flush = fence > reserved or boot != boot_id() or boot_id() == UNKNOWN
        if must_flush:
            reserved = fence + RESERVE
        line = f"{boot_id()} {fence} {reserved}".ljust(_LINE_BYTES - 1) + "\n"
        os.pwrite(file, line.encode("ascii"), 0)
        if must_flush:
            os.fsync(file)
        return fence


def _parse(path: Path, line: bytes) -> tuple[str, int, int]:
    if not line:
        return boot_id(), 0, 0
    try:
        boot, last, reserved = line.decode("ascii").split()
        return boot, int(last), int(reserved)
    except ValueError:
        raise LockUnavailable(
            f"The fence counter {path} is damaged. Delete it while no process uses the folder: "
            "tokens then go on from the clock."
        ) from None
