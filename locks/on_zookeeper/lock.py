"""Leases in ZooKeeper: a queue of ephemeral sequential nodes for each key; the first holds it.

The fence is the node's czxid, the number of the transaction that made it: it rises over the whole
ensemble and over every deletion, as the sequence number, which counts within the parent, does not.
It cannot be raised, so `fence_floor` has no effect here: a resource that has seen greater fences
(from Redis) refuses ours until it is told of the change of back end. To believe otherwise would
hide that two services were in use.

The lease is the session: it ends at the server when it has not heard from us for the session's
time. A lease therefore never shows more time left than the session has, however long lease_ms is,
counted from the last request that was answered; renewal is such a request, looks that the node is
still there, and leaves a watch on it. When the connection breaks, `ensure_held` refuses until it is
back; when the session is lost, every lease is.
"""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kazoo.exceptions import NoNodeError

from locks.base import LEFT_OVER_EVERY_MS, BaseLock, Request
from locks.clock import NS_PER_MS, Deadline, now_ns
from locks.errors import LockTimeout, LockUnavailable
from locks.held import Grant, HeldLease
from locks.inspection import HeldKey
from locks.observe import LockObserver
from locks.on_zookeeper.queue import (
    delete,
    held_keys,
    holder_of,
    list_shard_now,
    path_of,
    queue_of,
    release,
    shard_of,
)
from locks.on_zookeeper.realm import ensemble_name
from locks.on_zookeeper.session import CLOSED, REPLY_TIMEOUT_S, Credentials, Session, reply
from locks.on_zookeeper.waiter import Waiter
from locks.on_zookeeper.watch import forget
from locks.renewal import NEVER_NS, Chore, Renewer

SESSION_MS, MIN_SESSION_MS, MAX_SESSION_MS = 15_000, 1_000, 120_000
PING_TIMEOUT_S = 1.0
# A request on a connection that broke may arrive at a slow server after we looked, but not so late.
LATE_MS = 3_000
NODE_GONE = "Its node is gone from ZooKeeper."


