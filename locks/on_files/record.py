"""What a key's file says: in its first block who holds the key, then who waits for it."""

import errno
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from locks.names import host_name
from locks.on_files.host import UNKNOWN, boot_id, is_gone, pid_namespace, start_ticks

# Each block is written and read in one piece, and lies within one page of memory, so that a
# process that is killed leaves the block before or the block after.
RECORD_BYTES = 512
WAITER_BYTES = 256
# More waiters than this for one key wait without order until there is room.
SLOTS = 1_024
_encode = json.JSONEncoder(separators=(",", ":")).encode
# What a file says may be damage, or not ours at all: it is believed within these bounds only.
# A number past the last one would not fit a system call's argument.
_MAX_INT, _MAX_PID = 2**63 - 1, 2**31 - 1
# No queue comes this far: each ticket is one call that waited.
MAX_TICKET = 2**53
# A bell is opened and written to, so its name must not lead out of its folder.
_BELL = re.compile(r"[0-9A-Za-z_-]{1,64}")


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
    return pid, pid_namespace(), start_ticks(pid) or UNKNOWN, host_name()


def read_record(file: int) -> LeaseRecord | None:
    """The record in an open file; None if there is none that can be read and be true."""
    fields = _read(file, RECORD_BYTES, 0)
    try:
        record = LeaseRecord(**fields) if fields else None
    except TypeError:
        return None
    return record if record is not None and _can_be(record) else None


def write_record(file: int, record: LeaseRecord) -> None:
    """Put the record in place of the one before, in one write."""
    _write(file, record.__dict__, RECORD_BYTES, 0)


def read_waiter(file: int, slot: int) -> Waiter | None:
    """The waiter in a slot behind the record; None if it is blank, or cannot be one."""
    fields = _read(file, WAITER_BYTES, RECORD_BYTES + slot * WAITER_BYTES)
    try:
        waiter = Waiter(**fields) if fields else None
    except TypeError:
        return None
    return waiter if waiter is not None and _can_wait(waiter) else None


def write_waiter(file: int, slot: int, waiter: Waiter | None) -> None:
    """Fill a slot, or blank it, in one write."""
    fields = waiter.__dict__ if waiter else {}
    _write(file, fields, WAITER_BYTES, RECORD_BYTES + slot * WAITER_BYTES)


def _can_be(record: LeaseRecord) -> bool:
    texts = record.token, record.boot, record.pid_ns, record.started, record.host
    numbers = record.fence, record.end_ns, record.freed_ns, record.first, record.after
    return (
        _are_texts(texts)
        and _are_numbers(*numbers, record.pid)
        and 0 < record.pid <= _MAX_PID
        and record.first <= record.after <= min(record.first + SLOTS, MAX_TICKET)
    )


def _can_wait(waiter: Waiter) -> bool:
    texts = waiter.token, waiter.bell, waiter.pid_ns, waiter.started, waiter.host
    return (
        _are_texts(texts)
        and _are_numbers(waiter.pid)
        and 0 < waiter.pid <= _MAX_PID
        and _BELL.fullmatch(waiter.bell) is not None
    )


def _are_texts(values: tuple[object, ...]) -> bool:
    return {*map(type, values)} == {str}


def _are_numbers(*values: int) -> bool:
    # Not isinstance, by which true and false are integers.
    return {*map(type, values)} == {int} and min(values) >= 0 and max(values) <= _MAX_INT


def _read(file: int, size: int, place: int) -> dict[str, Any] | None:
    block = os.pread(file, size, place)
    if not block or block.isspace():
        return None
    try:
        fields = json.loads(block.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _write(file: int, fields: dict[str, Any], size: int, place: int) -> None:
    text = _encode(fields) if fields else ""
    if len(text) >= size:
        # Cut short it would read as damage, and a key as free.
        raise OSError(errno.EFBIG, "a lock's record does not fit its block")
    os.pwrite(file, text.ljust(size - 1).encode("ascii") + b"\n", place)


# A PID of an ancestor may be given out again to a descendant.
os.register_at_fork(after_in_child=_me.cache_clear)
