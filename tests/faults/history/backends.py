"""The lock services of the history test, each with the faults that it alone has.

Workers reach Redis and ZooKeeper through two proxies, half of them through each, so that one half
can be cut off while the other goes on.
"""

import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from kazoo.client import KazooClient

from locks import from_url
from tests.faults.history.clocked_redis import ClockedRedis
from tests.faults.history.records import FaultLog, now_ns
from tests.faults.history.weak_lock import SCHEME
from tests.proxy import Proxy
from tests.services import ZooKeeperServer

# Beyond every time-out of a request, and beyond some leases.
STALL_S = (0.2, 3.0)
# How long a reply may wait to be lost.
DROP_WITHIN_S = 0.3
DROPS = (1, 3)
# Far beyond every lease, but within the day for which Redis keeps a fence. There are two kinds of
# steps back and one ahead.
BACK_S, AHEAD_S = (600, 3_600), (1_200, 7_200)
CLOCK_GRAIN_S = 0.01
SESSION_MS = 1_000
CHROOT = "history"
LAST_LEASE_MS, LAST_WAIT_MS = 5_000, 30_000

# What ends a fault that lasts: after so many seconds, call this.
Lasting = tuple[float, Callable[[], None]] | None


class Backend(ABC):
    """A lock service under faults; a context manager that starts and stops it."""

    name: str
    lease_ms = (300, 900)
    freeze_s = (1.0, 2.2)
    """Past the lease, and past what the service adds to it."""
    tells_losses = True
    """Whether a holder is told that its lease is lost."""

    def __init__(self, log: FaultLog, chance: random.Random, keys: Sequence[str]) -> None:
        self._log = log
        self._random = chance
        self._keys = keys
        self._made = ExitStack()

    @abstractmethod
    def urls(self) -> list[str]:
        """The ways to the service: the workers are spread over them."""

    @abstractmethod
    def own_url(self) -> str:
        """The way that no fault disturbs."""

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """What can be done to it. Each fault writes itself down when it is over."""
        return {"break": self._break}

    def heal(self) -> None:  # noqa: B027 - what has no faults has nothing to heal
        """No more faults."""

    @abstractmethod
    def left_behind(self) -> list[str]:
        """What the service still keeps of leases and waiters when all are gone."""

    def check_free(self) -> None:
        """A newcomer is granted every key. Raises LockError."""
        with closing(from_url(self.own_url())) as lock:
            for key in self._keys:
                lock.acquire(key, lease_ms=LAST_LEASE_MS, wait_ms=LAST_WAIT_MS).release()

    def _break(self) -> Lasting:
        """As an operator would end a lease."""
        began, key = now_ns(), self._random.choice(self._keys)
        with closing(from_url(self.own_url())) as lock:
            ended = lock.break_lease(key)
        self._log.note("break" if ended else "break in vain", began, ends_leases=True)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._made.close()


class FileBackend(Backend):
    """A folder of this host; nothing can be cut off from it, but its files can be deleted."""

    name = "file"

    def __init__(
        self, log: FaultLog, chance: random.Random, keys: Sequence[str], folder: Path
    ) -> None:
        super().__init__(log, chance, keys)
        self._folder = folder / "leases"

    def urls(self) -> list[str]:
        """See Backend."""
        return [self.own_url()]

    def own_url(self) -> str:
        """See Backend."""
        return f"file://{self._folder}"

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().faults() | {
            "delete a key": lambda: self._delete("delete a key", "held"),
            "delete a pipe": lambda: self._delete("delete a pipe", "waiting"),
        }

    def _delete(self, kind: str, folder: str) -> Lasting:
        """As somebody would who tidies up where he should not."""
        began = now_ns()
        found = sorted((self._folder / folder).iterdir())
        if found:
            self._random.choice(found).unlink(missing_ok=True)
            self._log.note(kind, began, ends_leases=True)
        return None

    def left_behind(self) -> list[str]:
        """Every file and pipe but the clock of fences."""
        return [
            str(path.relative_to(self._folder))
            for path in self._folder.rglob("*")
            if not path.is_dir() and path != self._folder / "fence"
        ]


class ServedBackend(Backend):
    """A server behind two proxies."""

    server: ClockedRedis | ZooKeeperServer

    def __enter__(self) -> Self:
        self._made.enter_context(self.server)
        self._proxies = [self._made.enter_context(Proxy(self.server.port)) for _ in range(2)]
        return self

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().faults() | {
            "cut": self._cut,
            "drop": self._drop,
            "stall": self._stall,
        }

    def heal(self) -> None:
        """See Backend."""
        for proxy in self._proxies:
            proxy.drop_replies(0)
            proxy.thaw()

    def _cut(self) -> Lasting:
        began = now_ns()
        self._random.choice(self._proxies).cut()
        self._log.note("cut", began)
        return None

    def _drop(self) -> Lasting:
        began, proxy = now_ns(), self._random.choice(self._proxies)
        dropped = proxy.dropped
        proxy.drop_replies(self._random.randint(*DROPS), silently=self._random.random() < 0.5)

        def end() -> None:
            proxy.drop_replies(0)
            # A fault that struck nobody does not count as one.
            self._log.note("drop" if proxy.dropped > dropped else "drop in vain", began)

        return DROP_WITHIN_S, end

    def _stall(self) -> Lasting:
        began, proxy = now_ns(), self._random.choice(self._proxies)
        proxy.freeze()

        def end() -> None:
            proxy.thaw()
            self._log.note("stall", began)

        return self._random.uniform(*STALL_S), end


