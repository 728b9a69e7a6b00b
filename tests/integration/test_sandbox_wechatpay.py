"""WeChat Pay in the sandbox: driven by the library the shop uses, and by requests gone wrong."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.sandbox_kit import (
    BEIJING,
    Merchant,
    Running,
    number,
    running,
    wechatpay_signed,
)
from tests.processes import wait_until

NATIVE = "/v3/pay/transactions/native"
NOTIFY = "http://127.0.0.1:9/notify"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture(scope="module")
def client(merchant: Merchant) -> Any:
    return merchant.wechatpay()


def opened(client: Any, total: int = 888, **more: Any) -> str:
    """Open a payment and give its number."""
    out_trade_no = number()
    status, text = client.pay("测试商品", out_trade_no, {"total": total}, **more)
    assert status == 200, text
    return out_trade_no


def answer(result: tuple[int, Any]) -> tuple[int, Any]:
    """(status, the answer's JSON or None)."""
    status, text = result
    return status, json.loads(text) if text else None


def code_of(result: tuple[int, Any]) -> tuple[int, str]:
    """(status, error code)."""
    status, content = answer(result)
    return status, content["code"]


def test_an_opened_payment_is_notpay_and_bears_no_transaction_yet(client: Any) -> None:
    out_trade_no = opened(client)
    status, trade = answer(client.query(out_trade_no=out_trade_no))
    assert status == 200
    assert trade["trade_state"] == "NOTPAY"
    assert trade["amount"]["total"] == 888
    assert {"transaction_id", "success_time", "payer"}.isdisjoint(trade)


def test_a_paid_payment_is_success_by_both_numbers(server: Running, client: Any) -> None:
    out_trade_no = opened(client)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    _, trade = answer(client.query(out_trade_no=out_trade_no))
    assert trade["trade_state"] == "SUCCESS"
    assert datetime.fromisoformat(trade["success_time"]).utcoffset() == timedelta(hours=8)
    assert answer(client.query(transaction_id=trade["transaction_id"])) == (200, trade)


def test_a_number_nobody_used_is_order_not_exist(client: Any) -> None:
    assert code_of(client.query(out_trade_no=number())) == (404, "ORDER_NOT_EXIST")
    assert code_of(client.close(number())) == (404, "ORDER_NOT_EXIST")


def test_the_same_prepay_again_gives_a_new_code_and_the_old_one_dies(client: Any) -> None:
    out_trade_no = number()
    urls = [answer(client.pay("一样", out_trade_no, {"total": 1}))[1]["code_url"] for _ in range(2)]
    assert urls[0] != urls[1]
    old, new = (requests.get(url, timeout=20).text for url in urls)
    assert 'data-state="dead"' in old
    assert 'id="pay"' not in old
    assert 'data-state="open"' in new


@pytest.mark.parametrize(
    ("description", "total"), [("另外", 5), ("一样", 6)], ids=["description", "amount"]
)
def test_the_same_number_with_other_parameters_is_refused(
    client: Any, description: str, total: int
) -> None:
    out_trade_no = number()
    client.pay("一样", out_trade_no, {"total": 5})
    again = client.pay(description, out_trade_no, {"total": total})
    assert code_of(again) == (403, "OUT_TRADE_NO_USED")


def test_a_paid_number_cannot_be_opened_again(server: Running, client: Any) -> None:
    out_trade_no = opened(client)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    again = client.pay("测试商品", out_trade_no, {"total": 888})
    assert code_of(again) == (403, "OUT_TRADE_NO_USED")


def test_closing_is_signed_empty_and_can_be_repeated(
    server: Running, merchant: Merchant, client: Any
) -> None:
    out_trade_no = opened(client)
    body = json.dumps({"mchid": merchant.env["WECHATPAY_MCHID"]}).encode()
    for _ in range(2):
        closed = merchant.wechatpay_request(
            "POST", f"/v3/pay/transactions/out-trade-no/{out_trade_no}/close", body
        )
        assert (closed.status_code, closed.content) == (204, b"")
        assert wechatpay_signed(merchant, closed.headers, b"")
    assert answer(client.query(out_trade_no=out_trade_no))[1]["trade_state"] == "CLOSED"
    assert code_of(client.pay("测试商品", out_trade_no, {"total": 888})) == (400, "ORDER_CLOSED")
    paid = requests.post(f"{server.url}/admin/trades/{out_trade_no}/pay", timeout=20)
    assert paid.status_code == 409


def test_a_paid_payment_cannot_be_closed(server: Running, client: Any) -> None:
    out_trade_no = opened(client)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    assert code_of(client.close(out_trade_no)) == (400, "ORDER_PAID")
    assert answer(client.query(out_trade_no=out_trade_no))[1]["trade_state"] == "SUCCESS"


def test_the_other_reading_of_the_sources_on_closing_can_be_chosen(tmp_path: Path) -> None:
    wished = {"wechatpay_close_paid_code": "ORDERPAID", "wechatpay_close_unknown_as_204": True}
    with running(tmp_path, **wished) as server:
        client = Merchant(server.data).wechatpay()
        out_trade_no = opened(client)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        assert code_of(client.close(out_trade_no)) == (400, "ORDERPAID")
        assert client.close(number())[0] == 204


def test_a_payment_is_taken_once_however_often_the_member_pays(
    server: Running, client: Any
) -> None:
    out_trade_no = opened(client)
    url = f"{server.url}/admin/trades/{out_trade_no}/pay"
    assert [requests.post(url, timeout=20).status_code for _ in range(3)] == [200, 409, 409]
    assert server.trade(out_trade_no)["paid_count"] == 1


def test_after_time_expire_nothing_can_be_paid_and_the_first_deadline_counts(
    server: Running, client: Any
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).astimezone(BEIJING)
    later = soon + timedelta(hours=1)
    out_trade_no = opened(client, time_expire=soon.isoformat(timespec="seconds"))
    again = client.pay(
        "测试商品", out_trade_no, {"total": 888}, time_expire=later.isoformat(timespec="seconds")
    )
    assert again[0] == 200
    wait_until(lambda: datetime.now(UTC) > soon, "the payment expires")
    refused = requests.post(f"{server.url}/admin/trades/{out_trade_no}/pay", timeout=20)
    assert refused.status_code == 409
    assert answer(client.query(out_trade_no=out_trade_no))[1]["trade_state"] == "NOTPAY"
    assert client.close(out_trade_no)[0] == 204


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("out_trade_no", "short"),
        ("out_trade_no", "with space"),
        ("out_trade_no", "x" * 33),
        ("description", ""),
        ("description", "长" * 128),
        ("amount", {"total": 0, "currency": "CNY"}),
        ("amount", {"total": 1.5, "currency": "CNY"}),
        ("amount", {"total": True, "currency": "CNY"}),
        ("amount", {"total": "1", "currency": "CNY"}),
        ("amount", {"total": 1, "currency": "USD"}),
        ("amount", None),
        ("notify_url", "http://127.0.0.1:9/n?order=1"),
        ("notify_url", "ftp://127.0.0.1/n"),
        ("notify_url", "http://["),
        ("time_expire", "tomorrow"),
        ("time_expire", "2020-01-01T00:00:00+08:00"),
        ("time_expire", "2099-01-01T00:00:00"),
        ("attach", "x" * 129),
        ("attach", "\ud800"),
        ("description", "\udfff"),
        ("out_trade_no", "ABCDEF\ud800"),
    ],
)
def test_a_wrong_field_is_a_param_error_that_names_it(
    merchant: Merchant, field: str, value: object
) -> None:
    body = merchant.native(number(), 1, NOTIFY) | {field: value}
    refused = merchant.wechatpay_request("POST", NATIVE, json.dumps(body).encode())
    assert (refused.status_code, refused.json()["code"]) == (400, "PARAM_ERROR")
    assert field in refused.json()["detail"]["field"]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"amount":NaN}', b"9" * 5_000]
)
def test_a_body_that_is_no_json_object_is_a_param_error(merchant: Merchant, body: bytes) -> None:
    refused = merchant.wechatpay_request("POST", NATIVE, body)
    assert (refused.status_code, refused.json()["code"]) == (400, "PARAM_ERROR")


