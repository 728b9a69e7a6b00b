"""Both gateways through real payments at the sandbox: every call's outcomes, lost answers too."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
import requests
from dotenv import dotenv_values

from config.settings import Settings, load_settings
from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import (
    Gateway,
    NoticeKind,
    Outcome,
    PrepayRequest,
    Product,
    RefundRequest,
    RefundResult,
)
from shop.gateways.wechatpay import WeChatPay
from shop.gateways.wechatpay_keys import MIN_INTERVAL
from tests.integration.sandbox_kit import Receiver, Running, number, receiving, running

CHANNELS = ["wechatpay", "alipay"]
CALLS = ["prepay", "query", "close", "refund", "refund_query"]
PATIENCE_S = 30
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("sandbox")
    with running(folder, time_scale=0.01) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def settings(sandbox: Running) -> Settings:
    """The shop's settings, read from the file that the sandbox writes for it."""
    merchant = {
        name: value
        for name, value in dotenv_values(sandbox.data / "merchant.env").items()
        if value is not None
    }
    rest = {
        "DATABASE_URL": "sqlite://",
        "LOCK_URL": "file:///nowhere",
        "SECRET_KEY": "x" * 32,
        "PUBLIC_URL": "http://127.0.0.1:8000",
    }
    return load_settings({**rest, **merchant})


def connect(settings: Settings, channel: str, *, read_timeout_ms: int = 20_000) -> Gateway:
    if channel == "wechatpay":
        return WeChatPay(
            settings.wechatpay,
            connect_timeout_ms=5_000,
            read_timeout_ms=read_timeout_ms,
            clock=SystemClock(),
        )
    return Alipay(
        settings.alipay,
        connect_timeout_ms=5_000,
        read_timeout_ms=read_timeout_ms,
        clock=SystemClock(),
    )


@pytest.fixture(params=CHANNELS)
def gateway(request: pytest.FixtureRequest, settings: Settings) -> Gateway:
    return connect(settings, request.param)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def prepay_request(
    gateway: Gateway, notify_url: str = "http://127.0.0.1:9/notify"
) -> PrepayRequest:
    return PrepayRequest(
        out_trade_no=number(),
        amount_fen=8_888,
        subject="保温杯 & 茶叶 {100%}",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        notify_url=notify_url,
        product=Product.NATIVE if gateway.channel == "wechatpay" else Product.PRECREATE,
    )


def refund_request(paid: PrepayRequest, refund_fen: int = 888) -> RefundRequest:
    return RefundRequest(
        out_trade_no=paid.out_trade_no,
        out_refund_no=number(),
        refund_fen=refund_fen,
        total_fen=paid.amount_fen,
        reason="多付的款",
        notify_url=paid.notify_url,
    )


def open_payment(gateway: Gateway, notify_url: str = "http://127.0.0.1:9/notify") -> PrepayRequest:
    """Prepaid, and scanned: Alipay has no trade before."""
    request = prepay_request(gateway, notify_url)
    opened = gateway.prepay(request)
    assert (opened.outcome, opened.fault) == (Outcome.SUCCEEDED, None)
    assert opened.ticket is not None
    requests.get(opened.ticket, timeout=20).raise_for_status()
    return request


def paid_payment(
    sandbox: Running, gateway: Gateway, notify_url: str = "http://127.0.0.1:9/notify"
) -> PrepayRequest:
    request = open_payment(gateway, notify_url)
    sandbox.post(f"/admin/trades/{request.out_trade_no}/pay")
    return request


def wait_for(look: Callable[[], Found | None]) -> Found:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def refunded(gateway: Gateway, request: RefundRequest) -> RefundResult:
    """The refund once the gateway is done with it."""

    def done() -> RefundResult | None:
        result = gateway.query_refund(request.out_trade_no, request.out_refund_no)
        return result if result.outcome is Outcome.SUCCEEDED else None

    return wait_for(done)


def ask(gateway: Gateway, call: str, payment: PrepayRequest) -> Outcome:
    if call == "prepay":
        return gateway.prepay(payment).outcome
    if call == "query":
        return gateway.query(payment.out_trade_no).outcome
    if call == "close":
        return gateway.close(payment.out_trade_no).outcome
    if call == "refund":
        return gateway.refund(refund_request(payment)).outcome
    return gateway.query_refund(payment.out_trade_no, number()).outcome


def test_a_payment_is_opened_paid_and_found_paid(sandbox: Running, gateway: Gateway) -> None:
    request = prepay_request(gateway)
    opened = gateway.prepay(request)
    assert opened.outcome is Outcome.SUCCEEDED
    before = gateway.query(request.out_trade_no)
    assert before.outcome is Outcome.PENDING
    assert before.exists is (gateway.channel == "wechatpay")
    trade = sandbox.post(f"/admin/trades/{request.out_trade_no}/pay")
    after = gateway.query(request.out_trade_no)
    assert (after.outcome, after.exists, after.amount_fen) == (Outcome.SUCCEEDED, True, 8_888)
    assert after.transaction_id == trade["transaction_id"]
    assert after.paid_at is not None
    assert abs(datetime.now(UTC) - after.paid_at) < timedelta(minutes=5)


