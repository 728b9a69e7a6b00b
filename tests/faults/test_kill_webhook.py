"""kill -9 of the web process while it takes in a callback (DESIGN section 5, step 7).

The gateway sends a notice again until it is acknowledged; where it does not, the sweeper works off
what was stored, or asks.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from shop.db import db
from shop.orders.models import Transition
from tests.faults.conftest import shop_on
from tests.faults.kill_support import ENV, Gallows, commits, gallows_on
from tests.processes import wait_until
from tests.shopkit import Sandbox, order_state

pytestmark = pytest.mark.faults

# The notice is stored; it is applied. Then it is acknowledged.
NOTICE = commits(1, 2)
CHANNELS = ("wechatpay", "alipay")


@pytest.fixture(scope="module")
def gallows(
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Gallows]:
    folder = tmp_path_factory.mktemp("kill-webhook")
    with (
        shop_on(
            "sqlite-files", sandbox=sandbox_server, folder=folder, request=request, env=ENV
        ) as kit,
        gallows_on(kit) as made,
    ):
        yield made


def paid_at_the_gateway(gallows: Gallows, channel: str, at: str) -> str:
    """An order that was just paid, and the web process about to die of the notice."""
    code = gallows.order()
    number = gallows.pay(code, channel).send().json["out_trade_no"]
    gallows.arm(f"/webhooks/{channel}", at)
    gallows.kit.sandbox.pay(number)
    return code


def wait_until_acknowledged(gallows: Gallows, code: str) -> None:
    """The gateway sends no more."""
    (number,) = gallows.numbers(code)

    def look() -> bool:
        notices = gallows.kit.sandbox.get(f"/admin/trades/{number}")["notices"]
        return [one["state"] for one in notices] == ["delivered"]

    wait_until(look, f"the notice of {number} is acknowledged")


def settled_by(code: str) -> str:
    """Who brought the order to paid."""
    db.session.rollback()
    return db.session.scalars(
        select(Transition.actor).where(Transition.subject_no == code, Transition.to_state == "paid")
    ).one()


def assert_settled_once(gallows: Gallows, code: str) -> None:
    assert order_state(code) == "paid"
    assert gallows.charges(code) == 1
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_callback_passes_these_points_and_no_others(gallows: Gallows, channel: str) -> None:
    code = paid_at_the_gateway(gallows, channel, "record")
    gallows.wait_until_paid(code)
    wait_until(lambda: len(gallows.passed()) >= len(NOTICE), "all points are passed")
    assert gallows.passed() == NOTICE
    assert_settled_once(gallows, code)


@pytest.mark.parametrize("at", NOTICE)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_callback_killed_anywhere_is_applied_once_when_it_is_sent_again(
    gallows: Gallows, channel: str, at: str
) -> None:
    code = paid_at_the_gateway(gallows, channel, at)
    gallows.wait_for_death(at)
    gallows.wait_until_paid(code)
    wait_until_acknowledged(gallows, code)
    assert_settled_once(gallows, code)


@pytest.mark.parametrize("at", NOTICE)
def test_a_callback_killed_anywhere_is_made_up_for_by_the_sweeper_while_the_web_is_away(
    gallows: Gallows, at: str
) -> None:
    # The master cannot start a new worker meanwhile.
    gallows.web.sigstop(group=False)
    try:
        code = paid_at_the_gateway(gallows, "wechatpay", at)
        gallows.wait_for_death(at)
        gallows.sweep(code)
        assert_settled_once(gallows, code)
        applied_by = "gateway" if at == "after_commit:2" else "sweeper"
        assert settled_by(code) == applied_by
    finally:
        gallows.web.sigcont(group=False)
    wait_until_acknowledged(gallows, code)
    assert_settled_once(gallows, code)
