"""Payments at the service layer, against the real sandbox, on every database."""

from collections.abc import Iterator

import pytest

from shop.errors import (
    GatewayUnsure,
    NotEnoughPoints,
    OrderAlreadyPaid,
    OrderClosed,
    OrderExpired,
    OrderNotFound,
    OutOfStock,
    WrongChannel,
)
from shop.gateways.guard_retry import TRIES_MAX
from shop.payments.contract import PayCommand
from shop.payments.resolve import Resolution, resolve
from shop.payments.settle import Applied, Money, apply_money
from tests.integration.payments_support import DATABASES, EXPIRY_S, Buyer, Shop, shop_inside
from tests.shopkit import Sandbox

pytestmark = pytest.mark.slow

CHANNELS = ("wechatpay", "alipay")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module", params=DATABASES)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("payments")
    with shop_inside(request.param, folder, request, sandbox) as made:
        yield made


@pytest.fixture
def buyer(shop: Shop) -> Iterator[Buyer]:
    yield Buyer(shop)
    assert shop.broken() == []


def fail_next(buyer: Buyer, channel: str, op: str, kind: str, *, times: int = 1) -> None:
    """The gateway's next requests of this kind go wrong."""
    fault = {"channel": channel, "op": op, "kind": kind, "times": times}
    buyer.shop.kit.sandbox.post("/admin/faults", fault)


def end_attempt(buyer: Buyer, code: str) -> Resolution:
    """What a change of channel does with the old attempt: close it, and fail the order."""
    with buyer.claim(code) as claim:
        return resolve(
            buyer.parts.desk,
            claim,
            buyer.attempts(code)[-1],
            want_closed=True,
            order_event="fail",
            cause="change of channel",
        )


def test_a_payment_by_points_alone_is_paid_at_once(buyer: Buyer) -> None:
    code = buyer.order(points=500, amount_fen=0)
    view = buyer.pay(code, "points")
    assert (view.order_state, view.attempt_state, view.hand_over) == ("paid", "succeeded", None)
    assert (buyer.points(), buyer.on_hand()) == (buyer.given - 500, buyer.brought - 1)
    assert buyer.moves(code) == [("begin_payment", "member"), ("settle", "member")]
    with pytest.raises(OrderAlreadyPaid):
        buyer.pay(code, "points")


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_silent_payment_is_resolved_by_asking(buyer: Buyer, channel: str) -> None:
    code = buyer.order()
    view = buyer.pay(code, channel)
    assert (view.order_state, view.attempt_state) == ("paying", "pending")
    assert (buyer.points(), buyer.on_hand()) == (buyer.given - 100, buyer.brought - 1)
    assert buyer.pay_at_phone(buyer.number(code))
    buyer.sweep(after_s=60)
    assert buyer.state(code) == "paid"
    assert buyer.moves(code)[-1] == ("settle", "sweeper")
    assert buyer.charges(code) == 1


@pytest.mark.parametrize("channel", CHANNELS)
def test_paying_again_on_the_same_channel_resumes_the_same_payment(
    buyer: Buyer, channel: str
) -> None:
    code = buyer.order()
    first, second = buyer.pay(code, channel), buyer.pay(code, channel)
    assert first == second
    assert len(buyer.attempts(code)) == 1


@pytest.mark.parametrize("kind", ["http500", "drop_before_effect", "drop_after_effect"])
@pytest.mark.parametrize("channel", CHANNELS)
def test_a_prepay_without_a_clear_answer_stays_open_and_is_resumed_with_its_number(
    buyer: Buyer, channel: str, kind: str
) -> None:
    code = buyer.order()
    fail_next(buyer, channel, "prepay", kind)
    with pytest.raises(GatewayUnsure):
        buyer.pay(code, channel)
    assert (buyer.state(code), buyer.attempts(code)[0].state) == ("paying", "opening")
    number = buyer.number(code)
    buyer.sweep(after_s=60)
    # The sweeper asked for the code again, for the member who still waits for it.
    assert (buyer.state(code), buyer.attempts(code)[0].state) == ("paying", "pending")
    view = buyer.pay(code, channel)
    assert (view.out_trade_no, view.attempt_state) == (number, "pending")
    assert buyer.pay_at_phone(number)
    buyer.sweep(after_s=300)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)


def test_a_change_of_channel_closes_the_old_payment_at_its_gateway_first(buyer: Buyer) -> None:
    code = buyer.order()
    old = buyer.pay(code, "wechatpay").out_trade_no
    new = buyer.pay(code, "alipay").out_trade_no
    assert old is not None
    assert new is not None
    assert [one.state for one in buyer.attempts(code)] == ["closed", "pending"]
    assert not buyer.pay_at_phone(old)
    assert buyer.pay_at_phone(new)
    buyer.sweep(after_s=60)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)
    assert buyer.points() == buyer.given - 100


