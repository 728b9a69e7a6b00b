"""Faults on order: what answers and notices look like, and what has happened nevertheless."""

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.integration.sandbox_kit import (
    Merchant,
    Receiver,
    Running,
    alipay_form,
    holds,
    number,
    receiving,
    running,
    wechatpay_signed,
)
from tests.processes import wait_until

CHANNELS = ["wechatpay", "alipay"]
both_channels = pytest.mark.parametrize("channel", CHANNELS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001, seed="told") as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture(autouse=True)
def no_fault_left(server: Running) -> Iterator[None]:
    yield
    waiting = server.get("/admin/faults")["faults"]
    requests.delete(f"{server.url}/admin/faults", timeout=20)
    assert waiting == []


def order(server: Running, channel: str, op: str, kind: str, **more: Any) -> None:
    """Order a fault."""
    server.post("/admin/faults", {"channel": channel, "op": op, "kind": kind, **more})


def prepay(merchant: Merchant, channel: str, out_trade_no: str, url: str = "") -> requests.Response:
    """Open 8.88 yuan, signed by the rule; the answer as it came."""
    if channel == "wechatpay":
        body = json.dumps(merchant.native(out_trade_no, 888, url or "http://127.0.0.1:1/n"))
        target = "/v3/pay/transactions/native"
        serial = {"Wechatpay-Serial": merchant.env["WECHATPAY_PUBLIC_KEY_ID"]}
        return merchant.wechatpay_request("POST", target, body.encode(), headers=serial)
    biz = {"out_trade_no": out_trade_no, "total_amount": "8.88", "subject": "测试商品"}
    more = {"notify_url": url} if url else {}
    return call(merchant, "alipay.trade.precreate", biz, **more)


def call(merchant: Merchant, method: str, biz: object, **more: str) -> requests.Response:
    """One call to Alipay."""
    params = merchant.alipay_params(method, biz, **more)
    return requests.post(merchant.env["ALIPAY_BASE_URL"], data=params, timeout=20)


def close(merchant: Merchant, channel: str, out_trade_no: str) -> requests.Response:
    """Close it."""
    if channel == "alipay":
        return call(merchant, "alipay.trade.close", {"out_trade_no": out_trade_no})
    target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}/close"
    body = json.dumps({"mchid": merchant.env["WECHATPAY_MCHID"]}).encode()
    return merchant.wechatpay_request("POST", target, body)


def paid(server: Running, merchant: Merchant, channel: str, url: str = "") -> str:
    """The number of a trade that was paid."""
    out_trade_no = number()
    prepay(merchant, channel, out_trade_no, url)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    return out_trade_no


def believed(merchant: Merchant, channel: str, answer: requests.Response) -> bool:
    """Whether a careful client believes the answer: signature, serial and clock."""
    if channel == "alipay":
        found = re.fullmatch(r'\{"\w+":(\{.*\}),"sign":"([^"]*)"\}', answer.text)
        key = merchant.public_key("ALIPAY_PUBLIC_KEY_FILE")
        signature = found[2].replace("\\/", "/") if found else ""
        return found is not None and holds(key, found[1].encode(), signature)
    try:
        return wechatpay_signed(merchant, answer.headers, answer.content)
    except (AssertionError, KeyError):
        return False


def exists(server: Running, out_trade_no: str) -> bool:
    """Whether the gateway has a record of the number."""
    answer = requests.get(f"{server.url}/admin/trades/{out_trade_no}", timeout=20)
    return answer.status_code == 200


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        *((channel, kind) for channel in CHANNELS for kind in ("wrong_signature", "no_signature")),
        *((channel, "other_serial") for channel in CHANNELS),
        ("wechatpay", "clock_off"),
    ],
)
def test_a_forged_answer_is_not_to_be_believed_though_the_effect_happened(
    server: Running, merchant: Merchant, channel: str, kind: str
) -> None:
    out_trade_no = number()
    order(server, channel, "prepay", kind)
    answer = prepay(merchant, channel, out_trade_no)
    assert answer.status_code == 200
    assert not believed(merchant, channel, answer)
    assert exists(server, out_trade_no)
    assert believed(merchant, channel, prepay(merchant, channel, out_trade_no))


def test_a_clock_that_is_off_signs_rightly_at_the_wrong_time(
    server: Running, merchant: Merchant
) -> None:
    order(server, "wechatpay", "prepay", "clock_off", offset_s=-301)
    answer = prepay(merchant, "wechatpay", number())
    stamp = answer.headers["Wechatpay-Timestamp"]
    assert -330 < int(stamp) - time.time() <= -300
    message = f"{stamp}\n{answer.headers['Wechatpay-Nonce']}\n".encode() + answer.content + b"\n"
    key = merchant.public_key("WECHATPAY_PUBLIC_KEY_FILE")
    assert holds(key, message, answer.headers["Wechatpay-Signature"])


