"""What a key's file says: in its first block who holds the key, then who waits for it."""

import json
import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from locks.on_files.host import UNKNOWN, boot_id, is_gone, pid_namespace, start_ticks

# Each block is written and read in one piece, and lies within one page of memory, so that a
# process that is killed leaves the block before or the block after.
RECORD_BYTES = 512
WAITER_BYTES = 256
_encode = json.JSONEncoder(separators=(",", ":")).encode
# A host's name is cut to this, so that a block is never too small.
HOST_SIGNS = 63


@dataclass(frozen=True)
class LeaseRecord:
    """One holding of one key, and which tickets of its waiters are not served yet."""

    token: str
    fence: int
    """0 in a claim: the key was handed to a waiter that has not woken yet."""
    end_ns: int
    """By the clock of locks.clock, which all processes of one boot share."""
    boot: str
    pid: int
    pid_ns: str
    started: str
    """With the PID names a process for good: PIDs are given out again."""
    host: str = ""
    """The host or container of the holder, for an operator's eyes."""
    first: int = 0
    """The ticket of the waiter whose turn is next."""
    after: int = 0
    """The ticket that the next to queue up will get."""
    freed_ns: int = 0
    """In a claim: when the holder before gave the key back; 0 if it died or ran out."""

    def is_live(self, now: int) -> bool:
        """Whether the key is taken. Not so after the end, a reboot, or the holder's death."""
        if self.boot != boot_id() or self.end_ns <= now:
            return False
        return not self.is_gone()

    def is_gone(self) -> bool:
        """Whether the holder's process certainly does not run any more."""
        return is_gone(self.pid, self.pid_ns, self.started)


@dataclass(frozen=True)
class Waiter:
    """One call that waits for the key."""

    token: str
    bell: str
    """The name of the pipe by which it is woken (locks.on_files.bell)."""
    pid: int
    pid_ns: str
    started: str
    host: str = ""

    def claim(self, end_ns: int, freed_ns: int) -> LeaseRecord:
        """A record that keeps the key for this waiter until it has woken."""
        return LeaseRecord(
            self.token,
            0,
            end_ns,
            boot_id(),
            self.pid,
            self.pid_ns,
            self.started,
            self.host,
            freed_ns=freed_ns,
        )

    def is_gone(self) -> bool:
        """Whether its process certainly does not run any more."""
        return is_gone(self.pid, self.pid_ns, self.started)


def my_record(token: str, fence: int, end_ns: int, first: int = 0, after: int = 0) -> LeaseRecord:
    """A record of this process."""
    return LeaseRecord(token, fence, end_ns, boot_id(), *_me(os.getpid()), first, after)


def my_waiter(token: str, bell: str) -> Waiter:
    """A waiter of this process."""
    return Waiter(token, bell, *_me(os.getpid()))


@cache
def _me(pid: int) -> tuple[int, str, str, str]:
    return pid, pid_namespace(), start_ticks(pid) or UNKNOWN, os.uname().nodename[:HOST_SIGNS]


def read_record(file: int) -> LeaseRecord | None:
    """The record in an open file; None if there is none that can be read."""
    fields = _read(file, RECORD_BYTES, 0)
    try:
        return LeaseRecord(**fields) if fields else None
    except TypeError:
        return None


def write_record(file: int, record: LeaseRecord) -> None:
    """Put the record in place of the one before, in one write."""
    _write(file, record.__dict__, RECORD_BYTES, 0)


def read_waiter(file: int, slot: int) -> Waiter | None:
    """The waiter in a slot behind the record; None if it is blank."""
    fields = _read(file, WAITER_BYTES, RECORD_BYTES + slot * WAITER_BYTES)
    try:
        return Waiter(**fields) if fields else None
    except TypeError:
        return None


def write_waiter(file: int, slot: int, waiter: Waiter | None) -> None:
    """Fill a slot, or blank it, in one write."""
    fields = waiter.__dict__ if waiter else {}
    _write(file, fields, WAITER_BYTES, RECORD_BYTES + slot * WAITER_BYTES)


def _read(file: int, size: int, place: int) -> dict[str, Any] | None:
    block = os.pread(file, size, place)
    if not block or block.isspace():
        return None
    try:
        fields = json.loads(block.decode("ascii"))
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _write(file: int, fields: dict[str, Any], size: int, place: int) -> None:
    text = _encode(fields) if fields else ""
    os.pwrite(file, text.ljust(size - 1).encode("ascii") + b"\n", place)


# A PID of an ancestor may be given out again to a descendant.
os.register_at_fork(after_in_child=_me.cache_clear)
