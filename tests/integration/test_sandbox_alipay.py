"""Alipay in the sandbox: driven by the library the shop uses, and by requests gone wrong."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.sandbox_kit import (
    Merchant,
    Running,
    alipay_form,
    beijing,
    holds,
    number,
    receiving,
    running,
)
from tests.processes import wait_until

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
    return merchant.alipay()


def precreated(client: Any, amount: str = "88.88", **more: Any) -> tuple[str, str]:
    """Make a code: (number, address)."""
    out_trade_no = number()
    made = client.api_alipay_trade_precreate("测试商品", out_trade_no, amount, **more)
    assert made["code"] == "10000", made
    return out_trade_no, made["qr_code"]


def scanned(client: Any, amount: str = "88.88", **more: Any) -> str:
    """Make a code and open it on the phone."""
    out_trade_no, url = precreated(client, amount, **more)
    assert requests.get(url, timeout=20).status_code == 200
    return out_trade_no


def paid(server: Running, client: Any, amount: str = "88.88") -> str:
    """Make a code and pay."""
    out_trade_no, _ = precreated(client, amount)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    return out_trade_no


def status_of(client: Any, out_trade_no: str) -> Any:
    """trade_status by the merchant's number."""
    return client.api_alipay_trade_query(out_trade_no)["trade_status"]


def test_a_code_that_nobody_scanned_is_no_trade(client: Any) -> None:
    out_trade_no, url = precreated(client)
    for ask in (
        client.api_alipay_trade_query,
        client.api_alipay_trade_close,
        client.api_alipay_trade_cancel,
    ):
        refused = ask(out_trade_no)
        assert (refused["code"], refused["sub_code"]) == ("40004", "ACQ.TRADE_NOT_EXIST")
    # "Closing" it closed nothing: it can still be scanned and paid.
    page = requests.get(url, timeout=20)
    assert 'id="pay"' in page.text
    assert status_of(client, out_trade_no) == "WAIT_BUYER_PAY"


def test_a_paid_trade_bears_its_amounts_and_the_time_of_payment(
    server: Running, client: Any
) -> None:
    out_trade_no = paid(server, client, "0.07")
    trade = client.api_alipay_trade_query(out_trade_no)
    assert trade["trade_status"] == "TRADE_SUCCESS"
    assert (trade["total_amount"], trade["buyer_pay_amount"]) == ("0.07", "0.07")
    assert "send_pay_date" in trade
    assert client.api_alipay_trade_query(trade_no=trade["trade_no"]) == trade
    assert server.trade(out_trade_no)["charges"][0]["amount_fen"] == 7


def test_closing_works_only_while_the_buyer_has_not_paid(server: Running, client: Any) -> None:
    waiting = scanned(client)
    assert client.api_alipay_trade_close(waiting)["code"] == "10000"
    assert status_of(client, waiting) == "TRADE_CLOSED"
    for out_trade_no in (waiting, paid(server, client)):
        refused = client.api_alipay_trade_close(out_trade_no)
        assert (refused["code"], refused["sub_code"]) == ("40004", "ACQ.TRADE_STATUS_ERROR")
    again = requests.post(f"{server.url}/admin/trades/{waiting}/pay", timeout=20)
    assert again.status_code == 409


