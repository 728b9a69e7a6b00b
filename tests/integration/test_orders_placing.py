"""Placing orders: once per form, at today's price, told at once what is wrong."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import func, select, update

from shop.cart import service as cart
from shop.catalog.errors import ProductNotFound
from shop.catalog.models import Product, StockAdjustment
from shop.db import changed_rows, db, transaction
from shop.errors import NotEnoughPoints, OrderNotFound, OutOfStock
from shop.members.models import Member
from shop.orders.errors import (
    OrderEmpty,
    PointsOutOfBounds,
    PriceChanged,
    QuantityOutOfBounds,
    SubmitTokenMissing,
    TooManyLines,
)
from shop.orders.models import Order
from shop.orders.service import order_code, order_of_member, place_order, quote
from shop.points import service as points_service
from shop.wiring import parts
from tests.integration.orders_support import shop_app

RACERS = 12


@pytest.fixture
def app(any_database_url: str, tmp_path: Path) -> Iterator[Flask]:
    with shop_app(any_database_url, tmp_path) as app, app.app_context():
        yield app


@pytest.fixture
def sqlite_app(tmp_path: Path) -> Iterator[Flask]:
    with shop_app(f"sqlite:///{tmp_path / 'shop.db'}", tmp_path) as app, app.app_context():
        yield app


def member_id(login: str = "alice") -> int:
    return db.session.scalars(select(Member.id).where(Member.login == login)).one()


def product_id(sku: str) -> int:
    return db.session.scalars(select(Product.id).where(Product.sku == sku)).one()


def order_count() -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).select_from(Order)) or 0


def change(sku: str, **values: object) -> None:
    statement = update(Product).where(Product.sku == sku).values(**values)
    transaction(lambda: changed_rows(statement))


def test_an_order_holds_what_was_agreed(app: Flask) -> None:
    items = [(product_id("celadon-teapot"), 2), (product_id("linen-notebook"), 1)]
    before = parts().clock.now()
    order = place_order(member_id(), items, 5_400, "token-1")
    stored = order_of_member(member_id(), order.code)
    assert re.fullmatch(r"P\d{6}[0-9A-HJKMNP-TV-Z]{11}", stored.code)
    assert (stored.state, stored.version, stored.points, stored.amount_fen) == (
        *("created", 0),
        *(5_400, 33_600 - 3_000),
    )
    assert [(line.quantity, line.points, line.amount_fen) for line in stored.lines] == [
        (2, 3_000, 30_600),
        (1, 2_400, 0),
    ]
    life = stored.expires_at - stored.created_at
    assert life.total_seconds() == parts().settings.order_expiry_s
    assert stored.created_at >= before.replace(microsecond=0)


def test_many_submits_of_one_form_at_once_make_one_order(app: Flask) -> None:
    buyer, teapot = member_id(), product_id("celadon-teapot")
    db.session.remove()
    start = threading.Barrier(RACERS)

    def submit(_number: int) -> str:
        with app.app_context():
            start.wait()
            return place_order(buyer, [(teapot, 1)], 100, "the one form").code

    with ThreadPoolExecutor(RACERS) as pool:
        codes = set(pool.map(submit, range(RACERS)))
    assert len(codes) == 1
    assert order_count() == 1


def test_the_same_token_of_another_member_is_another_order(app: Flask) -> None:
    items = [(product_id("canvas-tote"), 1)]
    first = place_order(member_id("alice"), items, 1_800, "token")
    second = place_order(member_id("bob"), items, 1_800, "token")
    again = place_order(member_id("alice"), items, 1_800, "token")
    assert first.code != second.code
    assert again.code == first.code
    with pytest.raises(OrderNotFound):
        order_of_member(member_id("bob"), first.code)


def test_an_order_from_the_cart_takes_its_goods_out_and_leaves_the_rest(app: Flask) -> None:
    buyer = member_id()
    tote, tea = product_id("canvas-tote"), product_id("longjing-tea")
    cart.add(buyer, tote, 1)
    cart.add(buyer, tea, 2)
    cart.add(buyer, tea, 1)
    place_order(buyer, [(tea, 3)], 0, "from the cart", from_cart=True)
    assert [(line.product.id, line.quantity) for line in cart.contents(buyer)] == [(tote, 1)]


def test_a_refused_order_leaves_the_cart_as_it_is(app: Flask) -> None:
    buyer, fan = member_id(), product_id("silk-fan")
    cart.add(buyer, fan, 4)
    with pytest.raises(OutOfStock):
        place_order(buyer, [(fan, 4)], 48_000, "too many", from_cart=True)
    assert cart.count(buyer) == 4
    assert order_count() == 0


def test_first_additions_at_once_lose_no_piece(app: Flask) -> None:
    buyer, tea = member_id(), product_id("longjing-tea")
    db.session.remove()
    start = threading.Barrier(RACERS)

    def add(_number: int) -> None:
        with app.app_context():
            start.wait()
            cart.add(buyer, tea, 1)

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(add, range(RACERS)))
    assert cart.count(buyer) == RACERS


def test_placing_reserves_nothing_and_takes_no_points(sqlite_app: Flask) -> None:
    fan = product_id("silk-fan")
    place_order(member_id(), [(fan, 3)], 36_000, "token")
    db.session.rollback()
    product = db.session.get(Product, fan)
    assert product is not None
    assert (product.stock_on_hand, product.stock_reserved) == (3, 0)
    assert points_service.available(member_id()) == 50_000


def test_a_price_that_changed_since_it_was_shown_is_not_ordered(sqlite_app: Flask) -> None:
    items = [(product_id("longjing-tea"), 1)]
    seen = quote(items).price_tag
    change("longjing-tea", price_fen=9_900)
    with pytest.raises(PriceChanged):
        place_order(member_id(), items, 0, "token", price_tag=seen)
    assert order_count() == 0
    now = quote(items).price_tag
    assert place_order(member_id(), items, 0, "token", price_tag=now).amount_fen == 9_900


def test_what_cannot_be_ordered_is_refused_with_its_reason(sqlite_app: Flask) -> None:
    teapot, tote = product_id("celadon-teapot"), product_id("canvas-tote")
    buyer = member_id("bob")
    change("silk-fan", active=False)
    cases: list[tuple[list[tuple[int, int]], int, type[Exception]]] = [
        ([], 0, OrderEmpty),
        ([(teapot, 0)], 0, QuantityOutOfBounds),
        ([(teapot, 100)], 0, QuantityOutOfBounds),
        ([(teapot, 60), (teapot, 60)], 0, QuantityOutOfBounds),
        ([(999_999, 1)], 0, ProductNotFound),
        ([(product_id("silk-fan"), 1)], 12_000, ProductNotFound),
        ([(number, 1) for number in range(1, 52)], 0, TooManyLines),
        ([(teapot, 1)], 8_401, PointsOutOfBounds),
        ([(tote, 1)], 0, PointsOutOfBounds),
        ([(tote, 5)], 9_000, NotEnoughPoints),
    ]
    for items, points, reason in cases:
        with pytest.raises(reason):
            place_order(buyer, items, points, "token")
    for token in ("", "x" * 65, "naïve", "nul\x00"):
        with pytest.raises(SubmitTokenMissing):
            place_order(buyer, [(teapot, 1)], 0, token)
    assert order_count() == 0


def test_the_code_names_the_day_in_china() -> None:
    late = datetime(2026, 1, 31, 17, 0, tzinfo=UTC)
    assert order_code(late).startswith("P260201")
    assert order_code(late) != order_code(late)


def test_a_second_seed_adds_nothing(sqlite_app: Flask) -> None:
    def everything() -> list[object]:
        db.session.rollback()
        return [
            *db.session.execute(select(Product.sku, Product.stock_on_hand).order_by(Product.id)),
            db.session.scalar(select(func.count()).select_from(StockAdjustment)),
            points_service.available(member_id("alice")),
            points_service.available(member_id("bob")),
        ]

    before = everything()
    result = sqlite_app.test_cli_runner().invoke(args=["seed"], catch_exceptions=False)
    assert result.output == "seeded 0 members and 0 products\n"
    assert everything() == before
    assert before[-2:] == [50_000, 8_000]
