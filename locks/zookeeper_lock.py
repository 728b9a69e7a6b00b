"""Leases in ZooKeeper: a queue of ephemeral sequential nodes for each key; the first holds it.

    /leases/<shard>/<key>~<token>-<sequence>

The fence is the node's czxid, the number of the transaction that made it: it rises over the whole
ensemble and over every deletion, as the sequence number, which counts within the parent, does not.
It cannot be raised, so `fence_floor` has no effect here: a resource that has seen greater fences
(from Redis) refuses ours until it is told of the change of back end. To believe otherwise would
hide that two services were in use.

The lease is the session: it ends at the server when it has not heard from us for the session's
time. A lease therefore never shows more time left than the session has, however long lease_ms is,
counted from the last request that was answered; renewal is such a request, and looks that the node
is still there. When the connection breaks, `ensure_held` refuses until it is back; when the session
is lost, every lease is.

The parents are a fixed set of shards, made once: a parent per key would stay behind for ever.
"""

import os
import socket
import threading
import zlib
from typing import Any

from kazoo.exceptions import NoNodeError

from locks.base import BaseLock, Request
from locks.clock import NS_PER_MS, Deadline, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant, HeldLease
from locks.observe import LockObserver
from locks.protocol import MAX_LEASE_MS
from locks.zookeeper_realm import ensemble_name
from locks.zookeeper_session import REPLY_TIMEOUT_S, Interrupted, Session, reply

SESSION_MS, MIN_SESSION_MS, MAX_SESSION_MS = 15_000, 1_000, 120_000
PARENT, SHARDS = "/leases", 64
# A follower tells the leader of our sign of life with its next ping, half a tick later at most:
# that much of the session's time is not counted on.
SESSION_MARGIN_DIVISOR = 6
PING_TIMEOUT_S = 1.0
# An answer this fresh, as a part of the lease, still proves the session when our turn comes.
FRESH_DIVISOR = 6


class _NodeGone(Exception):
    """Our node vanished with an earlier session: queue up again."""


class ZooKeeperLock(BaseLock):
    """ZooKeeper 3.5 or later, one server or an ensemble; `hosts` is `h1:p1,h2:p2/chroot`."""

    backend = "zookeeper"

    def __init__(
        self,
        hosts: str,
        *,
        session_ms: int = SESSION_MS,
        observer: LockObserver | None = None,
    ) -> None:
        self._hosts = hosts
        self._session_ms = session_ms
        self._current: Session | None = None
        self._realm = -1, ""
        super().__init__(observer)

    def realm(self) -> str:
        """See LeaseLock: `zookeeper:` and the name of the ensemble, asked once in each session."""
        self._check_open()
        session = self._session()
        number = session.number
        known_in, realm = self._realm
        if known_in != number:
            realm = f"{self.backend}:{ensemble_name(session)}"
            self._realm = number, realm
        return realm

    def _take(self, request: Request) -> Grant:
        waiter = _Waiter(self._session(), request)
        try:
            return waiter.wait()
        except LockUnavailable:
            self._free_later(request.key, request.token, "", request.lease_ms)
            raise
        except BaseException:
            self._free_for_sure(request.key, request.token, waiter.path, request.lease_ms)
            raise

    def _renew(self, leases: list[HeldLease]) -> None:
        session = self._session()
        client = session.client()
        sent_ns = now_ns()
        asked = [(lease, client.exists_async(lease.place)) for lease in leases]
        deadline = Deadline(int(REPLY_TIMEOUT_S * 1_000))
        for lease, result in asked:
            stat = reply(result, deadline.left_s())
            if stat is None or stat.czxid != lease.fence:
                self._renewer.lose(lease, "Its node is gone from ZooKeeper.")
            else:
                lease.extend(sent_ns, session_ttl_ms(session))

    def _free(self, key: str, token: str, place: str) -> bool:
        client = self._session().client()
        if place:
            _delete(client, place)
            return True
        # The node's name is not known. The sync comes first, lest a server that lags behind
        # shows a list from before our own create.
        shard = _shard(key)
        synced, listed = client.sync_async(shard), client.get_children_async(shard)
        try:
            reply(synced)
            names = reply(listed)
        except NoNodeError:
            return True
        for name in names:
            if name.startswith(f"{key}~{token}-"):
                _delete(client, f"{shard}/{name}")
        return True

    def _left_over_ms(self, lease_ms: int) -> int:
        # A node stands as long as the session does, and so as long as this process.
        return 1_000 * MAX_LEASE_MS

    def _ping(self) -> None:
        deadline = Deadline(int(PING_TIMEOUT_S * 1_000))
        client = self._session().client(deadline.left_s())
        reply(client.exists_async("/"), deadline.left_s())

    def _doubt(self) -> str:
        session = self._current
        suspended = session is None or session.is_suspended
        return "The connection to ZooKeeper is broken, its session may have ended." * suspended

    def _session(self) -> Session:
        """The session of this process."""
        with self._guard:
            if self._current is None:
                self._current = Session(self._hosts, self._session_ms, self._session_lost)
            return self._current

    def _session_lost(self) -> None:
        self._renewer.lose_all("The ZooKeeper session ended.")

    def _disconnect(self) -> None:
        with self._guard:
            session, self._current = self._current, None
        if session is not None:
            session.close()

    def _forget(self) -> None:
        self._guard = threading.Lock()
        self._current = None
        self._realm = -1, ""