class RedisBackend(ServedBackend):
    """Redis without persistence; its clock can be stepped."""

    name = "redis"

    def __init__(self, log: FaultLog, chance: random.Random, keys: Sequence[str]) -> None:
        super().__init__(log, chance, keys)
        self.server: ClockedRedis = ClockedRedis()
        self._latest_s = 0.0

    def urls(self) -> list[str]:
        """See Backend."""
        return [f"redis://127.0.0.1:{proxy.port}/0" for proxy in self._proxies]

    def own_url(self) -> str:
        """See Backend."""
        return self.server.url

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().faults() | {
            "wipe": self._wipe,
            "restart": lambda: self._restart("restart", self.server.offset_s),
            "step ahead": lambda: self._step("step ahead", self._ahead()),
            "step back": lambda: self._step("step back", self._back()),
            "restart and step back": lambda: self._restart("restart and step back", self._back()),
        }

    def heal(self) -> None:
        """See Backend. The last step is one back: it must not keep a dead holder's key for long."""
        super().heal()
        self._step("step back", self._back())

    def left_behind(self) -> list[str]:
        """Every key but fences that will end, and every channel that is listened on."""
        with redis.Redis.from_url(self.own_url(), decode_responses=True) as client:
            names = [*client.scan_iter(count=1_000)]
            left = [name for name in names if name.endswith(":fence") and client.ttl(name) < 0]
            left += [name for name in names if not name.endswith(":fence")]
            return [*left, *client.pubsub_channels()]

    def _restart(self, kind: str, offset_s: int) -> Lasting:
        began = now_ns()
        self._look_at_clock()
        self.server.process.kill9()
        self.server.set_clock(offset_s)
        self.server.start()
        self._log.note(kind, began, forgets=self._is_behind(), ends_leases=True)
        return None

    def _wipe(self) -> Lasting:
        """All keys vanish and every connection stands, so that nobody is called."""
        began = now_ns()
        self._look_at_clock()
        with redis.Redis.from_url(self.own_url()) as client:
            client.flushall()
        self._log.note("wipe", began, forgets=self._is_behind(), ends_leases=True)
        return None

    def _step(self, kind: str, offset_s: int) -> Lasting:
        began = now_ns()
        self._look_at_clock()
        ends_leases = offset_s > self.server.offset_s
        self.server.set_clock(offset_s)
        self._log.note(kind, began, ends_leases=ends_leases)
        return None

    def _look_at_clock(self) -> None:
        """Remember the latest time that the server's clock has shown, before it is stepped."""
        self._latest_s = max(self._latest_s, time.time() + self.server.offset_s)

    def _is_behind(self) -> bool:
        """Whether its clock shows a time that it may have shown before."""
        return time.time() + self.server.offset_s - CLOCK_GRAIN_S <= self._latest_s

    def _ahead(self) -> int:
        return self.server.offset_s + self._random.randint(*AHEAD_S)

    def _back(self) -> int:
        return self.server.offset_s - self._random.randint(*BACK_S)


class WeakRedisBackend(RedisBackend):
    """The same server under a lock that must be convicted; its clock is left alone."""

    name = SCHEME
    tells_losses = False

    def urls(self) -> list[str]:
        """See Backend."""
        return [f"{SCHEME}://127.0.0.1:{proxy.port}" for proxy in self._proxies]

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return {"restart": super().faults()["restart"]}

    def left_behind(self) -> list[str]:
        """It is judged by its history alone."""
        return []


class ZooKeeperBackend(ServedBackend):
    """One ZooKeeper; restarted, it has its data and its sessions again."""

    name = "zookeeper"
    freeze_s = (1.5, 3.0)

    def __init__(self, log: FaultLog, chance: random.Random, keys: Sequence[str]) -> None:
        super().__init__(log, chance, keys)
        self.server: ZooKeeperServer = ZooKeeperServer()

    def urls(self) -> list[str]:
        """See Backend."""
        return [_zookeeper(proxy.port) for proxy in self._proxies]

    def own_url(self) -> str:
        """See Backend."""
        return _zookeeper(self.server.port)

    def faults(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().faults() | {"restart": self._restart}

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


def make_backend(
    name: str, log: FaultLog, chance: random.Random, keys: Sequence[str], folder: Path
) -> Backend:
    """The back end of that name, not started yet."""
    if name == FileBackend.name:
        return FileBackend(log, chance, keys, folder)
    served: dict[str, type[RedisBackend] | type[ZooKeeperBackend]] = {
        each.name: each for each in (RedisBackend, WeakRedisBackend, ZooKeeperBackend)
    }
    return served[name](log, chance, keys)
