"""The sandbox's own pages: portals, one trade's life, bills, faults and dials; and their levers."""

import json
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO

import pytest
import requests

from tests.integration.sandbox_kit import (
    Merchant,
    Running,
    beijing,
    number,
    receiving,
    running,
)
from tests.processes import wait_until

CHANNELS = ["wechatpay", "alipay"]
both_channels = pytest.mark.parametrize("channel", CHANNELS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


def opened(merchant: Merchant, channel: str, url: str = "http://127.0.0.1:1/n") -> str:
    """A new trade of 8.88 yuan."""
    out_trade_no = number()
    if channel == "alipay":
        merchant.alipay().api_alipay_trade_precreate("商品", out_trade_no, "8.88", notify_url=url)
    else:
        merchant.wechatpay(url).pay("商品", out_trade_no, {"total": 888})
    return out_trade_no


def page(url: str, **params: str) -> requests.Response:
    """GET."""
    return requests.get(url, params=params, timeout=20)


def address_of(server: Running, channel: str, out_trade_no: str) -> str:
    """The page of one trade, found by the search."""
    found = page(f"{server.url}/portal/{channel}", q=out_trade_no[3:15], lang="en")
    links = re.findall(r'href="(/portal/\w+/trades/\d+)[^"]*">([^<]+)</a>', found.text)
    assert [text for _, text in links] == [out_trade_no]
    return f"{server.url}{links[0][0]}"


def press(url: str, **form: str) -> requests.Response:
    """POST a form; the answer is the page after the redirect."""
    return requests.post(url, data=form, timeout=20)


@both_channels
def test_a_trade_is_found_paid_and_given_back_at_the_portal(
    server: Running, merchant: Merchant, channel: str
) -> None:
    with receiving() as receiver:
        out_trade_no = opened(merchant, channel, receiver.url)
        address = address_of(server, channel, out_trade_no)
        assert 'data-state="paid"' in press(address, act="pay").text
        assert 'data-state="part_refunded"' in press(address, act="refund", amount="0.88").text
        assert 'data-state="refunded"' in press(address, act="refund", amount="8.00").text
        wait_until(lambda: len(receiver.got) == 3, "payment and refunds are told")
        wait_until(lambda: page(address).text.count("r-acknowledged") == 3, "and shown so")
        press(address, act="resend")
        wait_until(lambda: len(receiver.got) == 6, "all are told again")
    assert server.trade(out_trade_no)["refunded_fen"] == 888


@both_channels
def test_what_cannot_be_done_is_said_and_changes_nothing(
    server: Running, merchant: Merchant, channel: str
) -> None:
    out_trade_no = opened(merchant, channel)
    address = address_of(server, channel, out_trade_no)
    press(address, act="pay")
    for amount in ("8.89", "", "-1", "x"):
        refused = press(address, act="refund", amount=amount)
        assert refused.status_code == 409
        assert 'id="error"' in refused.text
    assert press(address, act="pay").status_code == 409
    trade = server.trade(out_trade_no)
    assert (trade["paid_count"], trade["refunded_fen"]) == (1, 0)


def test_the_list_has_filters_and_pages(server: Running, merchant: Merchant) -> None:
    body = merchant.native("x", 888, "http://127.0.0.1:1/n")
    for _ in range(51):
        raw = json.dumps({**body, "out_trade_no": number()}).encode()
        merchant.wechatpay_request("POST", "/v3/pay/transactions/native", raw)
    first = page(f"{server.url}/portal/wechatpay", state="open")
    second = page(f"{server.url}/portal/wechatpay", state="open", page="2")
    numbers = [set(re.findall(r">(T\w{20})</a>", one.text)) for one in (first, second)]
    assert len(numbers[0]) == 50
    assert numbers[1]
    assert not numbers[0] & numbers[1]
    assert 'id="older"' in first.text
    assert 'id="newer"' in second.text
    assert page(f"{server.url}/portal/wechatpay", merchant="nobody").text.count("<tr>") == 0
    assert page(f"{server.url}/portal/paypal").status_code == 404
    other = address_of(server, "alipay", opened(merchant, "alipay"))
    assert page(other.replace("/alipay/", "/wechatpay/")).status_code == 404


@both_channels
def test_a_days_bill_can_be_downloaded(server: Running, merchant: Merchant, channel: str) -> None:
    out_trade_no = opened(merchant, channel)
    server.post(f"/admin/trades/{out_trade_no}/pay")
    bill = f"{server.url}/portal/{channel}/bill"
    found = page(bill, date=beijing(datetime.now(UTC))[:10])
    assert found.status_code == 200
    text = found.content.decode("utf-8-sig") if channel == "wechatpay" else ""
    if channel == "alipay":
        with zipfile.ZipFile(BytesIO(found.content)) as archive:
            text = archive.read(archive.namelist()[0]).decode("gbk")
    assert out_trade_no in text
    assert page(bill, date="2020-01-01").status_code == 404
    assert page(bill, date="soon").status_code == 400


def test_faults_are_ordered_shown_and_forgotten_on_their_page(server: Running) -> None:
    url = f"{server.url}/faults"
    shown = press(url, channel="alipay", op="query", kind="http500", times="3", merchant="")
    assert "http500" in re.findall(r'(?s)id="waiting".*?</ol>', shown.text)[0]
    assert server.get("/admin/faults")["faults"][0]["times"] == 3
    wrong = press(url, channel="alipay", op="query", kind="duplicate", times="x")
    assert wrong.status_code == 400
    assert 'id="error"' in wrong.text
    assert 'id="none"' in press(f"{url}/clear").text
    cross = requests.post(url, headers={"Sec-Fetch-Site": "cross-site"}, timeout=20)
    assert cross.status_code == 403


def test_the_time_scale_is_turned_while_it_runs(server: Running) -> None:
    before = server.get("/admin/dials")
    shown = press(f"{server.url}/dials", time_scale="0.5", bills_at_once="no")
    assert 'value="0.5"' in shown.text
    assert server.get("/admin/dials") == {"time_scale": 0.5, "bills_at_once": False}
    assert press(f"{server.url}/dials", time_scale="0").status_code == 400
    refused = requests.post(f"{server.url}/admin/dials", json={"time": 1}, timeout=20)
    assert refused.status_code == 400
    assert server.post("/admin/dials", before) == before


def test_merchants_are_made_and_their_settings_chosen(server: Running) -> None:
    made = server.post("/admin/merchants", {"name": "second"})
    assert made["mchid"] != server.get("/admin/merchants")["merchants"][0]["mchid"]
    path = "/admin/merchants/second"
    chosen = server.post(f"{path}/settings", {"wechatpay_notices": "both"})
    assert chosen["settings"]["wechatpay_notices"] == "both"
    before = len(chosen["wechatpay_certificates"])
    rotated = server.post(f"{path}/certificates", {"channel": "wechatpay"})
    assert len(rotated["wechatpay_certificates"]) == before + 1
    for address, body, status in (
        ("/admin/merchants", {"name": "../x"}, 400),
        (f"{path}/settings", {"wechatpay_notices": "neither"}, 400),
        (f"{path}/certificates", {"channel": "paypal"}, 400),
        ("/admin/merchants/nobody/settings", {}, 404),
    ):
        refused = requests.post(f"{server.url}{address}", json=body, timeout=20)
        assert (refused.status_code, "error" in refused.json()) == (status, True)


def test_every_page_is_there_in_both_languages_under_a_strict_policy(
    server: Running, merchant: Merchant
) -> None:
    trade = address_of(server, "alipay", opened(merchant, "alipay"))
    pages = ("/", "/portal/wechatpay", "/portal/alipay", "/faults")
    for address in (*(server.url + path for path in pages), trade):
        for lang, tag in (("zh", 'lang="zh-CN"'), ("en", 'lang="en"')):
            answer = page(address, lang=lang)
            assert answer.status_code == 200
            assert f"<html {tag}" in answer.text
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "style=" not in answer.text
