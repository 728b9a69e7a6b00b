"""The file of one key: its holder, and the queue of those who wait, first come, first served.

    block 0            the record (record): the holder, or a claim, and two counters
    block 1 + t % 1024 the waiter with ticket t; blank if it gave up

Tickets from `first` to before `after` wait. Everything is read and written under the file's guard,
and each change is complete with one write: a waiter's block counts only when `after` has passed it,
and the key is handed on by the one block that names its next holder. So a process may die between
any two steps. The file is deleted with its last holder if nobody waits.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import FileIO
from types import TracebackType

from locks.clock import NS_PER_MS, now_ns
from locks.on_files.bell import reach, ring
from locks.on_files.flock import StrPath, free_early, lock_file, unlock_file, unusable
from locks.on_files.host import boot_id
from locks.on_files.record import (
    MAX_TICKET,
    SLOTS,
    LeaseRecord,
    Waiter,
    read_record,
    read_waiter,
    write_record,
    write_waiter,
)

# A waiter that was handed the key must wake within this time, or it loses its turn.
CLAIM_MS = 2_000


class KeyFile:
    """A key's file, open and guarded."""

    def __init__(self, file: int, path: StrPath, bells: StrPath) -> None:
        self._file = file
        self._path = path
        self._bells = bells
        self.record = read_record(file)
        """None for a file that was just made, or says nothing."""
        if self.record is not None and self.record.boot != boot_id():
            self.record = None  # The holder and all waiters ended with their kernel.

    def take(self, record: LeaseRecord) -> None:
        """Write a holder, in place of whoever stood there; `window` says who waits."""
        self._write(record)

    def is_held(self) -> bool:
        """Whether the key is taken, or claimed by a waiter."""
        return self.record is not None and self.record.is_live(now_ns())

    def is_unexpired(self) -> bool:
        """Whether the key is taken, if the holder's process lives."""
        return self.record is not None and self.record.end_ns > now_ns()

    def hand_over(self) -> bool:
        """Claim the key for the first waiter that lives; False, and nothing changed, if none does.

        Whoever waits behind it watches it from now on, and is called for that.
        """
        claimed = self._claim_for_next(0)
        if claimed is None:
            return False
        ticket, bell = claimed
        ring(bell)
        self._call_next(ticket + 1)
        return True

    def give_up(self) -> None:
        """The holder is done: the next one's turn, or the file's end. This ends the guard."""
        claimed = self._claim_for_next(now_ns())
        if claimed is None:
            os.unlink(self._path)
            return
        ticket, bell = claimed
        # First of all, for whoever is rung often runs before us, on this very processor.
        free_early(self._file)
        ring(bell)
        self._call_next(ticket + 1)

    def enter(self, waiter: Waiter) -> int | None:
        """Queue up; gives the ticket, or None if there is no room. There must be a record."""
        first, after = self.window()
        if after - first >= SLOTS or self.record is None:
            return None
        if first == after:
            first = after = 0  # the same block again, rather than one after the other
        if after >= MAX_TICKET:
            return None
        write_waiter(self._file, after % SLOTS, waiter)
        self._write(replace(self.record, first=first, after=after + 1))
        return after

    def has(self, ticket: int, token: str) -> bool:
        """Whether this waiter still stands in the queue."""
        waiter = self._waiter(ticket)
        return waiter is not None and waiter.token == token

    def ticket_of(self, token: str) -> int | None:
        """Where this waiter stands in the queue, if it does."""
        return next((ticket for ticket in range(*self.window()) if self.has(ticket, token)), None)

    def leave(self, ticket: int, token: str) -> None:
        """Give up waiting. Whoever waits behind must look who is now before it."""
        if self.record is None or not self.has(ticket, token):
            return
        write_waiter(self._file, ticket % SLOTS, None)
        first, after = self.window()
        while first < after and self._waiter(after - 1) is None:
            after -= 1
        while first < after and self._waiter(first) is None:
            first += 1
        self._write(replace(self.record, first=first, after=after))
        self._call_next(ticket + 1)

    def waiters(self) -> list[Waiter]:
        """All who wait, the next one first."""
        first, after = self.window()
        found = (self._waiter(ticket) for ticket in range(first, after))
        return [waiter for waiter in found if waiter is not None]

    def length(self) -> int:
        """Holder and waiters, with those who gave up and were not yet passed over."""
        first, after = self.window()
        return after - first

    def before(self, ticket: int) -> tuple[int, Waiter] | None:
        """Ticket and name of the nearest waiter before this one; None if it is the first."""
        for earlier in range(ticket - 1, self.window()[0] - 1, -1):
            waiter = self._waiter(earlier)
            if waiter is not None:
                return earlier, waiter
        return None

    def window(self) -> tuple[int, int]:
        """The first ticket that waits, and the one after the last."""
        return (self.record.first, self.record.after) if self.record else (0, 0)

    def _waiter(self, ticket: int) -> Waiter | None:
        first, after = self.window()
        return read_waiter(self._file, ticket % SLOTS) if first <= ticket < after else None

    def _claim_for_next(self, freed_ns: int) -> tuple[int, int] | None:
        """Ticket and bell of the waiter that the key was handed to, if there is any."""
        first, after = self.window()
        for ticket in range(first, after):
            waiter = self._waiter(ticket)
            bell = reach(f"{self._bells}/{waiter.bell}") if waiter else None
            if waiter is not None and bell is not None:
                claim = waiter.claim(now_ns() + CLAIM_MS * NS_PER_MS, freed_ns)
                self._write(replace(claim, first=ticket + 1, after=after))
                return ticket, bell
        return None

    def _call_next(self, ticket: int) -> None:
        """Ring the next one from this ticket on, so that it looks who is before it now."""
        for behind in range(ticket, self.window()[1]):
            waiter = self._waiter(behind)
            bell = reach(f"{self._bells}/{waiter.bell}") if waiter else None
            if bell is not None:
                ring(bell)
                return

    def _write(self, record: LeaseRecord) -> None:
        write_record(self._file, record)
        self.record = record