class ZooKeeperLock(BaseLock):
    """ZooKeeper 3.5 or later, one server or an ensemble; `hosts` is `h1:p1,h2:p2/chroot`.

    With `credentials`, `user:password`, it authenticates by digest, and what it makes is for the
    same credentials only.
    """

    backend = "zookeeper"

    def __init__(
        self,
        hosts: str,
        *,
        session_ms: int = SESSION_MS,
        credentials: str = "",
        observer: LockObserver | None = None,
    ) -> None:
        self._hosts = hosts
        self._session_ms = session_ms
        self._credentials = Credentials(credentials)
        self._current: Session | None = None
        self._is_disconnected = False
        self._realm = -1, ""
        super().__init__(observer)

    def realm(self) -> str:
        """See LeaseLock: `zookeeper:` and the name of the ensemble, asked once in each session."""
        self._check_open()
        session = self._session()
        session.client()  # while there is no connection, nobody knows whether the session goes on
        number = session.number
        known_in, realm = self._realm
        if known_in != number:
            realm = f"{self.backend}:{ensemble_name(session)}"
            self._realm = number, realm
        return realm

    def _take(self, request: Request) -> Grant:
        waiter = Waiter(self._session(), request)
        try:
            grant = waiter.wait()
        except LockUnavailable:
            if waiter.may_stand:
                self._free_later(request.key, request.token, "", request.lease_ms)
            raise
        except LockTimeout:
            self._withdraw(request, waiter)
            raise
        if waiter.made_twice:
            self._sweep_twice(request.key, request.token, waiter.path)
        return grant

    def _withdraw(self, request: Request, waiter: Waiter) -> None:
        """Leave the queue."""
        try:
            if waiter.path:
                delete(self._session().client(), waiter.path)
            elif waiter.may_stand:
                self._free(request.key, request.token, "")
        except LockUnavailable:
            self._free_later(request.key, request.token, "", request.lease_ms)

    def _free_later(self, key: str, token: str, place: str, lease_ms: int) -> None:
        """See BaseLock."""
        if place:
            self._do_later(lambda: self._free(key, token, place))
        else:
            self._sweep_twice(key, token, "")

    def _sweep_twice(self, key: str, token: str, keep: str) -> None:
        """Sweep as soon as the service answers, and another time when nothing more can arrive."""

        def sweep() -> bool:
            return self._sweep(key, token, keep)

        def sweep_and_plan_another() -> bool:
            self._sweep(key, token, keep)
            self._do_later(sweep, LATE_MS)
            return True

        self._do_later(sweep_and_plan_another)

    def _do_later(self, run: Callable[[], bool], wait_ms: int = LEFT_OVER_EVERY_MS) -> None:
        """Try until it is done. A session that is over has taken its nodes along: so is it then."""
        try:
            number = self._session().number
        except LockUnavailable:
            return  # It was closed meanwhile.
        wait_ns = wait_ms * NS_PER_MS

        def run_or_not() -> bool:
            return self._session().number != number or run()

        self._renewer.add_chore(Chore(run_or_not, wait_ns, NEVER_NS, now_ns() + wait_ns))

    def _sweep(self, key: str, token: str, keep: str) -> bool:
        """Delete this token's nodes but for one path."""
        session = self._session()
        client = session.client()
        shard = shard_of(session.root, key)
        for each in queue_of(key, list_shard_now(client, shard)):
            path = f"{shard}/{each.name}"
            if each.token == token and path != keep:
                delete(client, path)
        return True

    def _renew(self, leases: list[HeldLease]) -> None:
        session = self._session()
        client = session.client()
        sent_ns = now_ns()
        # A server that is cut off from its leader still answers what it knows. The sync is
        # answered by way of the leader, which checks that the session stands.
        synced = client.sync_async(session.root or "/")
        asked = [
            (lease, client.get_async(path_of(lease.place), _Gone(self._renewer, lease)))
            for lease in leases
        ]
        deadline = Deadline(int(REPLY_TIMEOUT_S * 1_000))
        reply(synced, deadline.left_s())
        failed = None
        for lease, result in asked:
            try:
                stands = _czxid(result, deadline) == lease.fence
            except LockUnavailable as error:
                failed = error  # of this one; the others were answered, or will be
                continue
            if stands:
                lease.extend(sent_ns, session.safe_ms)
            else:
                self._renewer.lose(lease, NODE_GONE)
        if failed is not None:
            raise failed

    def _free(self, key: str, token: str, place: str) -> bool:
        if not place:  # the node's name is not known
            return self._sweep(key, token, "")
        client = self._session().client()
        release(client, place)  # a holder's; see _withdraw
        # Mostly the deletion itself has called it. Not where a waiter of this session took back
        # the one watch at the service that it shared with it.
        path = path_of(place)
        for watcher in tuple(client._data_watchers.get(path, ())):
            if isinstance(watcher, _Gone):
                forget(client, path, watcher)
        return True

    def _list_held(self, limit: int) -> list[HeldKey]:
        return held_keys(self._session(), limit)

    def _break(self, key: str) -> HeldKey | None:
        session = self._session()
        found = holder_of(session, key)
        if found is None:
            return None
        path, held = found
        return held if delete(session.client(), path) else None

    def _ping(self) -> None:
        deadline = Deadline(int(PING_TIMEOUT_S * 1_000))
        session = self._session()
        client = session.client(deadline.left_s())
        synced = client.sync_async(session.root or "/")
        looked = client.get_async(f"{session.root}/leases")  # as far as we may
        reply(synced, deadline.left_s())
        with suppress(NoNodeError):
            reply(looked, deadline.left_s())

    def _doubt(self) -> str:
        session = self._current
        suspended = session is None or session.is_suspended
        return "The connection to ZooKeeper is broken, its session may have ended." * suspended

    def _session(self) -> Session:
        """The session of this process. Raises LockUnavailable if it was closed."""
        with self._guard:
            if self._is_disconnected:
                raise LockUnavailable(CLOSED)
            if self._current is None:
                self._current = Session(
                    self._hosts, self._session_ms, self._credentials, self._session_lost
                )
                if self._closed:  # by a signal's handler, say, which did not see this one
                    self._disconnect()
                    raise LockUnavailable(CLOSED)
            return self._current

    def _session_lost(self) -> None:
        self._renewer.lose_all("The ZooKeeper session ended.")

    def _disconnect(self) -> None:
        with self._guard:
            self._is_disconnected = True
            session, self._current = self._current, None
        if session is not None:
            session.close()

    def _forget(self) -> None:
        self._guard = threading.RLock()
        self._current = None
        self._realm = -1, ""


class _Gone:
    """A watch on a held lease's node: whoever deletes it, the holder learns of it at once.

    Set anew by each renewal, which changes nothing where it stands: two for one lease are equal.
    The holder's own release triggers it too, or takes it back.
    """

    def __init__(self, renewer: Renewer, lease: HeldLease) -> None:
        self._renewer = renewer
        # Weak, as the renewer's own: a lease that its holder forgot must not be kept by its watch.
        self._lease = weakref.ref(lease)
        # A weak reference to what is gone cannot be hashed, and the client hashes its watchers.
        self._token = lease.token

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Gone) and other._token == self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def __call__(self, event: Any) -> None:
        """Called by the client's own thread; also with NONE, when the connection breaks."""
        lease = self._lease()
        if event.type == "DELETED" and lease is not None and not lease.is_released:
            self._renewer.lose(lease, NODE_GONE)


def _czxid(result: Any, deadline: Deadline) -> int | None:
    try:
        _, stat = reply(result, deadline.left_s())
    except NoNodeError:
        return None
    czxid: int = stat.czxid
    return czxid
