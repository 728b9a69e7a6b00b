"""What the back ends share: checked arguments, renewal, forks, the end of the process."""

import atexit
import contextlib
import os
import secrets
import weakref
from abc import ABC, abstractmethod
from typing import NamedTuple

from locks.clock import NS_PER_MS, Deadline, now_ns
from locks.errors import LockTimeout, LockUnavailable
from locks.held import Grant, HeldLease
from locks.inspection import HeldKey
from locks.observe import GuardedObserver, LockObserver
from locks.protocol import KEY_PATTERN, MAX_FENCE, MAX_LEASE_MS, MAX_WAIT_MS, MIN_LEASE_MS
from locks.renewal import Chore, Renewer

# A release or cancellation that could not be sent is tried again this often.
LEFT_OVER_EVERY_MS = 500
# The realm of fences that are microseconds since 1970, wherever they were minted.
CLOCK_REALM = "clock"


class Request(NamedTuple):
    """One call of acquire, its arguments checked."""

    key: str
    token: str
    lease_ms: int
    wait_ms: int
    fence_floor: int
    deadline: Deadline

    def timeout(self) -> LockTimeout:
        """The error for when the wait was in vain."""
        return LockTimeout(self.key, self.wait_ms)


class BaseLock(ABC):
    """A LeaseLock; a back end says how to take, renew and give back.

    Clients and threads are made on first use in each process, never at construction, so that a
    lock made before a fork (gunicorn --preload) serves parent and children alike.
    """

    backend: str

    def __init__(self, observer: LockObserver | None = None) -> None:
        self._closed = self._is_over = False
        self._tell = GuardedObserver(observer, self.backend) if observer is not None else None
        self._start_afresh()
        _watch(self)

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> HeldLease:
        """See LeaseLock."""
        _check_arguments(key, lease_ms, wait_ms, fence_floor)
        self._check_open()
        token = self._new_token()
        request = Request(key, token, lease_ms, wait_ms, fence_floor, Deadline(wait_ms))
        lease: HeldLease | None = None
        grant: Grant | None = None
        try:
            began_ns = now_ns()
            grant = self._take_or_tell(request, began_ns)
            lease = HeldLease(grant, self._give_back, self._doubt, self._complete)
            self._keep(lease)
            if self._tell is not None:
                self._tell.granted(lease.since_ns - began_ns, grant.ahead, grant.handover_ns)
            self._check_open()  # it may have been closed while we waited
            return lease
        except BaseException as error:
            if lease is not None:
                lease.release()
            elif grant is not None or not isinstance(error, LockTimeout | LockUnavailable):
                # Raised by a signal's handler, say: the key may be ours without our knowing.
                self._free_for_sure(key, token, grant.place if grant else "", lease_ms)
            raise

    def realm(self) -> str:
        """See LeaseLock."""
        return CLOCK_REALM

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        """See LeaseLock."""
        self._check_open()
        return self._list_held(limit)

    def break_lease(self, key: str) -> HeldKey | None:
        """See LeaseLock."""
        _check_key(key)
        self._check_open()
        return self._break(key)

    def ping(self) -> None:
        """See LeaseLock."""
        self._check_open()
        self._ping()

    def close(self) -> None:
        """See LeaseLock."""
        if self._is_over:
            return
        self._closed = True
        for lease in self._renewer.leases():
            lease.release()
            if self._renewer.owes():
                break  # The service does not answer; the other leases run out by themselves.
        self._renewer.stop()
        self._disconnect()
        self._is_over = True  # not before: a close that a signal's handler interrupted is repeated

    @abstractmethod
    def _take(self, request: Request) -> Grant:
        """Wait for the key. Raises LockTimeout, LockUnavailable; leaves nothing behind then.

        After any other exception the token is freed by whoever called.
        """

    @abstractmethod
    def _renew(self, leases: list[HeldLease]) -> None:
        """Renew; calls `extend` on each that stands and `self._renewer.lose` on each that fell.

        Raises LockUnavailable if the service does not answer.
        """

    @abstractmethod
    def _free(self, key: str, token: str, place: str) -> bool:
        """End a holding or waiting of this token, and nobody else's; `place` may not be known.

        Gives whether that is certain; raises LockUnavailable if the service does not answer.
        """

    def _list_held(self, limit: int) -> list[HeldKey]:
        """What stands at the service now."""
        raise LockUnavailable(f"{self.backend} locks cannot be listed.")

    def _break(self, key: str) -> HeldKey | None:
        """End what stands on the key."""
        raise LockUnavailable(f"{self.backend} locks cannot be broken.")

    @abstractmethod
    def _ping(self) -> None:
        """Raise LockUnavailable if the service does not answer."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the clients of this process."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop every client without a word to the service: after a fork they are the parent's."""

    def _doubt(self) -> str:
        """Why a lease that is not known to be lost must not be relied on just now, or nothing."""
        return ""

    def _new_token(self) -> str:
        """A name for one holding, never given twice."""
        return secrets.token_hex(16)

    def _check_open(self) -> None:
        if self._closed:
            raise LockUnavailable("This lock object was closed.")

    def _take_or_tell(self, request: Request, began_ns: int) -> Grant:
        try:
            return self._take(request)
        except LockTimeout:
            if self._tell is not None:
                self._tell.timed_out(now_ns() - began_ns)
            raise
        except LockUnavailable:
            if self._tell is not None:
                self._tell.unavailable(now_ns() - began_ns)
            raise

    def _keep(self, lease: HeldLease) -> None:
        try:
            self._renewer.add(lease)
        except RuntimeError as error:  # the host has no thread left
            raise LockUnavailable(f"There can be no thread to renew the lease: {error}") from error

    def _give_back(self, lease: HeldLease) -> None:
        try:
            self._renewer.discard(lease)
            if self._tell is not None:
                self._tell.released(now_ns() - lease.since_ns)
            self._free_for_sure(lease.key, lease.token, lease.place, lease.lease_ms)
        except BaseException:  # raised by a signal's handler
            self._free_later(lease.key, lease.token, lease.place, lease.lease_ms)
            raise

    def _complete(self, lease: HeldLease) -> None:
        """Ask at once for the rest of a lease; if that fails, it has what it has."""
        with contextlib.suppress(LockUnavailable):
            self._renew([lease])

    def _free_for_sure(self, key: str, token: str, place: str, lease_ms: int) -> None:
        """Free now, or else later."""
        try:
            done = self._free(key, token, place)
        except LockUnavailable:
            done = False
        if not done:
            self._free_later(key, token, place, lease_ms)

    def _free_later(self, key: str, token: str, place: str, lease_ms: int) -> None:
        """Free in the background, until done or until the service's own time-out has struck."""
        every_ns = LEFT_OVER_EVERY_MS * NS_PER_MS
        self._renewer.add_chore(
            Chore(
                run=lambda: self._free(key, token, place),
                every_ns=every_ns,
                until_ns=now_ns() + self._left_over_ms(lease_ms) * NS_PER_MS,
                next_ns=now_ns() + every_ns,
            )
        )

    def _left_over_ms(self, lease_ms: int) -> int:
        """How long something unreleased can stand at the service."""
        return lease_ms

    def _start_afresh(self) -> None:
        self._renewer = Renewer(
            f"lease-renewer-{self.backend}", self._renew, self._tell, self._free_later
        )
        self._forget()