def test_time_expire_wins_and_closes_a_scanned_trade(server: Running, client: Any) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=2)
    terms = {"time_expire": beijing(soon), "timeout_express": "15d"}
    out_trade_no = scanned(client, **terms)
    unscanned, url = precreated(client, **terms)
    wait_until(lambda: datetime.now(UTC) > soon, "the payment expires")
    assert status_of(client, out_trade_no) == "TRADE_CLOSED"
    assert 'data-state="expired"' in requests.get(url, timeout=20).text
    refused = client.api_alipay_trade_query(unscanned)
    assert refused["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    for each in (out_trade_no, unscanned):
        late = requests.post(f"{server.url}/admin/trades/{each}/pay", timeout=20)
        assert late.status_code == 409


def test_timeout_express_counts_from_the_making_of_the_code(server: Running, client: Any) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    out_trade_no, _ = precreated(client, timeout_express="90m")
    expires = datetime.fromisoformat(server.trade(out_trade_no)["expires_at"])
    assert before <= expires - timedelta(minutes=90) <= datetime.now(UTC)


def test_the_same_number_again_follows_the_trades_state(server: Running, client: Any) -> None:
    out_trade_no = scanned(client, "1.00")

    def again(amount: str) -> Any:
        return client.api_alipay_trade_precreate("测试商品", out_trade_no, amount)

    assert again("1.00")["code"] == "10000"
    assert again("2.00")["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
    server.post(f"/admin/trades/{out_trade_no}/pay")
    assert again("1.00")["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
    closed = scanned(client)
    client.api_alipay_trade_close(closed)
    refused = client.api_alipay_trade_precreate("测试商品", closed, "88.88")
    assert refused["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


def refund(client: Any, out_trade_no: str, amount: str, request_no: str | None) -> Any:
    """Ask for a refund."""
    more = {} if request_no is None else {"out_request_no": request_no}
    return client.api_alipay_trade_refund(amount, out_trade_no, **more)


def test_a_refund_repeated_is_done_once_and_the_fee_is_cumulative(tmp_path: Path) -> None:
    with running(tmp_path, alipay_refund_interval_s=0) as server:
        client = Merchant(server.data).alipay()
        out_trade_no = paid(server, client)
        first = refund(client, out_trade_no, "8.88", "r1")
        assert (first["fund_change"], first["refund_fee"]) == ("Y", "8.88")
        again = refund(client, out_trade_no, "8.88", "r1")
        assert (again["code"], again["fund_change"], again["refund_fee"]) == ("10000", "N", "8.88")
        other = refund(client, out_trade_no, "8.89", "r1")
        assert other["sub_code"] == "ACQ.DISCORDANT_REPEAT_REQUEST"
        assert status_of(client, out_trade_no) == "TRADE_SUCCESS"
        over = refund(client, out_trade_no, "80.01", "r2")
        assert over["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
        rest = refund(client, out_trade_no, "80.00", "r2")
        assert (rest["fund_change"], rest["refund_fee"]) == ("Y", "88.88")
        assert status_of(client, out_trade_no) == "TRADE_CLOSED"
        assert "send_pay_date" in client.api_alipay_trade_query(out_trade_no)
        assert server.trade(out_trade_no)["refunded_fen"] == 8_888


def test_a_refund_without_a_number_is_for_all_of_it(server: Running, client: Any) -> None:
    out_trade_no = paid(server, client)
    partial = refund(client, out_trade_no, "1.00", None)
    assert partial["sub_code"] == "ACQ.INVALID_PARAMETER"
    assert refund(client, out_trade_no, "88.88", None)["fund_change"] == "Y"


def test_what_is_unpaid_cannot_be_refunded(client: Any) -> None:
    refused = refund(client, scanned(client), "1.00", "r1")
    assert refused["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    unknown = refund(client, number(), "1.00", "r1")
    assert unknown["sub_code"] == "ACQ.TRADE_NOT_EXIST"


def test_refunds_of_one_trade_keep_their_distance(tmp_path: Path) -> None:
    with running(tmp_path, time_scale=20) as server:
        client = Merchant(server.data).alipay()
        out_trade_no = paid(server, client)
        assert refund(client, out_trade_no, "1.00", "r1")["code"] == "10000"
        assert refund(client, out_trade_no, "1.00", "r2")["code"] == "40005"


def test_a_balance_that_does_not_suffice_refuses_the_refund(server: Running, client: Any) -> None:
    out_trade_no = paid(server, client)
    server.post("/admin/balance", {"channel": "alipay", "available_fen": 0})
    try:
        refused = refund(client, out_trade_no, "0.01", "r1")
        assert refused["sub_code"] == "ACQ.SELLER_BALANCE_NOT_ENOUGH"
    finally:
        server.post("/admin/balance", {"channel": "alipay", "available_fen": None})


def test_a_refund_that_is_not_known_is_an_answer_without_status(
    server: Running, client: Any
) -> None:
    out_trade_no = paid(server, client)
    refund(client, out_trade_no, "1.00", "known")

    def asked(request_no: str) -> Any:
        return client.api_alipay_trade_fastpay_refund_query(request_no, out_trade_no=out_trade_no)

    assert asked("known")["refund_status"] == "REFUND_SUCCESS"
    assert asked("known")["refund_amount"] == "1.00"
    assert asked("other") == {"code": "10000", "msg": "Success"}


def test_cancelling_closes_what_is_unpaid_and_gives_back_what_was_paid(
    server: Running, client: Any
) -> None:
    waiting, done = scanned(client), paid(server, client)
    assert client.api_alipay_trade_cancel(waiting)["action"] == "close"
    for _ in range(2):
        assert client.api_alipay_trade_cancel(done)["action"] == "refund"
    assert server.trade(done)["refunded_fen"] == 8_888
    assert status_of(client, done) == "TRADE_CLOSED"


def told(server: Running, out_trade_no: str, status: str) -> int:
    """Order a notice of a status; the admin interface's answer."""
    url = f"{server.url}/admin/trades/{out_trade_no}/notices"
    return requests.post(url, params={"trade_status": status}, timeout=20).status_code


def test_a_finished_trade_is_paid_and_gives_nothing_back_any_more(tmp_path: Path) -> None:
    with running(tmp_path, time_scale=0.001, alipay_refund_interval_s=0) as server:
        client = Merchant(server.data).alipay()
        out_trade_no = paid(server, client)
        assert refund(client, out_trade_no, "1.00", "before")["fund_change"] == "Y"
        assert told(server, out_trade_no, "TRADE_FINISHED") == 200
        trade = client.api_alipay_trade_query(out_trade_no)
        assert trade["trade_status"] == "TRADE_FINISHED"
        assert (trade["total_amount"], "send_pay_date" in trade) == ("88.88", True)
        late = refund(client, out_trade_no, "1.00", "late")
        assert late["sub_code"] == "ACQ.TRADE_HAS_FINISHED"
        assert client.api_alipay_trade_cancel(out_trade_no)["sub_code"] == "ACQ.TRADE_HAS_FINISHED"
        again = refund(client, out_trade_no, "1.00", "before")
        assert (again["code"], again["fund_change"]) == ("10000", "N")
        assert server.trade(out_trade_no)["refunded_fen"] == 100


def test_a_notice_of_every_status_can_be_ordered_and_none_that_would_lie(
    server: Running, merchant: Merchant, client: Any
) -> None:
    with receiving() as shop:
        waiting = scanned(client, notify_url=shop.url)
        for untrue in ("TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED", "NOTHING"):
            assert told(server, waiting, untrue) == 409
        assert told(server, waiting, "WAIT_BUYER_PAY") == 200
        wait_until(lambda: len(shop.got) == 1, "the notice comes")
        server.post(f"/admin/trades/{waiting}/pay")
        wait_until(lambda: len(shop.got) == 2, "the notice comes")
        # What was, told late: it must not undo what is.
        for status in ("WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED"):
            assert told(server, waiting, status) == 200
        closed = scanned(client, notify_url=shop.url)
        assert client.api_alipay_trade_close(closed)["code"] == "10000"
        assert told(server, closed, "TRADE_CLOSED") == 200
        wait_until(lambda: len(shop.got) == 6, "the notices come")
        forms = [alipay_form(merchant, body) for body in shop.bodies()]
    assert sorted((form["trade_status"], "gmt_payment" in form) for form in forms) == [
        ("TRADE_CLOSED", False),
        ("TRADE_FINISHED", True),
        ("TRADE_SUCCESS", True),
        ("TRADE_SUCCESS", True),
        ("WAIT_BUYER_PAY", False),
        ("WAIT_BUYER_PAY", False),
    ]
    assert len({form["notify_id"] for form in forms}) == 6
    unscanned, _ = precreated(client, notify_url=NOTIFY)
    assert told(server, unscanned, "WAIT_BUYER_PAY") == 409


def raw(server: Running, params: dict[str, str], how: str = "get") -> requests.Response:
    """Send one call: all in the query, all in the body, or some in each."""
    url = f"{server.url}/gateway.do"
    if how == "get":
        return requests.get(url, params=params, timeout=20)
    if how == "post":
        return requests.post(url, data=params, timeout=20)
    query = {k: v for k, v in params.items() if k != "biz_content"}
    body = {"biz_content": params["biz_content"]}
    return requests.post(url, params=query, data=body, timeout=20)


def precreate_params(merchant: Merchant, **more: str) -> dict[str, str]:
    """A signed precreate."""
    biz = {"out_trade_no": number(), "total_amount": "1.00", "subject": "甲 +%乙"}
    return merchant.alipay_params("alipay.trade.precreate", biz, notify_url=NOTIFY, **more)


@pytest.mark.parametrize("how", ["get", "post", "both"])
def test_query_and_body_are_merged_and_the_signature_covers_them(
    server: Running, merchant: Merchant, how: str
) -> None:
    answer = raw(server, precreate_params(merchant), how)
    assert answer.status_code == 200
    assert answer.json()["alipay_trade_precreate_response"]["code"] == "10000"


def test_an_answer_is_signed_over_its_raw_text_and_not_over_a_reserialised_one(
    server: Running, merchant: Merchant
) -> None:
    text = raw(server, precreate_params(merchant)).text
    key, signature = merchant.public_key("ALIPAY_PUBLIC_KEY_FILE"), json.loads(text)["sign"]
    inner = text.removeprefix('{"alipay_trade_precreate_response":').rsplit(',"sign":', 1)[0]
    assert holds(key, inner.encode(), signature)
    again = json.dumps(json.loads(inner), separators=(",", ":"), ensure_ascii=False)
    assert not holds(key, again.encode(), signature)


REFUSED: list[tuple[str, str | None, str, str]] = [
    ("app_id", "2021000000000000", "40002", "isv.invalid-app-id"),
    ("app_id", None, "40001", "isv.missing-app-id"),
    ("method", "alipay.trade.query", "40002", "isv.invalid-signature"),
    ("method", None, "40001", "isv.missing-method"),
    ("sign", None, "40001", "isv.missing-signature"),
    ("sign", "AAAA", "40002", "isv.invalid-signature"),
    ("sign", "%%%", "40002", "isv.invalid-signature"),
    ("sign_type", "RSA", "40002", "isv.invalid-signature-type"),
    ("sign_type", None, "40001", "isv.missing-signature-type"),
    ("timestamp", "2020-01-01 00:00:00", "40002", "isv.invalid-signature"),
    ("timestamp", None, "40001", "isv.missing-timestamp"),
    ("notify_url", "http://127.0.0.1:9/other", "40002", "isv.invalid-signature"),
    ("notify_url", None, "40002", "isv.invalid-signature"),
    ("extra", "1", "40002", "isv.invalid-signature"),
]


@pytest.mark.parametrize(("field", "value", "code", "sub_code"), REFUSED)
def test_an_altered_parameter_is_refused_by_an_unsigned_error(
    *, server: Running, merchant: Merchant, field: str, value: str | None, code: str, sub_code: str
) -> None:
    params = precreate_params(merchant)
    if value is None:
        del params[field]
    else:
        params[field] = value
    answer = raw(server, params).json()
    (content,) = answer.values()  # and no sign beside it
    assert (content["code"], content["sub_code"]) == (code, sub_code)


def test_any_flipped_byte_of_the_business_content_is_an_invalid_signature(
    server: Running, merchant: Merchant
) -> None:
    params = precreate_params(merchant)
    for position, sign in enumerate(params["biz_content"]):
        text = params["biz_content"]
        altered = text[:position] + chr(ord(sign) ^ 1) + text[position + 1 :]
        (content,) = raw(server, {**params, "biz_content": altered}, "post").json().values()
        assert content["sub_code"] == "isv.invalid-signature", position


def test_any_flipped_bit_of_the_signature_is_refused(server: Running, merchant: Merchant) -> None:
    params = precreate_params(merchant)
    signature = base64.b64decode(params["sign"])
    for position in range(0, len(signature), 16):
        altered = bytearray(signature)
        altered[position] ^= 0x80
        sent = {**params, "sign": base64.b64encode(altered).decode()}
        (content,) = raw(server, sent).json().values()
        assert content["sub_code"] == "isv.invalid-signature"


@pytest.mark.parametrize("hours", [-8, -1, 1, 8])
def test_a_clock_in_another_zone_is_refused_though_it_is_signed(
    server: Running, merchant: Merchant, hours: int
) -> None:
    moment = beijing(datetime.now(UTC) + timedelta(hours=hours))
    (content,) = raw(server, precreate_params(merchant, timestamp=moment)).json().values()
    assert content["sub_code"] == "isv.invalid-timestamp"


def test_a_method_that_does_not_exist_is_refused(server: Running, merchant: Merchant) -> None:
    answer = raw(server, merchant.alipay_params("alipay.trade.nothing", {})).json()
    assert answer["error_response"]["sub_code"] == "isv.invalid-method"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("out_trade_no", ""),
        ("out_trade_no", "with-dash"),
        ("out_trade_no", "x" * 65),
        ("total_amount", "0.00"),
        ("total_amount", "1.005"),
        ("total_amount", "-1"),
        ("total_amount", "1e3"),
        ("total_amount", "１.00"),
        ("total_amount", "100000000.01"),
        ("total_amount", True),
        ("subject", "a=b"),
        ("subject", "x" * 257),
        ("subject", ["list"]),
        ("subject", "\ud800"),
        ("product_code", "FAST_INSTANT_TRADE_PAY"),
        ("timeout_express", "0m"),
        ("timeout_express", "16d"),
        ("timeout_express", "soon"),
        ("time_expire", "2020-01-01 00:00:00"),
        ("time_expire", "2020-01-01T00:00:00+08:00"),
    ],
)
def test_a_wrong_business_parameter_is_a_signed_refusal(
    client: Any, field: str, value: object
) -> None:
    biz = {"out_trade_no": number(), "total_amount": "1.00", "subject": "甲", field: value}
    # The library raises for what is unsigned.
    refused = client.server_api("alipay.trade.precreate", biz)
    assert (refused["code"], refused["sub_code"]) == ("40004", "ACQ.INVALID_PARAMETER")


@pytest.mark.parametrize("text", ["[]", "{", "nonsense", "[" * 20_000, '{"a":NaN}'])
def test_business_content_that_is_no_object_is_refused(
    server: Running, merchant: Merchant, text: str
) -> None:
    params = merchant.alipay_params("alipay.trade.query", None, biz_content=text)
    answer = raw(server, params, "post").json()
    assert answer["alipay_trade_query_response"]["sub_code"] == "ACQ.INVALID_PARAMETER"
    assert "sign" in answer
