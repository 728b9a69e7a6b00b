"""Checkout, the list of orders and the page of one order."""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from shop.cart import service as cart
from shop.idempotency.dedup import REQUEST_NO_MAX
from shop.members.session import require_member, sign_in_required
from shop.money import FEN_PER_POINT
from shop.orders import service, store
from shop.orders.errors import PointsOutOfBounds
from shop.orders.models import Order, Transition
from shop.pages.filters import fresh_uuid
from shop.pages.inputs import submit_token, whole_number
from shop.pages.wants import wants_json
from shop.pages.words import move_sentence
from shop.payments.models import PaymentAttempt
from shop.payments.views import channels_here, pay_and_go_on, surplus_of
from shop.points import service as points_service

blueprint = Blueprint("orders", __name__)

# The states in which a member can still choose how to pay.
PAYABLE_STATES = ("created", "failed")


@blueprint.get("/checkout")
@sign_in_required
def checkout() -> str | Response:
    """What an order would cost, and the member's choices: of the cart, or of one product.

    The submit token is in the address, so that going back to this page carries it along and the
    button, pressed again, leads to the order that it made before.
    """
    member_id = require_member().id
    from_cart = "product" not in request.args
    token = submit_token(request.args.get("token"))
    items = _asked_items(member_id)
    first = store.order_by_token(member_id, token) if token else None
    if from_cart and not items:
        if first is not None:
            return redirect(url_for("orders.show", order_code=first.code), 303)
        return redirect(url_for("cart.show"), 303)
    # What is in the cart now was put there after the first order took its goods out.
    if token is None or (first is not None and (from_cart or not _repeats(first, items))):
        chosen = {**request.args.to_dict(), "token": fresh_uuid()}
        return redirect(f"{url_for('orders.checkout')}?{urlencode(chosen)}", 303)
    lowest = service.quote(items)
    merchant = service.merchant_for(lowest)
    balance = points_service.available(member_id)
    suggested = max(lowest.points_min, min(balance, lowest.points_max))
    if first is not None and lowest.points_min <= first.points <= lowest.points_max:
        # Its points are set aside, or spent: to send the same again, they must be offered again.
        suggested, balance = first.points, max(balance, first.points)
    return render_template(
        "orders/checkout.html",
        quote=service.quote(items, suggested),
        lowest=lowest,
        affordable_max=max(lowest.points_min, min(balance, lowest.points_max)),
        balance=balance,
        short=[] if first is not None else service.short_of_stock(lowest),
        from_cart=from_cart,
        token=token,
        first=first,
        channels=channels_here(merchant) if lowest.amount_fen else [],
        fen_per_point=FEN_PER_POINT,
    )


@blueprint.post("/orders")
@sign_in_required
def place() -> Response | tuple[Response, int]:
    """Place the order, once per submit token, and go on to pay it where a channel was chosen."""
    form = request.form
    points = whole_number(form.get("points"))
    items = [_item(text) for text in form.getlist("item")]
    if points is None:
        lowest = service.quote(items)
        raise PointsOutOfBounds(points_min=lowest.points_min, points_max=lowest.points_max)
    token = form.get("submit_token", "")
    order = service.place_order(
        require_member().id,
        items,
        points,
        token,
        price_tag=form.get("price_tag"),
        from_cart=form.get("source") == "cart",
    )
    code, channel = order.code, _channel_for(order, form.get("channel"))
    if channel is not None:
        # One key per form, channel and change of channel: a second submit is the same request, and
        # going back to the first channel after another was tried is a new one.
        changes = sum(one.channel != channel for one in store.attempts_of(code))
        key = f"checkout-{token}-{channel}-{changes}"
        return pay_and_go_on(code, channel, key[:REQUEST_NO_MAX])
    if wants_json():
        return jsonify(**_facts(order)), 201
    return redirect(url_for("orders.show", order_code=code), 303)


@blueprint.get("/orders")
@sign_in_required
def index() -> str:
    """The member's orders, newest first."""
    page = max(1, whole_number(request.args.get("page")) or 1)
    orders, more = store.orders_of(require_member().id, page=min(page, 10_000))
    return render_template("orders/orders.html", orders=orders, page=page, more=more)


@blueprint.get("/orders/<order_code>")
@sign_in_required
def show(order_code: str) -> str:
    """One order with all that happened to it."""
    order = service.order_of_member(require_member().id, order_code)
    payable = order.state in PAYABLE_STATES
    channels = ["points"] if order.amount_fen == 0 else []
    if payable and order.amount_fen:
        channels = channels_here(order.merchant)
    return render_template(
        "orders/order.html",
        order=order,
        timeline=_timeline(order),
        payable=payable,
        channels=channels,
        surplus_fen=surplus_of(order.code),
    )


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One line of an order's time line."""

    at: datetime
    sentence: str
    kind: str
    actor: str | None = None


def _timeline(order: Order) -> list[Happening]:
    """The recorded moves of the order and its attempts, in people's words, oldest first."""
    attempts = {one.out_trade_no: one for one in store.attempts_of(order.code)}
    moves = store.transitions_of(order.code)
    for place, (first, second) in enumerate(list(pairwise(moves))):
        # One transaction, one cause: what the payment did is told before what the order did.
        if (first.subject, second.subject) == ("order", "attempt") and first.cause == second.cause:
            moves[place : place + 2] = [second, first]
    return [_happening(move, attempts, with_points=order.points > 0) for move in moves]


def _happening(
    move: Transition, attempts: dict[str, PaymentAttempt], *, with_points: bool
) -> Happening:
    attempt = attempts.get(move.subject_no)
    return Happening(
        at=move.at,
        sentence=move_sentence(
            move,
            channel=attempt.channel if attempt else "",
            surplus=attempt is not None and attempt.role == "surplus",
            with_points=with_points,
        ),
        kind=move.to_state,
        actor=move.actor,
    )


def _asked_items(member_id: int) -> list[tuple[int, int]]:
    if "product" in request.args:
        product_id = whole_number(request.args.get("product")) or 0
        return [(product_id, whole_number(request.args.get("quantity")) or 0)]
    return [(line.product.id, line.quantity) for line in cart.contents(member_id)]


def _repeats(first: Order, items: list[tuple[int, int]]) -> bool:
    """Whether to ask for these goods again leads to this order; a closed one leads nowhere."""
    ordered = [(line.product_id, line.quantity) for line in first.lines]
    return ordered == items and first.state not in {"closed", "refunded"}


def _item(text: str) -> tuple[int, int]:
    """`product:quantity`; what cannot be read becomes a quantity that is refused."""
    product_id, _, quantity = text.partition(":")
    return whole_number(product_id) or 0, whole_number(quantity) or 0


def _channel_for(order: Order, chosen: str | None) -> str | None:
    """How to pay: points alone where no cash is due, else what was chosen, if anything."""
    if not chosen:
        return None
    return "points" if order.amount_fen == 0 else chosen


def _facts(order: Order) -> dict[str, Any]:
    return {
        "order_code": order.code,
        "order_state": order.state,
        "points": order.points,
        "amount_fen": order.amount_fen,
    }
