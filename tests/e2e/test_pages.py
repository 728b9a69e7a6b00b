"""Every page in both sizes: nothing sticks out, nothing complains, nothing leaves the host."""

from urllib.parse import urlsplit

import pytest
from selenium.webdriver.common.by import By

from shop.commands.seed_data import DEMO_PASSWORD
from tests.e2e.browser import Browser
from tests.e2e.conftest import MakeBrowser
from tests.e2e.test_buying import buy_now, cashier, order_code
from tests.shopkit import ShopKit

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("size", ["phone", "desktop"])
def test_every_page_is_whole_quiet_and_asks_no_other_host(
    shop: ShopKit, make_browser: MakeBrowser, member_browser: MakeBrowser, size: str, language: str
) -> None:
    visitor = make_browser(size=size, language=language)
    _visit_as_stranger(visitor, language)
    browser = member_browser(size=size, language=language)
    _visit_as_member(shop, browser, language)
    for one in (visitor, browser):
        assert one.complaints() == []
        assert one.hosts() <= {urlsplit(shop.url).netloc, urlsplit(shop.sandbox.url).netloc}


def _visit_as_stranger(browser: Browser, language: str) -> None:
    browser.open("/")
    browser.picture(f"{language}-shop-front")
    browser.open("/orders")
    assert browser.path == "/sign-in"
    browser.fill("login", "alice")
    browser.fill("password", "not this one")
    browser.press("sign-in")
    browser.picture(f"{language}-sign-in-refused")
    browser.open("/nothing-here")
    browser.picture(f"{language}-error-404")


def _visit_as_member(shop: ShopKit, browser: Browser, language: str) -> None:
    browser.open("/cart")
    browser.picture(f"{language}-cart-empty")
    browser.open("/orders")
    browser.picture(f"{language}-orders-empty")
    browser.open("/goods/reading-lamp")
    browser.picture(f"{language}-product")
    browser.press("add-to-cart")
    browser.open("/goods/linen-notebook")
    browser.press("add-to-cart")
    browser.picture(f"{language}-cart")
    browser.press("to-checkout")
    browser.picture(f"{language}-checkout")
    browser.press("place-order")
    browser.find("open-on-phone")
    browser.picture(f"{language}-pay-pending")
    pending = order_code(browser)
    browser.open(f"/orders/{pending}")
    browser.picture(f"{language}-order-paying")
    browser.press("to-payment")
    cashier(browser, "pay")
    browser.find("panel-paid")
    browser.picture(f"{language}-pay-paid")
    browser.press("to-order")
    browser.picture(f"{language}-order-paid")
    _visit_troubles(shop, browser, language)
    browser.open("/orders")
    browser.picture(f"{language}-orders")


def _visit_troubles(shop: ShopKit, browser: Browser, language: str) -> None:
    fault = {"channel": "alipay", "op": "prepay", "kind": "http500", "times": 1}
    shop.sandbox.post("/admin/faults", fault)
    buy_now(browser, "longjing-tea", points=None, channel="alipay")
    browser.find("try-again")
    browser.picture(f"{language}-pay-opening")
    browser.press("try-again")
    browser.press("cancel-order")
    browser.picture(f"{language}-order-closed")
    code = order_code(browser)
    browser.open(f"/orders/{code}/pay")
    browser.picture(f"{language}-pay-closed")
    browser.open("/orders/P000000NOTMINE00000")
    browser.picture(f"{language}-error-order-not-found")


def test_the_language_follows_the_browser_and_then_the_switch(make_browser: MakeBrowser) -> None:
    browser = make_browser(language="zh-CN")
    browser.open("/goods/celadon-teapot")
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "龙泉青瓷茶壶"
    assert _page_language(browser) == "zh-CN"
    browser.press("language-en")
    assert browser.path == "/goods/celadon-teapot"
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "Longquan celadon teapot"
    browser.sign_in("alice", DEMO_PASSWORD)
    assert _page_language(browser) == "en"
    browser.press("language-zh")
    assert _page_language(browser) == "zh-CN"


def test_without_scripts_the_shop_sells_and_the_payment_page_turns_too(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser(scripts=False)
    browser.open("/goods/celadon-teapot")
    browser.press("buy-now")
    browser.find("points")
    assert not browser.has("points-slider")
    slide = browser.driver.find_element(By.CLASS_NAME, "slide")
    assert slide.value_of_css_property("display") == "none"
    buy_now(browser, "longjing-tea", points=None, channel="wechatpay")
    code = order_code(browser)
    cashier(browser, "pay")
    browser.find("panel-paid")
    assert browser.driver.title.startswith("Paid")
    assert len(shop.sandbox.charges(code)) == 1


def test_a_sign_in_leads_back_to_where_it_was_asked_for(make_browser: MakeBrowser) -> None:
    browser = make_browser()
    browser.open("/orders?page=1")
    browser.fill("login", "bob")
    browser.fill("password", DEMO_PASSWORD)
    browser.press("sign-in")
    assert browser.driver.current_url.endswith("/orders?page=1")


def test_a_visitor_who_buys_arrives_at_the_checkout_after_the_sign_in(
    make_browser: MakeBrowser,
) -> None:
    browser = make_browser()
    browser.open("/goods/longjing-tea")
    browser.fill("quantity", "2")
    browser.press("buy-now")
    browser.fill("login", "bob")
    browser.fill("password", DEMO_PASSWORD)
    browser.press("sign-in")
    assert browser.path == "/checkout"
    assert browser.find("sum-cash").text == "¥176.00"


def _page_language(browser: Browser) -> str | None:
    return browser.driver.find_element(By.TAG_NAME, "html").get_attribute("lang")
