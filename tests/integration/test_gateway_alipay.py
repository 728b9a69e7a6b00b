"""Alipay's four outcomes against a server that answers whatever a gateway could answer."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import (
    CancelAction,
    CancelResult,
    CloseResult,
    Outcome,
    PrepayRequest,
    PrepayResult,
    Product,
    QueryResult,
    RefundRequest,
    RefundResult,
)
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    Seen,
    alipay_reply,
    gateway_server,
)
from tests.integration.keys import alipay_keys, new_key_pair

KEYS = alipay_keys()
NUMBER, REFUND_NUMBER = "PO20260101000001", "RF20260101000001"
METHODS = {
    "prepay": "alipay.trade.precreate",
    "query": "alipay.trade.query",
    "close": "alipay.trade.close",
    "refund": "alipay.trade.refund",
    "query_refund": "alipay.trade.fastpay.refund.query",
    "cancel": "alipay.trade.cancel",
}
FIELDS = [
    *("code", "sub_code", "trade_no", "trade_status", "total_amount", "send_pay_date", "qr_code"),
    *("fund_change", "refund_status", "out_request_no", "retry_flag", "action"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
OTHERS = st.dictionaries(st.sampled_from(FIELDS), JSON).map(
    lambda fields: {"code": "10000", **fields, "out_trade_no": "PO2"}
)
CALLS = st.sampled_from(list(METHODS))
Result = PrepayResult | QueryResult | CloseResult | RefundResult | CancelResult


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


@cache
def gateway_at(url: str, *, read_timeout_ms: int = 5_000) -> Alipay:
    return Alipay(
        KEYS.settings(f"{url}/gateway.do"),
        connect_timeout_ms=2_000,
        read_timeout_ms=read_timeout_ms,
        clock=SystemClock(),
    )


def ask(gateway: Alipay, call: str) -> Result:
    """Make one of the calls."""
    if call == "prepay":
        return gateway.prepay(
            PrepayRequest(
                out_trade_no=NUMBER,
                amount_fen=8_888,
                subject="保温杯 {A/B} = C&D",
                expires_at=datetime.now(UTC) + timedelta(minutes=30),
                notify_url="http://127.0.0.1:8000/webhooks/alipay",
                product=Product.PRECREATE,
            )
        )
    if call == "query":
        return gateway.query(NUMBER)
    if call == "close":
        return gateway.close(NUMBER)
    if call == "cancel":
        return gateway.cancel(NUMBER)
    if call == "refund":
        return gateway.refund(
            RefundRequest(
                out_trade_no=NUMBER,
                out_refund_no=REFUND_NUMBER,
                refund_fen=100,
                total_fen=8_888,
                reason="多付的款",
                notify_url="http://127.0.0.1:8000/webhooks/alipay",
            )
        )
    return gateway.query_refund(NUMBER, REFUND_NUMBER)


def good_fields(call: str) -> dict[str, Any]:
    """The fields that make a call succeed."""
    fields: dict[str, dict[str, str]] = {
        "prepay": {"qr_code": "https://qr.alipay.com/bax03431ljhokirwl38f00a7"},
        "query": {
            "trade_no": "2026010122001",
            "trade_status": "TRADE_SUCCESS",
            "total_amount": "88.88",
            "send_pay_date": "2026-01-01 12:00:00",
        },
        "close": {"trade_no": "2026010122001"},
        "refund": {"trade_no": "2026010122001", "fund_change": "Y", "refund_fee": "1.00"},
        "query_refund": {"out_request_no": REFUND_NUMBER, "refund_status": "REFUND_SUCCESS"},
        "cancel": {"trade_no": "2026010122001", "retry_flag": "N", "action": "close"},
    }
    return {"code": "10000", "msg": "Success", "out_trade_no": NUMBER, **fields[call]}


def answer_with(server: GatewayServer, call: str, fields: Any) -> None:
    server.script = lambda _seen: alipay_reply(KEYS, METHODS[call], fields)


def business_error(sub_code: str) -> dict[str, str]:
    return {"code": "40004", "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "说明"}


def outcome(result: Result) -> tuple[Outcome, str | None]:
    return result.outcome, result.fault.code if result.fault else None


def asked(seen: Seen) -> dict[str, str]:
    return dict(parse_qsl(seen.body.decode()))


@pytest.mark.parametrize("call", METHODS)
def test_a_good_answer_succeeds(server: GatewayServer, call: str) -> None:
    answer_with(server, call, good_fields(call))
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.SUCCEEDED, None)
    assert asked(server.requests[0])["method"] == METHODS[call]


@pytest.mark.parametrize("call", METHODS)
def test_braces_inside_an_answers_strings_do_no_harm(server: GatewayServer, call: str) -> None:
    fields = {**good_fields(call), "msg": '}{ "alipay_trade_query_response":{'}
    answer_with(server, call, fields)
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.SUCCEEDED, None)


@pytest.mark.parametrize("call", METHODS)
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda name, _: Reply(body=f'{{"{name}":{{"code":"10000"}}}}'.encode()), "bad_signature"),
        (
            lambda name, _: Reply(
                body=f'{{"{name}":{{"code":"40002","sub_code":"isv.invalid-signature"}}}}'.encode()
            ),
            "bad_signature",
        ),
        (
            lambda name, good: Reply(body=good.body.replace(b'"code": "10000"', b'"code":"10000"')),
            "bad_signature",
        ),
        (lambda name, good: Reply(body=good.body.replace(b'"sign":"', b'"sign":"A')), None),
        (lambda *_: Reply(body=b"<html>"), "bad_answer"),
        (lambda *_: Reply(body=b"[]"), "bad_answer"),
        (lambda *_: Reply(body=b"\xff"), "bad_answer"),
        (lambda *_: Reply(body=b"[" * 100_000), "bad_answer"),
        (lambda *_: Reply(status=302, headers={"Location": "/elsewhere"}), "bad_answer"),
        (lambda *_: Reply(status=503, body=b"busy"), "server_error"),
    ],
)
def test_an_answer_that_proves_nothing_is_unknown(
    server: GatewayServer, call: str, make: Any, code: str | None
) -> None:
    good = alipay_reply(KEYS, METHODS[call], good_fields(call))
    name = METHODS[call].replace(".", "_") + "_response"
    server.script = lambda _seen: make(name, good)
    found = outcome(ask(gateway_at(server.url), call))
    assert found[0] is Outcome.UNKNOWN
    assert found[1] == code or (code is None and found[1] in {"bad_signature", "bad_answer"})


@pytest.mark.parametrize("call", METHODS)
def test_an_answer_signed_with_a_strange_key_is_unknown(server: GatewayServer, call: str) -> None:
    strange = replace(KEYS, alipay=new_key_pair())
    server.script = lambda _seen: alipay_reply(strange, METHODS[call], good_fields(call))
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.UNKNOWN, "bad_signature")


@pytest.mark.parametrize("call", METHODS)
@pytest.mark.parametrize(
    ("code", "sub_code"),
    [
        ("20000", "isp.unknow-error"),
        ("40002", "isv.invalid-signature"),
        ("40005", "isv.call-limited"),
        ("40006", "isv.insufficient-isv-permissions"),
        ("40004", "ACQ.SYSTEM_ERROR"),
        ("40004", "ACQ.NEVER_HEARD_OF"),
        ("20000", "ACQ.INVALID_PARAMETER"),
    ],
)
def test_a_signed_error_that_proves_nothing_is_unknown(
    server: GatewayServer, call: str, code: str, sub_code: str
) -> None:
    answer_with(server, call, {"code": code, "msg": "m", "sub_code": sub_code, "sub_msg": "s"})
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.UNKNOWN, sub_code)


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        ("prepay", "ACQ.INVALID_PARAMETER", Outcome.FAILED),
        ("prepay", "ACQ.TOTAL_FEE_EXCEED", Outcome.FAILED),
        ("prepay", "ACQ.TRADE_HAS_CLOSE", Outcome.FAILED),
        ("prepay", "ACQ.TRADE_HAS_SUCCESS", Outcome.UNKNOWN),
        ("query", "ACQ.TRADE_NOT_EXIST", Outcome.PENDING),
        ("close", "ACQ.TRADE_NOT_EXIST", Outcome.SUCCEEDED),
        ("close", "ACQ.TRADE_STATUS_ERROR", Outcome.FAILED),
        ("close", "ACQ.REASON_TRADE_STATUS_INVALID", Outcome.FAILED),
        ("close", "ACQ.REASON_ILLEGAL_STATUS", Outcome.FAILED),
        ("refund", "ACQ.INVALID_PARAMETER", Outcome.FAILED),
        ("refund", "ACQ.DISCORDANT_REPEAT_REQUEST", Outcome.UNKNOWN),
        ("refund", "ACQ.TRADE_NOT_EXIST", Outcome.UNKNOWN),
        ("query_refund", "ACQ.TRADE_NOT_EXIST", Outcome.UNKNOWN),
        ("cancel", "ACQ.TRADE_NOT_EXIST", Outcome.UNKNOWN),
        ("cancel", "ACQ.SELLER_BALANCE_NOT_ENOUGH", Outcome.UNKNOWN),
        ("cancel", "ACQ.TRADE_HAS_FINISHED", Outcome.FAILED),
    ],
)
def test_a_business_error_means_what_the_table_says(
    server: GatewayServer, call: str, code: str, expected: Outcome
) -> None:
    answer_with(server, call, business_error(code))
    assert outcome(ask(gateway_at(server.url), call)) == (expected, code)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (Outcome.SUCCEEDED, CancelAction.CLOSE, False)),
        ({"action": "refund"}, (Outcome.SUCCEEDED, CancelAction.REFUND, False)),
        ({"action": None}, (Outcome.SUCCEEDED, CancelAction.NONE, False)),
        ({"action": "shrug"}, (Outcome.UNKNOWN, CancelAction.NONE, False)),
        ({"retry_flag": "Y"}, (Outcome.UNKNOWN, CancelAction.NONE, True)),
        ({"retry_flag": "Y", "action": "refund"}, (Outcome.UNKNOWN, CancelAction.NONE, True)),
    ],
)
def test_a_cancellation_says_what_it_did(
    server: GatewayServer, changes: dict[str, str], expected: tuple[Outcome, CancelAction, bool]
) -> None:
    answer_with(server, "cancel", {**good_fields("cancel"), **changes})
    result = gateway_at(server.url).cancel(NUMBER)
    assert (result.outcome, result.action, result.retry) == expected


def test_an_unscanned_code_is_pending_and_does_not_exist(server: GatewayServer) -> None:
    answer_with(server, "query", business_error("ACQ.TRADE_NOT_EXIST"))
    result = gateway_at(server.url).query(NUMBER)
    assert (result.outcome, result.exists) == (Outcome.PENDING, False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Outcome.SUCCEEDED),
        ({"trade_status": "TRADE_FINISHED"}, Outcome.SUCCEEDED),
        ({"trade_status": "WAIT_BUYER_PAY", "send_pay_date": None}, Outcome.PENDING),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": None}, Outcome.FAILED),
        ({"trade_status": "TRADE_CLOSED"}, Outcome.SUCCEEDED),
        ({"trade_status": "NEVER_HEARD_OF"}, Outcome.UNKNOWN),
    ],
)
def test_a_queried_state_means_what_the_table_says(
    server: GatewayServer, changes: dict[str, str | None], expected: Outcome
) -> None:
    fields = {**good_fields("query"), **changes}
    answer_with(server, "query", {key: value for key, value in fields.items() if value})
    result = gateway_at(server.url).query(NUMBER)
    assert result.outcome is expected
    if expected is Outcome.SUCCEEDED:
        assert (result.transaction_id, result.amount_fen) == ("2026010122001", 8_888)
        assert result.paid_at == datetime(2026, 1, 1, 4, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "PO2"},
        {"total_amount": "88.888"},
        {"total_amount": 88.88},
        {"total_amount": "0.00"},
        {"trade_no": ""},
        {"trade_status": None},
    ],
)
def test_a_well_signed_answer_about_something_else_is_unknown(
    server: GatewayServer, changes: dict[str, object]
) -> None:
    answer_with(server, "query", {**good_fields("query"), **changes})
    assert outcome(gateway_at(server.url).query(NUMBER)) == (Outcome.UNKNOWN, "bad_answer")


@pytest.mark.parametrize("call", METHODS)
def test_another_payments_answer_is_unknown(server: GatewayServer, call: str) -> None:
    answer_with(server, call, {**good_fields(call), "out_trade_no": "PO2"})
    assert outcome(ask(gateway_at(server.url), call)) == (Outcome.UNKNOWN, "bad_answer")


@pytest.mark.parametrize("change", ["N", "", None])
def test_a_refund_that_moved_no_money_now_is_to_be_queried(
    server: GatewayServer, change: str | None
) -> None:
    answer_with(server, "refund", {**good_fields("refund"), "fund_change": change})
    assert outcome(ask(gateway_at(server.url), "refund")) == (Outcome.UNKNOWN, "no_fund_change")


def test_a_refund_query_without_a_status_says_nothing(server: GatewayServer) -> None:
    answer_with(server, "query_refund", {"code": "10000", "msg": "Success"})
    found = outcome(ask(gateway_at(server.url), "query_refund"))
    assert found == (Outcome.UNKNOWN, "no_refund_status")


def test_another_refunds_answer_is_unknown(server: GatewayServer) -> None:
    answer_with(server, "query_refund", {**good_fields("query_refund"), "out_request_no": "RF2"})
    found = outcome(ask(gateway_at(server.url), "query_refund"))
    assert found == (Outcome.UNKNOWN, "bad_answer")


@examples(deadline=None, max_examples=60)
@given(CALLS, st.binary() | st.text().map(str.encode) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_as_an_answer_are_unknown(running: GatewayServer, call: str, body: bytes) -> None:
    running.script = lambda _seen: Reply(body=body)
    result = ask(gateway_at(running.url), call)
    assert result.outcome is Outcome.UNKNOWN
    assert result.fault is not None


@examples(deadline=None, max_examples=80)
@given(CALLS, JSON | OTHERS)
def test_any_well_signed_json_about_nothing_of_ours_is_unknown(
    running: GatewayServer, call: str, told: object
) -> None:
    answer_with(running, call, told)
    assert ask(gateway_at(running.url), call).outcome is Outcome.UNKNOWN


def test_a_precreate_says_what_the_gateway_needs(server: GatewayServer) -> None:
    ask(gateway_at(server.url), "prepay")
    params = asked(server.requests[0])
    content = json.loads(params["biz_content"])
    assert params["notify_url"] == "http://127.0.0.1:8000/webhooks/alipay"
    assert (params["app_id"], params["sign_type"]) == (KEYS.app_id, "RSA2")
    assert content.pop("time_expire") > params["timestamp"]
    assert content == {
        "out_trade_no": NUMBER,
        "total_amount": "88.88",
        "subject": "保温杯 ｛A／B｝ ＝ C＆D",
        "product_code": "QR_CODE_OFFLINE",
    }


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", "Asia/Shanghai"])
def test_requests_carry_chinese_time_whatever_the_processs_zone(
    server: GatewayServer, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        ask(gateway_at(server.url), "query")
    finally:
        monkeypatch.undo()
        time.tzset()
    stamp = datetime.fromisoformat(asked(server.requests[0])["timestamp"] + "+08:00")
    assert abs(datetime.now(UTC) - stamp) < timedelta(minutes=5)


@pytest.mark.parametrize("call", METHODS)
def test_a_refused_connection_is_unknown(call: str) -> None:
    with gateway_server() as gone:
        url = gone.url
    result = ask(gateway_at(url), call)
    assert outcome(result) == (Outcome.UNKNOWN, "unreachable")
    if isinstance(result, PrepayResult):
        assert not result.sent


@pytest.mark.parametrize("call", METHODS)
def test_a_silent_gateway_is_unknown(server: GatewayServer, call: str) -> None:
    def silent(_seen: Seen) -> Reply:
        server.stopping.wait()
        return Reply()

    server.script = silent
    result = ask(gateway_at(server.url, read_timeout_ms=150), call)
    assert outcome(result) == (Outcome.UNKNOWN, "timeout")
    if isinstance(result, PrepayResult):
        assert result.sent


def test_a_proxy_in_the_environment_is_not_obeyed(
    server: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answer_with(server, "query", good_fields("query"))
    assert gateway_at(server.url).query(NUMBER).outcome is Outcome.SUCCEEDED


def test_the_answers_to_a_callback_have_the_gateways_own_form() -> None:
    gateway = gateway_at("http://127.0.0.1:9")
    yes, no = gateway.acknowledge(), gateway.reject("did not fit")
    assert (yes.status, yes.body, yes.content_type) == (200, "success", "text/plain")
    assert no.body != "success"
