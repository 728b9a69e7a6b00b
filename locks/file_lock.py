"""Leases in the files of one host: no service needed, safe across processes and after kill -9.

    <folder>/fence        the counter of fencing tokens (fence_file)
    <folder>/held/<key>   who holds the key, and until when (lease_record); no file: free

The record is the lease. flock(2) guards only the moment of reading and writing it, so a holder
that is frozen does not keep its key for ever: its record ends, another writes its own, and the
first finds a stranger's token there when it wakes. A dead holder's record is void at once. A file
is deleted on release, so the folder holds only what is held, or was held by a process that died;
the latter is swept away by the next process that starts.

For a local file system of one host, and processes that share its clock (no time namespaces).
Waiters look again and again, ever more slowly; no order is kept among them.
"""

import os
import random
import time
from contextlib import suppress
from pathlib import Path

from locks.base import BaseLock, Request
from locks.clock import NS_PER_MS, now_ns
from locks.errors import LockUnavailable
from locks.fence_file import mint
from locks.flock import locked_file
from locks.held import Grant, HeldLease
from locks.inspection import HeldKey
from locks.lease_record import LeaseRecord, my_record, read_record, write_record
from locks.observe import LockObserver

FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_GROWTH = 0.001, 0.05, 1.5
# For the few microseconds in which another process reads or writes the record.
PATIENCE_S = 0.2


class FileLock(BaseLock):
    """The embedded default."""

    backend = "file"

    def __init__(self, folder: Path, observer: LockObserver | None = None) -> None:
        self._fence = folder / "fence"
        self._held = folder / "held"
        self._is_prepared = False
        super().__init__(observer)

    def _take(self, request: Request) -> Grant:
        self._prepare()
        pause_s = FIRST_PAUSE_S
        while True:
            sent_ns = now_ns()
            fence = self._try(request, sent_ns)
            if fence is not None:
                return Grant(request.key, request.token, fence, request.lease_ms, sent_ns)
            left_s = request.deadline.left_s()
            if not left_s:
                raise request.timeout()
            time.sleep(min(left_s, pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - jitter
            pause_s = min(pause_s * PAUSE_GROWTH, LONGEST_PAUSE_S)

    def _try(self, request: Request, sent_ns: int) -> int | None:
        path = self._held / request.key
        if _is_taken(_peek(path)):
            return None
        with locked_file(path, create=True, patience_s=PATIENCE_S) as file:
            if file is None or _is_taken(read_record(file)):
                return None
            try:
                fence = mint(self._fence, request.fence_floor)
                end_ns = sent_ns + request.lease_ms * NS_PER_MS
                write_record(file, my_record(request.token, fence, end_ns))
            except (LockUnavailable, OSError):
                # Free, as it was found: an empty file would stay until the next start's sweep.
                path.unlink()
                raise
            return fence

    def _renew(self, leases: list[HeldLease]) -> None:
        for lease in leases:
            sent_ns = now_ns()
            path = self._held / lease.key
            with locked_file(path, create=False, patience_s=PATIENCE_S) as file:
                if file is None:
                    if not path.exists():
                        self._renewer.lose(lease, "Its file was deleted.")
                    continue
                record = read_record(file)
                if record is None or record.token != lease.token:
                    self._renewer.lose(lease, "It ran out, and another took the key.")
                    continue
                end_ns = sent_ns + lease.lease_ms * NS_PER_MS
                write_record(file, my_record(lease.token, lease.fence, end_ns))
                lease.extend(sent_ns)

    def _free(self, key: str, token: str, place: str) -> bool:
        path = self._held / key
        with locked_file(path, create=False, patience_s=PATIENCE_S) as file:
            if file is None:
                return not path.exists()
            record = read_record(file)
            if record is not None and record.token == token:
                path.unlink()
            return True

    def _list_held(self, limit: int) -> list[HeldKey]:
        self._make_folder()
        shown: list[HeldKey] = []
        for name in sorted(os.listdir(self._held)):
            if len(shown) >= limit:
                break
            held = _shown(name, _peek(self._held / name))
            if held is not None:
                shown.append(held)
        return shown

    def _break(self, key: str) -> HeldKey | None:
        self._make_folder()
        path = self._held / key
        with locked_file(path, create=False, patience_s=PATIENCE_S) as file:
            if file is None:
                if path.exists():
                    raise LockUnavailable(f"{path} is kept by a process that is stopped.")
                return None
            held = _shown(key, read_record(file))
            path.unlink()
            return held

    def _prepare(self) -> None:
        """Make the folder and sweep it, once per process."""
        if self._is_prepared:
            return
        self._make_folder()
        self._sweep()
        self._is_prepared = True

    def _make_folder(self) -> None:
        try:
            self._held.mkdir(mode=0o770, parents=True, exist_ok=True)
        except OSError as error:
            raise LockUnavailable(f"The folder {self._held} cannot be made: {error}.") from error

    def _sweep(self) -> None:
        """Delete what dead holders left."""
        for name in sorted(os.listdir(self._held)):
            path = self._held / name
            with suppress(LockUnavailable):
                if _is_taken(_peek(path)):
                    continue
                with locked_file(path, create=False, patience_s=0) as file:
                    if file is not None and not _is_taken(read_record(file)):
                        path.unlink()

    def _ping(self) -> None:
        self._make_folder()
        with locked_file(self._fence, create=True, patience_s=PATIENCE_S) as file:
            if file is None:
                raise LockUnavailable(f"{self._fence} is kept by a process that is stopped.")

    def _disconnect(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._is_prepared = False


def _is_taken(record: LeaseRecord | None) -> bool:
    return record is not None and record.is_live(now_ns())


def _shown(key: str, record: LeaseRecord | None) -> HeldKey | None:
    now = now_ns()
    if record is None or not record.is_live(now):
        return None
    left_ms = (record.end_ns - now) // NS_PER_MS
    return HeldKey(key, f"{record.host} {record.pid}", record.fence, left_ms)


def _peek(path: Path) -> LeaseRecord | None:
    """The record as it is now, without the lock: good enough to see that waiting is in order."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_record(file)
        finally:
            os.close(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockUnavailable(f"{path}: {error.strerror}.") from error
