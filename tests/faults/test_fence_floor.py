"""A lock service that forgot its fences, or counts below them, and an order in flight."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import update

from locks import hold
from shop.db import changed_rows, transaction
from shop.locking.service import begin_first
from shop.orders.models import Order
from shop.payments.contract import PayCommand
from shop.payments.store import lock_mark
from shop.wiring import Parts
from tests.faults.conftest import KitMaker
from tests.faults.history.clocked_redis import ClockedRedis
from tests.shopkit import make_member, make_order, make_product, order_state

pytestmark = pytest.mark.faults

A_DAY_US = 86_400_000_000
AN_HOUR = timedelta(hours=1)


def write_fence(parts: Parts, code: str, fence: int) -> None:
    """The order was last written under this fence, in the epoch that is current."""
    begin_first(parts.lock, parts.clock)
    statement = update(Order).where(Order.code == code).values(lock_epoch=1, lock_fence=fence)
    transaction(lambda: changed_rows(statement))


def fence_of(code: str) -> int:
    mark = lock_mark(code)
    assert mark is not None
    assert mark.pair[0] == mark.epoch.number == 1
    return mark.pair[1]


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
        write_fence(parts, code, ahead)
        view = parts.payments.pay(
            PayCommand(member_id=member, order_code=code, channel="wechatpay")
        )
        assert (view.order_state, view.attempt_state) == ("paying", "pending")
        assert fence_of(code) > ahead
        kit.sandbox.pay(f"{code}01", notice=False)
        parts.payments.pay(PayCommand(member_id=member, order_code=code, channel="wechatpay"))
    assert kit.broken() == []


def test_a_redis_that_lost_all_while_its_clock_was_set_back_grants_above_what_is_written(
    make_kit: KitMaker,
) -> None:
    kit = make_kit("sqlite-files")
    with ClockedRedis() as redis:
        kit.lock_url = redis.url
        with kit.app() as app:
            parts = app.extensions["payonce"]
            member = make_member(parts)
            code = make_order(parts, member, make_product(parts))
            command = PayCommand(member_id=member, order_code=code, channel="wechatpay")
            parts.payments.pay(command)
            before = fence_of(code)
            redis.process.kill9()
            redis.set_clock(-int(AN_HOUR.total_seconds()))
            redis.start()
            with hold(parts.lock, "another", lease_ms=1_000, wait_ms=0) as low:
                assert low.fence < before  # so low does it count now
            parts.payments.cancel(member, code)
            assert order_state(code) == "closed"
            assert fence_of(code) > before
    assert kit.broken() == []


def test_an_order_above_zookeepers_counter_mints_its_own_fences_under_the_lease(
    make_kit: KitMaker,
) -> None:
    """As after use without the lock service: czxids cannot be raised."""
    kit = make_kit("postgresql-zookeeper")
    with kit.app() as app:
        parts = app.extensions["payonce"]
        member = make_member(parts)
        code = make_order(parts, member, make_product(parts))
        above = time.time_ns() // 1_000
        write_fence(parts, code, above)
        early = parts.lock.acquire(code, lease_ms=15_000, wait_ms=0)
        assert early.fence < above
        early.release()
        command = PayCommand(member_id=member, order_code=code, channel="wechatpay")
        assert parts.payments.pay(command).attempt_state == "pending"
        opened = fence_of(code)
        assert opened > above
        parts.payments.cancel(member, code)
        assert order_state(code) == "closed"
        assert fence_of(code) > opened
    assert kit.broken() == []
