"""A person buys something, in a real browser, and pays in the sandbox's cashier."""

import pytest
from selenium.webdriver.common.action_chains import ActionChains

from tests.e2e.browser import Browser
from tests.e2e.conftest import MakeBrowser
from tests.shopkit import ShopKit

pytestmark = pytest.mark.e2e


def buy_now(browser: Browser, sku: str, *, points: int | None, channel: str | None) -> None:
    """From the product's page to the page after the order was placed."""
    browser.open(f"/goods/{sku}")
    browser.press("buy-now")
    if points is not None:
        browser.fill("points", str(points))
    if channel is not None:
        browser.find(f"channel-{channel}").click()
    browser.press("place-order")


def cashier(browser: Browser, *presses: str) -> None:
    """Open the QR code's address in another tab, press what is said, and come back."""
    link = browser.attribute("open-on-phone", "href")
    shop_tab = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("tab")
    browser.driver.get(link)
    for button in presses:
        browser.press(button)
    browser.driver.close()
    browser.driver.switch_to.window(shop_tab)


def order_code(browser: Browser) -> str:
    """The code in the address of an order's page or of its payment."""
    return browser.path.split("/")[2]


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_the_page_turns_to_paid_by_itself_after_the_cashier_took_the_money(
    shop: ShopKit, member_browser: MakeBrowser, channel: str
) -> None:
    browser = member_browser()
    buy_now(browser, "celadon-teapot", points=3_000, channel=channel)
    assert browser.path.endswith("/pay")
    code = order_code(browser)
    assert browser.find("pay-due").text == "¥138.00"
    browser.driver.execute_script("window.sameDocument = true")

    cashier(browser, "pay")

    browser.find("panel-paid")
    assert browser.driver.execute_script("return window.sameDocument") is True
    assert browser.driver.title.startswith("Paid")
    browser.press("to-order")
    assert browser.attribute("order-state", "data-state") == "paid"
    assert browser.find("balance").text == "47,000"
    charges = shop.sandbox.charges(code)
    assert [(one["channel"], one["amount_fen"]) for one in charges] == [(channel, 13_800)]
    assert shop.broken() == []


def test_points_alone_pay_at_once(shop: ShopKit, member_browser: MakeBrowser) -> None:
    browser = member_browser()
    buy_now(browser, "linen-notebook", points=None, channel=None)
    assert browser.path == f"/orders/{order_code(browser)}"
    assert browser.attribute("order-state", "data-state") == "paid"
    assert browser.find("balance").text == "47,600"
    assert shop.broken() == []


