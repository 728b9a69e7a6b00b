"""One Redis server as the lock uses it: connections for requests, and subscriptions."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from locks.on_redis.link import Endpoint, Link, Refused, Reply, packed
from locks.on_redis.subscription import Subscriptions

R = TypeVar("R")
T = TypeVar("T")
# More than this at once are made when needed, and closed after use.
MAX_IDLE = 64


class Node:
    """Connections to one server. Every request has a connection to itself while it runs.

    `check` is asked about every new connection and may refuse it. All raise LinkBroken, Refused.
    """

    def __init__(self, endpoint: Endpoint, check: Callable[[Link], None] | None = None) -> None:
        self.endpoint = endpoint
        self.subscriptions = Subscriptions(self.connect)
        self._check = check
        self.broke_ns = 0
        """When a connection to it failed last; 0 if none did."""
        self._is_closed = False
        # Last in, first out, so that a burst's connections stay idle together. Appending to and
        # popping from a list are atomic: no lock is needed.
        self._idle: list[Link] = []

    def __str__(self) -> str:
        return str(self.endpoint)

    def connect(self) -> Link:
        """A new connection."""
        link = Link(self.endpoint)
        if self._check is not None:
            try:
                self._check(link)
            except BaseException:
                link.close()
                raise
        return link

    def ask(self, request: bytes) -> Reply:
        """The reply to a request."""
        return self._use(Link.ask, request)

    def ask_all(self, requests: Sequence[bytes]) -> list[Reply]:
        """The replies to requests that are sent at once. Refusals are given, not raised."""
        return self._use(Link.ask_all, requests)

    def ask_after(self, opening: bytes, request: bytes) -> Reply:
        """As `ask`, on a connection that is told something first."""
        for reply in self.ask_all([opening, request]):
            if isinstance(reply, Refused):
                raise reply
        return reply

    def ping(self) -> None:
        """See that it answers."""
        self.ask(packed("PING"))

    def close(self) -> None:
        """Close every connection; those in use when their request is over."""
        self._is_closed = True
        self._drop_idle()
        self.subscriptions.close()

    def abandon(self) -> None:
        """Close a forked child's copies."""
        self._is_closed = True
        self._drop_idle()
        self.subscriptions.abandon()

    def _use(self, work: Callable[[Link, R], T], request: R) -> T:
        try:
            link = self._idle.pop()
        except IndexError:
            link = self.connect()
        try:
            result = work(link, request)
        except Refused:
            self._put_back(link)
            raise
        except BaseException:
            # Whatever broke this one broke those that lay idle as well. A reply may be on its way
            # still, so a connection is never used again after an error, of whatever kind.
            link.close()
            self._drop_idle()
            raise
        self._put_back(link)
        return result

    def _put_back(self, link: Link) -> None:
        if len(self._idle) >= MAX_IDLE:
            link.close()
            return
        self._idle.append(link)
        if self._is_closed:  # looked at last, or it could be closed between the two
            self._drop_idle()

    def _drop_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
