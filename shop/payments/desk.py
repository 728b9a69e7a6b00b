"""What every part of the payment service works with, wired once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from locks import LeaseLock, LeaseLost, LockTimeout, LockUnavailable, hold
from shop.clock import Clock
from shop.db import end_read
from shop.errors import LockServiceUnavailable, PaymentInProgress, Superseded
from shop.gateways.base import Gateway
from shop.orders.moves import Claim, Moves
from shop.payments import store

log = structlog.get_logger("payonce.payments")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The parts that payments are made with."""

    settings: Settings
    clock: Clock
    lock: LeaseLock
    gateways: Mapping[str, Gateway]
    moves: Moves

    @contextmanager
    def claim(self, order_code: str, *, actor: str, wait_ms: int | None = None) -> Iterator[Claim]:
        """Hold the order's lease and say who acts.

        The order's highest fence so far is the floor of the new one, so that a lock service that
        came back empty, or with its clock set back, still grants a lease that can write.

        Raises PaymentInProgress when the lease is not had within `wait_ms`,
        LockServiceUnavailable when nobody can grant one, and Superseded when it was lost meanwhile.
        """
        settings = self.settings
        end_read()
        floor = store.lock_fence(order_code)
        end_read()
        try:
            with (
                hold(
                    self.lock,
                    order_code,
                    lease_ms=settings.lock_lease_ms,
                    wait_ms=settings.lock_wait_ms if wait_ms is None else wait_ms,
                    fence_floor=floor,
                ) as lease,
                structlog.contextvars.bound_contextvars(order_code=order_code),
            ):
                if lease.fence <= floor:
                    # Tokens of another lock service: nothing could be written with this one.
                    log.error("fence_below_books", fence=lease.fence, lock_fence=floor)
                    raise LockServiceUnavailable()
                log.debug("lease_granted", fence=lease.fence)
                yield Claim(lease=lease, actor=actor)
        except LockTimeout as error:
            raise PaymentInProgress() from error
        except LockUnavailable as error:
            log.error("lock_service_unavailable", order_code=order_code, error=str(error))
            raise LockServiceUnavailable() from error
        except LeaseLost as error:
            log.warning("lease_lost", order_code=order_code)
            raise Superseded(order_code=order_code) from error

    def before_gateway_call(self, claim: Claim) -> None:
        """No transaction is open across a gateway call, and none is made without the lease.

        The lease need not outlast the call (it is renewed, and the fence catches what comes after),
        but one that is about to end is no licence to begin something outside.
        """
        end_read()
        claim.lease.ensure_held(need_ms=self.settings.lock_lease_ms // 10)

    def first_look_at(self) -> datetime:
        """When the sweeper shall first ask after a payment that begins now."""
        return self.clock.now() + timedelta(milliseconds=self.settings.sweep_first_ms)

    def notify_url(self, channel: str) -> str:
        """Where a gateway sends its notices."""
        return f"{self.settings.public_url}/webhooks/{channel}"
