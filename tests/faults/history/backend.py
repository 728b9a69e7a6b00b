"""A lock service under faults, as the driver of the history test sees it."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from locks import LockUnavailable, from_url
from tests.faults.history.crew import Lasting
from tests.faults.history.records import FaultLog, now_ns
from tests.proxy import Proxy
from tests.server import Server

# Beyond every time-out of a request, and beyond some leases.
STALL_S = (0.2, 3.0)
# How long a reply may wait to be lost.
DROP_WITHIN_S = 0.3
DROPS = (1, 3)
LAST_LEASE_MS, LAST_WAIT_MS = 5_000, 30_000


class Backend(ABC):
    """A lock service under faults; a context manager that starts and stops it."""

    name: str
    lease_ms = (300, 900)
    freeze_s = (0.6, 2.4)
    """Shorter than some leases, just past others, and past what the service adds to them."""
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

    @abstractmethod
    def hindrances(self) -> dict[str, Callable[[], Lasting]]:
        """What can be done to it that ends no lease. It is written down when it is over."""

    def losses(self) -> dict[str, Callable[[], Lasting]]:
        """What can be done to it that may end leases which their holders believe in."""
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
        """As an operator would end a lease: the first that is found."""
        with closing(from_url(self.own_url())) as lock:
            for key in self._random.sample(self._keys, len(self._keys)):
                began = now_ns()
                try:
                    is_ended = lock.break_lease(key) is not None
                except LockUnavailable:
                    # The service was just restarted, or a frozen process keeps what is to be read.
                    self._log.note("break in vain", began, key=key, ends_leases=True)
                    continue
                if is_ended:
                    self._log.note("break", began, key=key, ends_leases=True)
                    break
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


class ServedBackend(Backend):
    """A server behind two proxies, so that one half of the workers can be cut off."""

    server: Server

    def __enter__(self) -> Self:
        self._made.enter_context(self.server)
        self._proxies = [self._made.enter_context(Proxy(self.server.port)) for _ in range(2)]
        return self

    def hindrances(self) -> dict[str, Callable[[], Lasting]]:
        """See Backend."""
        return {
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