class OpenedKey:
    """A with-block's key file, under its guard; None if others kept it, or it is not there.

    Raises LockUnavailable. A class, as a generator takes a few microseconds more.
    """

    def __init__(self, path: StrPath, bells: StrPath, *, create: bool, patience_s: float) -> None:
        self._path = path
        self._bells = bells
        self._create = create
        self._patience_s = patience_s
        self._file: FileIO | None = None

    def __enter__(self) -> KeyFile | None:
        self._file = lock_file(self._path, create=self._create, patience_s=self._patience_s)
        if self._file is None:
            return None
        try:
            return KeyFile(self._file.fileno(), self._path, self._bells)
        except OSError as error:
            unlock_file(self._file)
            raise unusable(self._path, error) from error
        except BaseException:  # raised by a signal's handler
            unlock_file(self._file)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            unlock_file(self._file)
        if isinstance(error, OSError):
            raise unusable(self._path, error) from error


def peek(path: StrPath) -> tuple[LeaseRecord | None, list[Waiter]]:
    """Holder and waiters as they are now, without the guard: for eyes only.

    Raises LockUnavailable.
    """
    with _opened(path) as file:
        if file is None:
            return None, []
        key = KeyFile(file, path, path)
        return key.record, key.waiters()


def read_at(path: StrPath) -> LeaseRecord | None:
    """The record as it is now, without the guard. Raises LockUnavailable."""
    with _opened(path) as file:
        return None if file is None else read_record(file)


@contextmanager
def _opened(path: StrPath) -> Iterator[int | None]:
    file = None
    try:
        # Without O_NONBLOCK a pipe in a key's place would keep us until somebody writes to it.
        with suppress(FileNotFoundError):
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        yield file
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        if file is not None:
            os.close(file)
