"""What every part of the payment service works with, wired once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from locks import Lease, LeaseLock, LeaseLost, LockTimeout, LockUnavailable
from shop.clock import Clock
from shop.db import end_read
from shop.errors import LockServiceUnavailable, PaymentInProgress, Superseded
from shop.gateways.base import Gateway
from shop.gateways.registry import DEFAULT_MERCHANT, Gateways
from shop.locking.database_lease import DatabaseLease, fence_of_now
from shop.locking.notes import note_degraded
from shop.locking.service import begin_first
from shop.locking.store import Epoch, current_epoch
from shop.locking.watch import ServiceWatch
from shop.merchants.errors import AccountMoved, UnknownMerchant
from shop.orders.moves import Claim, Moves
from shop.payments import store
from shop.payments.models import PaymentAttempt

log = structlog.get_logger("payonce.payments")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The parts that payments are made with."""

    settings: Settings
    clock: Clock
    lock: LeaseLock
    gateways: Gateways
    moves: Moves
    watch: ServiceWatch = field(default_factory=ServiceWatch)

    @contextmanager
    def claim(self, order_code: str, *, actor: str, wait_ms: int | None = None) -> Iterator[Claim]:
        """Hold the order's lease and say who acts.

        While the lock service is away, and LOCK_UNAVAILABLE is `database`, the order is claimed by
        its own row instead: whoever claims it next supersedes this claim.

        Raises PaymentInProgress when the lease is not had within `wait_ms`, LockServiceUnavailable
        when nobody can grant one that the books believe, and Superseded when it was lost meanwhile.
        """
        wait_ms = self.settings.lock_wait_ms if wait_ms is None else wait_ms
        with structlog.contextvars.bound_contextvars(order_code=order_code):
            claim = self._claim(order_code, actor, wait_ms)
            try:
                yield claim
            except LeaseLost as error:
                log.warning("lease_lost")
                raise Superseded(order_code=order_code) from error
            finally:
                claim.lease.release()

    def _claim(self, order_code: str, actor: str, wait_ms: int) -> Claim:
        if self._goes_on_without and self.watch.is_resting():
            return self._without_service(order_code, actor, "It did not answer a moment ago.")
        try:
            # What is read now is older than the lease: an epoch that begins, or a fence that is
            # written, while we wait for it makes the lease useless and never too strong.
            mark = self._mark(order_code)
            epoch, (last_epoch, last_fence) = mark.epoch, mark.pair
            floor = last_fence if last_epoch == epoch.number else 0
            lease = self._lease(order_code, wait_ms, epoch, floor)
        except LockTimeout as error:
            self.watch.answered()
            raise PaymentInProgress() from error
        except LockUnavailable as error:
            self.watch.went_away()
            if self._goes_on_without:
                return self._without_service(order_code, actor, str(error))
            log.error("lock_service_unavailable", error=str(error))
            raise LockServiceUnavailable() from error
        self.watch.answered()
        try:
            fence = lease.fence
            wrote = fence <= floor
            if wrote:
                # ZooKeeper's counter stands below what the order counted on without it. The lease
                # excludes others as ever; the order's row mints the fence.
                fence = self.moves.take_order(order_code, epoch.number)
                log.info("fence_minted_by_order", lease_fence=lease.fence, fence=fence)
        except BaseException:
            lease.release()
            raise
        log.debug("lease_granted", epoch=epoch.number, fence=fence)
        return Claim(lease=lease, epoch=epoch.number, fence=fence, actor=actor, wrote=wrote)

    def _mark(self, order_code: str) -> store.LockMark:
        end_read()
        mark = store.lock_mark(order_code)
        if mark is None:
            begin_first(self.lock, self.clock)
            end_read()
            mark = store.lock_mark(order_code)
        end_read()
        if mark is None:
            raise RuntimeError("an epoch that began is not there")
        return mark

    def _lease(self, order_code: str, wait_ms: int, epoch: Epoch, floor: int) -> Lease:
        """A lease of the service that this epoch believes.

        The order's highest fence so far is the floor of the new one, so that a lock service that
        came back empty, or with its clock set back, still grants a lease that can write.
        """
        self._require_believed(epoch)
        lease = self.lock.acquire(
            order_code,
            lease_ms=self.settings.lock_lease_ms,
            wait_ms=wait_ms,
            fence_floor=floor,
        )
        try:
            # Asked again: the service may have been replaced while we waited.
            self._require_believed(epoch)
        except BaseException:
            lease.release()
            raise
        return lease

    def _require_believed(self, epoch: Epoch) -> None:
        self.watch.realm = self.lock.realm()
        self._refuse_other_realm(epoch)

    def _refuse_other_realm(self, epoch: Epoch) -> None:
        if self.watch.realm not in {None, epoch.realm}:
            log.error(
                "lock_service_not_believed",
                realm=self.watch.realm,
                epoch=epoch.number,
                believed=epoch.realm,
                hint="run `flask --app wsgi locks adopt` where LOCK_URL is right",
            )
            raise LockServiceUnavailable()

    @property
    def _goes_on_without(self) -> bool:
        return self.settings.lock_unavailable == "database"

    def _without_service(self, order_code: str, actor: str, reason: str) -> Claim:
        """The lock service is away: claim the order by its row."""
        end_read()
        epoch = current_epoch()
        if epoch is None:
            log.error("lock_service_unavailable", error=reason, epoch=None)
            raise LockServiceUnavailable()
        self._refuse_other_realm(epoch)
        # Above the leases that others may hold: a holder that has not written yet is superseded.
        at_least = fence_of_now(epoch.realm, self.clock.now())
        fence = self.moves.take_order(order_code, epoch.number, at_least=at_least)

        def is_held() -> bool:
            end_read()
            mark = store.lock_mark(order_code)
            end_read()
            return mark == store.LockMark(epoch=epoch, pair=(epoch.number, fence))

        note_degraded(order_code, fence=fence, reason=reason)
        return Claim(
            lease=DatabaseLease(order_code, fence, is_held),
            epoch=epoch.number,
            fence=fence,
            actor=actor,
            wrote=True,
        )

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

    def gateway_of(self, attempt: PaymentAttempt) -> Gateway:
        """The gateway that an attempt was begun at. Raises MerchantUnusable.

        The same name may stand for another account by now. That one knows nothing of the attempt,
        which would look like unpaid: it is never asked.
        """
        try:
            gateway = self.gateways.of(attempt.merchant)[attempt.channel]
        except KeyError:
            # The merchant gave up this account; its payments must be asked after all the same.
            raise UnknownMerchant(merchant=attempt.merchant) from None
        if attempt.is_elsewhere(gateway.account):
            trouble = (
                f"Payment {attempt.out_trade_no} was begun at account {attempt.account}; "
                f"{attempt.merchant} has {gateway.account} now. Configure the old account under "
                "this name again, and the new one under a new name (docs/merchants.md)."
            )
            log.error("payment_at_another_account", trouble=trouble)
            raise AccountMoved(merchant=attempt.merchant, trouble=trouble)
        return gateway

    def return_url(self, order_code: str) -> str:
        """Where a gateway sends the member's browser after paying; coming there proves nothing."""
        return f"{self.settings.public_url}/orders/{order_code}/pay"

    def notify_url(self, channel: str, merchant: str) -> str:
        """Where a gateway sends a merchant's notices."""
        ours = merchant == DEFAULT_MERCHANT
        return f"{self.settings.public_url}/webhooks/{channel}" + ("" if ours else f"/{merchant}")
