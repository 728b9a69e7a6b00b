"""The same on PostgreSQL + Redis, for a sample of the points, with a true restart of the web.

Here a killed holder's lease stays until it runs out.
"""

import uuid
from collections.abc import Iterator

import pytest

from tests.faults.conftest import shop_on
from tests.faults.kill_support import (
    ENV,
    Gallows,
    assert_can_be_paid_once,
    assert_is_found_paid,
    gallows_on,
)
from tests.shopkit import Sandbox, order_state

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def gallows(
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Gallows]:
    folder = tmp_path_factory.mktemp("kill-stacks")
    with (
        shop_on(
            "postgresql-redis", sandbox=sandbox_server, folder=folder, request=request, env=ENV
        ) as kit,
        gallows_on(kit) as made,
    ):
        yield made


@pytest.mark.parametrize(
    "at",
    ["before_commit:2", "after_commit:2", "before_prepay:1", "before_commit:3", "before_commit:4"],
)
def test_a_killed_pay_request_can_be_repeated_and_charges_once(gallows: Gallows, at: str) -> None:
    code, key = gallows.order(), uuid.uuid4().hex
    gallows.kill_in(gallows.pay(code, "wechatpay", key), at)
    gallows.sweep(code)
    gallows.assert_true_state(code)
    assert_can_be_paid_once(gallows, code, "wechatpay", key)


@pytest.mark.parametrize("at", ["after_prepay:1", "after_commit:3"])
def test_a_killed_pay_request_paid_in_silence_is_found_paid(gallows: Gallows, at: str) -> None:
    code = gallows.order()
    gallows.kill_in(gallows.pay(code, "alipay"), at)
    assert gallows.pay_silently(code)
    assert_is_found_paid(gallows, code, "alipay")


@pytest.mark.parametrize("at", ["after_close:1", "after_commit:2", "before_commit:3"])
def test_a_killed_change_of_channel_can_be_repeated_and_charges_once(
    gallows: Gallows, at: str
) -> None:
    code, key = gallows.order(), uuid.uuid4().hex
    assert gallows.pay(code, "wechatpay").send().status == 200
    gallows.kill_in(gallows.pay(code, "alipay", key), at)
    gallows.sweep(code)
    gallows.assert_true_state(code)
    assert_can_be_paid_once(gallows, code, "alipay", key)


@pytest.mark.parametrize("at", ["before_commit:1", "after_commit:1", "before_commit:2"])
def test_a_killed_callback_is_applied_once(gallows: Gallows, at: str) -> None:
    code = gallows.order()
    number = gallows.pay(code, "wechatpay").send().json["out_trade_no"]
    gallows.arm("/webhooks/", at)
    gallows.kit.sandbox.pay(number)
    gallows.wait_for_death(at)
    gallows.sweep(code)
    gallows.wait_until_paid(code)
    assert gallows.charges(code) == 1
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("at", ["before_commit:2", "after_commit:2"])
def test_a_killed_payment_by_points_takes_the_points_once(gallows: Gallows, at: str) -> None:
    code = gallows.order(points=500, amount_fen=0)
    gallows.kill_in(gallows.pay(code, "points"), at)
    done = at == "after_commit:2"
    assert order_state(code) == ("paid" if done else "created")
    again = gallows.pay(code, "points").send()
    assert again.code == "order-already-paid" if done else again.status == 200, again
    assert order_state(code) == "paid"
    assert gallows.kit.broken() == []


def test_a_host_that_dies_with_all_its_processes_comes_back_true(gallows: Gallows) -> None:
    code, key = gallows.order(), uuid.uuid4().hex
    gallows.kill_in(gallows.pay(code, "wechatpay", key), "after_prepay:1")
    gallows.web.kill9()
    gallows.kit.processes.remove(gallows.web)
    gallows.kit.web()
    gallows.wait_until_free(code)
    gallows.kit.sweep_once()
    gallows.assert_true_state(code)
    assert_can_be_paid_once(gallows, code, "wechatpay", key)
