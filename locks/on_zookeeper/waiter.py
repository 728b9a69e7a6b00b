"""One call of acquire at ZooKeeper: its node, and its way to the head of the queue."""

import os
from functools import cache
from typing import Any

from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType

from locks.base import Request
from locks.clock import NS_PER_MS, Deadline, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant
from locks.names import host_name
from locks.on_zookeeper.queue import (
    WAITED,
    Place,
    all_shards,
    ask_names,
    ask_place,
    list_shard,
    list_shard_now,
    queue_of,
    shard_of,
)
from locks.on_zookeeper.session import (
    CONNECT_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    Interrupted,
    Refused,
    Session,
    reply,
)
from locks.on_zookeeper.watch import next_event

# An answer this fresh, as a part of the lease, still proves the session when our turn comes.
FRESH_DIVISOR = 6
# Who is in the queue already waits a little longer for the ensemble to choose another leader.
RECONNECT_TIMEOUT_S = 2.0

# What a watch on the node before ours can tell (see queue); any other event means: look.
RELEASED: str = EventType.CHANGED
GONE: str = EventType.DELETED


class _NodeGone(LockUnavailable):
    """Our node vanished with an earlier session: queue up again."""


class Waiter:
    """Takes one key. `path` is the node's, once it is known.

    `may_stand` says whether there may be a node of ours, known or not; `made_twice`, whether a
    request for another one may still be under way on a connection that broke.
    """

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request
        self._shard = shard_of(session.root, request.key)
        self._sent_ns = 0
        self._fence = 0
        self._ahead: int | None = None
        self.path = ""
        self.may_stand = False
        self.made_twice = False

    def wait(self) -> Grant:
        """Queue up and wait. Raises LockTimeout, LockUnavailable; the node is left to be freed."""
        is_repeated = False
        while True:
            try:
                names = self._queue_up(is_repeated)
                while not self._outlasts(names):
                    names = list_shard(self._client(), self._shard)
                return self._grant()
            except (Interrupted, _NodeGone):
                if is_repeated and self._request.deadline.is_over():
                    if self._ahead:
                        raise self._request.timeout() from None
                    raise
                is_repeated = True

    def _client(self) -> Any:
        return self._session.client(RECONNECT_TIMEOUT_S if self.path else CONNECT_TIMEOUT_S)

    def _queue_up(self, is_repeated: bool) -> list[str]:
        """Make our node, unless an earlier try made it. Gives the shard's nodes."""
        if is_repeated:
            names = list_shard_now(self._client(), self._shard)
            mine = self._mine(queue_of(self._request.key, names))
            if mine is not None:
                self._adopt(mine.name)
                return names
        try:
            return self._create()
        except NoNodeError:
            self._session.make(all_shards(self._session.root))
            return self._create()

    def _create(self) -> list[str]:
        client = self._client()
        deadline = Deadline(int(REPLY_TIMEOUT_S * 1_000))
        self.path = ""
        had_none = not self.may_stand
        self.may_stand, self.made_twice = True, self.may_stand
        self._sent_ns = now_ns()
        prefix = f"{self._shard}/{self._request.key}~{self._request.token}-"
        made = ask_place(client, prefix, whoami(os.getpid()))
        listed = ask_names(client, self._shard)  # on its way before the first answer
        try:
            self.path, stat = reply(made, deadline.left_s())
        except (Refused, NoNodeError):
            self.may_stand = not had_none
            raise
        self._fence = stat.czxid
        names: list[str] = reply(listed, deadline.left_s())
        return names

    def _adopt(self, name: str) -> None:
        """Go on with a node of ours that stands. It is asked for by way of the leader."""
        path = f"{self._shard}/{name}"
        client = self._client()
        sent_ns = now_ns()
        synced, found = client.sync_async(path), client.exists_async(path)
        reply(synced)
        stat = reply(found)
        if stat is None:
            raise _NodeGone
        self.path, self._fence, self._sent_ns = path, stat.czxid, sent_ns

    def _mine(self, queue: list[Place]) -> Place | None:
        return next((place for place in queue if place.token == self._request.token), None)

    def _outlasts(self, names: list[str]) -> bool:
        """Whether it is our turn, after waiting until the one before us went.

        Nobody comes in before us, since sequence numbers rise: if the one before us was the first,
        and went, it is our turn without another look.
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
        event = self._next_event(queue[ahead - 1].name)
        return event == RELEASED or (event == GONE and ahead == 1)

    def _next_event(self, name: str) -> str:
        """Wait until something becomes of that node. Raises LockTimeout."""
        deadline = self._request.deadline
        if deadline.is_over():
            raise self._request.timeout()
        try:
            event = next_event(self._session, self._client(), f"{self._shard}/{name}", deadline)
        except NoNodeError:
            return GONE
        if event is None:
            raise self._request.timeout()
        return event

    def _grant(self) -> Grant:
        request = self._request
        ttl_ms = min(request.lease_ms, self._session.safe_ms)
        if now_ns() - self._sent_ns > ttl_ms * NS_PER_MS // FRESH_DIVISOR:
            self._adopt(self.path.rpartition("/")[2])
        return Grant(
            request.key,
            request.token,
            self._fence,
            request.lease_ms,
            self._sent_ns,
            place=WAITED + self.path if self._ahead else self.path,
            ttl_ms=ttl_ms,
            ahead=self._ahead or 0,
        )


@cache
def whoami(pid: int) -> bytes:
    """What a node of this process says, for an operator's eyes."""
    return f"{host_name()} {pid}".encode("ascii")
