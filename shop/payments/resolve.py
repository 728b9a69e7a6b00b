"""Asking a gateway what became of an open attempt, and acting on the answer.

Used by the sweeper, by a member who changes the channel or cancels, and by a pay request that finds
an attempt left half open. The gateway's word is the only one that ends an attempt.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from shop.db import transaction
from shop.errors import GatewayUnsure, OrderAlreadyPaid, PaymentHeld
from shop.gateways.base import Outcome, QueryResult
from shop.gateways.guard import BUSY, RESTING
from shop.gateways.guard_retry import HOST_FAULTS, TOO_OFTEN
from shop.orders.moves import Claim
from shop.payments import store
from shop.payments.desk import Desk, log
from shop.payments.models import PaymentAttempt
from shop.payments.settle import REFUSALS, Money, apply_money, end_unpaid

# A gateway's clock may be this far from ours: what it calls expired we believe a little later.
EXPIRY_MARGIN_S = 10


# Faults that tell of the gateway or the way to it, rather than of one payment.
AWAY_CODES = HOST_FAULTS | TOO_OFTEN | {BUSY, RESTING}


class Resolution(StrEnum):
    """What asking led to."""

    PAID = "paid"
    ENDED = "ended"
    OPEN = "open"
    UNSURE = "unsure"
    AWAY = "away"
    CONTRADICTED = "contradicted"


def resolve(
    desk: Desk,
    claim: Claim,
    attempt: PaymentAttempt,
    *,
    want_closed: bool,
    order_event: str,
    cause: str,
) -> Resolution:
    """Ask, and settle or end the attempt as the gateway says.

    With `want_closed` an attempt that is unpaid so far is closed at the gateway first and then
    asked after again, as a gateway's "closed" proves nothing by itself. Where the gateway did
    not answer (AWAY), gave no believable answer or did not confirm its own close (UNSURE), or took
    money of another
    amount than our books say (CONTRADICTED, for an operator), nothing was changed.
    """
    # Read before the calls: reading them afterwards would open a transaction across the next one.
    gateway, number = desk.gateway_of(attempt), attempt.out_trade_no
    desk.before_gateway_call(claim)
    found = gateway.query(number)
    if found.outcome is Outcome.PENDING and want_closed:
        desk.before_gateway_call(claim)
        closing = gateway.close(number)
        desk.before_gateway_call(claim)
        found = gateway.query(number)
        if found.outcome is Outcome.PENDING and (
            found.exists or closing.outcome is not Outcome.SUCCEEDED
        ):
            log.warning(
                "close_not_confirmed",
                out_trade_no=number,
                trade_state=found.trade_state,
                close=closing.outcome.value,
            )
            return Resolution.UNSURE
    return _act(desk, claim, attempt, found, want_closed, order_event, cause)


def _act(
    desk: Desk,
    claim: Claim,
    attempt: PaymentAttempt,
    found: QueryResult,
    want_closed: bool,
    order_event: str,
    cause: str,
) -> Resolution:
    if found.outcome is Outcome.SUCCEEDED:
        if found.transaction_id is None or found.amount_fen is None:
            log.error("paid_without_particulars", out_trade_no=attempt.out_trade_no)
            return Resolution.UNSURE
        applied = apply_money(
            desk,
            claim,
            Money(
                channel=attempt.channel,
                merchant=attempt.merchant,
                out_trade_no=attempt.out_trade_no,
                transaction_id=found.transaction_id,
                amount_fen=found.amount_fen,
                currency="CNY",
                paid_at=found.paid_at,
                cause=f"query: {cause}",
            ),
        )
        if applied in REFUSALS:
            number = attempt.out_trade_no
            transaction(lambda: store.note_fault(number, applied.value))
            return Resolution.CONTRADICTED
        return Resolution.PAID
    closed = found.outcome is Outcome.FAILED
    # Not known to the gateway, after it was asked to close: there is nothing that can be paid. (An
    # Alipay code that nobody scanned can still be scanned until it expires, which is set to the
    # order's own expiry: the sweeper then asks once more, and money that came is booked.)
    unknown_there = found.outcome is Outcome.PENDING and not found.exists
    if unknown_there and attempt.state == "pending" and attempt.channel == "wechatpay":
        # It gave us a ticket under this number, so it knows it: we are asking the wrong account, as
        # when a merchant's number was changed meanwhile. That proves nothing about the money.
        log.error("payment_unknown_to_its_gateway", out_trade_no=attempt.out_trade_no)
        return Resolution.UNSURE
    never_was = want_closed and unknown_there
    if closed or never_was:
        end_unpaid(
            desk,
            claim,
            attempt.out_trade_no,
            attempt_event="close",
            order_event=order_event,
            cause=cause,
            look_again_at=None if closed else last_look_at(attempt),
        )
        return Resolution.ENDED
    return Resolution.OPEN if found.outcome is Outcome.PENDING else _unknown(found)


def _unknown(found: QueryResult) -> Resolution:
    code = found.fault.code if found.fault else ""
    return Resolution.AWAY if code in AWAY_CODES else Resolution.UNSURE


def require_ended(how: Resolution, order_code: str) -> None:
    """Go on only where the attempt is certainly over and unpaid.

    Raises OrderAlreadyPaid, PaymentHeld or GatewayUnsure otherwise.
    """
    if how is Resolution.PAID:
        raise OrderAlreadyPaid(order_code=order_code)
    if how is Resolution.CONTRADICTED:
        raise PaymentHeld(order_code=order_code)
    if how is not Resolution.ENDED:
        raise GatewayUnsure(order_code=order_code)


def last_look_at(attempt: PaymentAttempt) -> datetime:
    """When the gateway itself refuses money for this attempt, by its clock or ours."""
    return attempt.expires_at + timedelta(seconds=EXPIRY_MARGIN_S)


def look_back(desk: Desk, claim: Claim, attempt: PaymentAttempt) -> Resolution:
    """The last question about an attempt that was ended while its code could still be scanned.

    Money that was taken after all is booked; otherwise the question is settled for good.
    """
    number = attempt.out_trade_no
    gateway = desk.gateway_of(attempt)
    desk.before_gateway_call(claim)
    found = gateway.query(number)
    if found.outcome is Outcome.SUCCEEDED:
        return _act(desk, claim, attempt, found, False, "fail", "last look")
    if found.outcome is Outcome.UNKNOWN:
        return _unknown(found)
    if found.outcome is Outcome.PENDING and found.exists:
        # Somebody scanned it: it is closed now, and asked after until that is confirmed.
        desk.before_gateway_call(claim)
        gateway.close(number)
        return Resolution.OPEN
    transaction(lambda: store.look_no_more(number))
    return Resolution.ENDED


def is_over(desk: Desk, attempt: PaymentAttempt) -> bool:
    """Whether the gateway itself must by now refuse money for this attempt."""
    return desk.clock.now() >= last_look_at(attempt)
