"""The sandbox's notices, received over HTTP and verified by independent code."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.sandbox_kit import (
    Merchant,
    Receiver,
    Running,
    alipay_form,
    decrypted,
    number,
    receiving,
    running,
    wechatpay_signed,
)
from tests.processes import wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


def open_payment(merchant: Merchant, channel: str, notify_url: str) -> str:
    """Open 8.88 yuan on a channel."""
    out_trade_no = number()
    if channel == "wechatpay":
        status, text = merchant.wechatpay(notify_url).pay("测试商品", out_trade_no, {"total": 888})
        assert status == 200, text
    else:
        made = merchant.alipay().api_alipay_trade_precreate(
            "测试商品", out_trade_no, "8.88", notify_url=notify_url
        )
        assert made["code"] == "10000", made
    return out_trade_no


def notices_of(server: Running, out_trade_no: str) -> list[dict[str, Any]]:
    """The trade's notices, as the sandbox stored them."""
    found: list[dict[str, Any]] = server.trade(out_trade_no)["notices"]
    return found


def wait_state(server: Running, out_trade_no: str, *states: str) -> None:
    """Until its notices are in these states and nothing more is to be sent."""

    def reached() -> bool:
        found = notices_of(server, out_trade_no)
        idle = all(notice["next_at_ms"] is None for notice in found)
        return idle and [notice["state"] for notice in found] == list(states)

    wait_until(reached, f"the notices of {out_trade_no} are {states}")


def wait_count(receiver: Receiver, count: int) -> None:
    """Until so many came."""
    wait_until(lambda: len(receiver.got) >= count, f"{count} notices came")


def event_id(channel: str, body: bytes) -> str:
    """What a receiver deduplicates on."""
    if channel == "wechatpay":
        return str(json.loads(body)["id"])
    return dict(part.split("=", 1) for part in body.decode().split("&"))["notify_id"]


both_channels = pytest.mark.parametrize("channel", ["wechatpay", "alipay"])