def test_the_sandboxs_notice_says_the_same_as_the_query(
    sandbox: Running, gateway: Gateway, receiver: Receiver
) -> None:
    request = paid_payment(sandbox, gateway, receiver.url)
    headers, body = wait_for(lambda: receiver.got[0] if receiver.got else None)
    notice = gateway.read_notice(headers, body)
    query = gateway.query(request.out_trade_no)
    assert notice.kind is NoticeKind.PAYMENT
    assert (notice.out_trade_no, notice.outcome) == (request.out_trade_no, Outcome.SUCCEEDED)
    assert (notice.transaction_id, notice.amount_fen, notice.paid_at) == (
        query.transaction_id,
        query.amount_fen,
        query.paid_at,
    )


def test_the_rejecting_answer_brings_the_notice_again_and_the_acknowledging_one_ends_it(
    sandbox: Running, gateway: Gateway
) -> None:
    no, yes = gateway.reject("not stored"), gateway.acknowledge()
    answers = [(said.status, said.body.encode()) for said in (no, no, yes)]
    with receiving(*answers) as receiver:
        request = paid_payment(sandbox, gateway, receiver.url)
        wait_for(lambda: len(receiver.got) >= 3)

        def acknowledged() -> bool:
            notices = sandbox.trade(request.out_trade_no)["notices"]
            return len(notices[0]["deliveries"]) == 3 and notices[0]["state"] != "waiting"

        wait_for(acknowledged)
        ids = {gateway.read_notice(headers, body).notice_id for headers, body in receiver.got}
        assert (len(receiver.got), len(ids)) == (3, 1)


def test_the_same_prepay_again_is_safe(sandbox: Running, gateway: Gateway) -> None:
    request = prepay_request(gateway)
    first, second = gateway.prepay(request), gateway.prepay(request)
    assert (first.outcome, second.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    sandbox.post(f"/admin/trades/{request.out_trade_no}/pay")
    assert sandbox.trade(request.out_trade_no)["paid_count"] == 1


def test_a_payment_of_nothing_is_refused_for_good(gateway: Gateway) -> None:
    result = gateway.prepay(replace(prepay_request(gateway), amount_fen=0))
    assert result.outcome is Outcome.FAILED
    assert result.fault is not None


def test_a_number_used_with_another_amount_is_unknown_for_it_may_be_payable(
    gateway: Gateway,
) -> None:
    request = open_payment(gateway)
    assert gateway.prepay(replace(request, amount_fen=1)).outcome is Outcome.UNKNOWN
    assert gateway.query(request.out_trade_no).outcome is Outcome.PENDING


def test_an_unpaid_payment_is_closed_and_found_closed(gateway: Gateway) -> None:
    request = open_payment(gateway)
    assert gateway.close(request.out_trade_no).outcome is Outcome.SUCCEEDED
    assert gateway.query(request.out_trade_no).outcome is Outcome.FAILED
    assert gateway.prepay(request).outcome is Outcome.FAILED


def test_a_paid_payment_is_not_closed(sandbox: Running, gateway: Gateway) -> None:
    request = paid_payment(sandbox, gateway)
    assert gateway.close(request.out_trade_no).outcome is Outcome.FAILED
    assert gateway.query(request.out_trade_no).outcome is Outcome.SUCCEEDED


def test_a_payment_that_never_arrived_is_closed_and_does_not_exist(gateway: Gateway) -> None:
    unknown = number()
    assert gateway.close(unknown).outcome is Outcome.SUCCEEDED
    found = gateway.query(unknown)
    assert (found.outcome, found.exists) == (Outcome.PENDING, False)


def test_a_refund_is_done_once_however_often_it_is_asked(
    sandbox: Running, gateway: Gateway
) -> None:
    request = refund_request(paid_payment(sandbox, gateway))
    first = gateway.refund(request).outcome
    assert first is (Outcome.PENDING if gateway.channel == "wechatpay" else Outcome.SUCCEEDED)
    assert refunded(gateway, request).refund_id is not None
    again = gateway.refund(request).outcome
    assert again is (Outcome.SUCCEEDED if gateway.channel == "wechatpay" else Outcome.UNKNOWN)
    assert refunded(gateway, request).outcome is Outcome.SUCCEEDED
    assert sandbox.trade(request.out_trade_no)["refunded_fen"] == 888


def test_a_wholly_refunded_payment_was_paid(sandbox: Running, gateway: Gateway) -> None:
    request = refund_request(paid_payment(sandbox, gateway), refund_fen=8_888)
    gateway.refund(request)
    refunded(gateway, request)
    found = gateway.query(request.out_trade_no)
    assert (found.outcome, found.amount_fen) == (Outcome.SUCCEEDED, 8_888)
    assert found.trade_state == {"wechatpay": "REFUND", "alipay": "TRADE_CLOSED"}[gateway.channel]


def test_the_sandboxs_refund_notice_is_read(
    sandbox: Running, gateway: Gateway, receiver: Receiver
) -> None:
    request = refund_request(paid_payment(sandbox, gateway, receiver.url))
    gateway.refund(request)
    wait_for(lambda: len(receiver.got) >= 2)
    notices = [gateway.read_notice(headers, body) for headers, body in receiver.got]
    notice = next(found for found in notices if found.kind is NoticeKind.REFUND)
    assert (notice.outcome, notice.out_refund_no) == (Outcome.SUCCEEDED, request.out_refund_no)


def test_a_refund_of_an_unpaid_payment_may_yet_be_taken(gateway: Gateway) -> None:
    request = refund_request(open_payment(gateway))
    assert gateway.refund(request).outcome is Outcome.UNKNOWN
    found = gateway.query_refund(request.out_trade_no, request.out_refund_no)
    assert found.outcome is Outcome.UNKNOWN


def test_a_refund_that_the_balance_does_not_cover_is_not_failed(
    sandbox: Running, gateway: Gateway
) -> None:
    request = refund_request(paid_payment(sandbox, gateway))
    sandbox.post("/admin/balance", {"channel": gateway.channel, "available_fen": 0})
    try:
        assert gateway.refund(request).outcome is Outcome.UNKNOWN
    finally:
        sandbox.post("/admin/balance", {"channel": gateway.channel, "available_fen": None})
    gateway.refund(request)
    refunded(gateway, request)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["http500", "drop_before_effect", "drop_after_effect"])
