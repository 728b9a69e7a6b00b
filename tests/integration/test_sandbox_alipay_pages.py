"""Alipay's page and WAP pay in the sandbox: a browser comes with what the merchant signed."""

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from sandbox import alipay_certs, alipay_pages, clock, sandbox_of, trades
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

PAGE, WAP = "alipay.trade.page.pay", "alipay.trade.wap.pay"
CODES = {PAGE: "FAST_INSTANT_TRADE_PAY", WAP: "QUICK_WAP_WAY"}
NOTIFY = "http://127.0.0.1:9/notify"
BACK = "http://127.0.0.1:9/back?order=7&note=%E8%8C%B6"


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


def asked(merchant: Merchant, method: str = PAGE, **more: Any) -> dict[str, str]:
    """Signed parameters of a payment; `return_url` and `notify_url` beside the business ones."""
    public = {name: more.pop(name) for name in ("return_url", "notify_url") if name in more}
    biz = {
        "out_trade_no": number(),
        "total_amount": "88.88",
        "subject": "测试商品",
        "product_code": CODES[method],
        **more,
    }
    return merchant.alipay_params(method, biz, **{"notify_url": NOTIFY, **public})


def go(server: Running, params: dict[str, str], *, post: bool = False) -> requests.Response:
    """What the browser gets from the gateway itself; it follows nothing."""
    url = f"{server.url}/gateway.do"
    if not post:
        return requests.get(url, params=params, timeout=20, allow_redirects=False)
    query = {name: value for name, value in params.items() if name != "biz_content"}
    form = {"biz_content": params["biz_content"]}
    return requests.post(url, params=query, data=form, timeout=20, allow_redirects=False)


def opened(server: Running, params: dict[str, str]) -> str:
    """The cashier page's address, and the page was opened."""
    address = go(server, params).headers["Location"]
    page = requests.get(address, timeout=20)
    assert page.status_code == 200
    assert 'id="pay"' in page.text
    return address


def refused(answer: requests.Response) -> str:
    """The code on a page that says what is wrong, to a reader."""
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "无法付款" in answer.text
    found = re.search(r'id="code">([^<]*)<', answer.text)
    assert found is not None, answer.text
    return html.unescape(found[1])


@pytest.mark.parametrize("method", [PAGE, WAP])
@pytest.mark.parametrize("post", [False, True])
def test_the_browser_is_led_to_the_cashier_and_only_there_a_trade_comes_to_be(
    *, server: Running, merchant: Merchant, client: Any, method: str, post: bool
) -> None:
    out_trade_no = number()
    answer = go(server, asked(merchant, method, out_trade_no=out_trade_no), post=post)
    assert answer.status_code == 302
    before = client.api_alipay_trade_query(out_trade_no)
    assert before["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    requests.get(answer.headers["Location"], timeout=20).raise_for_status()
    assert client.api_alipay_trade_query(out_trade_no)["trade_status"] == "WAIT_BUYER_PAY"
    server.post(f"/admin/trades/{out_trade_no}/pay")
    assert client.api_alipay_trade_query(out_trade_no)["trade_status"] == "TRADE_SUCCESS"


def test_the_librarys_own_address_is_understood(server: Running, client: Any) -> None:
    out_trade_no = number()
    for method, more in (("page", {}), ("wap", {"product_code": CODES[WAP]})):
        sign = getattr(client, f"api_alipay_trade_{method}_pay")
        query = sign("测试商品", out_trade_no + method, "1.00", return_url=BACK, **more)
        answer = requests.get(f"{server.url}/gateway.do?{query}", timeout=20)
        assert 'id="pay"' in answer.text


@pytest.mark.parametrize("method", [PAGE, WAP])
def test_after_paying_the_browser_goes_back_with_signed_parameters(
    server: Running, merchant: Merchant, method: str
) -> None:
    out_trade_no = number()
    opened(server, asked(merchant, method, out_trade_no=out_trade_no, return_url=BACK))
    box = sandbox_of(server.app)

    def address() -> str:
        with box.store.write() as tx:
            trade = trades.find(tx, "alipay", "default", out_trade_no, clock.now_ms())
        assert trade is not None
        keys = box.merchants.of("default")
        signer = alipay_certs.signer(keys, certified=False, now=clock.now_ms())
        return alipay_pages.return_address(trade, keys.identity, signer, clock.now_ms())

    paid = server.post(f"/admin/trades/{out_trade_no}/pay")
    parts = urlsplit(address())
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == BACK.split("?", maxsplit=1)[0]
    fields = dict(parse_qsl(parts.query))
    # The merchant's own parameters come back beside the signed ones.
    assert (fields.pop("order"), fields.pop("note")) == ("7", "茶")
    signature = fields.pop("sign")
    assert fields.pop("sign_type") == "RSA2"
    assert abs(datetime.fromisoformat(fields.pop("timestamp") + "+08:00") - datetime.now(UTC)) < (
        timedelta(minutes=5)
    )
    assert fields == {
        "app_id": merchant.env["ALIPAY_APP_ID"],
        "auth_app_id": merchant.env["ALIPAY_APP_ID"],
        "charset": "utf-8",
        "method": f"{method}.return",
        "out_trade_no": out_trade_no,
        "seller_id": merchant.env["ALIPAY_SELLER_ID"],
        "total_amount": "88.88",
        "trade_no": paid["transaction_id"],
        "version": "1.0",
    }
    told = dict(parse_qsl(parts.query)) | {"order": "", "note": "", "sign": "", "sign_type": ""}
    text = "&".join(f"{name}={told[name]}" for name in sorted(told) if told[name])
    assert holds(merchant.public_key("ALIPAY_PUBLIC_KEY_FILE"), text.encode(), signature)


def test_the_same_request_again_finds_the_same_page(server: Running, merchant: Merchant) -> None:
    params = asked(merchant)
    address = opened(server, params)
    assert opened(server, params) == address
    # Signed afresh, as a reload of the shop's page does.
    biz = {"biz_content": params["biz_content"]}
    again = merchant.alipay_params(PAGE, None, notify_url=NOTIFY, **biz)
    assert opened(server, again) == address


def test_the_same_number_with_other_parameters_follows_the_trades_state(
    server: Running, merchant: Merchant, client: Any
) -> None:
    out_trade_no = number()
    opened(server, asked(merchant, out_trade_no=out_trade_no))
    for other in ({"total_amount": "1.00"}, {"subject": "别的商品"}):
        answer = go(server, asked(merchant, out_trade_no=out_trade_no, **other))
        assert refused(answer) == "ACQ.CONTEXT_INCONSISTENT"
    by_wap = go(server, asked(merchant, WAP, out_trade_no=out_trade_no))
    assert refused(by_wap) == "ACQ.CONTEXT_INCONSISTENT"
    server.post(f"/admin/trades/{out_trade_no}/pay")
    again = asked(merchant, out_trade_no=out_trade_no)
    assert refused(go(server, again)) == "ACQ.TRADE_HAS_SUCCESS"

    closed = number()
    opened(server, asked(merchant, out_trade_no=closed))
    assert client.api_alipay_trade_close(closed)["code"] == "10000"
    assert refused(go(server, asked(merchant, out_trade_no=closed))) == "ACQ.TRADE_HAS_CLOSE"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"subject": "a=b"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": "<script>&"}, "ACQ.INVALID_PARAMETER"),
        ({"product_code": "QUICK_WAP_WAY"}, "ACQ.INVALID_PARAMETER"),
        ({"product_code": ""}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "0.001"}, "ACQ.INVALID_PARAMETER"),
        ({"return_url": "javascript:alert(1)"}, "ACQ.INVALID_PARAMETER"),
        ({"quit_url": "nowhere"}, "ACQ.INVALID_PARAMETER"),
        ({"time_expire": "2020-01-01 00:00:00"}, "ACQ.INVALID_PARAMETER"),
    ],
)
def test_a_wrong_parameter_is_told_by_a_page(
    server: Running, merchant: Merchant, more: dict[str, str], code: str
) -> None:
    assert refused(go(server, asked(merchant, **more))) == code


