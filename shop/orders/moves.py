"""Every change of an order's or an attempt's state is one conditional statement, made here.

L1: `… WHERE state = :from AND version = :seen`: if somebody else moved, nothing changes.
L2: `… AND (lock_epoch, lock_fence) < (:epoch, :fence)` at the first write under a lease, `=` at the
later ones: a holder that was superseded changes nothing, whatever it believes. And `:epoch` must
still be the current one: nor does a holder of a lock service that another took over from.
A lost race is `Superseded`, an answer: read again, decide again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, insert, or_, select, update
from sqlalchemy.orm.attributes import set_committed_value

from locks import Lease
from shop.clock import Clock
from shop.db import changed_rows, db, transaction
from shop.errors import MoveRefused, OrderNotFound, Superseded
from shop.locking.notes import note_fence_refused
from shop.locking.store import current_epoch, is_current
from shop.orders.models import Order, Transition
from shop.payments.models import PaymentAttempt
from statemachine.attempt import OPEN_ATTEMPT_STATES, AttemptChart
from statemachine.order import OrderChart
from statemachine.strict import Move, MoveNotAllowed, StrictChart, allowed_move

T = TypeVar("T")


@dataclass(kw_only=True)
class Claim:
    """What a lease lets its holder write: its pair, who acts, and whether it wrote already.

    `fence` is the lease's own, unless the order's row had to mint it (`Moves.take_order`).
    """

    lease: Lease
    epoch: int
    fence: int
    actor: str
    wrote: bool = False


def fenced_transaction(claim: Claim, work: Callable[[], T]) -> T:
    """`transaction`, for a holder: what the claim remembers is what was committed."""
    before = claim.wrote

    def run() -> T:
        claim.wrote = before
        return work()

    try:
        return transaction(run)
    except BaseException:
        claim.wrote = before
        raise


class Moves:
    """Writes moves. The two guards are methods of their own so that a test can take one out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def state_guard(self, row: Order | PaymentAttempt) -> list[ColumnElement[bool]]:
        """L1: the row is still as it was read."""
        table = type(row)
        return [table.state == row.state, table.version == row.version]

    def fence_guard(self, claim: Claim) -> list[ColumnElement[bool]]:
        """L2: no later holder has written the order, and no later epoch has begun."""
        same_epoch = Order.lock_epoch == claim.epoch
        if claim.wrote:
            return [same_epoch, Order.lock_fence == claim.fence, is_current(claim.epoch)]
        below = and_(same_epoch, Order.lock_fence < claim.fence)
        return [or_(Order.lock_epoch < claim.epoch, below), is_current(claim.epoch)]

    def take_order(self, order_code: str, epoch: int, *, at_least: int = 1) -> int:
        """Make the caller the order's writer without asking any lease: above who was before.

        For when no lease is to be had, or one whose fence the order has passed. Gives the fence,
        with which the row is written already. Raises Superseded where the epoch is over.
        """

        def work() -> int:
            row = db.session.execute(
                select(Order.lock_epoch, Order.lock_fence)
                .where(Order.code == order_code)
                .with_for_update()
            ).one_or_none()
            if row is None:
                raise OrderNotFound(order_code=order_code)
            last = row.lock_fence if row.lock_epoch == epoch else 0
            fence = max(last + 1, at_least)
            changed = changed_rows(
                update(Order)
                .where(Order.code == order_code, Order.lock_epoch <= epoch, is_current(epoch))
                .values(lock_epoch=epoch, lock_fence=fence)
            )
            self._require_one(changed, order_code)
            return fence

        return transaction(work)

    def hold_order(self, order: Order, claim: Claim) -> None:
        """Make this holder the order's writer without moving it; locks the row until the end.

        Every transaction that moves only an attempt begins with it.
        """
        changed = changed_rows(
            update(Order)
            .where(Order.id == order.id, *self.fence_guard(claim))
            .values(lock_epoch=claim.epoch, lock_fence=claim.fence)
        )
        self._require_written(changed, order, claim)
        claim.wrote = True

    def move_order(
        self,
        order: Order,
        event: str,
        claim: Claim,
        cause: str,
        *,
        facts: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Move the order by `event`, with `facts` for the chart's guards, and write `values` too.

        Raises MoveRefused (the chart says no) or Superseded (somebody moved first).
        """
        move = _allowed(OrderChart, order.code, order.state, event, facts)
        changed = changed_rows(
            update(Order)
            .where(Order.id == order.id, *self.state_guard(order), *self.fence_guard(claim))
            .values(
                state=move.to_state,
                version=Order.version + 1,
                lock_epoch=claim.epoch,
                lock_fence=claim.fence,
                **values,
            )
        )
        self._require_written(changed, order, claim)
        claim.wrote = True
        self._record(order.code, "order", order.code, order.version + 1, move, claim, cause)
        _remember(order, state=move.to_state, version=order.version + 1, **values)

    def move_attempt(
        self, attempt: PaymentAttempt, event: str, claim: Claim, cause: str, **values: Any
    ) -> None:
        """Move the attempt; its order must have been written by this claim in this transaction."""
        if not claim.wrote:
            raise RuntimeError("an attempt is moved only after its order was held or moved")
        move = _allowed(AttemptChart, attempt.order_code, attempt.state, event)
        if move.to_state not in OPEN_ATTEMPT_STATES:
            values = {"open_key": None, "due_at": None, **values}
        changed = changed_rows(
            update(PaymentAttempt)
            .where(PaymentAttempt.id == attempt.id, *self.state_guard(attempt))
            .values(state=move.to_state, version=PaymentAttempt.version + 1, **values)
        )
        self._require_one(changed, attempt.order_code)
        self._record(
            attempt.order_code,
            "attempt",
            attempt.out_trade_no,
            attempt.version + 1,
            move,
            claim,
            cause,
        )
        _remember(attempt, state=move.to_state, version=attempt.version + 1, **values)

    def write_attempt(self, attempt: PaymentAttempt, claim: Claim, **values: Any) -> None:
        """Write values of an attempt that stays in its state; its order as for `move_attempt`."""
        if not claim.wrote:
            raise RuntimeError("an attempt is written only after its order was held or moved")
        changed = changed_rows(
            update(PaymentAttempt)
            .where(PaymentAttempt.id == attempt.id, *self.state_guard(attempt))
            .values(**values)
        )
        self._require_one(changed, attempt.order_code)
        _remember(attempt, **values)

    def _record(
        self,
        order_code: str,
        subject: str,
        subject_no: str,
        version: int,
        move: Move,
        claim: Claim,
        cause: str,
    ) -> None:
        db.session.execute(
            insert(Transition).values(
                order_code=order_code,
                subject=subject,
                subject_no=subject_no,
                version=version,
                from_state=move.from_state,
                to_state=move.to_state,
                event=move.event,
                actor=claim.actor,
                epoch=claim.epoch,
                fence=claim.fence,
                cause=cause,
                at=self._clock.now(),
            )
        )

    def _require_written(self, changed: int, order: Order, claim: Claim) -> None:
        """The order was written; if not, and L2 was the reason, that is noted."""
        if changed != 1:
            held, stored = (claim.epoch, claim.fence), _pair_of(order)
            epoch = current_epoch()
            outlived = epoch is None or epoch.number != claim.epoch
            if outlived or (stored != held if claim.wrote else stored >= held):
                note_fence_refused(order.code, held=held, stored=stored)
        self._require_one(changed, order.code)

    @staticmethod
    def _require_one(changed: int, order_code: str) -> None:
        if changed != 1:
            raise Superseded(order_code=order_code)


def _pair_of(order: Order) -> tuple[int, int]:
    """Epoch and fence of the order's row as the transaction sees it now."""
    row = db.session.execute(
        select(Order.lock_epoch, Order.lock_fence).where(Order.id == order.id)
    ).one()
    return row.lock_epoch, row.lock_fence


def _allowed(
    chart: type[StrictChart],
    order_code: str,
    state: str,
    event: str,
    facts: dict[str, Any] | None = None,
) -> Move:
    """Ask the chart; its refusal becomes one of the shop's errors here, and only here."""
    try:
        return allowed_move(chart, state, event, **(facts or {}))
    except MoveNotAllowed as error:
        raise MoveRefused(order_code=order_code, state=state) from error


def _remember(row: Order | PaymentAttempt, **values: Any) -> None:
    """Let the object show what was written; a rollback makes it read the database again."""
    for name, value in values.items():
        set_committed_value(row, name, value)