def test_a_lost_answer_is_unknown(sandbox: Running, gateway: Gateway, call: str, kind: str) -> None:
    payment = open_payment(gateway)
    sandbox.fault(gateway.channel, call, kind)
    assert ask(gateway, call, payment) is Outcome.UNKNOWN
    assert sandbox.get("/admin/faults")["faults"] == []


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["hang", "slow"])
def test_a_gateway_that_does_not_answer_in_time_is_unknown(
    sandbox: Running, settings: Settings, channel: str, call: str, kind: str
) -> None:
    payment = open_payment(connect(settings, channel))
    impatient = connect(settings, channel, read_timeout_ms=250)
    sandbox.fault(channel, call, kind, delay_ms=60_000)
    assert ask(impatient, call, payment) is Outcome.UNKNOWN


def test_a_prepay_whose_answer_was_lost_is_asked_again_under_its_number(
    sandbox: Running, gateway: Gateway
) -> None:
    request = prepay_request(gateway)
    sandbox.fault(gateway.channel, "prepay", "drop_after_effect")
    assert gateway.prepay(request).outcome is Outcome.UNKNOWN
    assert gateway.query(request.out_trade_no).outcome is Outcome.PENDING
    assert gateway.prepay(request).outcome is Outcome.SUCCEEDED
    sandbox.post(f"/admin/trades/{request.out_trade_no}/pay")
    assert gateway.query(request.out_trade_no).outcome is Outcome.SUCCEEDED
    assert sandbox.trade(request.out_trade_no)["paid_count"] == 1


def test_a_close_whose_answer_was_lost_is_told_by_a_query(
    sandbox: Running, gateway: Gateway
) -> None:
    request = open_payment(gateway)
    sandbox.fault(gateway.channel, "close", "drop_after_effect")
    assert gateway.close(request.out_trade_no).outcome is Outcome.UNKNOWN
    assert gateway.query(request.out_trade_no).outcome is Outcome.FAILED


def test_a_refund_whose_answer_was_lost_is_told_by_a_query_and_done_once(
    sandbox: Running, gateway: Gateway
) -> None:
    request = refund_request(paid_payment(sandbox, gateway))
    sandbox.fault(gateway.channel, "refund", "drop_after_effect")
    assert gateway.refund(request).outcome is Outcome.UNKNOWN
    refunded(gateway, request)
    gateway.refund(request)
    assert sandbox.trade(request.out_trade_no)["refunded_fen"] == 888


@dataclass
class ClockAhead:
    """The machine's clock, moved."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def test_in_certificate_mode_payments_go_on_over_a_change_of_the_platforms_certificate(
    sandbox: Running, settings: Settings, receiver: Receiver
) -> None:
    clock = ClockAhead()
    gateway = WeChatPay(
        replace(settings.wechatpay, public_key_id="", public_key_pem="", fetch_certs=True),
        connect_timeout_ms=5_000,
        read_timeout_ms=20_000,
        clock=clock,
    )
    sandbox.post("/admin/merchants/default/settings", {"wechatpay_notices": "certificate"})
    try:
        request = open_payment(gateway, receiver.url)
        sandbox.post("/admin/merchants/default/certificates", {"channel": "wechatpay"})
        clock.ahead = MIN_INTERVAL + timedelta(seconds=1)
        sandbox.post(f"/admin/trades/{request.out_trade_no}/pay")
        headers, body = wait_for(lambda: receiver.got[0] if receiver.got else None)
        assert gateway.read_notice(headers, body).out_trade_no == request.out_trade_no
        assert gateway.query(request.out_trade_no).outcome is Outcome.SUCCEEDED
    finally:
        sandbox.post("/admin/merchants/default/settings", {"wechatpay_notices": "public_key"})
