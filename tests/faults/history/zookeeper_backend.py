"""ZooKeeper under faults."""

import random
import socket
from collections.abc import Callable, Sequence

from kazoo.client import KazooClient

from tests.faults.history.backend import ServedBackend
from tests.faults.history.crew import Lasting
from tests.faults.history.records import FaultLog, now_ns
from tests.services import ZooKeeperServer

SESSION_MS = 1_000
CHROOT = "history"


class ZooKeeperBackend(ServedBackend):
    """One ZooKeeper; restarted, it has its data and its sessions again."""

    name = "zookeeper"
    freeze_s = (1.0, 3.5)

    def __init__(self, log: FaultLog, chance: random.Random, keys: Sequence[str]) -> None:
        super().__init__(log, chance, keys)
        self.server: ZooKeeperServer = ZooKeeperServer()

    def urls(self) -> list[str]:
        """See Backend."""
        return [_zookeeper(proxy.port) for proxy in self._proxies]

    def own_url(self) -> str:
        """See Backend."""
        return _zookeeper(self.server.port)

    def hindrances(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().hindrances() | {"restart": self._restart}

    def left_behind(self) -> list[str]:
        """Nodes, sessions and watches."""
        numbers = ("zk_ephemerals_count", "zk_watch_count", "zk_num_alive_connections")
        told = dict(
            line.split("\t", 1) for line in _ask(self.server.port, "mntr").splitlines() if line
        )
        # The question itself is one of the connections.
        free = {"zk_num_alive_connections": "1"}
        left = [f"{name} {told[name]}" for name in numbers if told[name] != free.get(name, "0")]
        client = KazooClient(f"{self.server.hosts}/{CHROOT}")
        client.start()
        try:
            for shard in client.get_children("/leases"):
                left += client.get_children(f"/leases/{shard}")
        finally:
            client.stop()
            client.close()
        return left

    def _restart(self) -> Lasting:
        began = now_ns()
        self.server.process.kill9()
        self.server.start()
        self._log.note("restart", began)
        return None


def _zookeeper(port: int) -> str:
    return f"zookeeper://127.0.0.1:{port}/{CHROOT}?session_ms={SESSION_MS}"


def _ask(port: int, word: str) -> str:
    """The answer to one of ZooKeeper's four-letter words (ZooKeeper Administrator's Guide)."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(word.encode("ascii"))
        parts = iter(lambda: link.recv(65_536), b"")
        return b"".join(parts).decode("utf-8")
