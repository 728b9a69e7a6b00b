"""Which Redis server a key is asked at."""

from abc import ABC, abstractmethod

from locks.redis_address import RedisAddress
from locks.redis_node import Node
from locks.redis_wire import LinkBroken, ReplyError

# It starts, or waits for its master: as good as no connection.
NOT_YET = {"LOADING", "MASTERDOWN"}
CLUSTER_REPLIES = {"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"}


class Route(ABC):
    """The servers of one lock object in one process, and the way to the right one."""

    @abstractmethod
    def node_for(self, key: str) -> Node:
        """Where this key is asked for now. Raises OSError if that cannot be found out."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """All that may hold a key. Raises OSError if that cannot be found out."""

    @abstractmethod
    def broke(self, node: Node) -> None:
        """A connection to this server failed, so another one may be in its place."""

    def refused(self, node: Node, error: ReplyError) -> bool:
        """This server refused a request. Gives whether another one may be the right one now."""
        return False

    def detour(self, error: ReplyError) -> Node | None:
        """A server that is to be asked this once instead (a Cluster's ASK), if the error is one."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""

    @abstractmethod
    def abandon(self) -> None:
        """Close a forked child's copies."""


class OneServer(Route):
    """There is but one."""

    def __init__(self, address: RedisAddress) -> None:
        self._node = Node(address.servers[0])

    def node_for(self, key: str) -> Node:
        """That one."""
        return self._node

    def nodes(self) -> list[Node]:
        """That one."""
        return [self._node]

    def broke(self, node: Node) -> None:
        """There is no other."""

    def refused(self, node: Node, error: ReplyError) -> bool:
        """It may be starting. A node of a Cluster is no server to be used by itself."""
        if error.code in CLUSTER_REPLIES:
            raise LinkBroken(f"It is a node of a Redis Cluster: write redis+cluster:// ({error}).")
        return error.code in NOT_YET

    def close(self) -> None:
        """See Route."""
        self._node.close()

    def abandon(self) -> None:
        """See Route."""
        self._node.abandon()


def route_to(address: RedisAddress) -> Route:
    """Connects to nothing yet."""
    return OneServer(address)
