"""Which Redis server a key is asked at."""

from abc import ABC, abstractmethod

import redis

from locks.on_redis.link import Endpoint, Refused
from locks.on_redis.node import Node

# It waits for its master: as good as no connection.
NOT_YET = (redis.exceptions.MasterDownError,)
_CLUSTER = (
    redis.exceptions.AskError,  # MOVED too
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.ClusterCrossSlotError,
)


class Route(ABC):
    """The servers of one lock object in one process, and the way to the right one.

    Safe to use in several threads at once.
    """

    @abstractmethod
    def node_for(self, key: str) -> Node:
        """Where this key is asked for now. Raises LinkBroken, Refused if nobody can say."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """All that may hold a key. Raises LinkBroken, Refused if nobody can say."""

    @abstractmethod
    def broke(self, node: Node) -> None:
        """A connection to this server failed, so another one may be in its place."""

    @abstractmethod
    def refused(self, node: Node, error: Refused) -> bool:
        """This server refused a request. Gives whether it is worth asking again at `node_for`."""

    def detour(self, error: Refused) -> Node | None:
        """A server that is to be asked this once instead (a Cluster's ASK), if the error is one."""
        return None

    def advice(self, error: Refused) -> str:
        """What to do about a refusal, if that can be told."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """Close all connections; threads that wait for something are woken."""

    @abstractmethod
    def abandon(self) -> None:
        """Close a forked child's copies."""


class OneServer(Route):
    """There is but one."""

    def __init__(self, server: Endpoint) -> None:
        self._node = Node(server)

    def node_for(self, key: str) -> Node:
        """That one."""
        return self._node

    def nodes(self) -> list[Node]:
        """That one."""
        return [self._node]

    def broke(self, node: Node) -> None:
        """There is no other."""

    def refused(self, node: Node, error: Refused) -> bool:
        """There is no other, but it may be waiting for its master."""
        return isinstance(error, NOT_YET)

    def advice(self, error: Refused) -> str:
        """Some mistakes show in what the server says."""
        if isinstance(error, _CLUSTER):
            return " This is a node of a Redis Cluster: write redis+cluster:// in the URL."
        if isinstance(error, redis.exceptions.ReadOnlyError):
            return " This is a replica: name its master, or write redis+sentinel:// in the URL."
        return ""

    def close(self) -> None:
        """See Route."""
        self._node.close()

    def abandon(self) -> None:
        """See Route."""
        self._node.abandon()
