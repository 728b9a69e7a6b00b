"""Tickets that died, products that change, and gateways that were never reached."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from dotenv import dotenv_values
from sqlalchemy import update

from sandbox.keys import ensure_merchant
from shop.db import changed_rows, transaction
from shop.errors import GatewayAway, GatewayUnsure
from shop.gateways.base import Gateway, Product
from shop.gateways.registry import Gateways
from shop.merchants.errors import AccountMoved
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.errors import ChannelNotHere, TooLateToPay
from shop.payments.models import PaymentAttempt
from shop.payments.opening import LEAST_TIME_LEFT
from shop.payments.products import Device
from shop.wiring import Parts, build_parts
from tests.integration.payments_support import EXPIRY_S, Buyer, Shop, shop_inside
from tests.processes import free_port
from tests.shopkit import Sandbox

CHANNELS = ("wechatpay", "alipay")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Shop]:
    with shop_inside("sqlite", tmp_path_factory.mktemp("products"), request, sandbox) as made:
        yield made


@pytest.fixture
def buyer(shop: Shop) -> Iterator[Buyer]:
    yield Buyer(shop)
    assert shop.broken() == []


def grow_stale(buyer: Buyer, code: str) -> None:
    """Let the newest attempt's ticket have been made three hours ago."""
    number, then = buyer.number(code), buyer.shop.clock.now() - timedelta(hours=3)
    aged = update(PaymentAttempt).where(PaymentAttempt.out_trade_no == number)
    assert transaction(lambda: changed_rows(aged.values(ticket_at=then))) == 1


def pay_on(
    buyer: Buyer,
    code: str,
    channel: str,
    device: Device,
    on_its_page: bool = False,
    client_ip: str = "203.0.113.7",
) -> PaymentView:
    """Pay from this device."""
    command = PayCommand(
        member_id=buyer.member_id,
        order_code=code,
        channel=channel,
        device=device,
        on_its_page=on_its_page,
        client_ip=client_ip,
    )
    return buyer.parts.payments.pay(command)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stale_ticket_is_asked_for_anew_under_the_same_number(buyer: Buyer, channel: str) -> None:
    code = buyer.order()
    first = buyer.pay(code, channel)
    assert not first.stale
    assert buyer.pay(code, channel).hand_over == first.hand_over
    grow_stale(buyer, code)
    assert buyer.parts.payments.view(buyer.member_id, code).stale
    second = buyer.pay(code, channel)
    assert (second.out_trade_no, second.attempt_state) == (first.out_trade_no, "pending")
    assert second.hand_over != first.hand_over
    assert not second.stale
    assert buyer.pay_at_phone(buyer.number(code))
    buyer.hear_of_money(code, buyer.number(code))
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("kind", ["http500", "drop_before_effect", "drop_after_effect"])
def test_a_stale_ticket_that_cannot_be_renewed_leaves_the_payment_open(
    buyer: Buyer, channel: str, kind: str
) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    grow_stale(buyer, code)
    fault = {"channel": channel, "op": "prepay", "kind": kind, "times": 5}
    buyer.shop.kit.sandbox.post("/admin/faults", fault)
    with pytest.raises(GatewayUnsure):
        buyer.pay(code, channel)
    buyer.shop.kit.sandbox.clear_faults()
    assert [one.state for one in buyer.attempts(code)] == ["pending"]
    assert buyer.pay(code, channel).attempt_state == "pending"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_stale_ticket_of_what_was_paid_meanwhile_leads_to_the_money(
    buyer: Buyer, channel: str
) -> None:
    code = buyer.order()
    buyer.pay(code, channel)
    assert buyer.pay_at_phone(buyer.number(code))
    grow_stale(buyer, code)
    with pytest.raises(GatewayUnsure):
        buyer.pay(code, channel)
    # The sweeper was told to ask at once.
    buyer.sweep(after_s=1)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)