def test_an_altered_address_is_refused_by_a_page(server: Running, merchant: Merchant) -> None:
    params = asked(merchant, return_url=BACK)
    for altered in (
        {"sign": "AAAA"},
        {"return_url": "http://127.0.0.1:9/elsewhere"},
        {"biz_content": params["biz_content"].replace("88.88", "00.01")},
        {"method": WAP},
    ):
        assert refused(go(server, {**params, **altered})) == "isv.invalid-signature"
    stale = beijing(datetime.now(UTC) - timedelta(hours=1))
    old = merchant.alipay_params(PAGE, {}, timestamp=stale)
    assert refused(go(server, old)) == "isv.invalid-timestamp"


def test_time_ends_an_unpaid_page_and_a_notice_says_so(
    server: Running, merchant: Merchant, client: Any
) -> None:
    with receiving() as shop:
        out_trade_no = number()
        address = opened(server, asked(merchant, out_trade_no=out_trade_no, notify_url=shop.url))
        with sandbox_of(server.app).store.write() as tx:
            tx.execute(
                "UPDATE trades SET expires_at_ms = ? WHERE out_trade_no = ?",
                (clock.now_ms(), out_trade_no),
            )
        wait_until(lambda: bool(shop.got), "the notice comes")
        fields = alipay_form(merchant, shop.bodies()[0])
    assert (fields["trade_status"], fields["out_trade_no"]) == ("TRADE_CLOSED", out_trade_no)
    assert "gmt_close" in fields
    assert "gmt_payment" not in fields
    assert client.api_alipay_trade_query(out_trade_no)["trade_status"] == "TRADE_CLOSED"
    assert 'id="pay"' not in requests.get(address, timeout=20).text


def test_closing_tells_of_a_page_but_not_of_a_code(
    server: Running, merchant: Merchant, client: Any
) -> None:
    with receiving() as shop:
        page, code = number(), number()
        opened(server, asked(merchant, out_trade_no=page, notify_url=shop.url))
        made = client.api_alipay_trade_precreate("测试商品", code, "1.00", notify_url=shop.url)
        requests.get(made["qr_code"], timeout=20).raise_for_status()
        for one in (code, page):
            assert client.api_alipay_trade_close(one)["code"] == "10000"
        wait_until(lambda: bool(shop.got), "the notice comes")
        fields = alipay_form(merchant, shop.bodies()[0])
    assert (fields["trade_status"], fields["out_trade_no"]) == ("TRADE_CLOSED", page)
    assert server.trade(code)["notices"] == []
