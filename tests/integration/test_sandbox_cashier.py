"""The cashier page that plays the member's phone, and the index."""

import json
import re
from collections.abc import Iterator

import pytest
import requests

from tests.integration.sandbox_kit import Merchant, Running, number, running
from tests.processes import wait_until

NOTIFY = "http://127.0.0.1:1/notify"
CHANNELS = ["wechatpay", "alipay"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


def opened(merchant: Merchant, channel: str, subject: str = "测试商品") -> tuple[str, str]:
    """(number, the code's address)."""
    out_trade_no = number()
    if channel == "alipay":
        made = merchant.alipay().api_alipay_trade_precreate(
            subject, out_trade_no, "1234.50", notify_url=NOTIFY
        )
        return out_trade_no, made["qr_code"]
    _, text = merchant.wechatpay(NOTIFY).pay(subject, out_trade_no, {"total": 123_450})
    return out_trade_no, json.loads(text)["code_url"]


def page(url: str, **headers: str) -> requests.Response:
    """GET."""
    return requests.get(url, headers=headers, timeout=20)


def press(url: str, act: str, **more: str) -> requests.Response:
    """Press a button; the answer is the page after the redirect."""
    return requests.post(url, data={"act": act, **more}, timeout=20)


def state(answer: requests.Response) -> str:
    """What the page says of the trade."""
    found = re.search(r'data-state="([a-z_]+)"', answer.text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("channel", CHANNELS)
def test_the_page_shows_what_is_to_be_paid_and_all_its_buttons(
    merchant: Merchant, channel: str
) -> None:
    out_trade_no, url = opened(merchant, channel)
    shown = page(url).text
    for text in ("¥1234.50", "测试商品", out_trade_no):
        assert text in shown
    for button in ("pay", "refuse", "pay-late", "repeat-notice", "drop-notice"):
        assert f'<button id="{button}"' in shown


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize(
    ("act", "said", "charges"),
    [
        ("pay", "paid", 1),
        ("repeat-notice", "repeated", 1),
        ("drop-notice", "dropped", 1),
        ("refuse", "refused", 0),
    ],
)
def test_each_button_does_what_it_says_and_the_page_tells(
    *, server: Running, merchant: Merchant, channel: str, act: str, said: str, charges: int
) -> None:
    out_trade_no, url = opened(merchant, channel)
    page(url)
    after = press(url, act)
    assert f'data-said="{said}"' in after.text
    assert state(after) == ("paid" if charges else "open")
    assert server.trade(out_trade_no)["paid_count"] == charges


def test_a_member_who_refused_can_still_pay(server: Running, merchant: Merchant) -> None:
    out_trade_no, url = opened(merchant, "wechatpay")
    press(url, "refuse")
    assert state(press(url, "pay")) == "paid"
    assert server.trade(out_trade_no)["paid_count"] == 1


def test_pressing_pay_twice_takes_the_money_once(server: Running, merchant: Merchant) -> None:
    out_trade_no, url = opened(merchant, "wechatpay")
    press(url, "pay")
    assert 'data-said="too_late"' in press(url, "pay").text
    assert server.trade(out_trade_no)["paid_count"] == 1


def test_an_alipay_code_must_be_opened_before_it_can_be_paid(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no, url = opened(merchant, "alipay")
    press(url, "pay")
    assert server.trade(out_trade_no)["paid_count"] == 0
    assert state(press(url, "pay")) == "paid"


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_closed_payment_shows_no_buttons_and_takes_no_money(
    server: Running, merchant: Merchant, channel: str
) -> None:
    out_trade_no, url = opened(merchant, channel)
    page(url)
    if channel == "wechatpay":
        merchant.wechatpay().close(out_trade_no)
    else:
        merchant.alipay().api_alipay_trade_close(out_trade_no)
    shown = page(url)
    assert state(shown) == "closed"
    assert "<button" not in shown.text
    for act in ("pay", "drop-notice", "repeat-notice"):
        press(url, act)
    assert server.trade(out_trade_no)["paid_count"] == 0


def test_a_replaced_code_cannot_be_paid_with(server: Running, merchant: Merchant) -> None:
    out_trade_no, old = opened(merchant, "alipay")
    page(old)
    merchant.alipay().api_alipay_trade_precreate("测试商品", out_trade_no, "1234.50")
    assert state(press(old, "pay")) == "dead"
    assert server.trade(out_trade_no)["paid_count"] == 0


@pytest.mark.parametrize("path", ["/cashier/wechatpay/none", "/cashier/paypal/none"])
def test_an_unknown_code_is_a_page_that_says_so(server: Running, path: str) -> None:
    for answer in (page(server.url + path), press(server.url + path, "pay")):
        assert answer.status_code == 404
        assert state(answer) == "unknown"


def test_a_code_of_one_channel_does_not_work_on_the_other(
    server: Running, merchant: Merchant
) -> None:
    _, url = opened(merchant, "wechatpay")
    assert page(url.replace("/wechatpay/", "/alipay/")).status_code == 404


def test_the_language_follows_the_browser_and_the_switch(merchant: Merchant) -> None:
    _, url = opened(merchant, "wechatpay")
    assert '<html lang="en">' in page(url, **{"Accept-Language": "en-GB,en;q=0.9"}).text
    chinese = page(url, **{"Accept-Language": "zh-CN,zh;q=0.9"}).text
    assert '<html lang="zh-CN">' in chinese
    english = page(url + "?lang=en", **{"Accept-Language": "zh-CN"}).text
    assert "Pay now" in english
    assert "Paid" in press(url, "pay", lang="en").text


def test_what_the_merchant_wrote_cannot_become_markup(server: Running, merchant: Merchant) -> None:
    _, url = opened(merchant, "wechatpay", "<script>alert(1)</script>")
    for shown in (page(url).text, page(server.url + "/").text):
        assert "<script" not in shown
        assert "&lt;script&gt;" in shown


def test_every_page_has_a_strict_policy_and_names_no_other_host(
    server: Running, merchant: Merchant
) -> None:
    _, url = opened(merchant, "alipay")
    for address in (url, server.url + "/", server.url + "/cashier/alipay/none"):
        answer = page(address)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', answer.text)
        assert "<style" not in answer.text
        assert "style=" not in answer.text
    css = page(server.url + "/static/style.css")
    assert css.headers["Content-Type"].startswith("text/css")
    assert "url(" not in css.text


def test_the_index_lists_trades_and_notices_with_what_became_of_them(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no, url = opened(merchant, "wechatpay")
    press(url, "pay")

    def told() -> bool:
        return "r-unreachable" in page(server.url + "/").text

    wait_until(told, "the index shows the failed delivery")
    assert out_trade_no in page(server.url + "/?lang=en").text
