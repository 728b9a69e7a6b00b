"""What happened, in the shop's words. Each call counts it; none raises, and none costs a request.

from shop.metrics import tell

tell.payment_outcome("wechatpay", "settled")
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import structlog

from shop.errors import ShopError
from shop.metrics import instruments

log = structlog.get_logger("payonce.metrics")

CHANNELS = frozenset({"points", "wechatpay", "alipay"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Arguments = ParamSpec("Arguments")
_complained: set[str] = set()


def harmless(count: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """What cannot be counted (a full disk, a folder that went away) is logged, once per process."""

    @functools.wraps(count)
    def counted(*args: Arguments.args, **named: Arguments.kwargs) -> None:
        try:
            count(*args, **named)
        except Exception:
            if count.__qualname__ not in _complained:
                _complained.add(count.__qualname__)
                log.exception("metric_not_counted", metric=count.__qualname__)

    return counted


@contextmanager
def pay_request(channel: str) -> Iterator[None]:
    """Count the request to pay that the block carries out, by what comes of it."""
    outcome = "error"
    try:
        yield
        outcome = "accepted"
    except ShopError as error:
        outcome = error.code
        raise
    finally:
        _pay_request(channel, outcome)


@harmless
def _pay_request(channel: str, outcome: str) -> None:
    instruments.PAY_REQUESTS.labels(_channel(channel), outcome).inc()


@harmless
def payment_outcome(channel: str, outcome: str) -> None:
    """A payment was booked, ended, or refused as it contradicts our books."""
    instruments.PAYMENTS.labels(_channel(channel), outcome).inc()


@harmless
def notice(channel: str, outcome: str) -> None:
    """A callback came in: what was made of it, or why it was not believed."""
    instruments.NOTICES.labels(_channel(channel), outcome).inc()


@harmless
def credentials_changed(outcome: str) -> None:
    """A merchant's credentials changed and were `taken` into use, or `refused`."""
    instruments.CREDENTIALS.labels(outcome).inc()


@harmless
def fence_refused(overtaken_by: str) -> None:
    """The database refused a write of a holder overtaken by a later `holder`, or `epoch`."""
    instruments.FENCES_REFUSED.labels(overtaken_by).inc()


@harmless
def claim_degraded() -> None:
    """An order was claimed by the database alone, as the lock service did not answer."""
    instruments.CLAIMS_DEGRADED.labels("database").inc()


@harmless
def sweeper_round(outcome: str, **items: int) -> None:
    """The sweeper went round: `done`, or which service was away; and what it took on, by kind."""
    instruments.SWEEPER_ROUNDS.labels(outcome).inc()
    for kind, number in items.items():
        instruments.SWEEPER_ITEMS.labels(kind).inc(number)


@harmless
def request_answered(method: str, route: str | None, status: int, took_s: float) -> None:
    """A request was answered; `route` is the rule that matched its path, if one did."""
    known = method if method in METHODS else "other"
    instruments.REQUEST_DURATION.labels(known, route or "none", str(status)).observe(took_s)


def _channel(name: str) -> str:
    """A client may name any channel; only ours become a label."""
    return name if name in CHANNELS else "other"
