"""The way to the node of a Redis Cluster that has a key's slot.

All keys of one lock share a slot (the {braces}), so every script runs at one node, and the waiters
of a key subscribe at that same node: there PUBLISH counts its receivers rightly. (A Cluster passes
published messages on to all nodes, but counts those of its own clients only.) When a slot moves or
a replica is promoted, waiters find out when they ask again, and queue up anew at the new node.
"""

import threading

import redis
from redis.crc import key_slot

from locks.clock import NS_PER_MS, now_ns
from locks.on_redis.address import RedisAddress
from locks.on_redis.link import Endpoint, Link, LinkBroken, Refused, packed
from locks.on_redis.node import Node
from locks.on_redis.routes import NOT_YET, Route
from locks.on_redis.scripts import lock_keys

SLOTS = 16_384
# Half of what a request has; a dead node among those asked must not use up all patience.
MAP_TIMEOUT_S = 0.3
# When nobody knew the slots, nobody is asked again for so long: a hundred threads ask at once.
PAUSE_MS = 100
_ASK_AGAIN = (
    redis.exceptions.MovedError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ReadOnlyError,
    *NOT_YET,
)


def slot_of(key: str) -> int:
    """The slot of all keys of a lock."""
    return int(key_slot(lock_keys(key)[0].encode()))


class Cluster(Route):
    """Keeps the map from slots to nodes, and draws it again after every failure."""

    def __init__(self, address: RedisAddress) -> None:
        self._seeds = address.servers
        self._guard = threading.RLock()
        self._nodes: dict[tuple[str, int], Node] = {}
        self._by_slot: list[Node | None] = []
        self._is_sure = False
        self._failure = ""
        self._failed_ns = 0

    def node_for(self, key: str) -> Node:
        """The master that has the key's slot."""
        node = self._map()[slot_of(key)]
        if node is None:
            self._is_sure = False
            raise LinkBroken(f"No node of the cluster has the slot {slot_of(key)}.")
        return node

    def nodes(self) -> list[Node]:
        """All masters that have slots."""
        found = [node for node in dict.fromkeys(self._map()) if node is not None]
        if not found:
            self._is_sure = False
            raise LinkBroken("No node of the cluster has any slot.")
        return found

    def broke(self, node: Node) -> None:
        """Draw the map again before the next request."""
        self._is_sure = False

    def refused(self, node: Node, error: Refused) -> bool:
        """Another node may have the slot by now, or soon."""
        if not isinstance(error, _ASK_AGAIN):
            return False
        self._is_sure = False
        return True

    def detour(self, error: Refused) -> Node | None:
        """`ASK slot host:port`: the slot moves there, and this key has moved already."""
        is_moved = isinstance(error, redis.exceptions.MovedError)  # a kind of AskError there
        if is_moved or not isinstance(error, redis.exceptions.AskError):
            return None
        with self._guard:
            return self._node_at(error.host, error.port)

    def close(self) -> None:
        """See Route."""
        for node in self._nodes.values():
            node.close()

    def abandon(self) -> None:
        """See Route."""
        for node in self._nodes.values():
            node.abandon()

    def _map(self) -> list[Node | None]:
        if self._is_sure:  # set after the map was
            return self._by_slot
        with self._guard:
            if not self._is_sure:
                self._by_slot = self._drawn_anew()
                self._is_sure = True
            return self._by_slot

    def _drawn_anew(self) -> list[Node | None]:
        """Raises LinkBroken if no node tells."""
        if self._failure and now_ns() - self._failed_ns < PAUSE_MS * NS_PER_MS:
            raise LinkBroken(self._failure)
        reasons = []
        # One that hangs is asked last: each lease of the others would wait for it.
        nodes = sorted(self._nodes.values(), key=lambda node: node.broke_ns)
        for endpoint in [*(node.endpoint for node in nodes), *self._seeds]:
            try:
                return self._asked_of(endpoint)
            except (LinkBroken, Refused) as error:
                reasons.append(f"{endpoint}: {error}")
        self._failure = f"No node of the cluster tells its slots. {'; '.join(reasons)}."
        self._failed_ns = now_ns()
        raise LinkBroken(self._failure)

    def _asked_of(self, endpoint: Endpoint) -> list[Node | None]:
        link = Link(endpoint, MAP_TIMEOUT_S)
        try:
            reply = link.ask(packed("CLUSTER", "SLOTS"))
        finally:
            link.close()
        by_slot: list[Node | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            # A node that does not know its own name has the one by which we know it.
            node = self._node_at((host or b"").decode() or endpoint.options["host"], port)
            by_slot[first : last + 1] = [node] * (last - first + 1)
        self._retire({node for node in by_slot if node is not None})
        return by_slot

    def _node_at(self, host: str, port: int) -> Node:
        place = (host, port)
        if place not in self._nodes:
            self._nodes[place] = Node(self._seeds[0].at(host, port))
        return self._nodes[place]

    def _retire(self, stay: set[Node]) -> None:
        """Close the nodes that have no slot any more; their waiters wake and look elsewhere."""
        for place, node in list(self._nodes.items()):
            if node not in stay:
                del self._nodes[place]
                node.close()