def test_another_application_or_merchant_is_refused(merchant: Merchant) -> None:
    for field, code in (("appid", "APPID_MCHID_NOT_MATCH"), ("mchid", "INVALID_REQUEST")):
        body = merchant.native(number(), 1, NOTIFY) | {field: "other"}
        refused = merchant.wechatpay_request("POST", NATIVE, json.dumps(body).encode())
        assert (refused.status_code, refused.json()["code"]) == (400, code)


def test_an_answer_is_signed_over_its_raw_body(merchant: Merchant) -> None:
    body = json.dumps(merchant.native(number(), 1, NOTIFY)).encode()
    good = merchant.wechatpay_request("POST", NATIVE, body)
    assert good.status_code == 200
    assert wechatpay_signed(merchant, good.headers, good.content)
    assert not wechatpay_signed(merchant, good.headers, good.content + b" ")


def test_an_error_carries_no_wechatpay_headers(merchant: Merchant) -> None:
    target = f"/v3/pay/transactions/out-trade-no/{number()}"
    for refused in (
        merchant.wechatpay_request("GET", f"{target}?mchid={merchant.env['WECHATPAY_MCHID']}"),
        merchant.wechatpay_request("GET", target, mchid="1"),
    ):
        assert refused.status_code in {401, 404}
        assert not [name for name in refused.headers if name.lower().startswith("wechatpay")]