@pytest.mark.parametrize(("old", "new"), [CHANNELS, CHANNELS[::-1]])
def test_a_change_of_channel_settles_the_old_payment_if_that_was_paid(
    buyer: Buyer, old: str, new: str
) -> None:
    code = buyer.order()
    buyer.pay(code, old)
    assert buyer.pay_at_phone(buyer.number(code))
    with pytest.raises(OrderAlreadyPaid):
        buyer.pay(code, new)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)
    assert len(buyer.attempts(code)) == 1


@pytest.mark.parametrize("op", ["query", "close"])
def test_a_change_of_channel_waits_for_a_clear_word_of_the_old_gateway(
    buyer: Buyer, op: str
) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    fail_next(buyer, "wechatpay", op, "drop_before_effect", times=TRIES_MAX)
    with pytest.raises(GatewayUnsure):
        buyer.pay(code, "alipay")
    assert (buyer.state(code), len(buyer.attempts(code))) == ("paying", 1)
    assert buyer.pay(code, "alipay").channel == "alipay"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_cancellation_gives_points_and_goods_back(buyer: Buyer, channel: str) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    assert buyer.cancel(code).order_state == "closed"
    assert (buyer.points(), buyer.on_hand()) == (buyer.given, buyer.brought)
    assert buyer.moves(code)[-1] == ("close", "member")
    with pytest.raises(OrderClosed):
        buyer.cancel(code)
    with pytest.raises(OrderClosed):
        buyer.pay(code, channel)


def test_a_cancellation_of_what_was_paid_keeps_the_order(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    assert buyer.pay_at_phone(buyer.number(code))
    with pytest.raises(OrderAlreadyPaid):
        buyer.cancel(code)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)


def failed_with_a_live_code(buyer: Buyer, **what: int) -> tuple[str, str]:
    """An order that failed while its code, which nobody had scanned, can still be paid."""
    code = buyer.order(**what)
    buyer.pay(code, "alipay")
    assert end_attempt(buyer, code) is Resolution.ENDED
    assert buyer.state(code) == "failed"
    assert (buyer.points(), buyer.on_hand()) == (buyer.given, buyer.brought)
    return code, buyer.number(code)


def test_late_money_pays_a_failed_order_if_points_and_goods_can_be_had_again(
    buyer: Buyer,
) -> None:
    code, number = failed_with_a_live_code(buyer)
    assert buyer.pay_at_phone(number)
    assert buyer.hear_of_money(code, number) is Applied.SETTLED
    assert buyer.state(code) == "paid"
    assert (buyer.points(), buyer.on_hand()) == (buyer.given - 100, buyer.brought - 1)
    assert buyer.hear_of_money(code, number) is Applied.ALREADY


def test_late_money_is_surplus_where_the_points_were_spent_meanwhile(shop: Shop) -> None:
    buyer = Buyer(shop, points=500)
    code, number = failed_with_a_live_code(buyer)
    assert buyer.pay(buyer.order(points=500, amount_fen=0), "points").order_state == "paid"
    assert buyer.pay_at_phone(number)
    assert buyer.hear_of_money(code, number) is Applied.SURPLUS
    assert (buyer.state(code), buyer.points()) == ("failed", 0)
    assert buyer.attempts(code)[0].role == "surplus"
    assert shop.broken() == []


def test_late_money_is_surplus_where_the_goods_were_sold_meanwhile(shop: Shop) -> None:
    buyer = Buyer(shop, stock=1)
    code, number = failed_with_a_live_code(buyer)
    assert buyer.pay(buyer.order(points=500, amount_fen=0), "points").order_state == "paid"
    assert buyer.pay_at_phone(number)
    assert buyer.hear_of_money(code, number) is Applied.SURPLUS
    assert (buyer.state(code), buyer.points()) == ("failed", buyer.given - 500)
    assert shop.broken() == []


