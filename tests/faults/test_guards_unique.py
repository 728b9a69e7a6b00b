"""L3 (DESIGN section 3): where only a unique constraint stands, it stands; dropped, books break.

A rival comes between what one process read and what it writes; on SQLite that cannot happen, as a
writing transaction is alone from its first read.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import event, select
from sqlalchemy.engine import Connection

from shop.db import db
from shop.errors import PaymentInProgress, Superseded
from shop.gateways.base import Notice, NoticeKind, Outcome
from shop.idempotency.dedup import Answer, answered_once, fingerprint
from shop.orders.models import Order
from shop.orders.service import place_order
from shop.payments.models import PaymentAttempt
from shop.payments.settle import Applied, Money, apply_money
from shop.webhooks import inbox
from tests.faults.conftest import KitMaker
from tests.faults.guard_support import GuardedShop, drop_unique, guarded_shop
from tests.shopkit import ShopKit, order_state

pytestmark = pytest.mark.faults

SUBMIT_TOKEN = ("orders", "uq_orders_member_id_submit_token")
NOTICE_ID = ("notices", "uq_notices_channel_merchant_notice_id")
REQUEST_NO = ("payment_requests", "uq_payment_requests_client_request_no")
TRANSACTION_ID = ("payment_attempts", "uq_payment_attempts_channel_transaction_id")


@pytest.fixture(params=["postgresql-files", "mariadb-files"])
def kit(request: pytest.FixtureRequest, make_kit: KitMaker) -> ShopKit:
    return make_kit(request.param)


@pytest.fixture(params=["sqlite-files", "postgresql-files", "mariadb-files"])
def any_kit(request: pytest.FixtureRequest, make_kit: KitMaker) -> ShopKit:
    return make_kit(request.param)


def before_insert_into(table: str, act: Callable[[], None]) -> None:
    """Run this just before a row goes into the table: everything was read by then."""

    @event.listens_for(db.engine, "before_cursor_execute")
    def look(_connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(f"INSERT INTO {table} "):
            act()


# One submit token, two placements at once.


def place_twice_at_once(shop: GuardedShop) -> tuple[str, str]:
    """The codes that the two were told, the rival's first."""
    told: list[str] = []

    def place() -> None:
        items = [(shop.product_id, 1)]
        told.append(place_order(shop.member_id, items, 0, "one-token").code)

    shop.rival.will(place)
    before_insert_into("orders", shop.rival.come_in)
    place()
    return told[0], told[1]


def orders_of(member_id: int) -> list[str]:
    db.session.rollback()
    return sorted(db.session.scalars(select(Order.code).where(Order.member_id == member_id)))


def test_one_submit_token_makes_one_order_and_without_its_constraint_two(kit: ShopKit) -> None:
    with guarded_shop(kit) as shop:
        first, second = place_twice_at_once(shop)
        assert first == second
        assert orders_of(shop.member_id) == [first]
        assert kit.broken() == []
    drop_unique(kit.database_url, *SUBMIT_TOKEN)
    with guarded_shop(kit) as shop:
        first, second = place_twice_at_once(shop)
        assert first != second
        assert orders_of(shop.member_id) == sorted([first, second])
        assert any(line.startswith(f"I7 member {shop.member_id} ") for line in kit.broken())


# One gateway transaction, told for two orders at once: neither lease nor row is shared by them.


def book_one_transaction_twice_at_once(shop: GuardedShop, transaction_id: str) -> tuple[str, str]:
    """Two orders that are both paying; the codes, the rival's first."""
    codes = (shop.order(), shop.order())

    def book(code: str) -> Applied:
        number = db.session.scalars(
            select(PaymentAttempt.out_trade_no).where(PaymentAttempt.order_code == code)
        ).one()
        money = Money(
            channel="wechatpay",
            merchant="default",
            out_trade_no=number,
            transaction_id=transaction_id,
            amount_fen=900,
            currency="CNY",
            paid_at=None,
            cause="a test",
        )
        return apply_money(shop.parts.desk, shop.claim(code), money)

    for code in codes:
        shop.pay(code, "wechatpay")
    shop.rival.will(lambda: book(codes[0]))
    assert book(codes[1]) is Applied.SETTLED
    return codes


def test_one_gateway_transaction_pays_one_order_and_without_its_constraint_two(
    kit: ShopKit,
) -> None:
    with guarded_shop(kit) as shop:
        with pytest.raises(Superseded):
            book_one_transaction_twice_at_once(shop, "4200000000000000000000000001")
        states = db.session.scalars(select(Order.state)).all()
        assert sorted(states) == ["paid", "paying"]
        assert kit.broken() == []
    drop_unique(kit.database_url, *TRANSACTION_ID)
    with guarded_shop(kit) as shop:
        for code in book_one_transaction_twice_at_once(shop, "4200000000000000000000000002"):
            assert order_state(code) == "paid"
        assert any("is booked 2 times" in line for line in kit.broken())


# The same notice twice: no race is needed.


def store_twice(shop: GuardedShop, notice_id: str) -> tuple[int, int]:
    notice = Notice(
        kind=NoticeKind.PAYMENT,
        notice_id=notice_id,
        out_trade_no="T01",
        outcome=Outcome.SUCCEEDED,
        trade_state="SUCCESS",
        transaction_id="42",
        amount_fen=900,
    )
    first, second = (
        inbox.store_verified(
            shop.parts.desk,
            inbox.Account(channel="wechatpay", merchant="default"),
            notice,
            {},
            b"{}",
        )
        for _ in range(2)
    )
    return first, second


def test_a_notice_that_comes_twice_is_stored_once_and_without_its_constraint_twice(
    any_kit: ShopKit,
) -> None:
    with guarded_shop(any_kit) as shop:
        first, second = store_twice(shop, "EV-1")
        assert first == second
        assert any_kit.broken() == []
    drop_unique(any_kit.database_url, *NOTICE_ID)
    with guarded_shop(any_kit) as shop:
        first, second = store_twice(shop, "EV-2")
        assert first != second
        assert any("EV-2 is stored 2 times" in line for line in any_kit.broken())


# One idempotency key, two requests at once.


def ask_twice_at_once(shop: GuardedShop) -> list[str]:
    """What was done: by the rival, who comes while the first is at work, and by the first."""
    effects: list[str] = []

    def ask(who: str, meanwhile: Callable[[], None]) -> None:
        def work() -> Answer:
            meanwhile()
            effects.append(who)
            return Answer(status=200, body=who.encode())

        answered_once(
            shop.parts.clock,
            client="member:1",
            request_no="one-key",
            fingerprint=fingerprint("pay"),
            work=work,
        )

    shop.rival.will(lambda: ask("rival", lambda: None))
    ask("first", shop.rival.come_in)
    return effects


def test_one_idempotency_key_has_one_effect_and_without_its_constraint_two(
    any_kit: ShopKit,
) -> None:
    with guarded_shop(any_kit) as shop:
        with pytest.raises(PaymentInProgress):
            ask_twice_at_once(shop)
        assert any_kit.broken() == []
    drop_unique(any_kit.database_url, *REQUEST_NO)
    with guarded_shop(any_kit) as shop:
        assert ask_twice_at_once(shop) == ["rival", "first"]
        assert any(line.startswith("I7 member:1 one-key") for line in any_kit.broken())
