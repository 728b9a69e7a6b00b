"""The sweeper: nobody is forgotten, and nobody is held up by somebody else's trouble."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import update

from shop.db import changed_rows, end_read, transaction
from shop.errors import PaymentHeld
from shop.orders.models import Order
from shop.payments import store
from shop.payments.models import PaymentAttempt
from shop.payments.sweep import BATCH
from tests.integration.payments_support import DATABASES, EXPIRY_S, Buyer, Shop, shop_inside
from tests.shopkit import Sandbox

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module", params=DATABASES)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("sweeper")
    with shop_inside(request.param, folder, request, sandbox) as made:
        yield made


@pytest.fixture
def buyer(shop: Shop) -> Iterator[Buyer]:
    yield Buyer(shop)
    assert shop.broken() == []


def test_money_for_a_code_that_outlived_its_order_is_found_though_its_notice_was_lost(
    buyer: Buyer,
) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    buyer.cancel(code)
    number = buyer.number(code)
    assert buyer.pay_at_phone(number)
    buyer.sweep(after_s=EXPIRY_S - 60)
    assert buyer.attempts(code)[0].state == "closed"
    buyer.sweep(after_s=EXPIRY_S + 60)
    [attempt] = buyer.attempts(code)
    assert (attempt.state, attempt.role, attempt.due_at) == ("succeeded", "surplus", None)
    assert buyer.state(code) == "closed"


def test_a_code_that_nobody_paid_after_its_order_is_asked_about_once_and_then_no_more(
    buyer: Buyer,
) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    buyer.cancel(code)
    assert buyer.attempts(code)[0].due_at is not None
    buyer.sweep(after_s=EXPIRY_S + 60)
    [attempt] = buyer.attempts(code)
    assert (attempt.state, attempt.due_at) == ("closed", None)


def test_of_two_sweepers_that_read_the_same_attempt_one_takes_it_on(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    number = buyer.number(code)
    now = buyer.parts.clock.now() + timedelta(seconds=60)
    end_read()
    [read] = [one for one in store.due_attempts(now, BATCH) if one.out_trade_no == number]
    later = now + timedelta(seconds=60)
    assert transaction(lambda: store.put_off(read, later))
    assert not transaction(lambda: store.put_off(read, later))
    buyer.cancel(code)
    assert not transaction(lambda: store.put_off(read, later))


def test_a_gateway_that_does_not_answer_is_left_alone_and_holds_nobody_up(buyer: Buyer) -> None:
    silent = [buyer.order() for _ in range(4)]
    for code in silent:
        buyer.pay(code, "wechatpay")
    paid = buyer.order()
    buyer.pay(paid, "alipay")
    assert buyer.pay_at_phone(buyer.number(paid))
    faults = {"channel": "wechatpay", "op": "query", "kind": "http500", "times": len(silent)}
    buyer.shop.kit.sandbox.post("/admin/faults", faults)
    buyer.sweep(after_s=60)
    asked = sum(buyer.attempts(code)[0].asked_count for code in silent)
    assert asked == 1, "one question told that the gateway is away"
    assert buyer.state(paid) == "paid"
    # The rest of the faults is used up before the next test, one question a round.
    for minutes in range(2, 8):
        buyer.sweep(after_s=60 * minutes)


def test_orders_that_cannot_be_closed_do_not_keep_the_others_open(buyer: Buyer) -> None:
    stuck = [buyer.order() for _ in range(BATCH)]
    free = buyer.order()
    lock = buyer.parts.lock
    with ExitStack() as held:
        for code in stuck:
            lease = lock.acquire(code, lease_ms=60_000, wait_ms=1_000)
            held.callback(lease.release)
        for _ in range(3):
            buyer.sweep(after_s=EXPIRY_S + 60)
        assert buyer.state(free) == "closed"
        assert {buyer.state(code) for code in stuck} == {"created"}
    for _ in range(3):
        buyer.sweep(after_s=EXPIRY_S + 60)
    assert {buyer.state(code) for code in stuck} == {"closed"}


def test_money_of_another_amount_is_held_for_an_operator_and_told_as_such(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    number = buyer.number(code)

    def believe(amount_fen: int) -> None:
        for table, mine in ((Order, Order.code), (PaymentAttempt, PaymentAttempt.order_code)):
            statement = update(table).where(mine == code).values(amount_fen=amount_fen)
            transaction(partial(changed_rows, statement))

    believe(899)
    assert buyer.pay_at_phone(number)
    with pytest.raises(PaymentHeld):
        buyer.cancel(code)
    with pytest.raises(PaymentHeld):
        buyer.pay(code, "alipay")
    buyer.sweep(after_s=EXPIRY_S + 60)
    [attempt] = buyer.attempts(code)
    assert (buyer.state(code), attempt.state) == ("paying", "pending")
    assert attempt.fault_code == "amount_differs"
    # Once the books are put right, the money finds its order.
    believe(900)
    buyer.sweep(after_s=2 * EXPIRY_S)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)
