"""Alipay's pages and certificate mode through real payments at the sandbox."""

import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest
import requests
from dotenv import dotenv_values

from config.gateways import load_alipay
from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import CancelAction, NoticeKind, Outcome, PrepayRequest, Product
from shop.gateways.reading import CHINA
from tests.integration.sandbox_kit import Receiver, Running, number, receiving, running

MODES = {"public key": "merchant.env", "certificates": "merchant.certs.env"}
PATIENCE_S = 60
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.01) as sandbox:
        yield sandbox


@pytest.fixture(scope="module", params=MODES)
def gateway(request: pytest.FixtureRequest, sandbox: Running) -> Alipay:
    merchant = dotenv_values(sandbox.data / MODES[request.param])
    return Alipay(
        load_alipay({name: value or "" for name, value in merchant.items()}),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock(),
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def open_page(gateway: Alipay, product: Product, notify_url: str) -> str:
    """Hand a member's browser over to Alipay's page; the payment's number."""
    request = PrepayRequest(
        out_trade_no=number(),
        amount_fen=8_888,
        subject="保温杯 & 茶叶 {100%}",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        notify_url=notify_url,
        product=product,
        return_url="http://127.0.0.1:9/orders/1?from=pay",
    )
    ticket = gateway.prepay(request).ticket
    assert ticket is not None
    found = gateway.query(request.out_trade_no)
    assert (found.outcome, found.exists) == (Outcome.PENDING, False)
    address = gateway.hand_over(product, ticket).url
    assert address is not None
    page = requests.get(address, timeout=30)
    assert page.status_code == 200
    assert "/cashier/alipay/" in page.url
    assert "88.88" in page.text
    return request.out_trade_no


def wait_for(look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("product", [Product.PAGE, Product.WAP])
def test_a_page_is_opened_paid_told_and_found_paid(
    sandbox: Running, gateway: Alipay, receiver: Receiver, product: Product
) -> None:
    trade = open_page(gateway, product, receiver.url)
    sandbox.post(f"/admin/trades/{trade}/pay")
    found = gateway.query(trade)
    assert (found.outcome, found.amount_fen) == (Outcome.SUCCEEDED, 8_888)

    def paid() -> bool:
        notices = [gateway.read_notice(headers, body) for headers, body in receiver.got]
        return any(
            (one.kind, one.outcome, one.out_trade_no, one.transaction_id)
            == (NoticeKind.PAYMENT, Outcome.SUCCEEDED, trade, found.transaction_id)
            for one in notices
        )

    wait_for(paid)


def test_a_page_that_is_not_paid_is_closed(gateway: Alipay, receiver: Receiver) -> None:
    trade = open_page(gateway, Product.PAGE, receiver.url)
    assert gateway.close(trade).outcome is Outcome.SUCCEEDED
    assert gateway.query(trade).outcome is Outcome.FAILED


def test_cancelling_gives_back_what_was_paid(
    sandbox: Running, gateway: Alipay, receiver: Receiver
) -> None:
    trade = open_page(gateway, Product.PAGE, receiver.url)
    sandbox.post(f"/admin/trades/{trade}/pay")
    result = gateway.cancel(trade)
    assert (result.outcome, result.action) == (Outcome.SUCCEEDED, CancelAction.REFUND)
    assert sandbox.trade(trade)["refunded_fen"] == 8_888
    assert gateway.query(trade).outcome is Outcome.SUCCEEDED


def test_the_bill_of_today_has_the_payment(
    sandbox: Running, gateway: Alipay, receiver: Receiver
) -> None:
    trade = open_page(gateway, Product.PAGE, receiver.url)
    sandbox.post(f"/admin/trades/{trade}/pay")
    paid_at = gateway.query(trade).paid_at
    assert paid_at is not None
    into = io.BytesIO()
    result = gateway.download_bill(paid_at.astimezone(CHINA).date(), into)
    assert (result.outcome, result.fault) == (Outcome.SUCCEEDED, None)
    lines = [line for line in into.getvalue().decode().splitlines() if trade in line]
    assert len(lines) == 1
    assert "88.88" in lines[0]


def test_certificates_that_are_renewed_meanwhile_stop_nothing(
    sandbox: Running, receiver: Receiver
) -> None:
    merchant = dotenv_values(sandbox.data / MODES["certificates"])
    gateway = Alipay(
        load_alipay({name: value or "" for name, value in merchant.items()}),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock(),
    )
    trade = open_page(gateway, Product.WAP, receiver.url)
    sandbox.post("/admin/merchants/default/certificates", {"channel": "alipay"})
    sandbox.post(f"/admin/trades/{trade}/pay")
    headers, body = wait_for(lambda: receiver.got[0] if receiver.got else None)
    assert gateway.read_notice(headers, body).out_trade_no == trade
    assert gateway.query(trade).outcome is Outcome.SUCCEEDED