def test_late_money_for_a_cancelled_order_is_surplus_and_revives_nothing(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    buyer.cancel(code)
    number = buyer.number(code)
    assert buyer.pay_at_phone(number)
    assert buyer.hear_of_money(code, number) is Applied.SURPLUS
    assert buyer.state(code) == "closed"
    assert (buyer.points(), buyer.on_hand()) == (buyer.given, buyer.brought)


def test_money_on_both_channels_settles_once_and_is_surplus_once(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    first = buyer.number(code)
    buyer.pay(code, "wechatpay")
    second = buyer.number(code)
    assert buyer.pay_at_phone(first)
    assert buyer.pay_at_phone(second)
    assert buyer.hear_of_money(code, second) is Applied.SETTLED
    assert buyer.hear_of_money(code, first) is Applied.SURPLUS
    assert [one.role for one in buyer.attempts(code)] == ["surplus", "settling"]
    assert buyer.points() == buyer.given - 100


def test_an_attempt_that_is_open_beside_the_settling_one_is_closed_by_the_sweeper(
    buyer: Buyer,
) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    first = buyer.number(code)
    buyer.pay(code, "wechatpay")
    assert buyer.pay_at_phone(first)
    assert buyer.hear_of_money(code, first) is Applied.SETTLED
    buyer.sweep(after_s=60)
    assert [one.state for one in buyer.attempts(code)] == ["succeeded", "closed"]
    assert not buyer.pay_at_phone(buyer.number(code))
    assert buyer.charges(code) == 1


@pytest.mark.parametrize("channel", CHANNELS)
def test_an_expired_payment_is_closed_at_its_gateway_and_gives_all_back(
    buyer: Buyer, channel: str
) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    buyer.sweep(after_s=EXPIRY_S - 60)
    assert buyer.state(code) == "paying"
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert buyer.state(code) == "closed"
    assert buyer.moves(code)[-1] == ("close", "sweeper")
    assert (buyer.points(), buyer.on_hand()) == (buyer.given, buyer.brought)
    if channel == "wechatpay":
        assert not buyer.pay_at_phone(buyer.number(code))


def test_an_expired_payment_that_was_paid_in_time_is_paid(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    assert buyer.pay_at_phone(buyer.number(code))
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)


def test_an_expired_payment_stays_open_until_its_gateway_can_be_asked(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    fail_next(buyer, "wechatpay", "query", "http500", times=TRIES_MAX)
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert buyer.state(code) == "paying"
    # Points and goods are held for it, so it is asked after again within a minute.
    buyer.sweep(after_s=EXPIRY_S + 120)
    assert buyer.state(code) == "closed"


@pytest.mark.parametrize("failed", [False, True])
def test_an_expired_order_without_an_open_payment_is_closed(buyer: Buyer, failed: bool) -> None:
    code = failed_with_a_live_code(buyer)[0] if failed else buyer.order()
    # What may have paid it is asked after first.
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert buyer.state(code) == "closed"


def test_money_that_contradicts_the_books_moves_nothing(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    number = buyer.number(code)
    good = {
        "channel": "wechatpay",
        "merchant": "default",
        "out_trade_no": number,
        "transaction_id": f"t-{number}",
        "amount_fen": 900,
        "currency": "CNY",
    }
    for change, expected in (
        ({"amount_fen": 901}, Applied.AMOUNT_DIFFERS),
        ({"amount_fen": 1}, Applied.AMOUNT_DIFFERS),
        ({"currency": "USD"}, Applied.AMOUNT_DIFFERS),
        ({"channel": "alipay"}, Applied.CHANNEL_DIFFERS),
        ({"merchant": "another"}, Applied.WRONG_MERCHANT),
        ({"out_trade_no": "nobody"}, Applied.UNKNOWN_TRADE),
    ):
        money = Money(**{**good, **change}, paid_at=None, cause="a test")  # type: ignore[arg-type]
        with buyer.claim(code) as claim:
            assert apply_money(buyer.parts.desk, claim, money) is expected
        assert buyer.state(code) == "paying"
    paid = Money(**good, paid_at=None, cause="a test")  # type: ignore[arg-type]
    with buyer.claim(code) as claim:
        assert apply_money(buyer.parts.desk, claim, paid) is Applied.SETTLED
    again = Money(**{**good, "transaction_id": "other"}, paid_at=None, cause="a test")  # type: ignore[arg-type]
    with buyer.claim(code) as claim:
        assert apply_money(buyer.parts.desk, claim, again) is Applied.SECOND_TRANSACTION


def test_what_cannot_be_had_is_refused_and_nothing_is_held(shop: Shop) -> None:
    buyer = Buyer(shop, points=99, stock=1)
    with pytest.raises(NotEnoughPoints):
        buyer.pay(buyer.order(points=100), "wechatpay")
    with pytest.raises(OutOfStock):
        buyer.pay(buyer.order(points=0, quantity=2), "wechatpay")
    with pytest.raises(NotEnoughPoints):
        buyer.pay(buyer.order(points=100, amount_fen=0), "points")
    assert (buyer.points(), buyer.on_hand()) == (99, 1)
    assert shop.broken() == []


def test_what_must_not_be_paid_is_refused(buyer: Buyer) -> None:
    code = buyer.order()
    for channel in ("points", "cash", ""):
        with pytest.raises(WrongChannel):
            buyer.pay(code, channel)
    with pytest.raises(WrongChannel):
        buyer.pay(buyer.order(points=1, amount_fen=0), "wechatpay")
    stranger = Buyer(buyer.shop)
    with pytest.raises(OrderNotFound):
        stranger.pay(code, "wechatpay")
    with pytest.raises(OrderNotFound):
        buyer.parts.payments.pay(
            PayCommand(member_id=buyer.member_id, order_code="nothing", channel="wechatpay")
        )
    old = buyer.order()
    with buyer.shop.clock.later(EXPIRY_S + 1), pytest.raises(OrderExpired):
        buyer.pay(old, "wechatpay")
    assert buyer.state(code) == "created"
