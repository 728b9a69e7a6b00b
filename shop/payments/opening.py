"""Opening an attempt at its gateway, and keeping the ticket that its member pays with."""

from datetime import datetime, timedelta

from shop.db import transaction
from shop.errors import OrderNotFound, Superseded
from shop.gateways.base import Outcome, PrepayRequest, Product
from shop.merchants.errors import MerchantUnusable
from shop.orders.moves import Claim, fenced_transaction
from shop.payments import store
from shop.payments.desk import Desk, log
from shop.payments.errors import ChannelNotHere, TooLateToPay
from shop.payments.models import PaymentAttempt
from shop.payments.resolve import last_look_at
from shop.payments.settle import end_unpaid
from shop.payments.words import words_for
from statemachine.attempt import OPEN_ATTEMPT_STATES

# WeChat Pay moves a `time_expire` that is less than a minute ahead to a minute after the request
# (APIv3, "Native下单"), beyond the order's end; the rest is for the call itself.
LEAST_TIME_LEFT = timedelta(seconds=75)


def has_time(desk: Desk, expires_at: datetime) -> bool:
    """Whether a gateway would end a payment that is opened now when its order ends."""
    return desk.clock.now() + LEAST_TIME_LEFT <= expires_at


def require_time(desk: Desk, order_code: str, expires_at: datetime) -> None:
    """Raises TooLateToPay."""
    if not has_time(desk, expires_at):
        raise TooLateToPay(order_code=order_code)


def can_be_opened(desk: Desk, attempt: PaymentAttempt) -> bool:
    """Whether a half open attempt may be asked for again: in time, by a product still offered."""
    offered = desk.gateway_of(attempt).products
    return Product(attempt.product) in offered and has_time(desk, attempt.expires_at)


def open_at_gateway(desk: Desk, claim: Claim, attempt: PaymentAttempt, *, resumed: bool) -> None:
    """Step 5: the gateway call, outside any transaction, under the lease.

    `resumed`: an earlier call with this number may have come through. Raises PaymentRefused where
    nothing was opened, GatewayAway where nothing was sent, GatewayUnsure where that cannot be
    known; each by the reason (shop/payments/words.py). MerchantUnusable or ChannelNotHere where the
    merchant's account or products changed since the attempt was begun.
    """
    number = attempt.out_trade_no
    request = PrepayRequest(
        out_trade_no=number,
        amount_fen=attempt.amount_fen,
        subject=f"Payonce {attempt.order_code}",
        expires_at=attempt.expires_at,
        notify_url=desk.notify_url(attempt.channel, attempt.merchant),
        product=Product(attempt.product),
        payer_openid=attempt.payer_openid,
        client_ip=attempt.client_ip,
        return_url=desk.return_url(attempt.order_code),
    )
    try:
        gateway = desk.gateway_of(attempt)
        if request.product not in gateway.products:
            raise ChannelNotHere(order_code=attempt.order_code, channel=attempt.channel)
    except (MerchantUnusable, ChannelNotHere) as error:
        # Changed since it was begun. Nothing was sent, unless by a worker before us.
        if not resumed:
            end_unpaid(
                desk,
                claim,
                number,
                attempt_event="fail",
                order_event="fail",
                cause=f"prepay not sent: {error.code}",
                look_again_at=last_look_at(attempt),
            )
        raise
    desk.before_gateway_call(claim)
    result = gateway.prepay(request)
    if result.outcome is Outcome.SUCCEEDED and result.ticket:
        _store_ticket(desk, claim, number, result.ticket)
        return
    fault = result.fault.code if result.fault else "no_ticket"
    log.warning("prepay_failed", out_trade_no=number, outcome=result.outcome.value, fault=fault)
    if not resumed and (result.outcome is Outcome.FAILED or not result.sent):
        ended_now = end_unpaid(
            desk,
            claim,
            number,
            attempt_event="fail",
            order_event="fail",
            cause=f"prepay {'refused' if result.sent else 'not sent'}: {fault}",
            fault_code=fault,
            # Should another worker have taken over and sent it after all, money would be found.
            look_again_at=None if result.sent else last_look_at(attempt),
        )
        if not ended_now:
            # Who went on with the order ended it, and its gateway refuses the number since.
            raise Superseded(order_code=attempt.order_code)
        words = words_for(fault, Outcome.FAILED, sent=result.sent)
        raise words(order_code=attempt.order_code, channel=attempt.channel, fault_code=fault)
    if attempt.state == "pending":
        # A new ticket in place of a stale one: the gateway may refuse it because it is paid.
        transaction(lambda: store.ask_soon(number, desk.clock.now()))
    # Unknown, or refused for a number that an earlier call may have opened or that may be paid by
    # now: the attempt stays open, and the sweeper asks.
    unsure = words_for(fault, Outcome.UNKNOWN)
    raise unsure(order_code=attempt.order_code, channel=attempt.channel, fault_code=fault)


def _store_ticket(desk: Desk, claim: Claim, number: str, ticket: str) -> None:
    def work() -> None:
        attempt = store.fresh_attempt(number)
        if attempt is None:
            raise OrderNotFound(order_code=number)
        if attempt.state == "succeeded":
            # A callback was faster: there is nothing left to store.
            return
        if attempt.state not in OPEN_ATTEMPT_STATES:
            raise Superseded(order_code=attempt.order_code)
        order = store.fresh_order(attempt.order_code)
        if order is None:
            raise OrderNotFound(order_code=attempt.order_code)
        desk.moves.hold_order(order, claim)
        values = {"ticket": ticket, "ticket_at": desk.clock.now()}
        if attempt.state == "opening":
            desk.moves.move_attempt(attempt, "opened", claim, "prepay", **values)
        else:
            # The newest ticket is the one that works; who came first showed an older one.
            desk.moves.write_attempt(attempt, claim, **values)

    fenced_transaction(claim, work)
    log.info("payment_pending", out_trade_no=number, fence=claim.fence)
