"""The only place that chooses implementations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

from flask import current_app

from config.settings import Settings
from locks import LeaseLock, from_url
from shop.clock import Clock, SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import Gateway
from shop.gateways.registry import DEFAULT_MERCHANT, FixedGateways
from shop.gateways.wechatpay import WeChatPay
from shop.locking.watch import ServiceWatch
from shop.metrics.locks import LockMetrics
from shop.orders.moves import Moves
from shop.payments.desk import Desk
from shop.payments.service import Payments
from shop.payments.sweep import Sweeper
from shop.webhooks import inbox


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that was chosen, for the views and commands."""

    desk: Desk
    payments: Payments
    sweeper: Sweeper

    @property
    def settings(self) -> Settings:
        """The configuration."""
        return self.desk.settings

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.desk.clock

    @property
    def lock(self) -> LeaseLock:
        """The lock service."""
        return self.desk.lock

    @property
    def gateways(self) -> Mapping[str, Gateway]:
        """The default merchant's gateways by channel."""
        return self.desk.gateways.of(DEFAULT_MERCHANT)

    def close(self) -> None:
        """Give back leases and sessions; called when a worker exits."""
        self.desk.lock.close()


def build_parts(
    settings: Settings,
    *,
    clock: Clock | None = None,
    lock: LeaseLock | None = None,
    gateways: Mapping[str, Gateway] | None = None,
    moves: Moves | None = None,
    watch: ServiceWatch | None = None,
) -> Parts:
    """Choose an implementation of everything. What is given is taken instead of the usual one."""
    clock = clock or SystemClock()
    if gateways is None:
        gateways = _gateways(settings, clock)
    desk = Desk(
        settings=settings,
        clock=clock,
        lock=lock or _lock(settings),
        gateways=FixedGateways({DEFAULT_MERCHANT: gateways}),
        moves=moves or Moves(clock),
        watch=watch or ServiceWatch(),
    )
    return Parts(
        desk=desk,
        payments=Payments(desk),
        sweeper=Sweeper(
            desk,
            due_notices=partial(inbox.due_notices, desk),
            work_off=partial(inbox.work_off, desk),
        ),
    )


def _lock(settings: Settings) -> LeaseLock:
    """The lock service; it tells what it does where somebody counts."""
    return from_url(settings.lock_url, LockMetrics() if settings.metrics_folder else None)


def _gateways(settings: Settings, clock: Clock) -> dict[str, Gateway]:
    connect_ms, read_ms = settings.gateway_connect_timeout_ms, settings.gateway_read_timeout_ms
    return {
        "wechatpay": WeChatPay(
            settings.wechatpay,
            connect_timeout_ms=connect_ms,
            read_timeout_ms=read_ms,
            clock=clock,
        ),
        "alipay": Alipay(
            settings.alipay, connect_timeout_ms=connect_ms, read_timeout_ms=read_ms, clock=clock
        ),
    }


def parts() -> Parts:
    """The parts of the running application."""
    return cast("Parts", current_app.extensions["payonce"])