def _watch(lock: BaseLock) -> None:
    """Reset the lock in every forked child; close it at the process's end, if it still lives."""
    reference = weakref.ref(lock)

    def reset() -> None:
        mine = reference()
        if mine is not None:
            mine._start_afresh()

    def end() -> None:
        mine = reference()
        if mine is not None:
            mine.close()

    os.register_at_fork(after_in_child=reset)
    atexit.register(end)
    weakref.finalize(lock, atexit.unregister, end).atexit = False


def _check_key(key: str) -> None:
    if not KEY_PATTERN.fullmatch(key):
        raise ValueError(f"A lock's key is 1 to 64 of 0-9 A-Z a-z _ -, not {key!r}.")


def _check_arguments(key: str, lease_ms: int, wait_ms: int, fence_floor: int) -> None:
    _check_key(key)
    if not MIN_LEASE_MS <= lease_ms <= MAX_LEASE_MS:
        raise ValueError(f"lease_ms is {MIN_LEASE_MS} to {MAX_LEASE_MS}, not {lease_ms}.")
    if not 0 <= wait_ms <= MAX_WAIT_MS:
        raise ValueError(f"wait_ms is 0 to {MAX_WAIT_MS}, not {wait_ms}.")
    if not 0 <= fence_floor < MAX_FENCE:
        raise ValueError(f"fence_floor is 0 to {MAX_FENCE - 1}, not {fence_floor}.")
