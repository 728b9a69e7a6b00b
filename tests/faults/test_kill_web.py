"""kill -9 of the web process at each step of a member's request (DESIGN section 5, T5).

For every point: the process dies there, a new one takes its place, the sweeper makes a round; then
the books say what the gateways say, the member repeats the request, pays, and is charged once.
Each is done again with the phone paying, and the gateway silent, before anybody came to.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import shop_on
from tests.faults.kill_support import (
    ENV,
    Gallows,
    assert_can_be_paid_once,
    assert_is_found_paid,
    calls,
    commits,
    gallows_on,
)
from tests.shopkit import Sandbox, order_state

pytestmark = pytest.mark.faults

# The dedup claim; paying and the attempt; prepay; the code; the stored answer.
PAY = [*commits(1, 2), *calls("prepay:1"), *commits(3, 4)]
# The claim; asked, closed and asked again at the old gateway; the old attempt's end; then as above.
CHANGE = [
    *commits(1, 1),
    *calls("query:1", "close:1", "query:2"),
    *commits(2, 3),
    *calls("prepay:1"),
    *commits(4, 5),
]
CANCEL = [*calls("query:1", "close:1", "query:2"), *commits(1, 1)]
# The claim, the whole payment, the stored answer.
POINTS = commits(1, 3)

CHANNELS = ("wechatpay", "alipay")


@pytest.fixture(scope="module")
def gallows(
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Gallows]:
    folder: Path = tmp_path_factory.mktemp("kill-web")
    with (
        shop_on(
            "sqlite-files", sandbox=sandbox_server, folder=folder, request=request, env=ENV
        ) as kit,
        gallows_on(kit) as made,
    ):
        yield made


def pending_order(gallows: Gallows, channel: str) -> str:
    """An order whose QR code was shown."""
    code = gallows.order()
    assert gallows.pay(code, channel).send().status == 200
    return code


def other(channel: str) -> str:
    return CHANNELS[1 - CHANNELS.index(channel)]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_pay_request_passes_these_points_and_no_others(gallows: Gallows, channel: str) -> None:
    assert gallows.points_of(gallows.pay(gallows.order(), channel)) == PAY
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_change_of_channel_passes_these_points_and_no_others(
    gallows: Gallows, channel: str
) -> None:
    code = pending_order(gallows, channel)
    assert gallows.points_of(gallows.pay(code, other(channel))) == CHANGE
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_cancellation_passes_these_points_and_no_others(gallows: Gallows, channel: str) -> None:
    assert gallows.points_of(gallows.cancel(pending_order(gallows, channel))) == CANCEL
    assert gallows.kit.broken() == []


def test_a_payment_by_points_passes_these_points_and_no_others(gallows: Gallows) -> None:
    code = gallows.order(points=500, amount_fen=0)
    assert gallows.points_of(gallows.pay(code, "points")) == POINTS
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("at", PAY)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_pay_request_killed_anywhere_can_be_repeated_and_charges_once(
    gallows: Gallows, channel: str, at: str
) -> None:
    code, key = gallows.order(), uuid.uuid4().hex
    gallows.kill_in(gallows.pay(code, channel, key), at)
    gallows.sweep(code)
    gallows.assert_true_state(code)
    assert_can_be_paid_once(gallows, code, channel, key)


@pytest.mark.parametrize("at", PAY[PAY.index("after_prepay:1") :])
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_pay_request_killed_after_prepay_and_paid_in_silence_is_found_paid(
    gallows: Gallows, channel: str, at: str
) -> None:
    code = gallows.order()
    gallows.kill_in(gallows.pay(code, channel), at)
    assert gallows.pay_silently(code)
    assert_is_found_paid(gallows, code, channel)


@pytest.mark.parametrize(
    ("channel", "at"),
    [
        *(("wechatpay", at) for at in CHANGE),
        # A code that nobody scanned ends in its own way; before and after that it is as above.
        *(("alipay", at) for at in CHANGE[CHANGE.index("before_close:1") : -4]),
    ],
)
def test_a_change_of_channel_killed_anywhere_can_be_repeated_and_charges_once(
    gallows: Gallows, channel: str, at: str
) -> None:
    code, key = pending_order(gallows, channel), uuid.uuid4().hex
    gallows.kill_in(gallows.pay(code, other(channel), key), at)
    gallows.sweep(code)
    gallows.assert_true_state(code)
    assert_can_be_paid_once(gallows, code, other(channel), key)


@pytest.mark.parametrize(
    "at",
    # On the old channel while it is open there, on the new one as soon as it is open here.
    [*CHANGE[: CHANGE.index("after_close:1")], *CHANGE[CHANGE.index("after_prepay:1") :]],
)
def test_a_change_of_channel_killed_and_paid_in_silence_on_the_open_one_is_found_paid(
    gallows: Gallows, at: str
) -> None:
    code = pending_order(gallows, "wechatpay")
    gallows.kill_in(gallows.pay(code, "alipay"), at)
    assert gallows.pay_silently(code)
    assert_is_found_paid(gallows, code, "alipay")


@pytest.mark.parametrize(
    "at", CHANGE[CHANGE.index("after_close:1") : CHANGE.index("after_prepay:1")]
)
def test_a_change_of_channel_killed_between_the_two_leaves_nothing_that_takes_money(
    gallows: Gallows, at: str
) -> None:
    code = pending_order(gallows, "wechatpay")
    gallows.kill_in(gallows.pay(code, "alipay"), at)
    assert not gallows.pay_silently(code)
    gallows.sweep(code)
    gallows.assert_true_state(code)


@pytest.mark.parametrize("at", CANCEL)
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_cancellation_killed_anywhere_can_be_repeated_and_gives_all_back(
    gallows: Gallows, channel: str, at: str
) -> None:
    code = pending_order(gallows, channel)
    gallows.kill_in(gallows.cancel(code), at)
    gallows.sweep(code)
    gallows.assert_true_state(code)
    again = gallows.cancel(code).send()
    assert (again.status, order_state(code)) == (200, "closed"), again
    assert gallows.kit.broken() == []
    if channel == "wechatpay":
        assert not gallows.pay_silently(code)
        return
    # What nobody scanned does not exist at Alipay and cannot be closed there: money that comes for
    # it all the same is surplus.
    (number,) = gallows.numbers(code)
    gallows.kit.sandbox.pay(number)
    gallows.wait_until_surplus(number)
    assert order_state(code) == "closed"
    assert gallows.kit.broken() == []


@pytest.mark.parametrize("at", CANCEL[: CANCEL.index("after_close:1")])
def test_a_cancellation_killed_before_the_close_and_paid_in_silence_keeps_order_and_money(
    gallows: Gallows, at: str
) -> None:
    code = pending_order(gallows, "wechatpay")
    gallows.kill_in(gallows.cancel(code), at)
    assert gallows.pay_silently(code)
    assert_is_found_paid(gallows, code, "wechatpay")
    again = gallows.cancel(code).send()
    assert again.code == "order-already-paid", again


@pytest.mark.parametrize("at", POINTS)
def test_a_payment_by_points_killed_anywhere_takes_the_points_once(
    gallows: Gallows, at: str
) -> None:
    code, key = gallows.order(points=500, amount_fen=0), uuid.uuid4().hex
    gallows.kill_in(gallows.pay(code, "points", key), at)
    gallows.sweep(code)
    done = at in POINTS[POINTS.index("after_commit:2") :]
    assert order_state(code) == ("paid" if done else "created")
    assert gallows.kit.broken() == []
    again = gallows.pay(code, "points").send()
    assert again.code == "order-already-paid" if done else again.status == 200, again
    assert order_state(code) == "paid"
    assert gallows.kit.broken() == []
