"""A lock service that forgot its fences, or counts otherwise, and an order in flight."""

import time

import pytest
from sqlalchemy import update

from shop.db import changed_rows, transaction
from shop.errors import LockServiceUnavailable
from shop.orders.models import Order
from shop.payments.contract import PayCommand
from tests.faults.conftest import KitMaker
from tests.shopkit import make_member, make_order, make_product, order_state

A_DAY_US = 86_400_000_000


def write_fence(code: str, fence: int) -> None:
    """The order was last written under this fence."""
    statement = update(Order).where(Order.code == code).values(lock_fence=fence)
    transaction(lambda: changed_rows(statement))


@pytest.mark.parametrize("stack", ["sqlite-files", "postgresql-redis"])
def test_a_service_that_came_back_empty_with_its_clock_set_back_still_grants_leases_that_can_write(
    make_kit: KitMaker, stack: str
) -> None:
    kit = make_kit(stack)
    with kit.app() as app:
        parts = app.extensions["payonce"]
        member = make_member(parts)
        code = make_order(parts, member, make_product(parts))
        ahead = time.time_ns() // 1_000 + A_DAY_US
        write_fence(code, ahead)
        view = parts.payments.pay(
            PayCommand(member_id=member, order_code=code, channel="wechatpay")
        )
        assert (view.order_state, view.attempt_state) == ("paying", "pending")
        kit.sandbox.pay(f"{code}01", notice=False)
        parts.payments.pay(PayCommand(member_id=member, order_code=code, channel="wechatpay"))
    assert kit.broken() == []


def test_tokens_below_the_books_are_a_clear_answer_and_change_nothing(make_kit: KitMaker) -> None:
    kit = make_kit("postgresql-zookeeper")
    with kit.app() as app:
        parts = app.extensions["payonce"]
        member = make_member(parts)
        code = make_order(parts, member, make_product(parts))
        write_fence(code, time.time_ns() // 1_000)
        command = PayCommand(member_id=member, order_code=code, channel="wechatpay")
        with pytest.raises(LockServiceUnavailable):
            parts.payments.pay(command)
        assert order_state(code) == "created"
    assert kit.broken() == []
