"""Starting a payment, top to bottom (DESIGN section 5, steps 3 to 6)."""

from collections.abc import Callable

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from shop.catalog import stock
from shop.db import db, end_read
from shop.errors import (
    OrderAlreadyPaid,
    OrderClosed,
    OrderExpired,
    OrderNotFound,
    Superseded,
    TooManyAttempts,
    WrongChannel,
)
from shop.gateways.base import Product
from shop.gateways.guard import is_resting
from shop.metrics import tell
from shop.orders.models import Order
from shop.orders.moves import Claim, fenced_transaction
from shop.payments import store
from shop.payments.contract import PayCommand
from shop.payments.desk import Desk, log
from shop.payments.errors import ChannelNotHere, GatewayResting
from shop.payments.models import PaymentAttempt
from shop.payments.opening import open_at_gateway, require_time
from shop.payments.products import choose, is_stale
from shop.payments.resolve import require_ended, resolve
from shop.payments.settle import hold_for
from shop.points import service as points

# Each try takes a number at the gateway and rows here; nobody needs more to pay one order.
ATTEMPTS_MAX = 20


def pay(desk: Desk, command: PayCommand) -> None:
    """Bring the order as far towards paid as a pay request can. Raises the ShopError family.

    Safe to call again at any time and by anyone: a payment that is open on the same channel is
    resumed with its own number, one on another channel is first closed at its gateway.
    """
    order = order_of(command.member_id, command.order_code)
    _refuse_ended(desk, order)
    _refuse_channel(desk, order, command.channel)
    with desk.claim(order.code, actor="member") as claim:
        _pay_under_lease(desk, claim, command)


def order_of(member_id: int, order_code: str) -> Order:
    """The member's order, or OrderNotFound; somebody else's is not found either."""
    end_read()
    order = store.fresh_order(order_code)
    if order is None or order.member_id != member_id:
        raise OrderNotFound(order_code=order_code)
    return order


def _pay_under_lease(desk: Desk, claim: Claim, command: PayCommand) -> None:
    end_read()
    order = _again(command.order_code)
    _refuse_ended(desk, order)
    attempt = store.open_attempt(order.code)
    if attempt is not None and order.state != "paying":
        # It was begun between our two reads: somebody else is at work, and it is not ours to end.
        raise Superseded(order_code=order.code)
    product = product_for(desk, order, command)
    if attempt is not None and _is_what_is_asked(attempt, command, product):
        now = desk.clock.now()
        if attempt.state == "opening" or is_stale(Product(attempt.product), attempt.ticket_at, now):
            require_time(desk, order.code, attempt.expires_at)
            open_at_gateway(desk, claim, attempt, resumed=True)
        return
    if command.channel != "points":
        # It would be turned away: nothing is begun for it, and nothing ended.
        require_time(desk, order.code, order.expires_at)
        if is_resting(desk.gateways.of(order.merchant)[command.channel]):
            raise GatewayResting(order_code=order.code, channel=command.channel)
    if attempt is not None:
        # What can be paid is not ended for what cannot begin.
        _require_another_try(order.code)
        _end_before_new(desk, claim, attempt)
        order = _again(command.order_code)
    _refuse_ended(desk, order)
    if order.state == "paying":
        # Its attempt was ended between our two reads: somebody else is at work.
        raise Superseded(order_code=order.code)
    if command.channel == "points":
        _pay_by_points(desk, claim, order)
        return
    begun = _begin(desk, claim, order, command, product)
    open_at_gateway(desk, claim, begun, resumed=False)


def product_for(desk: Desk, order: Order, command: PayCommand) -> Product | None:
    """How the command's channel is paid on its device; None for points, which need no gateway.

    Without the payer's address it is not by H5, which needs it. Raises ChannelNotHere.
    """
    channel = command.channel
    if channel == "points":
        return None
    offered = desk.gateways.of(order.merchant)[channel].products
    product = choose(
        channel,
        command.device,
        offered if command.client_ip else offered - {Product.H5},
        payer_known=bool(command.payer_openid),
        on_its_page=command.on_its_page,
    )
    if product is None:
        raise ChannelNotHere(order_code=order.code, channel=channel)
    return product


def _is_what_is_asked(
    attempt: PaymentAttempt, command: PayCommand, product: Product | None
) -> bool:
    """Whether the open attempt can be paid as the command wishes.

    Another product of the same gateway is another attempt: the gateways refuse a number that comes
    back with another trade type, or another payer. An H5 payment works from the address alone that
    it was opened for (WeChat Pay's "H5支付", common errors: a phone that left its Wi-Fi).
    """
    if (attempt.channel, attempt.product) != (command.channel, product):
        return False
    if product is Product.H5:
        return attempt.client_ip == command.client_ip
    return product is not Product.JSAPI or attempt.payer_openid == command.payer_openid


def _again(order_code: str) -> Order:
    order = store.fresh_order(order_code)
    if order is None:
        raise OrderNotFound(order_code=order_code)
    return order


