"""Placing orders: what they cost is fixed here, nothing is paid or reserved yet."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError

from shop import current
from shop.cart import store as cart_store
from shop.cart.models import QUANTITY_MAX
from shop.catalog.errors import ProductNotFound
from shop.catalog.models import PriceMode, Product
from shop.catalog.store import products_by_id
from shop.db import db, end_read, transaction
from shop.errors import NotEnoughPoints, OrderNotFound, OutOfStock
from shop.orders import store
from shop.orders.errors import (
    OrderEmpty,
    PriceChanged,
    QuantityOutOfBounds,
    SeveralSellers,
    SubmitTokenMissing,
    SubmitTokenReused,
    TooManyLines,
)
from shop.orders.models import Order, OrderLine
from shop.orders.pricing import Quote, offer, quote_offers
from shop.points import service as points_service

LINES_MAX = 50
SUBMIT_TOKEN_MAX = 64

# Crockford's base 32 leaves out I, L, O and U: nobody misreads a code on the telephone.
CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_RANDOM_LENGTH = 11
CODE_ZONE = ZoneInfo("Asia/Shanghai")
# 55 random bits a day: one collision is already a wonder.
CODE_TRIES = 3

Items = Sequence[tuple[int, int]]
"""(product id, quantity) pairs."""


def quote(items: Items, points: int | None = None) -> Quote:
    """What these goods cost now, with so many points (None: as few as possible).

    Raises OrderEmpty, TooManyLines, QuantityOutOfBounds, ProductNotFound, PointsOutOfBounds.
    """
    quantities = _merged(items)
    products = products_by_id(quantities)
    missing = [product_id for product_id in quantities if product_id not in products]
    if missing:
        raise ProductNotFound(product_id=missing[0])
    return quote_offers([offer(products[one], many) for one, many in quantities.items()], points)


def short_of_stock(priced: Quote) -> list[str]:
    """SKUs of the goods of which there are fewer on hand than asked for."""
    return [line.product.sku for line in priced.lines if line.product.stock_on_hand < line.quantity]


def merchant_for(priced: Quote) -> str:
    """Whose accounts take the money for these goods, as the configuration says by product line.

    Goods that cost points alone go with any others. Raises SeveralSellers.
    """
    sellers = sellers_of(priced)
    if len(sellers) > 1:
        raise SeveralSellers(**goods_by_seller(priced))
    return next(iter(sellers), current.settings().merchant_default)


def sellers_of(priced: Quote) -> dict[str, list[Product]]:
    """The goods that cost cash, by the merchant that takes it."""
    settings = current.settings()
    found: dict[str, list[Product]] = {}
    for line in priced.lines:
        if line.product.price_mode != PriceMode.POINTS:
            merchant = settings.merchant_lines.get(line.product.line, settings.merchant_default)
            found.setdefault(merchant, []).append(line.product)
    return found


def goods_by_seller(priced: Quote) -> dict[str, str]:
    """The goods of each seller together, in both languages; "" where there is but one seller."""
    sellers = sellers_of(priced).values()
    if len(sellers) < 2:
        return {"goods": "", "goods_zh": ""}
    return {
        "goods": " | ".join(", ".join(one.name_en for one in goods) for goods in sellers),
        "goods_zh": " | ".join("、".join(one.name_zh for one in goods) for goods in sellers),
    }


def place_order(
    member_id: int,
    items: Items,
    points: int,
    submit_token: str,
    *,
    price_tag: str | None = None,
    from_cart: bool = False,
) -> Order:
    """Place one order per (member, submit token), however often and at once it is submitted.

    The cash is worked out from today's prices; where `price_tag` (`Quote.price_tag`, what the
    member saw) is given and differs, nothing is ordered (PriceChanged). Ordered from the cart, the
    goods leave it in the same transaction. Raises further what `quote` raises, SeveralSellers,
    OutOfStock, NotEnoughPoints, SubmitTokenMissing, and SubmitTokenReused where the token made
    another order.
    """
    if not 1 <= len(submit_token) <= SUBMIT_TOKEN_MAX or not (
        submit_token.isascii() and submit_token.isprintable()
    ):
        raise SubmitTokenMissing()
    for tries_left in reversed(range(CODE_TRIES)):
        try:
            return transaction(
                lambda: _place(
                    member_id, items, points, submit_token, price_tag, from_cart=from_cart
                )
            )
        except IntegrityError:
            # Another submit of the same form was quicker, or the code was taken: either way the
            # next look at the table tells.
            end_read()
            first = store.order_by_token(member_id, submit_token)
            if first is not None:
                return _same_order(first, items, points)
            if tries_left == 0:
                raise
    raise AssertionError("unreachable")


def order_of_member(member_id: int, code: str) -> Order:
    """The member's own order. Raises OrderNotFound, for other people's orders too."""
    order = store.order_of(member_id, code)
    if order is None:
        raise OrderNotFound(order_code=code)
    return order


def order_code(now: datetime) -> str:
    """A new code: P, the day in China as yymmdd, and random characters that cannot be guessed."""
    day = now.astimezone(CODE_ZONE).strftime("%y%m%d")
    return f"P{day}" + "".join(secrets.choice(CODE_ALPHABET) for _ in range(CODE_RANDOM_LENGTH))


def _merged(items: Items) -> dict[int, int]:
    """Quantities by product, in the order of first mention."""
    quantities: dict[int, int] = {}
    for product_id, quantity in items:
        quantities[product_id] = quantities.get(product_id, 0) + quantity
        if not 1 <= quantity <= QUANTITY_MAX or quantities[product_id] > QUANTITY_MAX:
            raise QuantityOutOfBounds(most=QUANTITY_MAX)
    if not quantities:
        raise OrderEmpty()
    if len(quantities) > LINES_MAX:
        raise TooManyLines(most=LINES_MAX)
    return quantities


def _place(
    member_id: int,
    items: Items,
    points: int,
    submit_token: str,
    price_tag: str | None,
    *,
    from_cart: bool,
) -> Order:
    first = store.order_by_token(member_id, submit_token)
    if first is not None:
        return _same_order(first, items, points)
    if price_tag is not None and quote(items).price_tag != price_tag:
        raise PriceChanged()
    priced = quote(items, points)
    merchant = merchant_for(priced)
    _require_stock(priced)
    if priced.points > points_service.available(member_id):
        raise NotEnoughPoints()
    order = _new_order(member_id, priced, submit_token, merchant)
    db.session.add(order)
    db.session.flush()
    if from_cart:
        cart_store.remove_items(member_id, [line.product.id for line in priced.lines])
    return order


def _same_order(first: Order, items: Items, points: int) -> Order:
    """The order that this submit token made, if it is what is asked for now."""
    ordered = {line.product_id: line.quantity for line in first.lines}
    if ordered != _merged(items) or first.points != points:
        raise SubmitTokenReused(order_code=first.code)
    return first


def _require_stock(priced: Quote) -> None:
    for line in priced.lines:
        if line.product.stock_on_hand < line.quantity:
            raise OutOfStock(product=line.product.name_en, product_zh=line.product.name_zh)


def _new_order(member_id: int, priced: Quote, submit_token: str, merchant: str) -> Order:
    now = current.clock().now()
    return Order(
        code=order_code(now),
        member_id=member_id,
        submit_token=submit_token,
        merchant=merchant,
        state="created",
        version=0,
        lock_fence=0,
        points=priced.points,
        amount_fen=priced.amount_fen,
        created_at=now,
        expires_at=now + timedelta(seconds=current.settings().order_expiry_s),
        lines=[
            OrderLine(
                product_id=line.product.id,
                name_zh=line.product.name_zh,
                name_en=line.product.name_en,
                art=line.product.art,
                quantity=line.quantity,
                points=line.points,
                amount_fen=line.amount_fen,
            )
            for line in priced.lines
        ],
    )
