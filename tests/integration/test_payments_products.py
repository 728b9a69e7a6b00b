"""Tickets that died, products that change, and gateways that were never reached."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from dotenv import dotenv_values
from sqlalchemy import update

from sandbox.keys import ensure_merchant
from shop.db import changed_rows, transaction
from shop.errors import GatewayAway, GatewayUnsure
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.models import PaymentAttempt
from shop.payments.products import Device
from shop.wiring import build_parts
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
    buyer: Buyer, code: str, channel: str, device: Device, on_its_page: bool = False
) -> PaymentView:
    """Pay from this device."""
    command = PayCommand(
        member_id=buyer.member_id,
        order_code=code,
        channel=channel,
        device=device,
        on_its_page=on_its_page,
        client_ip="203.0.113.7",
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
    with pytest.raises(GatewayUnsure):
        parts.payments.pay(command)
    with buyer.shop.clock.later(EXPIRY_S + 3_600):
        parts.sweeper.run_once()
    parts.close()
    assert [one.state for one in buyer.attempts(code)] == ["pending"]
    assert (buyer.state(code), buyer.charges(code)) == ("paying", 1)
    buyer.hear_of_money(code, buyer.number(code))
    assert buyer.state(code) == "paid"
