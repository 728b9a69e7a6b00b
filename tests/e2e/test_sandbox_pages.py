"""The sandbox's own pages in a browser: an H5 payment that leads back, then its portal."""

import json
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as seen
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.browser import PATIENCE_S, Browser
from tests.integration.sandbox_kit import Merchant, Running, number, running


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        yield found


def h5(merchant: Merchant, out_trade_no: str) -> str:
    """The address of a new H5 payment of 8.88 yuan."""
    scene = {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}
    body = merchant.native(out_trade_no, 888, "http://127.0.0.1:1/n", scene_info=scene)
    raw = json.dumps(body).encode()
    answer = merchant.wechatpay_request("POST", "/v3/pay/transactions/h5", raw)
    return str(answer.json()["h5_url"])


def test_an_h5_payment_leads_back_and_is_given_back_at_the_portal(server: Running) -> None:
    out_trade_no, back = number(), f"{server.url}/faults?from=pay"
    address = h5(Merchant(server.data), out_trade_no)
    with Browser(server.url, size="phone", language="en") as browser:
        driver, wait = browser.driver, WebDriverWait(browser.driver, PATIENCE_S)
        leaving = {"url": f"{address}&redirect_url={back}", "referrer": "http://shop.example/"}
        browser.command("Page.navigate", **leaving)
        wait.until(seen.presence_of_element_located((By.ID, "pay")))
        driver.find_element(By.ID, "pay").send_keys(Keys.ENTER)
        # The browser goes there by itself, as it does from the real page.
        wait.until(seen.url_to_be(back))

        driver.get(f"{server.url}/portal/wechatpay")
        driver.find_element(By.ID, "q").send_keys(out_trade_no[:12], Keys.ENTER)
        wait.until(seen.presence_of_element_located((By.LINK_TEXT, out_trade_no))).click()
        paid = (By.CSS_SELECTOR, '#state[data-state="paid"]')
        wait.until(seen.presence_of_element_located(paid))
        driver.find_element(By.ID, "refund").send_keys(Keys.ENTER)
        refunded = (By.CSS_SELECTOR, '#state[data-state="refunded"]')
        wait.until(seen.presence_of_element_located(refunded))
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
    trade = server.trade(out_trade_no)
    assert (trade["paid_count"], trade["refunded_fen"]) == (1, 888)
