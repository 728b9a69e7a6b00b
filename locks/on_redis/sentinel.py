"""The way to the master that Redis Sentinel names at present.

The sentinels are asked when there is no connection that works: at first, and after every failure.
Each new connection to the master is asked for its ROLE, since sentinels may name an old master for
a while (redis.io/docs/reference/sentinel-clients). A demoted master breaks its clients' connections
itself, and one that could not refuses what we write, as a replica.

A promotion may lose the last writes. Then the lease is not found by its renewal and is known to be
lost, or another has it already: it has a higher fence, as the clock went on (see scripts),
and the resource refuses the earlier holder. A master that is cut off from its sentinels goes on
granting to those who can still reach it: Redis' min-replicas-to-write bounds that.
"""

import threading

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from locks.clock import NS_PER_MS, now_ns
from locks.on_redis.address import RedisAddress
from locks.on_redis.link import Endpoint, Link, LinkBroken, Refused, packed
from locks.on_redis.node import Node
from locks.on_redis.routes import NOT_YET, Route

# Three mute sentinels must not keep a caller for more than about two seconds.
SENTINEL_TIMEOUT_S = 0.3
# When nobody knew the master, nobody is asked again for so long: a hundred threads ask at once.
PAUSE_MS = 100


class Sentinels(Route):
    """Asks several sentinels in turn; the first that knows the master is believed."""

    def __init__(self, address: RedisAddress, login: Endpoint) -> None:
        self._sentinel = _sentinel(address.servers)
        self._servers = address.servers
        self._service = address.service
        self._login = login
        self._guard = threading.RLock()
        self._last: Node | None = None
        self._is_sure = False
        self._failure = ""
        self._failed_ns = 0

    def node_for(self, key: str) -> Node:
        """The master, whatever the key."""
        last = self._last if self._is_sure else None
        if last is not None:
            return last
        with self._guard:
            if self._last is None or not self._is_sure:
                self._last = self._master()
                self._is_sure = True
            return self._last

    def nodes(self) -> list[Node]:
        """The master."""
        return [self.node_for("")]

    def broke(self, node: Node) -> None:
        """Ask the sentinels before the next request."""
        if node is self._last:
            self._is_sure = False

    def refused(self, node: Node, error: Refused) -> bool:
        """A master that became a replica says that it is read-only."""
        if isinstance(error, (redis.exceptions.ReadOnlyError, *NOT_YET)):
            self.broke(node)
            return True
        return False

    def close(self) -> None:
        """See Route."""
        if self._last is not None:
            self._last.close()

    def abandon(self) -> None:
        """See Route."""
        if self._last is not None:
            self._last.abandon()

    def _master(self) -> Node:
        """The node of before, if it is the master still. Raises LinkBroken."""
        if self._failure and now_ns() - self._failed_ns < PAUSE_MS * NS_PER_MS:
            raise LinkBroken(self._failure)
        try:
            place = self._sentinel.discover_master(self._service)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            # Not quoted: the library's sentence is about its objects, not about what is wrong.
            self._failure = (
                f"No sentinel of {', '.join(map(str, self._servers))} names a master "
                f"{self._service!r} that is up.{_complaint(self._servers[0])}"
            )
            self._failed_ns = now_ns()
            raise LinkBroken(self._failure) from error
        found = self._login.at(*place)
        if self._last is not None:
            if self._last.endpoint == found:
                return self._last
            # Its waiters wake, and queue up at the new master.
            self._last.close()
        return Node(found, _check_master)


def _sentinel(servers: tuple[Endpoint, ...]) -> Sentinel:
    """Connects to nothing yet."""
    places = [(server.options["host"], server.options["port"]) for server in servers]
    options = {
        name: value
        for name, value in servers[0].options.items()
        if name not in ("host", "port", "connection_class")
    }
    options |= {
        "ssl": "connection_class" in servers[0].options,
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "driver_info": None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
    }
    return Sentinel(places, sentinel_kwargs=options)  # type: ignore[no-untyped-call]


def _complaint(sentinel: Endpoint) -> str:
    """Why this one does not talk to us, if it does not; the others will have the same reason."""
    try:
        Link(sentinel, SENTINEL_TIMEOUT_S).close()
    except (LinkBroken, Refused) as error:
        return f" {sentinel}: {error}"
    return ""


def _check_master(link: Link) -> None:
    role = link.ask(packed("ROLE"))[0]
    if role != b"master":
        raise LinkBroken(f"The sentinels name it as master, but it is a {role.decode()}.")