def test_a_gateway_that_cannot_be_reached_ends_the_attempt_at_once_and_another_way_is_open(
    buyer: Buyer,
) -> None:
    settings = buyer.shop.kit.settings
    address = {"WECHATPAY_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    nowhere = replace(settings, gateway_variables={**settings.gateway_variables, **address})
    parts = build_parts(nowhere, clock=buyer.shop.clock)
    code = buyer.order()
    command = PayCommand(member_id=buyer.member_id, order_code=code, channel="wechatpay")
    with pytest.raises(GatewayAway):
        parts.payments.pay(command)
    parts.close()
    assert buyer.state(code) == "failed"
    assert [one.state for one in buyer.attempts(code)] == ["failed"]
    assert buyer.points() == buyer.given
    assert buyer.on_hand() == buyer.brought
    view = buyer.pay(code, "alipay")
    assert (view.attempt_state, view.channel) == ("pending", "alipay")


def test_a_payment_that_the_wrong_account_is_asked_about_is_not_taken_for_unpaid(
    buyer: Buyer, sandbox: Sandbox
) -> None:
    """The merchant's number was changed while it was open, and its notice is late."""
    settings = buyer.shop.kit.settings
    ensure_merchant(sandbox.folder, sandbox.url, "other")
    other = dotenv_values(sandbox.folder / "merchants" / "other.env")
    changed = {name: value or "" for name, value in other.items() if "WECHATPAY" in name}
    parts = build_parts(
        replace(settings, gateway_variables={**settings.gateway_variables, **changed}),
        clock=buyer.shop.clock,
    )
    code = buyer.order()
    buyer.pay(code, "wechatpay")
    assert buyer.pay_at_phone(buyer.number(code))
    command = PayCommand(member_id=buyer.member_id, order_code=code, channel="alipay")
    with pytest.raises(AccountMoved):
        parts.payments.pay(command)
    with buyer.shop.clock.later(EXPIRY_S + 3_600):
        parts.sweeper.run_once()
    parts.close()
    assert [one.state for one in buyer.attempts(code)] == ["pending"]
    assert (buyer.state(code), buyer.charges(code)) == ("paying", 1)
    buyer.hear_of_money(code, buyer.number(code))
    assert buyer.state(code) == "paid"


@contextmanager
def offering(buyer: Buyer, **products: str) -> Iterator[Parts]:
    """The shop's parts, started again with other products configured."""
    settings = buyer.shop.kit.settings
    changed = {f"{name}_PRODUCTS": value for name, value in products.items()}
    parts = build_parts(
        replace(settings, gateway_variables={**settings.gateway_variables, **changed}),
        clock=buyer.shop.clock,
    )
    try:
        yield parts
    finally:
        parts.close()


def test_what_cannot_be_paid_on_a_device_is_refused_before_anything_is_begun_or_ended(
    buyer: Buyer,
) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    with offering(buyer, WECHATPAY="h5", ALIPAY="wap") as parts:
        command = PayCommand(member_id=buyer.member_id, order_code=code, channel="wechatpay")
        with pytest.raises(ChannelNotHere) as refused:
            parts.payments.pay(command)
        assert refused.value.status == 422
        assert parts.payments.products("default", Device.DESKTOP, payer_known=False) == {}
        on_phone = parts.payments.products("default", Device.PHONE, payer_known=False)
        assert on_phone == {"wechatpay": Product.H5, "alipay": Product.WAP}
    assert [one.state for one in buyer.attempts(code)] == ["pending"]


def test_where_the_payers_address_is_not_known_no_h5_payment_is_begun(buyer: Buyer) -> None:
    code = buyer.order()
    command = PayCommand(
        member_id=buyer.member_id, order_code=code, channel="wechatpay", device=Device.PHONE
    )
    with offering(buyer, WECHATPAY="h5") as parts, pytest.raises(ChannelNotHere):
        parts.payments.pay(command)
    assert (buyer.state(code), buyer.attempts(code)) == ("created", [])
    with offering(buyer, WECHATPAY="h5,native") as parts:
        assert parts.payments.pay(command).product is Product.NATIVE


def test_an_h5_payment_is_opened_anew_for_a_member_whose_address_changed(buyer: Buyer) -> None:
    code = buyer.order()
    for client_ip in ("203.0.113.7", "203.0.113.7", "198.51.100.9"):
        view = pay_on(buyer, code, "wechatpay", Device.PHONE, client_ip=client_ip)
        assert view.hand_over is not None
    assert [(one.state, one.product, one.client_ip) for one in buyer.attempts(code)] == [
        ("closed", "h5", "203.0.113.7"),
        ("pending", "h5", "198.51.100.9"),
    ]


@pytest.mark.parametrize(
    ("channel", "device", "left"),
    [("wechatpay", Device.PHONE, "native"), ("alipay", Device.PHONE, "precreate")],
)
def test_a_payment_by_a_product_that_was_given_up_can_be_changed_and_is_found_if_paid(
    buyer: Buyer, channel: str, device: Device, left: str
) -> None:
    paid, changed = buyer.order(), buyer.order()
    for code in (paid, changed):
        pay_on(buyer, code, channel, device)
    # At Alipay's page there is a trade only once its member came.
    if channel == "wechatpay":
        assert buyer.pay_at_phone(buyer.number(paid))
    with offering(buyer, **{channel.upper(): left}) as parts:
        view = parts.payments.view(buyer.member_id, changed)
        assert (view.attempt_state, view.hand_over) == ("pending", None)
        command = PayCommand(
            member_id=buyer.member_id, order_code=changed, channel=channel, device=device
        )
        assert parts.payments.pay(command).hand_over is not None
        if channel == "wechatpay":
            with buyer.shop.clock.later(60):
                parts.sweeper.run_once()
            assert buyer.state(paid) == "paid"
    assert [one.product for one in buyer.attempts(changed)][1:] == [left]


@pytest.mark.parametrize("channel", CHANNELS)
def test_no_payment_is_begun_that_its_gateway_would_let_outlive_the_order(
    buyer: Buyer, channel: str
) -> None:
    code, open_one = buyer.order(), buyer.order()
    buyer.pay(open_one, channel)
    shown = buyer.parts.payments.view(buyer.member_id, open_one).hand_over
    with buyer.shop.clock.later(EXPIRY_S - LEAST_TIME_LEFT.total_seconds() + 1):
        with pytest.raises(TooLateToPay):
            buyer.pay(code, channel)
        # What is open by another channel is not ended for it either.
        with pytest.raises(TooLateToPay):
            buyer.pay(open_one, "alipay" if channel == "wechatpay" else "wechatpay")
        assert buyer.parts.payments.view(buyer.member_id, open_one).hand_over == shown
    assert (buyer.state(code), buyer.attempts(code)) == ("created", [])
    assert [one.state for one in buyer.attempts(open_one)] == ["pending"]


def test_a_refused_payment_keeps_the_sweeper_from_no_other_of_its_account(buyer: Buyer) -> None:
    """Its first request was lost on the way, and is refused each time it is sent again."""
    refused, paid = buyer.order(), buyer.order()
    fault = {"channel": "wechatpay", "op": "prepay", "kind": "drop_before_effect", "times": 1}
    buyer.shop.kit.sandbox.post("/admin/faults", fault)
    command = PayCommand(
        member_id=buyer.member_id,
        order_code=refused,
        channel="wechatpay",
        device=Device.WECHAT,
        payer_openid="oNobodyWasGivenThisOne00000",
    )
    with pytest.raises(GatewayUnsure):
        buyer.parts.payments.pay(command)
    buyer.pay(paid, "wechatpay")
    assert buyer.pay_at_phone(buyer.number(paid))
    buyer.sweep(after_s=60)
    assert [one.state for one in buyer.attempts(refused)] == ["opening"]
    assert buyer.attempts(refused)[0].asked_count == 1
    assert buyer.state(paid) == "paid"


class Unreadable(Gateways):
    """One merchant's accounts cannot be read, for a reason that nobody thought of."""

    def __init__(self, real: Gateways, merchant: str) -> None:
        self.real, self.merchant = real, merchant

    def of(self, merchant: str) -> Mapping[str, Gateway]:
        if merchant == self.merchant:
            raise PermissionError(13, "Permission denied")
        return self.real.of(merchant)


def test_one_merchants_trouble_does_not_end_the_sweepers_round(buyer: Buyer) -> None:
    troubled, paid = buyer.order(), buyer.order()
    for code in (troubled, paid):
        buyer.pay(code, "wechatpay")
    number = buyer.number(troubled)
    moved = update(PaymentAttempt).where(PaymentAttempt.out_trade_no == number)
    assert transaction(lambda: changed_rows(moved.values(merchant="press"))) == 1
    assert buyer.pay_at_phone(buyer.number(paid))
    gateways = Unreadable(buyer.parts.desk.gateways, "press")
    parts = build_parts(buyer.shop.kit.settings, clock=buyer.shop.clock, gateways=gateways)
    with buyer.shop.clock.later(60):
        assert parts.sweeper.run_once().errors >= 1
    parts.close()
    assert buyer.state(paid) == "paid"


def test_an_expired_order_is_not_closed_before_the_last_look_at_what_may_have_paid_it(
    buyer: Buyer,
) -> None:
    """Its code was ended for another channel's, which was never opened, and was scanned late."""
    code = buyer.order()
    buyer.pay(code, "alipay")
    scanned = buyer.number(code)
    settings = buyer.shop.kit.settings
    nowhere = {"WECHATPAY_BASE_URL": f"http://127.0.0.1:{free_port()}"}
    parts = build_parts(
        replace(settings, gateway_variables={**settings.gateway_variables, **nowhere}),
        clock=buyer.shop.clock,
    )
    with pytest.raises(GatewayAway):
        parts.payments.pay(
            PayCommand(member_id=buyer.member_id, order_code=code, channel="wechatpay")
        )
    parts.close()
    assert buyer.state(code) == "failed"
    assert buyer.pay_at_phone(scanned)
    buyer.sweep(after_s=EXPIRY_S + 1)
    assert buyer.state(code) == "failed"
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert (buyer.state(code), buyer.charges(code)) == ("paid", 1)
    assert buyer.parts.payments.view(buyer.member_id, code).surplus_fen == 0


def test_money_for_a_closed_order_is_told_as_surplus(buyer: Buyer) -> None:
    code = buyer.order()
    buyer.pay(code, "alipay")
    buyer.cancel(code)
    assert buyer.pay_at_phone(buyer.number(code))
    buyer.sweep(after_s=EXPIRY_S + 60)
    assert buyer.parts.payments.view(buyer.member_id, code).surplus_fen == 900
