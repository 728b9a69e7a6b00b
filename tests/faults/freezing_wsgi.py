"""`gunicorn tests.faults.freezing_wsgi:app`: the shop in a process that freezes where told.

The file FREEZE_FILE names one point. The first request that comes there uses the order up, writes
the process's PID to the same path with `.pid`, and stops the whole process with SIGSTOP, as a
stalled host would. To let it go on, delete that file and send SIGCONT. Wired in from here: nothing
in the shop knows of it.

    leased          the lease was granted, nothing is read or written yet
    begin           in the transaction that begins a payment, everything read, nothing written
    begun           in the same transaction, the order's row written and so locked, not committed
    after_prepay    the gateway has answered, its answer is not stored yet
    after_query     the gateway has said what it knows, nothing is made of it yet
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from config.settings import load_settings
from locks import HeldKey, Lease, LeaseLock, from_url
from shop.app import create_app
from shop.clock import SystemClock
from shop.gateways.base import Gateway, PrepayRequest, PrepayResult, QueryResult
from shop.orders.models import Order
from shop.orders.moves import Claim, Moves
from shop.wiring import build_parts


def freeze_if_told(point: str) -> None:
    """Stop here, if this is the point; once."""
    told = Path(os.environ["FREEZE_FILE"])
    try:
        if told.read_text() != point:
            return
        told.rename(told.with_suffix(".used"))
    except FileNotFoundError:
        return
    draft = told.with_suffix(".draft")
    draft.write_text(str(os.getpid()))
    draft.rename(told.with_suffix(".pid"))
    os.kill(os.getpid(), signal.SIGSTOP)
    # The kernel may stop us through another thread, a moment later than this one goes on.
    while draft.with_suffix(".pid").exists():
        time.sleep(0.005)


class FreezingLock(LeaseLock):
    """The real lock; the process may freeze with a lease just granted."""

    def __init__(self, real: LeaseLock) -> None:
        self._real = real
        self.backend = real.backend

    def acquire(self, key: str, *, lease_ms: int, wait_ms: int, fence_floor: int = 0) -> Lease:
        """See LeaseLock."""
        lease = self._real.acquire(key, lease_ms=lease_ms, wait_ms=wait_ms, fence_floor=fence_floor)
        freeze_if_told("leased")
        return lease

    def realm(self) -> str:
        """See LeaseLock."""
        return self._real.realm()

    def held(self, limit: int = 1_000) -> list[HeldKey]:
        """See LeaseLock."""
        return self._real.held(limit)

    def break_lease(self, key: str) -> HeldKey | None:
        """See LeaseLock."""
        return self._real.break_lease(key)

    def ping(self) -> None:
        """See LeaseLock."""
        self._real.ping()

    def close(self) -> None:
        """See LeaseLock."""
        self._real.close()


class FreezingMoves(Moves):
    """The real moves; the process may freeze between reading and the conditional write."""

    def move_order(self, order: Order, event: str, claim: Claim, cause: str, **more: Any) -> None:
        """See Moves."""
        if event == "begin_payment":
            freeze_if_told("begin")
        super().move_order(order, event, claim, cause, **more)
        if event == "begin_payment":
            freeze_if_told("begun")


def freezing(gateway: Gateway) -> Gateway:
    """The real gateway; the process may freeze with its answer in hand."""
    prepay, query = gateway.prepay, gateway.query

    def slow_prepay(request: PrepayRequest) -> PrepayResult:
        result = prepay(request)
        freeze_if_told("after_prepay")
        return result

    def slow_query(out_trade_no: str) -> QueryResult:
        result = query(out_trade_no)
        freeze_if_told("after_query")
        return result

    vars(gateway).update(prepay=slow_prepay, query=slow_query)
    return gateway


def _app() -> object:
    settings = load_settings()
    usual = build_parts(settings)
    return create_app(
        parts=build_parts(
            settings,
            lock=FreezingLock(from_url(settings.lock_url)),
            gateways={name: freezing(one) for name, one in usual.gateways.items()},
            moves=FreezingMoves(SystemClock()),
        )
    )


def __getattr__(name: str) -> object:
    """Make `app` when gunicorn asks for it."""
    if name == "app":
        return _app()
    raise AttributeError(name)
