"""Redis under faults: what it forgets, and what its clock shows."""

import random
import time
from collections.abc import Callable, Sequence

import redis

from tests.faults.history.backend import ServedBackend
from tests.faults.history.clocked_redis import ClockedRedis
from tests.faults.history.crew import Lasting
from tests.faults.history.records import FaultLog, now_ns
from tests.faults.history.weak_lock import SCHEME

# Far beyond every lease, but within the day for which Redis keeps a fence. There are two kinds of
# steps back and one ahead.
BACK_S, AHEAD_S = (600, 3_600), (1_200, 7_200)
CLOCK_GRAIN_S = 0.01


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

    def losses(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return super().losses() | {
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

    def heal(self) -> None:
        """See Backend. A step back would keep a dead holder's key for that long."""
        ServedBackend.heal(self)

    def urls(self) -> list[str]:
        """See Backend."""
        return [f"{SCHEME}://127.0.0.1:{proxy.port}" for proxy in self._proxies]

    def hindrances(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return {}

    def losses(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return {"restart": super().losses()["restart"]}

    def left_behind(self) -> list[str]:
        """It is judged by its history alone."""
        return []
