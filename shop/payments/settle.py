"""An outcome, top to bottom: every way in which an attempt ends goes through this file.

Callbacks, the sweeper, a change of channel and a cancellation all come here with a claim on the
order; that is what makes recovery the same door as the normal way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from shop.catalog import stock
from shop.db import changed_rows, db
from shop.errors import NotEnoughPoints, OrderNotFound, OutOfStock, Superseded
from shop.metrics import tell
from shop.orders.models import Order
from shop.orders.moves import Claim, fenced_transaction
from shop.payments import store
from shop.payments.desk import Desk, log
from shop.payments.models import PaymentAttempt
from shop.points import service as points
from statemachine.attempt import OPEN_ATTEMPT_STATES


class Applied(StrEnum):
    """What an outcome did."""

    SETTLED = "settled"
    SURPLUS = "surplus"
    ALREADY = "already_applied"
    AMOUNT_DIFFERS = "amount_differs"
    CHANNEL_DIFFERS = "channel_differs"
    SECOND_TRANSACTION = "second_transaction"
    UNKNOWN_TRADE = "unknown_out_trade_no"
    WRONG_MERCHANT = "wrong_merchant"


REFUSALS = {
    Applied.AMOUNT_DIFFERS,
    Applied.CHANNEL_DIFFERS,
    Applied.SECOND_TRANSACTION,
    Applied.UNKNOWN_TRADE,
    Applied.WRONG_MERCHANT,
}
"""Outcomes that contradict our books: no state moves, an operator must look."""


@dataclass(frozen=True, kw_only=True)
class Money:
    """What a gateway says it took, and for which merchant. `cause` names the notice or the question
    that told us."""

    channel: str
    merchant: str
    out_trade_no: str
    transaction_id: str
    amount_fen: int
    currency: str
    paid_at: datetime | None
    cause: str


def apply_money(
    desk: Desk, claim: Claim, money: Money, also: Callable[[Applied], None] | None = None
) -> Applied:
    """Book money that a gateway took: it settles its order, or it is surplus. Never dropped.

    `also` runs in the same transaction, with the result (the inbox marks its notice there).
    Safe to repeat with the same money.
    """

    def work() -> Applied:
        applied = _apply(desk, claim, money)
        if also is not None:
            also(applied)
        return applied

    try:
        applied = fenced_transaction(claim, work)
    except IntegrityError as error:
        # The database refused a second booking (L3) that we did not see coming: read again.
        log.error("second_booking_refused_by_database", out_trade_no=money.out_trade_no)
        raise Superseded(order_code=money.out_trade_no) from error
    tell.payment_outcome(money.channel, applied.value)
    emit = log.error if applied in REFUSALS or applied is Applied.SURPLUS else log.info
    emit(
        "money_applied",
        applied=applied.value,
        out_trade_no=money.out_trade_no,
        transaction_id=money.transaction_id,
        amount_fen=money.amount_fen,
        cause=money.cause,
    )
    return applied


def _apply(desk: Desk, claim: Claim, money: Money) -> Applied:
    attempt = store.fresh_attempt(money.out_trade_no)
    if attempt is None:
        return Applied.UNKNOWN_TRADE
    refusal = _contradiction(attempt, money)
    if refusal is not None:
        return refusal
    if attempt.state == "succeeded":
        return Applied.ALREADY
    order = store.fresh_order(attempt.order_code)
    if order is None:
        raise OrderNotFound(order_code=attempt.order_code)
    if _can_settle(desk, claim, order, attempt):
        _settle(desk, claim, order, attempt, money)
        return Applied.SETTLED
    desk.moves.hold_order(order, claim)
    _book_surplus(desk, claim, attempt, money)
    return Applied.SURPLUS


def _contradiction(attempt: PaymentAttempt, money: Money) -> Applied | None:
    if attempt.channel != money.channel:
        return Applied.CHANNEL_DIFFERS
    if attempt.merchant != money.merchant:
        return Applied.WRONG_MERCHANT
    if attempt.amount_fen != money.amount_fen or money.currency != "CNY":
        return Applied.AMOUNT_DIFFERS
    if attempt.state == "succeeded":
        same = attempt.transaction_id == money.transaction_id
        return None if same else Applied.SECOND_TRANSACTION
    if store.transaction_is_booked(money.channel, money.transaction_id):
        return Applied.SECOND_TRANSACTION
    return None


def _can_settle(desk: Desk, claim: Claim, order: Order, attempt: PaymentAttempt) -> bool:
    """Whether this money may pay this order: it is paying, or can be brought back to it.

    A failed order gave its points and goods back. Money that comes in late for it (its attempt was
    ended for a change of channel, and was paid all the same) pays it if both can be had again;
    if not, the money is surplus. An order never comes back without its goods.
    """
    if order.state == "paying":
        return True
    if order.state != "failed":
        return False
    wrote_before = claim.wrote
    savepoint = db.session.begin_nested()
    try:
        desk.moves.move_order(order, "begin_payment", claim, f"late {attempt.out_trade_no}")
        hold_for(desk, order, cause=f"{attempt.out_trade_no}:late")
    except (NotEnoughPoints, OutOfStock):
        savepoint.rollback()
        db.session.expire(order)
        claim.wrote = wrote_before
        return False
    savepoint.commit()
    return True


def _settle(desk: Desk, claim: Claim, order: Order, attempt: PaymentAttempt, money: Money) -> None:
    now = desk.clock.now()
    desk.moves.move_order(
        order,
        "settle",
        claim,
        money.cause,
        facts={"amount_due_fen": order.amount_fen, "amount_paid_fen": money.amount_fen},
        paid_at=money.paid_at or now,
    )
    desk.moves.move_attempt(
        attempt,
        "succeed",
        claim,
        money.cause,
        role="settling",
        settling_key=order.code,
        transaction_id=money.transaction_id,
        paid_at=money.paid_at or now,
    )
    points.capture(
        order.member_id, order.points, cause=attempt.out_trade_no, order_code=order.code, now=now
    )
    points.take_cash(
        attempt.channel,
        money.amount_fen,
        surplus=False,
        cause=attempt.out_trade_no,
        order_code=order.code,
        now=now,
    )
    stock.take(order.lines)
    _look_at_sibling_now(desk, order)


def _look_at_sibling_now(desk: Desk, order: Order) -> None:
    """An attempt that is still open beside the settling one must be closed at its gateway soon."""
    changed_rows(
        update(PaymentAttempt)
        .where(PaymentAttempt.open_key == order.code)
        .values(due_at=desk.clock.now())
    )


def _book_surplus(desk: Desk, claim: Claim, attempt: PaymentAttempt, money: Money) -> None:
    now = desk.clock.now()
    desk.moves.move_attempt(
        attempt,
        "succeed",
        claim,
        money.cause,
        role="surplus",
        transaction_id=money.transaction_id,
        paid_at=money.paid_at or now,
    )
    points.take_cash(
        attempt.channel,
        money.amount_fen,
        surplus=True,
        cause=attempt.out_trade_no,
        order_code=attempt.order_code,
        now=now,
    )


def end_unpaid(
    desk: Desk,
    claim: Claim,
    out_trade_no: str,
    *,
    attempt_event: str,
    order_event: str,
    cause: str,
    fault_code: str | None = None,
    look_again_at: datetime | None = None,
) -> bool:
    """End an open attempt that was certainly not paid (the gateway said so).

    `attempt_event` is `close` or `fail`. The order, where this attempt was what it was paying by,
    goes on by `order_event`: `fail` (it may be paid again) or `close` (it is over), and points and
    stock go back. Does nothing where the attempt has ended already, and tells so by False. With
    `look_again_at` the sweeper asks about it once more then.
    """
    values = {"fault_code": fault_code, "due_at": look_again_at}

    def work() -> str | None:
        attempt = store.fresh_attempt(out_trade_no)
        if attempt is None or attempt.state not in OPEN_ATTEMPT_STATES:
            return None
        order = store.fresh_order(attempt.order_code)
        if order is None:
            raise OrderNotFound(order_code=attempt.order_code)
        if order.state != "paying":
            desk.moves.hold_order(order, claim)
            desk.moves.move_attempt(attempt, attempt_event, claim, cause, **values)
            return attempt.channel
        ended: dict[str, object] = {}
        if order_event == "close":
            ended["closed_at"] = desk.clock.now()
        desk.moves.move_order(
            order, order_event, claim, cause, facts={"confirmed_unpaid": True}, **ended
        )
        desk.moves.move_attempt(attempt, attempt_event, claim, cause, **values)
        release_for(desk, order, cause=out_trade_no)
        return attempt.channel

    channel = fenced_transaction(claim, work)
    if channel is None:
        return False
    tell.payment_outcome(channel, "closed" if attempt_event == "close" else "failed")
    log.info("attempt_ended", out_trade_no=out_trade_no, how=attempt_event, cause=cause)
    return True


def hold_for(desk: Desk, order: Order, *, cause: str) -> None:
    """Set aside the points and goods of an order that begins to be paid."""
    points.hold(
        order.member_id, order.points, cause=cause, order_code=order.code, now=desk.clock.now()
    )
    stock.reserve(order.lines)


def release_for(desk: Desk, order: Order, *, cause: str) -> None:
    """Give back what `hold_for` set aside."""
    points.release(
        order.member_id, order.points, cause=cause, order_code=order.code, now=desk.clock.now()
    )
    stock.release(order.lines)