def test_a_wechat_payment_notice_is_signed_and_its_resource_decrypts(
    server: Running, merchant: Merchant
) -> None:
    with receiving() as receiver:
        out_trade_no = open_payment(merchant, "wechatpay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_state(server, out_trade_no, "delivered")
        ((headers, body),) = receiver.got
    assert wechatpay_signed(merchant, headers, body)
    notice = json.loads(body)
    assert notice["event_type"] == "TRANSACTION.SUCCESS"
    assert notice["resource"]["original_type"] == "transaction"
    told = decrypted(merchant, notice)
    _, text = merchant.wechatpay().query(out_trade_no=out_trade_no)
    assert told == json.loads(text)


def test_an_alipay_payment_notice_is_a_signed_form(server: Running, merchant: Merchant) -> None:
    with receiving() as receiver:
        out_trade_no = open_payment(merchant, "alipay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_state(server, out_trade_no, "delivered")
        ((headers, body),) = receiver.got
    assert headers["Content-Type"].startswith("application/x-www-form-urlencoded")
    form = alipay_form(merchant, body)
    told = (form["out_trade_no"], form["trade_status"], form["total_amount"], form["subject"])
    assert told == (out_trade_no, "TRADE_SUCCESS", "8.88", "测试商品")
    assert form["app_id"] == merchant.env["ALIPAY_APP_ID"]
    assert form["seller_id"] == merchant.env["ALIPAY_SELLER_ID"]
    assert "" not in form.values()
    # The library that the shop uses believes it too.
    signature = form.pop("sign")
    assert merchant.alipay().verify(form, signature)


@both_channels
def test_an_unacknowledged_notice_comes_again_with_its_id_and_a_fresh_signature(
    server: Running, merchant: Merchant, channel: str
) -> None:
    good = (204, b"") if channel == "wechatpay" else (200, b"success")
    with receiving((500, b"no"), (400, b"no"), good) as receiver:
        out_trade_no = open_payment(merchant, channel, receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_state(server, out_trade_no, "delivered")
        assert len(receiver.got) == 3
        assert len({event_id(channel, body) for body in receiver.bodies()}) == 1
        for headers, body in receiver.got:
            if channel == "wechatpay":
                assert wechatpay_signed(merchant, headers, body)
            else:
                alipay_form(merchant, body)
        if channel == "wechatpay":
            nonces = {headers["Wechatpay-Nonce"] for headers, _ in receiver.got}
            assert len(nonces) == 3
    results = [d["result"] for d in notices_of(server, out_trade_no)[0]["deliveries"]]
    assert results == ["refused", "refused", "acknowledged"]


@pytest.mark.parametrize("answer", [b"SUCCESS", b"success\n", b"", b"fail", b'"success"'])
def test_alipay_takes_nothing_but_the_word_success(
    server: Running, merchant: Merchant, answer: bytes
) -> None:
    with receiving((200, answer), (200, b"success")) as receiver:
        out_trade_no = open_payment(merchant, "alipay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_state(server, out_trade_no, "delivered")
        assert len(receiver.got) == 2


@pytest.mark.parametrize("status", [302, 307])
@both_channels
def test_a_redirect_is_no_acknowledgement_and_is_not_followed(
    server: Running, merchant: Merchant, channel: str, status: int
) -> None:
    with receiving() as elsewhere, receiving((status, b"success")) as receiver:
        receiver.redirect_to = elsewhere.url
        out_trade_no = open_payment(merchant, channel, receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_count(receiver, 2)
        assert elsewhere.got == []


def test_the_gateway_gives_up_after_the_documented_number_of_tries(tmp_path: Path) -> None:
    with running(tmp_path, time_scale=0.000_001) as server:
        merchant = Merchant(server.data)
        # 15 waits and 10 waits: so many retries after the first sending.
        for channel, tries in (("wechatpay", 16), ("alipay", 11)):
            with receiving((500, b"")) as receiver:
                out_trade_no = open_payment(merchant, channel, receiver.url)
                server.post(f"/admin/trades/{out_trade_no}/pay")
                wait_state(server, out_trade_no, "given_up")
                assert len(receiver.got) == tries


def test_a_receiver_that_does_not_answer_in_time_is_tried_again(tmp_path: Path) -> None:
    with running(tmp_path, time_scale=0.001, notice_timeout_s=0.2) as server:
        with receiving() as receiver:
            receiver.silent = threading.Event()
            out_trade_no = open_payment(Merchant(server.data), "wechatpay", receiver.url)
            server.post(f"/admin/trades/{out_trade_no}/pay")
            wait_count(receiver, 2)
        found = notices_of(server, out_trade_no)[0]["deliveries"]
        assert found[0]["result"] == "timeout"


def test_answers_that_break_off_cost_no_sender(server: Running, merchant: Merchant) -> None:
    # More often than there are senders: each must live on and record what it met.
    with receiving() as receiver:
        receiver.breaks_off = True
        out_trade_no = open_payment(merchant, "wechatpay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_count(receiver, 10)
        receiver.breaks_off = False
        server.post(f"/admin/trades/{out_trade_no}/notices")
        wait_state(server, out_trade_no, "delivered")
    results = [d["result"] for d in notices_of(server, out_trade_no)[0]["deliveries"]]
    assert set(results[:9]) == {"unreachable"}


def test_nobody_listening_is_recorded_as_unreachable(server: Running, merchant: Merchant) -> None:
    out_trade_no = open_payment(merchant, "wechatpay", "http://127.0.0.1:1/notify")
    server.post(f"/admin/trades/{out_trade_no}/pay")

    def tried() -> bool:
        return bool(notices_of(server, out_trade_no)[0]["deliveries"])

    wait_until(tried, "a delivery is recorded")
    assert notices_of(server, out_trade_no)[0]["deliveries"][0]["result"] == "unreachable"


@both_channels
def test_a_notice_can_be_repeated_after_it_was_acknowledged(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        out_trade_no = open_payment(merchant, channel, receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay?repeat=3")
        wait_state(server, out_trade_no, "delivered")
        assert len(receiver.got) == 4
        assert len({event_id(channel, body) for body in receiver.bodies()}) == 1
        assert server.post(f"/admin/trades/{out_trade_no}/notices") == {"sent": 1}
        wait_count(receiver, 5)
    assert server.trade(out_trade_no)["paid_count"] == 1


@both_channels
def test_a_dropped_notice_is_never_sent_but_the_money_is_taken(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        dropped = open_payment(merchant, channel, receiver.url)
        server.post(f"/admin/trades/{dropped}/pay?notice=no")
        wait_state(server, dropped, "dropped")
        # A later one overtakes it: the sender is not merely slow.
        sent = open_payment(merchant, channel, receiver.url)
        server.post(f"/admin/trades/{sent}/pay")
        wait_state(server, sent, "delivered")
        assert len(receiver.got) == 1
    assert server.trade(dropped)["paid_count"] == 1
    assert notices_of(server, dropped)[0]["deliveries"] == []


def test_a_wechat_refund_is_told_by_a_notice_of_its_own(
    server: Running, merchant: Merchant
) -> None:
    refund_no = number()
    with receiving() as payments, receiving() as refunds:
        out_trade_no = open_payment(merchant, "wechatpay", payments.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        amount = {"refund": 88, "total": 888, "currency": "CNY"}
        status, _ = merchant.wechatpay().refund(
            refund_no, amount, out_trade_no=out_trade_no, notify_url=refunds.url
        )
        assert status == 200
        wait_state(server, out_trade_no, "delivered", "delivered")
        ((headers, body),) = refunds.got
    assert wechatpay_signed(merchant, headers, body)
    notice = json.loads(body)
    assert notice["event_type"] == "REFUND.SUCCESS"
    told = decrypted(merchant, notice)
    assert (told["out_refund_no"], told["refund_status"]) == (refund_no, "SUCCESS")
    assert told["amount"]["refund"] == 88
    assert "status" not in told


def test_alipay_tells_a_refund_as_a_change_of_its_trade(tmp_path: Path) -> None:
    with running(tmp_path, alipay_refund_interval_s=0) as server, receiving() as receiver:
        merchant = Merchant(server.data)
        out_trade_no = open_payment(merchant, "alipay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_state(server, out_trade_no, "delivered")
        client = merchant.alipay()
        client.api_alipay_trade_refund("0.88", out_trade_no, out_request_no="one")
        wait_state(server, out_trade_no, "delivered", "delivered")
        client.api_alipay_trade_refund("8.00", out_trade_no, out_request_no="two")
        wait_state(server, out_trade_no, "delivered", "delivered", "delivered")
        _, partial, full = (alipay_form(merchant, body) for body in receiver.bodies())
    assert (partial["trade_status"], partial["refund_fee"]) == ("TRADE_SUCCESS", "0.88")
    assert (full["trade_status"], full["refund_fee"]) == ("TRADE_CLOSED", "8.88")
    assert (partial["out_biz_no"], full["out_biz_no"]) == ("one", "two")
    assert len({partial["notify_id"], full["notify_id"]}) == 2


def test_an_alipay_code_without_an_address_to_tell_is_told_to_nobody(
    server: Running, merchant: Merchant
) -> None:
    made = number()
    merchant.alipay().api_alipay_trade_precreate("测试商品", made, "8.88")
    server.post(f"/admin/trades/{made}/pay")
    assert notices_of(server, made) == []


def test_a_notice_that_waits_is_sent_after_a_restart(tmp_path: Path) -> None:
    # At this scale the second try is due long after the sandbox is stopped.
    with running(tmp_path, time_scale=1) as server, receiving((500, b"")) as receiver:
        merchant = Merchant(server.data)
        out_trade_no = open_payment(merchant, "wechatpay", receiver.url)
        server.post(f"/admin/trades/{out_trade_no}/pay")
        wait_count(receiver, 1)
        first = event_id("wechatpay", receiver.bodies()[0])
        port = receiver.url
    with running(tmp_path) as server:
        assert server.trade(out_trade_no)["state"] == "paid"
        waiting = notices_of(server, out_trade_no)[0]
        assert (waiting["state"], waiting["event_id"], waiting["url"]) == ("waiting", first, port)
        server.post(f"/admin/trades/{out_trade_no}/notices")

        def tried_again() -> bool:
            return len(notices_of(server, out_trade_no)[0]["deliveries"]) == 2

        wait_until(tried_again, "the notice is sent again")


def test_a_late_payment_is_taken_when_its_time_comes(server: Running, merchant: Merchant) -> None:
    with receiving() as receiver:
        out_trade_no = open_payment(merchant, "wechatpay", receiver.url)
        url = server.trade(out_trade_no)["cashier_url"]
        sent = requests.post(url, data={"act": "pay-late", "seconds": "1"}, timeout=20)
        assert 'data-said="late"' in sent.text
        assert server.trade(out_trade_no)["state"] == "open"
        wait_state(server, out_trade_no, "delivered")
    assert server.trade(out_trade_no)["paid_count"] == 1


def test_a_late_payment_is_refused_when_the_trade_was_closed_meanwhile(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no = open_payment(merchant, "wechatpay", "http://127.0.0.1:9/notify")
    url = server.trade(out_trade_no)["cashier_url"]
    requests.post(url, data={"act": "pay-late", "seconds": "1"}, timeout=20)
    assert merchant.wechatpay().close(out_trade_no)[0] == 204
    other = open_payment(merchant, "wechatpay", "http://127.0.0.1:9/notify")
    requests.post(
        server.trade(other)["cashier_url"], data={"act": "pay-late", "seconds": "1"}, timeout=20
    )
    wait_until(lambda: server.trade(other)["paid_count"] == 1, "the later one is paid")
    assert server.trade(out_trade_no)["paid_count"] == 0