def test_the_slider_at_its_end_leaves_no_cash_and_asks_for_no_channel(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    browser.open("/goods/coffee-voucher")
    browser.press("buy-now")
    browser.fill("points", "1000")
    assert browser.find("sum-cash").text == "¥20.00"
    assert browser.has("channels")
    browser.fill("points", "3000")
    assert browser.find("sum-cash").text == "¥0.00"
    assert not browser.has("channels")
    browser.press("place-order")
    assert browser.attribute("order-state", "data-state") == "paid"
    assert shop.sandbox.charges(order_code(browser)) == []


def test_a_cart_is_ordered_whole_and_is_empty_afterwards(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    for sku in ("steel-flask", "canvas-tote"):
        browser.open(f"/goods/{sku}")
        browser.press("add-to-cart")
    browser.press("to-checkout")
    browser.press("place-order")
    cashier(browser, "pay")
    browser.find("panel-paid")
    browser.open("/cart")
    assert not browser.has("to-checkout")
    assert shop.broken() == []


def test_a_double_click_makes_one_order_and_one_charge(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    browser.open("/goods/steel-flask")
    browser.press("buy-now")
    ActionChains(browser.driver).double_click(browser.find("place-order")).perform()
    browser.wait(lambda: browser.path.endswith("/pay"), "the payment page")
    code = order_code(browser)
    cashier(browser, "pay")
    browser.find("panel-paid")
    browser.open("/orders")
    assert browser.driver.page_source.count('id="order-P') == 1
    assert len(shop.sandbox.charges(code)) == 1


def test_going_back_and_pressing_the_button_again_leads_to_the_same_order_and_payment(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    buy_now(browser, "steel-flask", points=2_000, channel="wechatpay")
    code, link = order_code(browser), browser.attribute("open-on-phone", "href")
    browser.driver.back()
    browser.find("ordered-before")
    assert browser.attribute("points", "value") == "2000"
    browser.press("place-order")
    assert order_code(browser) == code
    assert browser.attribute("open-on-phone", "href") == link
    cashier(browser, "pay")
    browser.find("panel-paid")
    browser.open("/orders")
    assert browser.driver.page_source.count('id="order-P') == 1
    assert len(shop.sandbox.charges(code)) == 1
    assert shop.sandbox.charges(code)[0]["amount_fen"] == 10_900
    assert shop.broken() == []


def test_two_submits_of_one_form_make_one_order_even_without_the_page_s_help(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    browser.open("/goods/steel-flask")
    browser.press("buy-now")
    codes = browser.driver.execute_async_script(
        """
        const done = arguments[0];
        const form = document.getElementById("checkout");
        const send = () => fetch(form.action, {method: "POST", body: new URLSearchParams(
            new FormData(form)), headers: {Accept: "application/json"}}).then((r) => r.json());
        Promise.all([send(), send(), send()]).then((all) => done(all));
        """
    )
    answered = {one["order_code"] for one in codes if "order_code" in one}
    assert len(answered) == 1, codes
    browser.open("/orders")
    assert browser.driver.page_source.count('id="order-P') == 1
    assert shop.broken() == []


def test_the_payment_page_survives_a_reload(shop: ShopKit, member_browser: MakeBrowser) -> None:
    browser = member_browser()
    buy_now(browser, "longjing-tea", points=None, channel="wechatpay")
    link = browser.attribute("open-on-phone", "href")
    browser.driver.refresh()
    assert browser.attribute("open-on-phone", "href") == link
    cashier(browser, "pay")
    browser.find("panel-paid")
    browser.driver.refresh()
    browser.find("panel-paid")
    assert len(shop.sandbox.charges(order_code(browser))) == 1


def test_another_way_to_pay_closes_the_first(shop: ShopKit, member_browser: MakeBrowser) -> None:
    browser = member_browser()
    buy_now(browser, "longjing-tea", points=None, channel="wechatpay")
    first = browser.attribute("open-on-phone", "href")
    browser.press("pay-alipay")
    browser.wait(lambda: browser.attribute("open-on-phone", "href") != first, "another code")
    code = order_code(browser)
    cashier(browser, "pay")
    browser.find("panel-paid")
    assert [one["channel"] for one in shop.sandbox.charges(code)] == ["alipay"]
    assert shop.sandbox.get(f"/admin/trades/{code}01")["state"] == "closed"
    browser.press("to-order")
    assert "You chose another way to pay." in browser.driver.page_source
    assert "Points set aside" not in browser.driver.page_source
    assert shop.broken() == []


def test_a_payment_refused_on_the_phone_charges_nothing_and_can_be_given_up(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    buy_now(browser, "celadon-teapot", points=8_400, channel="wechatpay")
    code = order_code(browser)
    assert browser.find("balance").text == "41,600"
    cashier(browser, "refuse")
    browser.press("cancel-order")
    assert browser.attribute("order-state", "data-state") == "closed"
    assert browser.find("balance").text == "50,000"
    assert shop.sandbox.charges(code) == []
    assert shop.broken() == []


def test_a_gateway_that_gives_no_clear_answer_is_asked_again_by_hand(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    fault = {"channel": "wechatpay", "op": "prepay", "kind": "drop_after_effect", "times": 1}
    shop.sandbox.post("/admin/faults", fault)
    buy_now(browser, "longjing-tea", points=None, channel="wechatpay")
    browser.press("try-again")
    cashier(browser, "pay")
    browser.find("panel-paid")
    assert len(shop.sandbox.charges(order_code(browser))) == 1
    assert shop.broken() == []


def test_a_change_of_channel_that_is_not_confirmed_keeps_the_first_code_and_says_so(
    shop: ShopKit, member_browser: MakeBrowser
) -> None:
    browser = member_browser()
    buy_now(browser, "longjing-tea", points=None, channel="wechatpay")
    first = browser.attribute("open-on-phone", "href")
    fault = {"channel": "wechatpay", "op": "close", "kind": "http500", "times": 3}
    shop.sandbox.post("/admin/faults", fault)
    browser.press("pay-alipay")
    assert "Alipay" in browser.find("not-changed").text
    assert browser.attribute("open-on-phone", "href") == first
    browser.driver.refresh()
    browser.find("open-on-phone")
    assert not browser.has("not-changed")
    cashier(browser, "pay")
    browser.find("panel-paid")
    charges = shop.sandbox.charges(order_code(browser))
    assert [one["channel"] for one in charges] == ["wechatpay"]
    assert shop.broken() == []