@both_channels
def test_html_and_half_an_answer_are_no_json(
    server: Running, merchant: Merchant, channel: str
) -> None:
    for kind in ("html", "half_json"):
        out_trade_no = number()
        order(server, channel, "prepay", kind)
        answer = prepay(merchant, channel, out_trade_no)
        with pytest.raises(ValueError, match="line 1 column"):
            answer.json()
        assert exists(server, out_trade_no)


@both_channels
def test_a_wrong_shape_is_rightly_signed_json_with_nothing_in_its_place(
    server: Running, merchant: Merchant, channel: str
) -> None:
    order(server, channel, "prepay", "wrong_shape")
    answer = prepay(merchant, channel, number())
    assert believed(merchant, channel, answer)
    content = answer.json()
    if channel == "alipay":
        content = content["alipay_trade_precreate_response"]
    assert not isinstance(content.get("code_url", content.get("qr_code")), str)


@both_channels
def test_a_huge_answer_is_right_but_for_its_size(
    server: Running, merchant: Merchant, channel: str
) -> None:
    order(server, channel, "prepay", "huge")
    answer = prepay(merchant, channel, number())
    assert len(answer.content) > 16 * 1024 * 1024
    assert believed(merchant, channel, answer)


ERRORS = {
    ("wechatpay", "frequency_limit"): (429, "FREQUENCY_LIMITED"),
    ("wechatpay", "system_error"): (500, "SYSTEM_ERROR"),
    ("wechatpay", "unavailable"): (503, "SERVICE_UNAVAILABLE"),
    ("alipay", "frequency_limit"): ("40005", "isv.app-call-limited"),
    ("alipay", "system_error"): ("40004", "ACQ.SYSTEM_ERROR"),
    ("alipay", "unavailable"): ("20000", "isp.unknow-error"),
}


def said(channel: str, answer: requests.Response) -> tuple[Any, str]:
    """The error in an answer."""
    if channel == "wechatpay":
        assert "Wechatpay-Signature" not in answer.headers
        return answer.status_code, answer.json()["code"]
    content = answer.json()["alipay_trade_precreate_response"]
    return content["code"], content["sub_code"]


@pytest.mark.parametrize(("channel", "kind"), ERRORS)
def test_an_error_of_the_gateway_comes_with_or_without_the_effect(
    server: Running, merchant: Merchant, channel: str, kind: str
) -> None:
    first, second = number(), number()
    order(server, channel, "prepay", kind)
    assert said(channel, prepay(merchant, channel, first)) == ERRORS[channel, kind]
    assert not exists(server, first)
    if kind != "frequency_limit":
        order(server, channel, "prepay", f"{kind}_after_effect")
        assert said(channel, prepay(merchant, channel, second)) == ERRORS[channel, kind]
        assert exists(server, second)


@both_channels
def test_the_member_pays_in_the_instant_of_the_close(
    server: Running, merchant: Merchant, channel: str
) -> None:
    out_trade_no = number()
    prepay(merchant, channel, out_trade_no)
    order(server, channel, "close", "paid_on_close")
    answer = close(merchant, channel, out_trade_no)
    assert "ORDER_PAID" in answer.text or "ACQ.TRADE_STATUS_ERROR" in answer.text
    assert server.trade(out_trade_no)["paid_count"] == 1


