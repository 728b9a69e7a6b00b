"""WeChat Pay's four outcomes against a server that answers whatever a gateway could answer."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest

from shop.clock import SystemClock
from shop.gateways.base import (
    CloseResult,
    Outcome,
    PrepayRequest,
    PrepayResult,
    Product,
    QueryResult,
    RefundRequest,
    RefundResult,
)
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    gateway_server,
    wechatpay_envelope,
    wechatpay_error,
    wechatpay_reply,
)
from tests.integration.keys import new_key_pair, wechatpay_keys
from tests.integration.third_party import wechatpay_transaction

KEYS = wechatpay_keys()
NUMBER, REFUND_NUMBER = "PO20260101000001", "RF20260101000001"
CALLS = ["prepay", "query", "close", "refund", "query_refund"]
Result = PrepayResult | QueryResult | CloseResult | RefundResult


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


@cache
def gateway_at(url: str, *, read_timeout_ms: int = 5_000) -> WeChatPay:
    return WeChatPay(
        KEYS.settings(url),
        connect_timeout_ms=2_000,
        read_timeout_ms=read_timeout_ms,
        clock=SystemClock(),
    )


def prepay_request(**changes: Any) -> PrepayRequest:
    request = PrepayRequest(
        out_trade_no=NUMBER,
        amount_fen=8_888,
        subject="保温杯",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        notify_url="http://127.0.0.1:8000/webhooks/wechatpay",
        product=Product.NATIVE,
    )
    return replace(request, **changes)


REFUND = RefundRequest(
    out_trade_no=NUMBER,
    out_refund_no=REFUND_NUMBER,
    refund_fen=100,
    total_fen=8_888,
    reason="多付的款",
    notify_url="http://127.0.0.1:8000/webhooks/wechatpay",
)


def ask(gateway: WeChatPay, call: str) -> Result:
    """Make one of the five calls."""
    if call == "prepay":
        return gateway.prepay(prepay_request())
    if call == "query":
        return gateway.query(NUMBER)
    if call == "close":
        return gateway.close(NUMBER)
    if call == "refund":
        return gateway.refund(REFUND)
    return gateway.query_refund(NUMBER, REFUND_NUMBER)


def good(call: str) -> Reply:
    """The answer that makes a call succeed."""
    if call == "prepay":
        return wechatpay_reply(KEYS, {"code_url": "weixin://wxpay/bizpayurl?pr=1"})
    if call == "query":
        return wechatpay_reply(KEYS, wechatpay_transaction(KEYS, NUMBER, 8_888))
    if call == "close":
        return wechatpay_reply(KEYS, status=204)
    return wechatpay_reply(KEYS, refund_object())


def refund_object(**changes: Any) -> dict[str, Any]:
    return {
        "refund_id": "50300000",
        "out_refund_no": REFUND_NUMBER,
        "out_trade_no": NUMBER,
        "transaction_id": "4200001234567890",
        "status": "SUCCESS",
        "amount": {"total": 8_888, "refund": 100, "currency": "CNY"},
        **changes,
    }


def outcome(result: Result) -> tuple[Outcome, str | None]:
    return result.outcome, result.fault.code if result.fault else None


@pytest.mark.parametrize("call", CALLS)
def test_a_good_answer_succeeds(server: GatewayServer, call: str) -> None:
    server.script = lambda _seen: good(call)
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.SUCCEEDED, None)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda reply: replace(reply, headers={}), "bad_signature"),
        (
            lambda reply: replace(
                reply, headers=wechatpay_envelope(KEYS, reply.body, age_s=301 + 5)
            ),
            "bad_signature",
        ),
        (
            lambda reply: replace(
                reply, headers=wechatpay_envelope(KEYS, reply.body, age_s=-301 - 5)
            ),
            "bad_signature",
        ),
        (
            lambda reply: replace(
                reply, headers=wechatpay_envelope(KEYS, reply.body, serial="PUB_KEY_ID_0")
            ),
            "bad_signature",
        ),
        (
            lambda reply: replace(
                reply,
                headers=wechatpay_envelope(
                    KEYS, reply.body, private_pem=new_key_pair().private_pem
                ),
            ),
            "bad_signature",
        ),
        (lambda _reply: wechatpay_reply(KEYS, ["nonsense"]), "bad_answer"),
        (lambda _reply: Reply(status=200, body=b"<html>"), "bad_signature"),
        (lambda _reply: Reply(status=302, headers={"Location": "/elsewhere"}), "bad_answer"),
        (lambda _reply: Reply(status=404, body=b"<html>"), "bad_answer"),
        (lambda _reply: Reply(status=502, body=b"<html>"), "server_error"),
        (lambda _reply: wechatpay_error(500, "SYSTEM_ERROR"), "SYSTEM_ERROR"),
        (lambda _reply: wechatpay_error(500, "PARAM_ERROR"), "PARAM_ERROR"),
        (lambda _reply: wechatpay_error(429, "FREQUENCY_LIMITED"), "FREQUENCY_LIMITED"),
        (lambda _reply: wechatpay_error(429, "ORDER_CLOSED"), "ORDER_CLOSED"),
        (lambda _reply: wechatpay_error(401, "SIGN_ERROR"), "SIGN_ERROR"),
        (lambda _reply: wechatpay_error(400, "NEVER_HEARD_OF"), "NEVER_HEARD_OF"),
    ],
)
def test_an_answer_that_proves_nothing_is_unknown(
    server: GatewayServer, call: str, spoil: Any, code: str
) -> None:
    server.script = lambda _seen: spoil(good(call))
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.UNKNOWN, code)


@pytest.mark.parametrize("call", CALLS)
def test_no_certificates_are_ever_fetched(server: GatewayServer, call: str) -> None:
    server.script = lambda _seen: replace(
        good(call), headers=wechatpay_envelope(KEYS, good(call).body, serial="444F4864EA9B3441")
    )
    ask(gateway_at(server.url), call)
    assert len(server.requests) == 1
    assert "certificates" not in server.requests[0].target


@pytest.mark.parametrize(
    ("call", "status", "code", "expected"),
    [
        ("prepay", 400, "PARAM_ERROR", Outcome.FAILED),
        ("prepay", 400, "ORDER_CLOSED", Outcome.FAILED),
        ("prepay", 400, "APPID_MCHID_NOT_MATCH", Outcome.FAILED),
        ("prepay", 403, "OUT_TRADE_NO_USED", Outcome.UNKNOWN),
        ("prepay", 400, "INVALID_REQUEST", Outcome.UNKNOWN),
        ("query", 404, "ORDER_NOT_EXIST", Outcome.PENDING),
        ("close", 400, "ORDERPAID", Outcome.FAILED),
        ("close", 400, "ORDER_PAID", Outcome.FAILED),
        ("close", 400, "ORDER_CLOSED", Outcome.SUCCEEDED),
        ("close", 404, "ORDER_NOT_EXIST", Outcome.SUCCEEDED),
        ("refund", 400, "PARAM_ERROR", Outcome.FAILED),
        ("refund", 403, "USER_ACCOUNT_ABNORMAL", Outcome.FAILED),
        ("refund", 403, "NOT_ENOUGH", Outcome.UNKNOWN),
        ("refund", 404, "RESOURCE_NOT_EXISTS", Outcome.UNKNOWN),
        ("query_refund", 404, "RESOURCE_NOT_EXISTS", Outcome.UNKNOWN),
    ],
)
def test_an_error_code_means_what_the_table_says(
    server: GatewayServer, call: str, status: int, code: str, expected: Outcome
) -> None:
    server.script = lambda _seen: wechatpay_error(status, code)
    assert outcome(ask(gateway_at(server.url), call)) == (expected, code)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("SUCCESS", Outcome.SUCCEEDED),
        ("REFUND", Outcome.SUCCEEDED),
        ("NOTPAY", Outcome.PENDING),
        ("USERPAYING", Outcome.PENDING),
        ("ACCEPT", Outcome.PENDING),
        ("CLOSED", Outcome.FAILED),
        ("REVOKED", Outcome.FAILED),
        ("PAYERROR", Outcome.FAILED),
        ("NEVER_HEARD_OF", Outcome.UNKNOWN),
    ],
)
def test_a_queried_state_means_what_the_table_says(
    server: GatewayServer, state: str, expected: Outcome
) -> None:
    transaction = wechatpay_transaction(KEYS, NUMBER, 8_888, trade_state=state)
    server.script = lambda _seen: wechatpay_reply(KEYS, transaction)
    result = gateway_at(server.url).query(NUMBER)
    assert result.outcome is expected
    if expected is Outcome.SUCCEEDED:
        assert (result.transaction_id, result.amount_fen) == (transaction["transaction_id"], 8_888)
        assert result.paid_at == datetime(2026, 1, 1, 4, 0, tzinfo=UTC)


def test_an_order_that_never_arrived_is_pending_and_does_not_exist(server: GatewayServer) -> None:
    server.script = lambda _seen: wechatpay_error(404, "ORDER_NOT_EXIST")
    result = gateway_at(server.url).query(NUMBER)
    assert (result.outcome, result.exists) == (Outcome.PENDING, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"mchid": "1900000000"},
        {"appid": "wx0"},
        {"out_trade_no": "PO2"},
        {"amount": {"total": 8_888, "currency": "USD"}},
        {"amount": {"total": "8888", "currency": "CNY"}},
        {"amount": None},
        {"transaction_id": ""},
        {"trade_state": None},
    ],
)
def test_a_well_signed_answer_about_something_else_is_unknown(
    server: GatewayServer, changes: dict[str, object]
) -> None:
    transaction = wechatpay_transaction(KEYS, NUMBER, 8_888) | changes
    server.script = lambda _seen: wechatpay_reply(KEYS, transaction)
    assert outcome(gateway_at(server.url).query(NUMBER)) == (Outcome.UNKNOWN, "bad_answer")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "PROCESSING"}, (Outcome.PENDING, None)),
        ({"status": "ABNORMAL"}, (Outcome.PENDING, "ABNORMAL")),
        ({"status": "CLOSED"}, (Outcome.FAILED, "CLOSED")),
        ({"status": "NEVER_HEARD_OF"}, (Outcome.UNKNOWN, "bad_answer")),
        ({"out_refund_no": "RF2"}, (Outcome.UNKNOWN, "bad_answer")),
        ({"out_trade_no": "PO2"}, (Outcome.UNKNOWN, "bad_answer")),
    ],
)
@pytest.mark.parametrize("call", ["refund", "query_refund"])
def test_a_refund_is_read_by_its_status_and_numbers(
    server: GatewayServer,
    call: str,
    changes: dict[str, str],
    expected: tuple[Outcome, str | None],
) -> None:
    server.script = lambda _seen: wechatpay_reply(KEYS, refund_object(**changes))
    assert outcome(ask(gateway_at(server.url), call)) == expected


def test_a_refund_of_another_amount_is_not_ours(server: GatewayServer) -> None:
    other = refund_object(amount={"total": 8_888, "refund": 200, "currency": "CNY"})
    server.script = lambda _seen: wechatpay_reply(KEYS, other)
    assert outcome(ask(gateway_at(server.url), "refund")) == (Outcome.UNKNOWN, "bad_answer")


def test_a_prepay_says_what_the_gateway_needs_and_no_more(server: GatewayServer) -> None:
    server.script = lambda _seen: good("prepay")
    expires_at = datetime(2030, 1, 1, 0, 0, 59, 999_999, tzinfo=UTC)
    gateway_at(server.url).prepay(prepay_request(subject="杯" * 60, expires_at=expires_at))
    sent = json.loads(server.requests[0].body)
    assert sent == {
        "appid": KEYS.appid,
        "mchid": KEYS.mchid,
        "description": "杯" * 42,
        "out_trade_no": NUMBER,
        "time_expire": "2030-01-01T08:00:59+08:00",
        "notify_url": "http://127.0.0.1:8000/webhooks/wechatpay",
        "amount": {"total": 8_888, "currency": "CNY"},
    }


@pytest.mark.parametrize("call", CALLS)
def test_a_refused_connection_is_unknown(call: str) -> None:
    with gateway_server() as gone:
        url = gone.url
    assert outcome(ask(gateway_at(url), call)) == (Outcome.UNKNOWN, "unreachable")


def test_a_name_that_cannot_be_found_is_unknown() -> None:
    result = gateway_at("http://gateway.invalid").query(NUMBER)
    assert outcome(result) == (Outcome.UNKNOWN, "unreachable")


@pytest.mark.parametrize("call", CALLS)
def test_a_silent_gateway_is_unknown(server: GatewayServer, call: str) -> None:
    def silent(_seen: object) -> Reply:
        server.stopping.wait()
        return Reply()

    server.script = silent
    result = ask(gateway_at(server.url, read_timeout_ms=150), call)
    assert outcome(result) == (Outcome.UNKNOWN, "timeout")


def test_an_answer_that_drips_without_end_is_unknown(server: GatewayServer) -> None:
    # Each byte comes well within the read time-out; all of them never would.
    server.drip_s = 0.1
    server.script = lambda _seen: Reply(body=b" " * 1_000_000)
    result = gateway_at(server.url, read_timeout_ms=400).query(NUMBER)
    assert outcome(result) == (Outcome.UNKNOWN, "timeout")


def test_an_answer_beyond_the_bound_is_unknown(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(body=b" " * (1024 * 1024 + 1))
    assert outcome(gateway_at(server.url).query(NUMBER)) == (Outcome.UNKNOWN, "bad_answer")


def test_a_redirect_is_not_followed(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(status=307, headers={"Location": server.url + "/other"})
    ask(gateway_at(server.url), "refund")
    assert len(server.requests) == 1


def test_a_proxy_in_the_environment_is_not_obeyed(
    server: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.script = lambda _seen: good("query")
    assert gateway_at(server.url).query(NUMBER).outcome is Outcome.SUCCEEDED


def test_calls_after_each_other_share_a_connection(server: GatewayServer) -> None:
    server.script = lambda seen: good("query" if seen.method == "GET" else "close")
    gateway, before = gateway_at(server.url), server.connections
    gateway.query(NUMBER)
    for _ in range(5):
        assert gateway.query(NUMBER).outcome is Outcome.SUCCEEDED
        assert gateway.close(NUMBER).outcome is Outcome.SUCCEEDED
    assert server.connections <= before + 1


def test_one_gateway_serves_many_threads_each_its_own_answer(server: GatewayServer) -> None:
    def paid(seen: Any) -> Reply:
        number = seen.target.split("/")[-1].split("?")[0]
        return wechatpay_reply(KEYS, wechatpay_transaction(KEYS, number, int(number[2:])))

    server.script = paid
    gateway = gateway_at(server.url)
    start = threading.Barrier(8)

    def asked(first: int) -> list[int | None]:
        start.wait()
        return [gateway.query(f"PO{first + n:06d}").amount_fen for n in range(10)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(asked, range(1_000, 9_000, 1_000)))
    assert found == [[first + n for n in range(10)] for first in range(1_000, 9_000, 1_000)]


def test_a_number_that_would_change_the_signed_path_is_never_sent(server: GatewayServer) -> None:
    with pytest.raises(ValueError, match="number"):
        gateway_at(server.url).query("a/../b")
    assert server.requests == []


def test_the_answers_to_a_callback_have_the_gateways_own_form() -> None:
    gateway = gateway_at("http://127.0.0.1:9")
    yes, no = gateway.acknowledge(), gateway.reject('did "not" fit\n')
    assert (yes.status, yes.content_type) == (200, "application/json")
    assert json.loads(yes.body)["code"] == "SUCCESS"
    assert no.status == 500
    assert json.loads(no.body) == {"code": "FAIL", "message": 'did "not" fit'}
