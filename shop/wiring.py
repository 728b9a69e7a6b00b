"""The only place that chooses implementations."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast

import structlog
from flask import current_app

from config.merchants import AccountSettings
from config.settings import Settings, SettingsError
from locks import LeaseLock, from_url
from shop.clock import Clock, SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import Gateway
from shop.gateways.guards import Guards
from shop.gateways.registry import (
    DEFAULT_MERCHANT,
    FixedGateways,
    Gateways,
    RotatingGateways,
)
from shop.gateways.wechatpay import WeChatPay
from shop.locking.watch import ServiceWatch
from shop.merchants.errors import MerchantUnusable
from shop.merchants.service import MerchantCredentials, tell_at_start
from shop.metrics import tell
from shop.metrics.gateways import GatewayMetrics
from shop.metrics.locks import LockMetrics
from shop.orders.moves import Moves
from shop.payments.desk import Desk
from shop.payments.service import Payments
from shop.payments.sweep import Sweeper
from shop.webhooks import inbox

log = structlog.get_logger("payonce.merchants")


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

    def tell_at_start(self) -> None:
        """Log what a process that serves should tell once. Needs an application context."""
        tell_at_start(self.settings)

    def close(self) -> None:
        """Give back leases and sessions; called when a worker exits."""
        self.desk.lock.close()


def build_parts(
    settings: Settings,
    *,
    clock: Clock | None = None,
    lock: LeaseLock | None = None,
    gateways: Mapping[str, Gateway] | Gateways | None = None,
    moves: Moves | None = None,
    watch: ServiceWatch | None = None,
) -> Parts:
    """Choose an implementation of everything. What is given is taken instead of the usual one."""
    clock = clock or SystemClock()
    if gateways is None:
        gateways = _rotating(settings, clock)
    elif isinstance(gateways, Mapping):
        gateways = FixedGateways({DEFAULT_MERCHANT: gateways})
    desk = Desk(
        settings=settings,
        clock=clock,
        lock=lock or _lock(settings),
        gateways=gateways,
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


def _rotating(settings: Settings, clock: Clock) -> Gateways:
    """Every merchant's gateways. Raises SettingsError where the default one's cannot be used."""
    guards = _guards(settings)

    def make(merchant: str, account: AccountSettings) -> dict[str, Gateway]:
        addresses = {
            name: one.base_url
            for name, one in (("wechatpay", account.wechatpay), ("alipay", account.alipay))
            if one is not None
        }
        return {
            name: guards.around(gateway, merchant=merchant, base_url=addresses[name])
            for name, gateway in make_gateways(settings, clock, merchant, account).items()
        }

    started = False

    def told(merchant: str, trouble: str) -> None:
        # What is wrong at the start ends it, and is told by that alone.
        if started:
            _tell_rotation(merchant, trouble)

    made = RotatingGateways(MerchantCredentials(settings), make, told=told)
    try:
        made.of(DEFAULT_MERCHANT)
    except MerchantUnusable as error:
        raise SettingsError(str(error.fields["trouble"])) from None
    started = True
    return made


def _guards(settings: Settings) -> Guards:
    """What stands before the gateways; it tells what it does where somebody counts."""
    return Guards(
        concurrency=settings.gateway_concurrency,
        concurrency_of_all=settings.gateway_concurrency_of_all,
        failures=settings.gateway_failures,
        rest_ms=settings.gateway_rest_ms,
        observer=GatewayMetrics() if settings.metrics_folder else None,
    )


def make_gateways(
    settings: Settings, clock: Clock, merchant: str, account: AccountSettings
) -> dict[str, Gateway]:
    """One merchant's gateways. Checks the keys (raises SettingsError); connects to nothing."""
    connect_ms, read_ms = settings.gateway_connect_timeout_ms, settings.gateway_read_timeout_ms
    made: dict[str, Gateway] = {}
    if account.wechatpay is not None:
        made["wechatpay"] = WeChatPay(
            account.wechatpay,
            connect_timeout_ms=connect_ms,
            read_timeout_ms=read_ms,
            clock=clock,
        )
    if account.alipay is not None:
        made["alipay"] = Alipay(
            account.alipay, connect_timeout_ms=connect_ms, read_timeout_ms=read_ms, clock=clock
        )
    return made


def _tell_rotation(merchant: str, trouble: str) -> None:
    tell.credentials_changed("refused" if trouble else "taken")
    if trouble:
        log.error("credentials_not_taken", merchant=merchant, trouble=trouble)
    else:
        log.info("credentials_taken", merchant=merchant)


def parts() -> Parts:
    """The parts of the running application."""
    return cast("Parts", current_app.extensions["payonce"])