@both_channels
def test_a_silent_refund_gives_the_money_back_and_tells_nobody(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        out_trade_no = paid(server, merchant, channel, receiver.url)
        order(server, channel, "refund", "silent_refund")
        if channel == "alipay":
            biz = {"out_trade_no": out_trade_no, "refund_amount": "8.88"}
            answer = call(merchant, "alipay.trade.refund", biz).json()
            assert answer["alipay_trade_refund_response"]["fund_change"] == "N"
        else:
            amount = {"refund": 888, "total": 888, "currency": "CNY"}
            client = merchant.wechatpay(receiver.url)
            refunded = client.refund(number(), amount, out_trade_no=out_trade_no)
            assert json.loads(refunded[1])["status"] == "PROCESSING"
        wait_until(
            lambda: server.trade(out_trade_no)["refunds"][0]["settled_at_ms"], "it is settled"
        )
        assert [one["kind"] for one in server.trade(out_trade_no)["notices"]] == ["payment"]
    assert server.trade(out_trade_no)["refunded_fen"] == 888


def test_a_fault_meets_only_the_merchant_it_was_ordered_for(
    server: Running, merchant: Merchant
) -> None:
    server.post("/admin/merchants", {"name": "other"})
    order(server, "wechatpay", "prepay", "http500", merchant="other")
    assert prepay(merchant, "wechatpay", number()).status_code == 200
    requests.delete(f"{server.url}/admin/faults", timeout=20)
    order(server, "wechatpay", "prepay", "http500", merchant="default")
    assert prepay(merchant, "wechatpay", number()).status_code == 500


def test_a_probability_hits_some_calls_the_same_ones_for_one_seed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    runs = []
    for _ in range(2):
        data = tmp_path_factory.mktemp("seeded")
        with running(data, time_scale=0.001, seed="7") as server:
            order(server, "wechatpay", "prepay", "http500", probability=0.4, times=1_000)
            buyer = Merchant(data)
            found = [prepay(buyer, "wechatpay", number()).status_code for _ in range(10)]
            left = server.get("/admin/faults")["faults"][0]["times"]
        assert left == 1_000 - found.count(500)
        runs.append(found)
    assert set(runs[0]) == {200, 500}
    assert runs[0] == runs[1]


def wechatpay_believed(merchant: Merchant, got: tuple[dict[str, str], bytes]) -> bool:
    """Whether a careful shop believes this WeChat Pay notice."""
    headers, body = got
    try:
        return wechatpay_signed(merchant, headers, body)
    except (AssertionError, KeyError, base64.binascii.Error):  # type: ignore[attr-defined]
        return False


def alipay_believed(merchant: Merchant, got: tuple[dict[str, str], bytes]) -> bool:
    """The same for Alipay's."""
    try:
        return bool(alipay_form(merchant, got[1]))
    except (AssertionError, KeyError):
        return False


def told(server: Running, merchant: Merchant, channel: str, receiver: Receiver, many: int) -> str:
    """Pay, and wait for so many sendings."""
    out_trade_no = paid(server, merchant, channel, receiver.url)
    wait_until(lambda: len(receiver.got) >= many, f"{many} sendings came")
    return out_trade_no


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        *(("wechatpay", kind) for kind in ("clock_off", "signtest")),
        *((one, kind) for one in CHANNELS for kind in ("wrong_signature", "no_signature")),
        *((one, kind) for one in CHANNELS for kind in ("altered_body", "other_serial")),
    ],
)
def test_a_forged_notice_comes_first_and_the_true_one_after_it_was_refused(
    server: Running, merchant: Merchant, channel: str, kind: str
) -> None:
    order(server, channel, "notice", kind)
    good = b"success" if channel == "alipay" else b""
    with receiving((400, b""), (200, good)) as receiver:
        told(server, merchant, channel, receiver, 2)
        got = list(receiver.got)
    check = alipay_believed if channel == "alipay" else wechatpay_believed
    assert [check(merchant, one) for one in got] == [False, True]
    if kind == "signtest":
        assert got[0][0]["Wechatpay-Signature"].startswith("WECHATPAY/SIGNTEST/")


@both_channels
def test_a_duplicate_is_the_same_event_sent_again_after_it_was_acknowledged(
    server: Running, merchant: Merchant, channel: str
) -> None:
    order(server, channel, "notice", "duplicate", repeats=2)
    with receiving() as receiver:
        out_trade_no = told(server, merchant, channel, receiver, 3)
        wait_until(
            lambda: len(server.trade(out_trade_no)["notices"][0]["deliveries"]) == 3, "recorded"
        )
    sent = server.trade(out_trade_no)["notices"][0]["deliveries"]
    assert [one["result"] for one in sent] == ["acknowledged"] * 3


@both_channels
def test_never_is_not_told_and_delay_is_told_later(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        order(server, channel, "notice", "never")
        silent = paid(server, merchant, channel, receiver.url)
        order(server, channel, "notice", "delay", delay_ms=300)
        late = told(server, merchant, channel, receiver, 1)
        assert len(receiver.got) == 1
    assert server.trade(silent)["notices"][0]["state"] == "dropped"
    notice = server.trade(late)["notices"][0]
    assert notice["deliveries"][0]["at_ms"] >= notice["created_at_ms"] + 300


@both_channels
def test_reordered_the_refund_is_told_before_the_payment(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        order(server, channel, "notice", "reorder", delay_ms=60_000)
        out_trade_no = paid(server, merchant, channel, receiver.url)
        if channel == "alipay":
            biz = {"out_trade_no": out_trade_no, "refund_amount": "8.88"}
            call(merchant, "alipay.trade.refund", biz)
        else:
            amount = {"refund": 888, "total": 888, "currency": "CNY"}
            client = merchant.wechatpay(receiver.url)
            client.refund(number(), amount, out_trade_no=out_trade_no, notify_url=receiver.url)
        wait_until(lambda: len(receiver.got) == 2, "both came")
        wait_until(
            lambda: all(one["deliveries"] for one in server.trade(out_trade_no)["notices"]),
            "both are recorded",
        )
    payment, refund = server.trade(out_trade_no)["notices"]
    assert (payment["kind"], refund["kind"]) == ("payment", "refund")
    assert refund["deliveries"][0]["at_ms"] <= payment["deliveries"][0]["at_ms"]
