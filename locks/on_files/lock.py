"""Leases in the files of one host: no service needed, safe across processes and after kill -9.

    <folder>/fence           the clock of fencing tokens (fence)
    <folder>/held/<key>      who holds the key until when, and who waits (key_file); no file: free
    <folder>/waiting/<bell>  a pipe for each thread that waits (bell)

    holder                       held/<key>                   first waiter      second waiter
      | acquire: writes itself ---> |                               |                  |
      |                             | <--- writes itself behind --- |  sleeps          |
      |                             | <------------------- writes itself behind ------ |  sleeps
      | release: writes a claim --> |                               |                  |
      |   of the first waiter, rings its bell and the second's ---> |  wakes           |  is first
      |                             | <--- its whole lease -------- |                  |  sleeps

The record is the lease; flock(2) guards only the moment of reading and writing it. Nobody looks
again and again. Each waiter sleeps until its bell rings or the process before it in the queue ends
(pidfd_open(2)); the first one, until the holder ends or the holder's time is out. What can happen:

- The holder is killed, at any step: the first waiter wakes at once and finds the record void, or
  finds itself named, if the key had been handed on but the bell not rung.
- It is frozen: its record ends, the first waiter takes the key, and it finds a stranger's token
  when it wakes. Frozen between claim and bell: the first waiter looks every two seconds anyhow.
- A waiter is killed: nobody reads its pipe, so it is passed over; if it was just handed the key,
  the one behind, which watches it, takes it. It is frozen: its claim ends after two seconds.
- A waiter gives up: it blanks its place, and rings the one behind, which then watches another.
- Two at once, the first waiter frozen and the holder killed or frozen: all waiters look now and
  then although nothing called them, the first every two seconds, the others every ten. So the next
  one comes in twelve seconds after at the latest.
- A file or pipe is deleted by others: by the same looks waiters miss themselves, and queue up again
  at the end.
- A process forks: the child closes its copies of files and pipes, and starts afresh.
- A process is frozen inside the guard, some tens of microseconds: the key waits for it, with
  LockTimeout and no hang, until it goes on or dies; other keys do not.

For a local file system of one host, and processes that share its clock (no time namespaces). A
process of another PID namespace is not seen to end: its lease ends by its time alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from locks.base import BaseLock, Request
from locks.clock import NS_PER_MS, NS_PER_S, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant, HeldLease
from locks.inspection import HeldKey
from locks.observe import LockObserver
from locks.on_files.bell import Bell, Bells
from locks.on_files.fence import mint
from locks.on_files.flock import unusable
from locks.on_files.host import boot_id, death_watch
from locks.on_files.inspection import list_held, shown
from locks.on_files.key_file import KeyFile, OpenedKey, read_at
from locks.on_files.mounts import shared_type
from locks.on_files.record import LeaseRecord, Waiter, my_record, my_waiter
from locks.on_files.sweep import Sweep

# For the few microseconds in which another process reads or writes the record.
PATIENCE_S = 0.2
# How often a waiter looks although nothing called it: the first of the queue, and the others.
FIRST_LOOKS_MS, OTHERS_LOOK_MS = 2_000, 10_000
# For a waiter that has no place yet: the queue is full, or the guard was not to be had.
NO_PLACE_LOOKS_MS = 50


@dataclass
class Turn:
    """Where one call of acquire stands."""

    bell: Bell | None = None
    ticket: int | None = None
    ahead: int = 0
    before: tuple[int, Waiter] | None = None
    """Ticket and name of the waiter before us, when we last looked."""
    holder: LeaseRecord | None = None
    """Who held the key, when we last looked; None if that could not be told."""
    dead: tuple[int, str] | None = None
    """Ticket and token of a waiter whose process has ended."""


class FileLock(BaseLock):
    """The embedded default."""

    backend = "file"

    def __init__(self, folder: Path, observer: LockObserver | None = None) -> None:
        self._folder = folder
        self._fence = f"{folder}/fence"
        self._held = folder / "held"
        self._waiting = folder / "waiting"
        self._bells = Bells(self._waiting)
        self._sweep = Sweep(self._held, self._waiting)
        self._is_prepared = False
        super().__init__(observer)

    def _take(self, request: Request) -> Grant:
        self._prepare()
        turn = Turn(bell=self._bells.idle() if request.wait_ms else None)
        try:
            while True:
                grant = self._look(request, turn)
                if grant is not None:
                    turn.ticket = None
                    return grant
                if request.deadline.is_over():
                    raise request.timeout()
                if turn.bell is None:
                    turn.bell = self._bells.fresh()
                elif not self._wait(request, turn, turn.bell) and not turn.bell.is_hung():
                    self._quit(request, turn)
                self._check_open()
        except LockUnavailable:
            self._is_prepared = False  # If somebody deleted the folder, it is made again.
            raise
        finally:
            self._quit(request, turn)

    def _look(self, request: Request, turn: Turn) -> Grant | None:
        """Take the key if it is ours to take; else queue up, if there is a bell."""
        sent_ns = now_ns()
        turn.holder = turn.before = None
        with self._open(request.key, create=True) as key:
            if key is None:
                return None
            # Who queues up looks afterwards, without the guard, whether the holder lives (_wait).
            trusting = turn.bell is not None and turn.ticket is None
            if not _is_for(request.token, key, trusting):
                _queue_up(request, turn, key)
                return None
            freed_ns = key.record.freed_ns if key.record else 0
            try:
                fence = mint(self._fence, request.fence_floor)
                end_ns = sent_ns + request.lease_ms * NS_PER_MS
                key.take(my_record(request.token, fence, end_ns, *key.window()))
            except BaseException:
                key.give_up()
                raise
        return Grant(
            request.key,
            request.token,
            fence,
            request.lease_ms,
            sent_ns,
            ahead=turn.ahead,
            handover_ns=now_ns() - freed_ns if freed_ns else None,
        )

    def _wait(self, request: Request, turn: Turn, bell: Bell) -> bool:
        """Until it is time to look again; gives whether anything called for it."""
        who: Waiter | LeaseRecord | None
        if turn.ticket is None or turn.holder is None:
            who, until_ns = None, now_ns() + NO_PLACE_LOOKS_MS * NS_PER_MS
        elif turn.before is not None:
            who, until_ns = turn.before[1], now_ns() + OTHERS_LOOK_MS * NS_PER_MS
        else:
            who, until_ns = turn.holder, _first_looks_ns(turn.holder)
        if who is None:
            return bell.wait(_left_s(until_ns, request))
        with death_watch(who.pid, who.pid_ns) as ended:
            if who.is_gone():
                turn.dead = (turn.before[0], who.token) if turn.before else None
                return True
            while bell.wait(_left_s(until_ns, request), ended):
                record = read_at(self._path(request.key)) if turn.before else None
                if record is None or record.token != who.token:
                    return True
                # The one before us holds the key now. We go on watching it: no need to look.
                turn.before = None
                until_ns = _first_looks_ns(record)
            return False

    def _quit(self, request: Request, turn: Turn) -> None:
        """Wait no longer, and give the bell back."""
        try:
            if turn.ticket is not None:
                place = str(turn.ticket)
                turn.ticket = None
                self._free_for_sure(request.key, request.token, place, request.lease_ms)
        finally:
            if turn.bell is not None:
                self._bells.put_back(turn.bell)
                turn.bell = None

    def _renew(self, leases: list[HeldLease]) -> None:
        broken = None
        kept = []
        for lease in leases:
            try:
                if not self._renew_one(lease, 0):
                    kept.append(lease)
            except LockUnavailable as error:
                broken = error  # Of this key alone: the others must not be lost with it.
        # Those whose guards others keep wait last, and not one after the other.
        until_ns = now_ns() + int(PATIENCE_S * NS_PER_S)
        for lease in kept:
            try:
                self._renew_one(lease, max(0, until_ns - now_ns()) / NS_PER_S)
            except LockUnavailable as error:
                broken = error
        if broken is not None:
            raise broken

    def _renew_one(self, lease: HeldLease, patience_s: float) -> bool:
        """Gives whether it could be looked at."""
        sent_ns = now_ns()
        with self._open(lease.key, create=False, patience_s=patience_s) as key:
            if key is None:
                if (self._held / lease.key).exists():
                    return False
                self._renewer.lose(lease, "Its file was deleted.")
                return True
            record = key.record
            if record is None or record.token != lease.token:
                self._renewer.lose(lease, "It ran out or was ended, and the key went on.")
                return True
            if record.end_ns <= sent_ns:
                self._renewer.lose(lease, "It ran out before it could be renewed.")
                key.give_up()
                return True
            end_ns = sent_ns + lease.lease_ms * NS_PER_MS
            key.take(replace(record, end_ns=end_ns))
            lease.extend(sent_ns)
            return True

    def _free(self, key: str, token: str, place: str) -> bool:
        with self._open(key, create=False) as file:
            if file is None:
                return not (self._held / key).exists()
            if file.record is not None and file.record.token == token:
                file.give_up()
            else:
                ticket = int(place) if place else file.ticket_of(token)
                if ticket is not None:
                    file.leave(ticket, token)
            return True

    def _list_held(self, limit: int) -> list[HeldKey]:
        self._make_folders()
        return list_held(self._held, limit)

    def _break(self, key: str) -> HeldKey | None:
        self._make_folders()
        with self._open(key, create=False) as file:
            if file is None:
                if (self._held / key).exists():
                    raise LockUnavailable(f"Key {key!r} is kept by a process that is stopped.")
                return None
            held = shown(key, file.record, file.waiters())
            file.give_up()
            return held

    def _open(self, key: str, *, create: bool, patience_s: float = PATIENCE_S) -> OpenedKey:
        bells = f"{self._folder}/waiting"
        return OpenedKey(self._path(key), bells, create=create, patience_s=patience_s)

    def _path(self, key: str) -> str:
        return f"{self._folder}/held/{key}"

    def _prepare(self) -> None:
        """Make the folder and sweep it, once per process; then sweep a little with each use."""
        try:
            if self._is_prepared:
                self._sweep.step()
                return
            self._make_folders()
            self._sweep.whole()
            self._is_prepared = True
        except OSError as error:
            self._is_prepared = False
            raise LockUnavailable(f"The folder {self._folder}: {error.strerror}.") from error

    def _make_folders(self) -> None:
        try:
            boot_id()  # asked for once: whatever stands in the folder is judged by it
        except OSError as error:
            raise unusable(self._folder, error) from error
        kind = shared_type(self._folder)
        if kind is not None:
            raise LockUnavailable(
                f"The folder {self._folder} lies on a file system of type {kind}, which several "
                "hosts may share. File locks need a local one."
            )
        for folder in (self._held, self._waiting):
            try:
                folder.mkdir(mode=0o770, parents=True, exist_ok=True)
            except OSError as error:
                raise LockUnavailable(f"The folder {folder} cannot be made: {error}.") from error

    def _ping(self) -> None:
        self._make_folders()
        mint(self._fence, 0)

    def _disconnect(self) -> None:
        self._bells.close()

    def _forget(self) -> None:
        self._bells.forget()
        self._bells = Bells(self._waiting)
        self._sweep = Sweep(self._held, self._waiting)
        self._is_prepared = False


def _first_looks_ns(record: LeaseRecord) -> int:
    return min(record.end_ns, now_ns() + FIRST_LOOKS_MS * NS_PER_MS)


def _left_s(until_ns: int, request: Request) -> float:
    return min(max(0, until_ns - now_ns()) / NS_PER_S, request.deadline.left_s())


def _is_for(token: str, key: KeyFile, trusting: bool) -> bool:
    """Whether the key was handed to us, or is free and it is our turn."""
    if key.record is not None and key.record.token == token:
        return True
    if key.is_unexpired() if trusting else key.is_held():
        return False
    # Its holder died or ran out: it goes to the first in the queue, which may be us.
    return not key.hand_over() or (key.record is not None and key.record.token == token)


def _queue_up(request: Request, turn: Turn, key: KeyFile) -> None:
    if turn.bell is None:
        return
    if turn.dead is not None:
        key.leave(*turn.dead)
        turn.dead = None
    if turn.ticket is None or not key.has(turn.ticket, request.token):
        turn.ticket = key.enter(my_waiter(request.token, turn.bell.name))
        if turn.ticket is None:
            return
        turn.ahead = turn.ahead or key.length()
    turn.before = key.before(turn.ticket)
    turn.holder = key.record
