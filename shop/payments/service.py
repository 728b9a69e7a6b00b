"""The payment service as the web, the CLI and the sweeper see it."""

from shop.db import end_read
from shop.errors import (
    CancelNotConfirmed,
    GatewayUnsure,
    OrderAlreadyPaid,
    OrderClosed,
    OrderNotFound,
    Superseded,
)
from shop.gateways.base import HandOver, Product
from shop.merchants.errors import MerchantUnusable
from shop.metrics import tell
from shop.orders.models import Order
from shop.orders.moves import Claim, fenced_transaction
from shop.payments import start, store
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.desk import Desk
from shop.payments.models import PaymentAttempt
from shop.payments.products import Device, choose, is_stale
from shop.payments.resolve import require_ended, resolve
from statemachine.attempt import OPEN_ATTEMPT_STATES

# Whoever has the lease by then is at work, and overtakes the holders before it by itself.
FENCE_OFF_WAIT_MS = 500


class Payments:
    """Pay, cancel, look."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def pay(self, command: PayCommand) -> PaymentView:
        """Pay an order on a channel; what can be repeated, may be. Raises ShopError."""
        with tell.pay_request(command.channel):
            start.pay(self.desk, command)
        return self.view(command.member_id, command.order_code)

    def cancel(self, member_id: int, order_code: str) -> PaymentView:
        """Give an unpaid order up. An open payment is first closed at its gateway.

        Raises OrderAlreadyPaid where it was paid after all, CancelNotConfirmed where the gateway
        does not say, PaymentHeld where it says what cannot be.
        """
        start.order_of(member_id, order_code)
        try:
            with self.desk.claim(order_code, actor="member") as claim:
                close_order(self.desk, claim, order_code, cause="cancelled by the member")
        except GatewayUnsure as error:
            raise CancelNotConfirmed(order_code=order_code) from error
        return self.view(member_id, order_code)

    def fence_off(self, order_code: str) -> int:
        """Overtake, as an operator, whoever held the order's lease so far; gives our fence.

        The order is written as it stands, under a lease of our own: the database refuses earlier
        holders from then on. Raises OrderNotFound; PaymentInProgress where a later holder is at
        work already, whose own first write does the same.
        """
        with self.desk.claim(order_code, actor="operator", wait_ms=FENCE_OFF_WAIT_MS) as claim:

            def work() -> int:
                order = store.fresh_order(order_code)
                if order is None:
                    raise OrderNotFound(order_code=order_code)
                self.desk.moves.hold_order(order, claim)
                return claim.fence

            return fenced_transaction(claim, work)

    def view(self, member_id: int, order_code: str, *, with_hand_over: bool = True) -> PaymentView:
        """How the payment of the member's order stands. Raises OrderNotFound.

        A hand-over may have to be signed: `with_hand_over` False for who does not show it.
        """
        order = start.order_of(member_id, order_code)
        attempt = store.latest_attempt(order_code)
        shown = attempt is not None and attempt.state in OPEN_ATTEMPT_STATES
        hand_over = self._hand_over(attempt) if attempt and shown and with_hand_over else None
        return PaymentView(
            order_code=order.code,
            order_state=order.state,
            points=order.points,
            amount_fen=order.amount_fen,
            expires_at=order.expires_at,
            channel=attempt.channel if attempt else None,
            out_trade_no=attempt.out_trade_no if attempt else None,
            attempt_state=attempt.state if attempt else None,
            product=Product(attempt.product) if attempt and attempt.product else None,
            hand_over=hand_over,
            stale=shown and self._is_stale(attempt),
            surplus_fen=store.surplus_of(order.code),
            merchant=order.merchant,
        )

    def surplus_of(self, order_code: str) -> int:
        """Fen that gateways took for the order beyond what it owed."""
        return store.surplus_of(order_code)

    def products(
        self, merchant: str, device: Device, *, payer_known: bool, on_its_page: bool = False
    ) -> dict[str, Product]:
        """How the merchant's gateways are paid on this device, but for those that cannot be.

        None can where the merchant's accounts cannot be used.
        """
        try:
            gateways = self.desk.gateways.of(merchant)
        except MerchantUnusable:
            return {}
        chosen = {
            name: choose(
                name, device, one.products, payer_known=payer_known, on_its_page=on_its_page
            )
            for name, one in gateways.items()
        }
        return {name: product for name, product in chosen.items() if product is not None}

    def _is_stale(self, attempt: PaymentAttempt | None) -> bool:
        if attempt is None or not attempt.product:
            return False
        return is_stale(Product(attempt.product), attempt.ticket_at, self.desk.clock.now())

    def _hand_over(self, attempt: PaymentAttempt) -> HandOver | None:
        if not attempt.ticket:
            return None
        gateway, product = self.desk.gateway_of(attempt), Product(attempt.product)
        if product not in gateway.products:
            # The merchant gave this product up; what was opened by it is asked after all the same.
            return None
        return gateway.hand_over(
            product,
            attempt.ticket,
            return_url=self.desk.return_url(attempt.order_code),
        )


def close_order(desk: Desk, claim: Claim, order_code: str, *, cause: str) -> None:
    """Close an order that is not paid; from paying only after its gateway confirmed it.

    Raises as `Payments.cancel` does; OrderClosed where it is closed already.
    """
    end_read()
    order = store.fresh_order(order_code)
    if order is None or order.state == "closed":
        raise OrderClosed(order_code=order_code)
    if order.state in {"paid", "refunding", "refunded"}:
        raise OrderAlreadyPaid(order_code=order_code)
    attempt = store.open_attempt(order_code)
    if attempt is not None:
        how = resolve(desk, claim, attempt, want_closed=True, order_event="close", cause=cause)
        require_ended(how, order_code)
        return
    if order.state == "paying":
        # Its attempt was ended between our two reads: somebody else is at work.
        raise Superseded(order_code=order_code)
    _close_unpaid(desk, claim, order, cause)


def _close_unpaid(desk: Desk, claim: Claim, order: Order, cause: str) -> None:
    def work() -> None:
        start.require_unmoved(order)
        desk.moves.move_order(order, "close", claim, cause, closed_at=desk.clock.now())

    fenced_transaction(claim, work)
