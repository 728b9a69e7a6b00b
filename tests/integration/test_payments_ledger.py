"""The ledger and the stock under sequences that nobody thought of, on every database."""

import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from shop.catalog import stock
from shop.catalog.models import Product
from shop.db import db, transaction
from shop.errors import NotEnoughPoints, OutOfStock
from shop.orders.models import OrderLine
from shop.points import ledger, service
from shop.points.models import LedgerEntry, LedgerTransaction
from tests.integration.payments_support import DATABASES, Shop, shop_inside
from tests.processes import remove_folder
from tests.shopkit import Sandbox, make_product

ANY_DATABASE = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module", params=DATABASES)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    sandbox = Sandbox()  # for its keys; no gateway is asked
    with shop_inside(request.param, tmp_path_factory.mktemp("ledger"), request, sandbox) as made:
        yield made
        # Nobody here has orders: what is held, taken or redeemed belongs to none.
        without_orders = ("orders say", "orders hold 0", "shop:points:redeemed")
        assert [
            line for line in made.broken() if not any(text in line for text in without_orders)
        ] == []
    remove_folder(sandbox.folder)


def cause() -> str:
    return f"test:{uuid.uuid4().hex}"


def book(shop: Shop, entries: Mapping[str, int], why: str | None = None) -> None:
    now = shop.clock.now()
    transaction(lambda: ledger.book(why or cause(), entries, now=now))


def balance(code: str) -> int:
    db.session.rollback()
    return ledger.balance(code)


def count(model: type[LedgerEntry] | type[LedgerTransaction]) -> int:
    db.session.rollback()
    return db.session.scalar(select(func.count()).select_from(model)) or 0


def fresh_member() -> int:
    """The number of a member whose accounts are new; the ledger asks for no more."""
    return uuid.uuid4().int % 1_000_000_000


amounts = st.integers(min_value=-1_000, max_value=1_000)
ACCOUNTS = ("member:{0}:points", "member:{0}:points-held", "shop:points:issued", "shop:x:cash")


@ANY_DATABASE
@given(bookings=st.lists(st.lists(amounts, min_size=4, max_size=4), max_size=8))
def test_only_balanced_movements_above_the_floor_are_booked_and_all_of_those(
    shop: Shop, bookings: list[list[int]]
) -> None:
    member = fresh_member()
    accounts = [name.format(member) for name in ACCOUNTS]
    model: dict[str, int] = defaultdict(int)
    before = {name: balance(name) for name in accounts}
    for booking in bookings:
        entries = dict(zip(accounts, booking, strict=True))
        points = sum(entries[name] for name in accounts[:3])
        cash = entries[accounts[3]]
        after = {name: model[name] + entries[name] for name in accounts}
        rows = count(LedgerTransaction), count(LedgerEntry)
        if points != 0 or cash != 0 or not any(booking):
            with pytest.raises(ValueError, match="do not balance"):
                book(shop, entries)
            assert (count(LedgerTransaction), count(LedgerEntry)) == rows
        elif min(after[accounts[0]], after[accounts[1]]) < 0:
            with pytest.raises(ledger.BalanceTooLow):
                book(shop, entries)
            assert (count(LedgerTransaction), count(LedgerEntry)) == rows
        else:
            book(shop, entries)
            model.update(after)
        for name in accounts:
            assert balance(name) == before[name] + model[name]


@ANY_DATABASE
@given(first=st.integers(1, 1_000), second=st.integers(1, 1_000))
def test_one_cause_is_booked_once_whatever_it_says_the_second_time(
    shop: Shop, first: int, second: int
) -> None:
    member, why = fresh_member(), cause()
    account = ledger.points_account(member)
    book(shop, {account: first, ledger.POINTS_ISSUED: -first}, why)
    with pytest.raises(IntegrityError):
        book(shop, {account: second, ledger.POINTS_ISSUED: -second}, why)
    assert balance(account) == first
    now = shop.clock.now()
    assert not transaction(lambda: service.grant(member, second, why, now=now))
    assert balance(account) == first


steps = st.lists(
    st.tuples(
        st.sampled_from(["grant", "hold", "capture", "release", "spend"]), st.integers(1, 300)
    ),
    max_size=12,
)


@ANY_DATABASE
@given(steps=steps)
def test_points_are_held_then_captured_or_released_and_none_appears_or_is_lost(
    shop: Shop, steps: list[tuple[str, int]]
) -> None:
    member = fresh_member()
    free = held = gone = given_out = 0
    redeemed = balance(ledger.POINTS_REDEEMED)
    for step, points in steps:
        why, now = cause(), shop.clock.now()

        def move(step: str = step, points: int = points, why: str = why) -> None:
            at = shop.clock.now()
            if step == "grant":
                service.grant(member, points, why, now=at)
            else:
                verb = {
                    "hold": service.hold,
                    "capture": service.capture,
                    "release": service.release,
                    "spend": service.spend,
                }[step]
                verb(member, points, cause=why, order_code="X", now=at)

        enough = {"grant": True, "hold": free >= points, "spend": free >= points}.get(
            step, held >= points
        )
        if not enough:
            with pytest.raises((NotEnoughPoints, ledger.BalanceTooLow)):
                transaction(move)
        else:
            transaction(move)
            free += {"grant": points, "hold": -points, "release": points, "spend": -points}.get(
                step, 0
            )
            held += {"hold": points, "capture": -points, "release": -points}.get(step, 0)
            gone += {"capture": points, "spend": points}.get(step, 0)
            given_out += points if step == "grant" else 0
        assert now <= shop.clock.now()
        assert balance(ledger.points_account(member)) == free
        assert balance(ledger.held_account(member)) == held
        assert balance(ledger.POINTS_REDEEMED) == redeemed + gone
        assert free + held + gone == given_out


shifts = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "release", "take", "take_at_once"]),
        st.lists(st.tuples(st.integers(0, 1), st.integers(1, 6)), min_size=1, max_size=3),
    ),
    max_size=8,
)
SIDES = {
    "reserve": (0, 1),
    "release": (1, 0),
    "take": (1, 2),
    "take_at_once": (0, 2),
}


@ANY_DATABASE
@given(shifts=shifts)
def test_goods_move_between_shelf_reserve_and_buyers_and_their_sum_stays(
    shop: Shop, shifts: list[tuple[str, list[tuple[int, int]]]]
) -> None:
    products = [make_product(shop.parts, stock=10) for _ in range(2)]
    model = [[10, 0, 0], [10, 0, 0]]
    for verb, wanted in shifts:
        lines = [OrderLine(product_id=products[one], quantity=many) for one, many in wanted]
        source, target = SIDES[verb]
        after = [list(one) for one in model]
        for one, many in wanted:
            after[one][source] -= many
            after[one][target] += many
        shift = getattr(stock, verb)
        if min(min(one) for one in after) < 0:
            with pytest.raises(OutOfStock):
                transaction(partial(shift, lines))
        else:
            transaction(partial(shift, lines))
            model = after
        db.session.rollback()
        for product_id, expected in zip(products, model, strict=True):
            found = db.session.execute(
                select(Product.stock_on_hand, Product.stock_reserved, Product.stock_taken).where(
                    Product.id == product_id
                )
            ).one()
            assert list(found) == expected