ALTERATIONS: list[dict[str, Any]] = [
    {"timestamp": -302},  # seconds from now, as soon as the test runs
    {"timestamp": 3_600},
    {"timestamp": "soon"},
    {"serial_no": "0" * 40},
    {"mchid": "1900000001"},
    {"nonce_str": ""},
    {"nonce_str": "n" * 33},
    {"nonce_str": "with-dash"},
    {"signature": ""},
    {"signature": "AAAA"},
    {"signature": "not base64!"},
    {"sent_target": NATIVE + "?extra=1"},
    {"headers": {"Authorization": "Basic abc"}},
    {"headers": {"Authorization": "WECHATPAY2-SHA256-RSA2048"}},
    {"headers": {"Authorization": 'WECHATPAY2-SHA256-RSA2048 mchid="1", serial_no="2"'}},
]


@pytest.mark.parametrize("altered", ALTERATIONS, ids=str)
def test_a_request_whose_authorization_does_not_hold_is_a_sign_error(
    server: Running, merchant: Merchant, altered: dict[str, Any]
) -> None:
    out_trade_no = number()
    body = json.dumps(merchant.native(out_trade_no, 1, NOTIFY)).encode()
    if isinstance(seconds := altered.get("timestamp"), int):
        altered = {"timestamp": str(int(time.time()) + seconds)}
    refused = merchant.wechatpay_request("POST", NATIVE, body, **altered)
    assert (refused.status_code, refused.json()["code"]) == (401, "SIGN_ERROR")
    found = requests.get(f"{server.url}/admin/trades/{out_trade_no}", timeout=20)
    assert found.status_code == 404


def test_any_flipped_byte_of_the_body_is_a_sign_error(merchant: Merchant) -> None:
    body = json.dumps(merchant.native(number(), 1, NOTIFY)).encode()
    for position in range(len(body)):
        altered = bytearray(body)
        altered[position] ^= 1
        refused = merchant.wechatpay_request("POST", NATIVE, body, sent_body=bytes(altered))
        assert (refused.status_code, refused.json()["code"]) == (401, "SIGN_ERROR"), position


def test_a_signature_of_another_method_or_query_does_not_serve(merchant: Merchant) -> None:
    target = f"/v3/pay/transactions/out-trade-no/{number()}?mchid="
    mine = merchant.env["WECHATPAY_MCHID"]
    refused = merchant.wechatpay_request("GET", target + "1", sent_target=target + mine)
    assert (refused.status_code, refused.json()["code"]) == (401, "SIGN_ERROR")


def test_a_key_that_the_platform_does_not_have_is_refused(merchant: Merchant) -> None:
    body = json.dumps(merchant.native(number(), 1, NOTIFY)).encode()
    wrong = {"Wechatpay-Serial": "PUB_KEY_ID_0000"}
    refused = merchant.wechatpay_request("POST", NATIVE, body, headers=wrong)
    assert (refused.status_code, refused.json()["code"]) == (400, "PARAM_ERROR")


