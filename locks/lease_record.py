"""What a file in the lock's folder says about who holds its key."""

import json
import os
from dataclasses import asdict, dataclass
from functools import cache

from locks.host import UNKNOWN, boot_id, is_gone, pid_namespace, start_ticks

# Written and read in one piece, well within one disk sector.
RECORD_BYTES = 512


@dataclass(frozen=True)
class LeaseRecord:
    """One holding of one key."""

    token: str
    fence: int
    end_ns: int
    """By the clock of locks.clock, which all processes of one boot share."""
    boot: str
    pid: int
    pid_ns: str
    started: str
    """With the PID names a process for good: PIDs are given out again."""
    host: str = ""
    """The host or container of the holder, for an operator's eyes."""

    def is_live(self, now: int) -> bool:
        """Whether the key is taken. Not so after the end, a reboot, or the holder's death."""
        if self.boot != boot_id() or self.end_ns <= now:
            return False
        return not is_gone(self.pid, self.pid_ns, self.started)


def my_record(token: str, fence: int, end_ns: int) -> LeaseRecord:
    """A record of this process."""
    pid = os.getpid()
    host = os.uname().nodename
    return LeaseRecord(token, fence, end_ns, boot_id(), pid, pid_namespace(), _started(pid), host)


@cache
def _started(pid: int) -> str:
    return start_ticks(pid) or UNKNOWN


def read_record(file: int) -> LeaseRecord | None:
    """The record in an open file; None if there is none that can be read."""
    text = os.pread(file, RECORD_BYTES, 0)
    try:
        return LeaseRecord(**json.loads(text))
    except (ValueError, TypeError):
        return None


def write_record(file: int, record: LeaseRecord) -> None:
    """Put the record in place of the one before, in one write."""
    text = json.dumps(asdict(record), separators=(",", ":"))
    os.pwrite(file, text.ljust(RECORD_BYTES - 1).encode("ascii") + b"\n", 0)
