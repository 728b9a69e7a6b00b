"""One call of acquire at ZooKeeper: its node, and its way to the head of the queue."""

import os
import socket
import threading
from typing import Any

from kazoo.exceptions import NoNodeError

from locks.base import Request
from locks.clock import NS_PER_MS, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant
from locks.zookeeper_queue import PARENT, SHARDS, Place, list_shard, queue_of, shard_of
from locks.zookeeper_session import Interrupted, Session, reply

# An answer this fresh, as a part of the lease, still proves the session when our turn comes.
FRESH_DIVISOR = 6


class _NodeGone(LockUnavailable):
    """Our node vanished with an earlier session: queue up again."""


class Waiter:
    """Takes one key. `path` is the node's, once it is known."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._shard = shard_of(request.key)
        self._sent_ns = 0
        self._fence = 0
        self._ahead: int | None = None
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
            mine = self._mine(queue_of(self._request.key, names))
            if mine is not None:
                self._adopt(mine.name)
                return names
        try:
            return self._create()
        except NoNodeError:
            self._session.make(PARENT, SHARDS)
            return self._create()

    def _create(self) -> list[str]:
        client = self._session.client()
        self._sent_ns = now_ns()
        made = client.create_async(
            f"{self._shard}/{self._request.key}~{self._request.token}-",
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
        sent_ns = now_ns()
        names = list_shard(self._session, self._shard)
        self._sent_ns = sent_ns
        return names

    def _mine(self, queue: list[Place]) -> Place | None:
        return next((place for place in queue if place.token == self._request.token), None)

    def _is_first(self, names: list[str]) -> bool:
        """Whether it is our turn; if not, waits until the one before us goes.

        Nobody comes in before us, since sequence numbers rise: if there was but one, and it went,
        it is our turn without another look.
        """
        queue = queue_of(self._request.key, names)
        mine = self._mine(queue)
        if mine is None:
            raise _NodeGone
        ahead = queue.index(mine)
        if self._ahead is None:
            self._ahead = ahead
        if ahead == 0:
            return True
        return self._outlast(queue[ahead - 1].name) and ahead == 1

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
        ttl_ms = min(self._request.lease_ms, self._session.safe_ms)
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
            ahead=self._ahead or 0,
        )