def test_an_unknown_path_answers_in_the_gateways_form(server: Running) -> None:
    refused = requests.get(f"{server.url}/v3/nothing", timeout=20)
    assert (refused.status_code, refused.json()["code"]) == (404, "RESOURCE_NOT_EXISTS")


def paid_trade(server: Running, client: Any, total: int = 888) -> str:
    """Open and pay."""
    out_trade_no = opened(client, total)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    return out_trade_no


def refund(client: Any, out_trade_no: str, refund_no: str, fen: int, total: int = 888) -> Any:
    """Ask for a refund."""
    amount = {"refund": fen, "total": total, "currency": "CNY"}
    return client.refund(refund_no, amount, out_trade_no=out_trade_no, notify_url=NOTIFY)


def test_a_refund_is_accepted_first_and_done_later(server: Running, client: Any) -> None:
    out_trade_no, refund_no = paid_trade(server, client), number()
    status, accepted = answer(refund(client, out_trade_no, refund_no, 100))
    assert (status, accepted["status"]) == (200, "PROCESSING")

    def done() -> bool:
        return bool(answer(client.query_refund(refund_no))[1]["status"] == "SUCCESS")

    wait_until(done, "the refund is done")
    assert answer(client.query(out_trade_no=out_trade_no))[1]["trade_state"] == "REFUND"


def test_the_same_refund_again_moves_no_money(server: Running, client: Any) -> None:
    out_trade_no, refund_no = paid_trade(server, client), number()
    first = answer(refund(client, out_trade_no, refund_no, 500))[1]
    again = answer(refund(client, out_trade_no, refund_no, 500))[1]
    assert first["refund_id"] == again["refund_id"]
    assert server.trade(out_trade_no)["refunded_fen"] == 500
    assert code_of(refund(client, out_trade_no, refund_no, 400)) == (400, "INVALID_REQUEST")
    other = paid_trade(server, client)
    assert code_of(refund(client, other, refund_no, 500)) == (400, "INVALID_REQUEST")


def test_what_is_unpaid_or_unknown_cannot_be_refunded(server: Running, client: Any) -> None:
    for out_trade_no in (number(), opened(client)):
        refused = refund(client, out_trade_no, number(), 1)
        assert code_of(refused) == (404, "RESOURCE_NOT_EXISTS")
    assert code_of(client.query_refund(number())) == (404, "RESOURCE_NOT_EXISTS")


def test_more_than_was_paid_cannot_be_refunded(server: Running, client: Any) -> None:
    out_trade_no = paid_trade(server, client)
    assert code_of(refund(client, out_trade_no, number(), 889)) == (400, "INVALID_REQUEST")
    assert code_of(refund(client, out_trade_no, number(), 1, 887)) == (400, "INVALID_REQUEST")
    assert server.trade(out_trade_no)["refunded_fen"] == 0


def test_a_balance_that_does_not_suffice_is_not_enough(server: Running, client: Any) -> None:
    out_trade_no, refund_no = paid_trade(server, client), number()
    server.post("/admin/balance", {"channel": "wechatpay", "available_fen": 99})
    try:
        assert code_of(refund(client, out_trade_no, refund_no, 100)) == (403, "NOT_ENOUGH")
    finally:
        server.post("/admin/balance", {"channel": "wechatpay", "available_fen": None})
    assert refund(client, out_trade_no, refund_no, 100)[0] == 200


def test_refunds_of_one_trade_keep_their_distance(tmp_path: Path) -> None:
    with running(tmp_path, time_scale=1) as server:
        client = Merchant(server.data).wechatpay()
        out_trade_no = paid_trade(server, client)
        assert refund(client, out_trade_no, number(), 1)[0] == 200
        assert code_of(refund(client, out_trade_no, number(), 1)) == (429, "FREQUENCY_LIMITED")


def test_the_fifty_first_partial_refund_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, wechatpay_refund_interval_s=0) as server:
        client = Merchant(server.data).wechatpay()
        out_trade_no = paid_trade(server, client)
        for _ in range(50):
            assert refund(client, out_trade_no, number(), 1)[0] == 200
        assert code_of(refund(client, out_trade_no, number(), 1)) == (400, "INVALID_REQUEST")
