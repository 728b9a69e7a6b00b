"""Every change of an order's or an attempt's state is one conditional statement, made here.

L1: `… WHERE state = :from AND version = :seen`: if somebody else moved, nothing changes.
L2: `… AND lock_fence < :fence` at the first write under a lease, `= :fence` at the later ones:
a holder that was superseded changes nothing, whatever it believes.
A lost race is `Superseded`, an answer: read again, decide again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, insert, update
from sqlalchemy.orm.attributes import set_committed_value

from locks import Lease
from shop.clock import Clock
from shop.db import changed_rows, db, transaction
from shop.errors import MoveRefused, Superseded
from shop.orders.models import Order, Transition
from shop.payments.models import PaymentAttempt
from statemachine.attempt import OPEN_ATTEMPT_STATES, AttemptChart
from statemachine.order import OrderChart
from statemachine.strict import Move, MoveNotAllowed, StrictChart, allowed_move

T = TypeVar("T")


@dataclass(kw_only=True)
class Claim:
    """What a lease lets its holder write: the fence, who acts, and whether it wrote already."""

    lease: Lease
    actor: str
    wrote: bool = False

    @property
    def fence(self) -> int:
        """The lease's fencing token."""
        return self.lease.fence


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
        """L2: no later holder has written the order."""
        if claim.wrote:
            return [Order.lock_fence == claim.fence]
        return [Order.lock_fence < claim.fence]

    def hold_order(self, order: Order, claim: Claim) -> None:
        """Make this holder the order's writer without moving it; locks the row until the end.

        Every transaction that moves only an attempt begins with it.
        """
        changed = changed_rows(
            update(Order)
            .where(Order.id == order.id, *self.fence_guard(claim))
            .values(lock_fence=claim.fence)
        )
        self._require_one(changed, order.code)
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
                state=move.to_state, version=Order.version + 1, lock_fence=claim.fence, **values
            )
        )
        self._require_one(changed, order.code)
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
                fence=claim.fence,
                cause=cause,
                at=self._clock.now(),
            )
        )

    @staticmethod
    def _require_one(changed: int, order_code: str) -> None:
        if changed != 1:
            raise Superseded(order_code=order_code)


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
