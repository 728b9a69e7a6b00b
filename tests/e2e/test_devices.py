"""Each device pays in its own way: on a phone, inside WeChat, on a gateway's own page."""

import urllib.request

import pytest

from shop.orders.store import attempts_of
from tests.e2e.browser import Browser
from tests.e2e.conftest import MakeBrowser
from tests.e2e.test_buying import buy_now, order_code
from tests.shopkit import ShopKit

pytestmark = pytest.mark.e2e

PHONE = (
    "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/130.0.0.0 Mobile Safari/537.36"
)
WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like"
    " Gecko) Mobile/15E148 MicroMessenger/8.0.50(0x18003237) NetType/WIFI Language/en"
)


def products(shop: ShopKit, code: str) -> list[str]:
    """How it was tried to pay the order."""
    with shop.app():
        return [one.product for one in attempts_of(code)]


def check_paid_once(shop: ShopKit, browser: Browser, code: str, channel: str) -> None:
    """The page says so, and so do the gateway and the books."""
    browser.wait(lambda: browser.path == f"/orders/{code}/pay", "back at the shop")
    browser.find("panel-paid")
    assert [one["channel"] for one in shop.sandbox.charges(code)] == [channel]
    assert shop.broken() == []


@pytest.mark.parametrize(("channel", "product"), [("wechatpay", "h5"), ("alipay", "wap")])
def test_on_a_phone_the_browser_goes_to_the_gateway_and_comes_back(
    shop: ShopKit, member_browser: MakeBrowser, channel: str, product: str
) -> None:
    browser = member_browser(size="phone", user_agent=PHONE)
    buy_now(browser, "celadon-teapot", points=3_000, channel=channel)
    code = order_code(browser)
    browser.press("go-to-gateway")
    browser.press("pay")
    check_paid_once(shop, browser, code, channel)
    assert products(shop, code) == [product]


def test_on_a_desktop_alipay_can_be_paid_on_its_own_page(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    buy_now(browser, "celadon-teapot", points=3_000, channel="alipay")
    code = order_code(browser)
    browser.press("pay-on-page")
    browser.press("go-to-gateway")
    browser.press("pay")
    check_paid_once(shop, browser, code, "alipay")
    assert products(shop, code) == ["precreate", "page"]


def test_inside_wechat_the_payer_is_learnt_and_its_bridge_pays(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    address = f"{shop.sandbox.url}/bridge.js"
    with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 - our own sandbox
        bridge = answer.read().decode()
    browser = member_browser(size="phone", user_agent=WECHAT, first_script=bridge)
    buy_now(browser, "celadon-teapot", points=3_000, channel="wechatpay")
    code = order_code(browser)
    # The first time it was only learnt who pays.
    assert products(shop, code) == []
    browser.press("pay-wechatpay")
    browser.press("bridge-pay")
    browser.press("pay")
    check_paid_once(shop, browser, code, "wechatpay")
    assert products(shop, code) == ["jsapi"]


def test_what_was_begun_on_a_desktop_is_paid_on_the_phone_under_a_number_of_its_own(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    buy_now(browser, "celadon-teapot", points=3_000, channel="wechatpay")
    code = order_code(browser)
    browser.command("Emulation.setUserAgentOverride", userAgent=PHONE)
    browser.open(f"/orders/{code}/pay")
    browser.press("pay-here")
    browser.press("go-to-gateway")
    browser.press("pay")
    check_paid_once(shop, browser, code, "wechatpay")
    assert products(shop, code) == ["native", "h5"]


def test_a_bridge_that_fails_is_not_told_as_if_nothing_was_charged(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    answers = "(name, given, answer) => answer({ err_msg: `get_brand_wcpay_request:${said}` })"
    script = f"let said = 'fail'; window.WeixinJSBridge = {{ invoke: {answers} }};"
    browser = member_browser(size="phone", user_agent=WECHAT, first_script=script)
    buy_now(browser, "celadon-teapot", points=3_000, channel="wechatpay")
    browser.press("pay-wechatpay")
    browser.find("bridge-pay").click()
    browser.find("bridge-failed")
    assert browser.find("bridge-pay").is_enabled()
    assert not browser.has("bridge-cancelled")