class _Waiter:
    """One call of acquire: its node, and its way to the head of the queue."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._shard = _shard(request.key)
        self._prefix = f"{request.key}~{request.token}-"
        self._sent_ns = 0
        self._fence = 0
        self.path = ""

    def wait(self) -> Grant:
        """Queue up and wait. Raises LockTimeout, LockUnavailable; the node is left to be freed."""
        is_repeated = False
        while True:
            try:
                names = self._queue_up(is_repeated)
                while not self._is_first(names):
                    names = self._list()
                return self._grant()
            except (Interrupted, _NodeGone):
                if is_repeated and self._request.deadline.is_over():
                    raise self._request.timeout() from None
                is_repeated = True

    def _queue_up(self, is_repeated: bool) -> list[str]:
        """Make our node, unless an earlier try made it. Gives the shard's nodes."""
        if is_repeated:
            names = self._list()
            mine = [name for name in names if name.startswith(self._prefix)]
            if mine:
                self._adopt(mine[0])
                return names
        client = self._session.client()
        try:
            return self._create(client)
        except NoNodeError:
            self._session.make(PARENT, [f"{number:02x}" for number in range(SHARDS)])
            return self._create(client)

    def _create(self, client: Any) -> list[str]:
        self._sent_ns = now_ns()
        made = client.create_async(
            f"{self._shard}/{self._prefix}",
            f"{socket.gethostname()} {os.getpid()}".encode(),
            ephemeral=True,
            sequence=True,
            include_data=True,
        )
        listed = client.get_children_async(self._shard)  # on its way before the first answer
        self.path, stat = reply(made)
        self._fence = stat.czxid
        names: list[str] = reply(listed)
        return names

    def _adopt(self, name: str) -> None:
        path = f"{self._shard}/{name}"
        sent_ns = now_ns()
        stat = reply(self._session.client().exists_async(path))
        if stat is None:
            raise _NodeGone
        self.path, self._fence, self._sent_ns = path, stat.czxid, sent_ns

    def _list(self) -> list[str]:
        client = self._session.client()
        try:
            sent_ns = now_ns()
            synced, listed = (
                client.sync_async(self._shard),
                client.get_children_async(self._shard),
            )
            reply(synced)
            names: list[str] = reply(listed)
        except NoNodeError:
            return []
        self._sent_ns = sent_ns
        return names

    def _is_first(self, names: list[str]) -> bool:
        """Whether it is our turn; if not, waits until the one before us goes.

        Nobody comes in before us, since sequence numbers rise: if there was but one, and it went,
        it is our turn without another look.
        """
        queue = sorted(_sequences(self._request.key, names))
        mine = self.path.rpartition("/")[2]
        place = next((place for place, (_, name) in enumerate(queue) if name == mine), None)
        if place is None:
            raise _NodeGone
        if place == 0:
            return True
        return self._outlast(queue[place - 1][1]) and place == 1

    def _outlast(self, name: str) -> bool:
        """Wait until that node is gone; False if it may still be there. Raises LockTimeout."""
        happened = threading.Event()
        kinds: list[str] = []

        def tell(event: Any) -> None:
            kinds.append(event.type)
            happened.set()

        try:
            # `get`, not `exists`: on a node that is gone already, `exists` leaves a watch behind.
            reply(self._session.client().get_async(f"{self._shard}/{name}", watch=tell))
        except NoNodeError:
            return True
        if not happened.wait(self._request.deadline.left_s()):
            raise self._request.timeout()
        return kinds[0] == "DELETED"

    def _grant(self) -> Grant:
        ttl_ms = min(self._request.lease_ms, session_ttl_ms(self._session))
        if now_ns() - self._sent_ns > ttl_ms * NS_PER_MS // FRESH_DIVISOR:
            self._adopt(self.path.rpartition("/")[2])
        request = self._request
        return Grant(
            request.key,
            request.token,
            self._fence,
            request.lease_ms,
            self._sent_ns,
            place=self.path,
            ttl_ms=ttl_ms,
        )


def session_ttl_ms(session: Session) -> int:
    """How long after an answered request the session certainly still stands."""
    return session.granted_ms - session.granted_ms // SESSION_MARGIN_DIVISOR


def _shard(key: str) -> str:
    return f"{PARENT}/{zlib.crc32(key.encode('ascii')) % SHARDS:02x}"


def _sequences(key: str, names: list[str]) -> list[tuple[int, str]]:
    return [(int(name.rpartition("-")[2]), name) for name in names if name.startswith(f"{key}~")]


def _delete(client: Any, path: str) -> None:
    try:
        reply(client.delete_async(path))
    except NoNodeError:
        return  # Deleted by a try whose answer was lost, or gone with its session.