def _refuse_ended(desk: Desk, order: Order) -> None:
    if order.state in {"paid", "refunding", "refunded"}:
        raise OrderAlreadyPaid(order_code=order.code)
    if order.state == "closed":
        raise OrderClosed(order_code=order.code)
    if desk.clock.now() >= order.expires_at:
        raise OrderExpired(order_code=order.code)


def require_unmoved(order: Order) -> None:
    """Inside a transaction, which reads the order anew: it still is what was decided on.

    Raises Superseded where somebody moved it since, which the lock prevents and no rule relies on.
    """
    if order.state not in {"created", "failed"}:
        raise Superseded(order_code=order.code)


def _refuse_channel(desk: Desk, order: Order, channel: str) -> None:
    choices = ["points"] if order.amount_fen == 0 else sorted(desk.gateways.of(order.merchant))
    if channel not in choices:
        raise WrongChannel(order_code=order.code, channel=channel, choices=", ".join(choices))


def _end_before_new(desk: Desk, claim: Claim, attempt: PaymentAttempt) -> None:
    """Close the open attempt at its gateway before another channel is opened."""
    how = resolve(
        desk, claim, attempt, want_closed=True, order_event="fail", cause="change of channel"
    )
    require_ended(how, attempt.order_code)


def _begin(
    desk: Desk, claim: Claim, order: Order, command: PayCommand, product: Product | None
) -> PaymentAttempt:
    """Step 4: paying and the attempt with its number are committed before any gateway is called."""

    channel = command.channel
    account = desk.gateways.of(order.merchant)[channel].account

    def work() -> str:
        number = _next_number(order.code)
        desk.moves.move_order(order, "begin_payment", claim, f"pay by {channel}")
        db.session.execute(
            insert(PaymentAttempt).values(
                **_attempt_values(desk, order, channel, number),
                product=product,
                account=account,
                payer_openid=command.payer_openid if product is Product.JSAPI else "",
                client_ip=command.client_ip,
                state="opening",
                role="none",
                open_key=order.code,
                due_at=desk.first_look_at(),
            )
        )
        hold_for(desk, order, cause=number)
        return number

    number = _insert_attempt(claim, order, work)
    log.info("payment_begun", order_code=order.code, out_trade_no=number, fence=claim.fence)
    attempt = store.fresh_attempt(number)
    if attempt is None:
        raise Superseded(order_code=order.code)
    return attempt


def _pay_by_points(desk: Desk, claim: Claim, order: Order) -> None:
    """An order that needs no cash: created to paid, through paying, in one transaction."""

    def work() -> str:
        number = _next_number(order.code)
        now = desk.clock.now()
        desk.moves.move_order(order, "begin_payment", claim, "pay by points")
        desk.moves.move_order(
            order,
            "settle",
            claim,
            "points",
            facts={"amount_due_fen": order.amount_fen, "amount_paid_fen": 0},
            paid_at=now,
        )
        db.session.execute(
            insert(PaymentAttempt).values(
                **_attempt_values(desk, order, "points", number),
                state="succeeded",
                role="settling",
                settling_key=order.code,
                transaction_id=number,
                paid_at=now,
            )
        )
        points.spend(order.member_id, order.points, cause=number, order_code=order.code, now=now)
        stock.take_at_once(order.lines)
        return number

    number = _insert_attempt(claim, order, work)
    tell.payment_outcome("points", "settled")
    log.info("paid_by_points", order_code=order.code, out_trade_no=number, fence=claim.fence)


def _attempt_values(desk: Desk, order: Order, channel: str, number: str) -> dict[str, object]:
    return {
        "order_id": order.id,
        "order_code": order.code,
        "channel": channel,
        "merchant": order.merchant,
        "out_trade_no": number,
        "version": 0,
        "amount_fen": order.amount_fen,
        "points": order.points,
        "asked_count": 0,
        "created_at": desk.clock.now(),
        "expires_at": order.expires_at,
    }


def _insert_attempt(claim: Claim, order: Order, work: Callable[[], str]) -> str:
    """Run `work`; the database's own refusal of a second payment (L3) is a lost race."""

    def still_wanted() -> str:
        require_unmoved(order)
        return work()

    try:
        return fenced_transaction(claim, still_wanted)
    except IntegrityError as error:
        log.warning("second_payment_refused_by_database", order_code=order.code)
        raise Superseded(order_code=order.code) from error


def _next_number(order_code: str) -> str:
    """The attempt's `out_trade_no`: the order's code and a count, so that it can be read."""
    return f"{order_code}{_require_another_try(order_code) + 1:02d}"


def _require_another_try(order_code: str) -> int:
    """How often it was tried so far. Raises TooManyAttempts."""
    count = store.attempt_count(order_code)
    if count >= ATTEMPTS_MAX:
        raise TooManyAttempts(order_code=order_code)
    return count
