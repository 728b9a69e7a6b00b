"""Paying on a phone by WeChat Pay: openids, JSAPI and its bridge, H5."""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from selenium.webdriver.common.by import By

from sandbox import sandbox_of
from tests.e2e.browser import Browser
from tests.integration.sandbox_kit import Merchant, Running, number, running

JSAPI, H5, NATIVE = (f"/v3/pay/transactions/{one}" for one in ("jsapi", "h5", "native"))
NOTIFY = "http://127.0.0.1:9/notify"
SHOP = "http://127.0.0.1:9/paid?order=1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("sandbox"), time_scale=0.001) as found:
        sandbox_of(found.app).merchants.add("press")
        yield found


@pytest.fixture(scope="module")
def merchant(server: Running) -> Merchant:
    return Merchant(server.data)


@pytest.fixture(scope="module")
def openid(server: Running, merchant: Merchant) -> str:
    return str(openid_of(merchant, code(merchant))["openid"])


def authorize(merchant: Merchant, member: str = "", **changes: str) -> requests.Response:
    """What a browser that is sent to the authorization address gets."""
    asked = {
        "appid": merchant.env["WECHATPAY_APPID"],
        "redirect_uri": SHOP,
        "response_type": "code",
        "scope": "snsapi_base",
        "state": "abc-123.x_y",
        **changes,
    }
    return requests.get(
        merchant.env["WECHATPAY_AUTHORIZE_URL"],
        params=asked,
        cookies={"sandbox_member": member} if member else {},
        allow_redirects=False,
        timeout=20,
    )


def code(merchant: Merchant, member: str = "") -> str:
    """A fresh code, as it comes back in the address."""
    sent = authorize(merchant, member)
    assert sent.status_code == 302
    target = urlsplit(sent.headers["Location"])
    asked = parse_qs(target.query)
    assert f"{target.scheme}://{target.netloc}{target.path}" == SHOP.partition("?")[0]
    assert (asked["order"], asked["state"]) == (["1"], ["abc-123.x_y"])
    return asked["code"][0]


def openid_of(merchant: Merchant, one_time: str, **changes: str) -> Any:
    """What the shop's server is told for a code."""
    asked = {
        "appid": merchant.env["WECHATPAY_APPID"],
        "secret": merchant.read("WECHATPAY_APP_SECRET_FILE"),
        "code": one_time,
        "grant_type": "authorization_code",
        **changes,
    }
    answer = requests.get(merchant.env["WECHATPAY_OPENID_URL"], params=asked, timeout=20)
    assert answer.status_code == 200
    return answer.json()


def prepay(merchant: Merchant, target: str, out_trade_no: str = "", **more: Any) -> Any:
    """(status, answer) of a prepay of one product."""
    body = merchant.native(out_trade_no or number(), 888, NOTIFY, **more)
    answer = merchant.wechatpay_request("POST", target, json.dumps(body).encode())
    return answer.status_code, answer.json()


def scene(ip: Any = "192.0.2.7", kind: Any = "Wap") -> dict[str, Any]:
    """Where an H5 payment comes from."""
    return {"payer_client_ip": ip, "h5_info": {"type": kind}}


def call(merchant: Merchant, prepay_id: str, **changes: str) -> dict[str, str]:
    """The parameters of the page's call of the bridge, signed by the rule, then changed."""
    stamp = changes.pop("signed_at", str(int(time.time())))
    given = {
        "appId": merchant.env["WECHATPAY_APPID"],
        "timeStamp": stamp,
        "nonceStr": secrets.token_hex(16),
        "package": f"prepay_id={prepay_id}",
    }
    message = "".join(f"{value}\n" for value in given.values()).encode()
    signature = merchant.private_key.sign(message, PKCS1v15(), SHA256())
    signed = {"signType": "RSA", "paySign": base64.b64encode(signature).decode()}
    return {**given, **signed, **changes}


def test_a_code_gives_an_openid_once(merchant: Merchant) -> None:
    one_time = code(merchant)
    told = openid_of(merchant, one_time)
    assert set(told) == {"access_token", "expires_in", "refresh_token", "openid", "scope"}
    assert openid_of(merchant, one_time)["errcode"] == 40029


def test_an_openid_is_the_same_each_time_and_differs_by_member_and_application(
    server: Running, merchant: Merchant
) -> None:
    press = Merchant(server.data, "merchants/press.env")
    first, again, other = (
        openid_of(merchant, code(merchant, member))["openid"] for member in ("", "demo", "lan")
    )
    elsewhere = openid_of(press, code(press))["openid"]
    assert first == again
    assert len({first, other, elsewhere}) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appid", "wx0"),
        ("redirect_uri", "/here"),
        ("redirect_uri", "javascript:alert(1)"),
        ("redirect_uri", "http://[::1"),
        ("response_type", "token"),
        ("scope", "snsapi_userinfo"),
        ("state", "x" * 129),
    ],
)
def test_an_authorization_that_is_wrong_shows_what_and_goes_nowhere(
    merchant: Merchant, name: str, value: str
) -> None:
    refused = authorize(merchant, **{name: value})
    assert refused.status_code == 400
    assert refused.text.startswith(name)
    assert "Location" not in refused.headers


@pytest.mark.parametrize(
    ("name", "value", "errcode"),
    [
        ("appid", "wx0", 40013),
        ("secret", "0" * 32, 40125),
        ("grant_type", "password", 40002),
        ("code", "", 41008),
        ("code", "x" * 32, 40029),
    ],
)
def test_a_code_is_exchanged_only_by_its_own_application(
    merchant: Merchant, name: str, value: str, errcode: int
) -> None:
    told = openid_of(merchant, code(merchant), **{name: value})
    assert (told["errcode"], "openid" in told) == (errcode, False)


def test_a_code_of_one_application_is_nothing_to_another(
    server: Running, merchant: Merchant
) -> None:
    press = Merchant(server.data, "merchants/press.env")
    assert openid_of(press, code(merchant))["errcode"] == 40029


def test_a_code_dies_after_five_minutes(server: Running, merchant: Merchant) -> None:
    one_time = code(merchant)
    with sandbox_of(server.app).store.write() as tx:
        life = "SELECT expires_at_ms - ? FROM oauth_codes WHERE code = ?"
        (left_ms,) = tx.execute(life, (time.time() * 1_000, one_time)).fetchone()
        assert 0 < left_ms <= 300_000
        tx.execute("UPDATE oauth_codes SET expires_at_ms = 0 WHERE code = ?", (one_time,))
    assert openid_of(merchant, one_time)["errcode"] == 40029


def test_a_jsapi_payment_is_for_the_member_who_was_named(
    server: Running, merchant: Merchant, openid: str
) -> None:
    out_trade_no = number()
    status, opened = prepay(merchant, JSAPI, out_trade_no, payer={"openid": openid})
    assert status == 200
    assert set(opened) == {"prepay_id"}
    server.post(f"/admin/trades/{out_trade_no}/pay")
    mchid = merchant.env["WECHATPAY_MCHID"]
    target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}?mchid={mchid}"
    told = merchant.wechatpay_request("GET", target).json()
    assert (told["trade_type"], told["payer"]) == ("JSAPI", {"openid": openid})


@pytest.mark.parametrize(
    ("payer", "code_told"),
    [
        (None, "PARAM_ERROR"),
        ("o", "PARAM_ERROR"),
        ({}, "PARAM_ERROR"),
        ({"openid": 7}, "PARAM_ERROR"),
        ({"openid": "o" + "0" * 27}, "INVALID_REQUEST"),
    ],
)
def test_a_jsapi_payment_needs_an_openid_that_was_given_out(
    merchant: Merchant, payer: Any, code_told: str
) -> None:
    status, told = prepay(merchant, JSAPI, payer=payer)
    assert (status, told["code"]) == (400, code_told)


def test_an_openid_of_another_application_is_refused(server: Running, openid: str) -> None:
    press = Merchant(server.data, "merchants/press.env")
    status, told = prepay(press, JSAPI, payer={"openid": openid})
    assert (status, told["code"]) == (400, "INVALID_REQUEST")


def test_an_h5_payment_is_paid_at_its_address(server: Running, merchant: Merchant) -> None:
    out_trade_no = number()
    status, opened = prepay(merchant, H5, out_trade_no, scene_info=scene())
    assert status == 200
    assert urlsplit(opened["h5_url"]).query, "merchants append &redirect_url="
    page = f"{opened['h5_url']}&{urlencode({'redirect_url': SHOP})}"
    # From no page at all, or from one that does not say so, it is refused, as at WeChat Pay.
    untold = requests.get(page, timeout=20)
    assert (untold.status_code, 'data-state="no_referer"' in untold.text) == (403, True)
    told = requests.get(page, headers={"Referer": "https://shop.example/"}, timeout=20)
    assert (told.status_code, 'id="pay"' in told.text) == (200, True)
    form = {"act": "pay", "redirect_url": SHOP}
    paid = requests.post(page, data=form, allow_redirects=False, timeout=20)
    assert paid.status_code == 303
    assert server.trade(out_trade_no)["gateway_state"] == "SUCCESS"
    mchid = merchant.env["WECHATPAY_MCHID"]
    target = f"/v3/pay/transactions/out-trade-no/{out_trade_no}?mchid={mchid}"
    assert merchant.wechatpay_request("GET", target).json()["trade_type"] == "MWEB"


def test_an_h5_address_dies_after_five_minutes_and_a_new_one_can_be_had(
    server: Running, merchant: Merchant
) -> None:
    out_trade_no = number()
    _, opened = prepay(merchant, H5, out_trade_no, scene_info=scene())
    token = urlsplit(opened["h5_url"]).path.rpartition("/")[2]
    with sandbox_of(server.app).store.write() as tx:
        (left_ms,) = tx.execute(
            "SELECT expires_at_ms - ? FROM codes WHERE token = ?", (time.time() * 1_000, token)
        ).fetchone()
        assert 0 < left_ms <= 300_000
        tx.execute("UPDATE codes SET expires_at_ms = 0 WHERE token = ?", (token,))
    requests.post(opened["h5_url"], data={"act": "pay"}, timeout=20)
    assert server.trade(out_trade_no)["paid_count"] == 0
    # From another address on the network, too: it is the same order.
    status, again = prepay(merchant, H5, out_trade_no, scene_info=scene("2001:db8::7"))
    assert (status, again["h5_url"] != opened["h5_url"]) == (200, True)
    requests.post(again["h5_url"], data={"act": "pay"}, timeout=20)
    assert server.trade(out_trade_no)["paid_count"] == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (None, "/scene_info"),
        ({}, "/scene_info"),
        (scene(ip=""), "/scene_info/payer_client_ip"),
        (scene(ip="1.2.3"), "/scene_info/payer_client_ip"),
        ({"payer_client_ip": "192.0.2.7"}, "/scene_info/h5_info"),
        (scene(kind=None), "/scene_info/h5_info/type"),
    ],
)
def test_an_h5_payment_needs_to_know_where_it_comes_from(
    merchant: Merchant, wrong: Any, field: str
) -> None:
    status, told = prepay(merchant, H5, scene_info=wrong)
    assert (status, told["code"]) == (400, "PARAM_ERROR")
    assert told["detail"]["field"].startswith(field)


def test_a_number_belongs_to_the_product_it_was_opened_for(merchant: Merchant) -> None:
    out_trade_no = number()
    assert prepay(merchant, NATIVE, out_trade_no)[0] == 200
    status, told = prepay(merchant, H5, out_trade_no, scene_info=scene())
    assert (status, told["code"]) == (403, "OUT_TRADE_NO_USED")


def opened_for(merchant: Merchant, openid: str) -> tuple[str, str]:
    """(number, prepay_id) of a JSAPI payment."""
    out_trade_no = number()
    _, opened = prepay(merchant, JSAPI, out_trade_no, payer={"openid": openid})
    return out_trade_no, opened["prepay_id"]


def bridge(server: Running, given: dict[str, str]) -> requests.Response:
    """Bring the parameters to the bridge, as the script does."""
    return requests.post(f"{server.url}/bridge/pay", data=given, timeout=20)


def test_the_bridge_tells_what_the_member_did(
    server: Running, merchant: Merchant, openid: str
) -> None:
    _, prepay_id = opened_for(merchant, openid)
    taken = bridge(server, call(merchant, prepay_id))
    assert taken.status_code == 200, taken.text
    said = taken.json()

    def result() -> str:
        asked = {"since_ms": said["since_ms"]}
        found = requests.get(f"{server.url}/bridge/result/{prepay_id}", params=asked, timeout=20)
        return str(found.json()["result"])

    assert result() == "waiting"
    requests.post(said["cashier_url"], data={"act": "refuse"}, timeout=20)
    assert result() == "cancel"
    # Another try is another call: what was said to the first does not count.
    said = bridge(server, call(merchant, prepay_id)).json()
    assert result() == "waiting"
    requests.post(said["cashier_url"], data={"act": "pay"}, timeout=20)
    assert result() == "ok"
    again = bridge(server, call(merchant, prepay_id))
    assert again.status_code == 400


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"appId": "wx0"}, "appId"),
        ({"signType": "MD5"}, "signType"),
        ({"timeStamp": "soon"}, "timeStamp"),
        ({"signed_at": str(int(time.time()) - 4_000)}, "timeStamp"),
        ({"nonceStr": "other"}, "paySign"),
        ({"package": "prepay_id=wx0"}, "paySign"),
        ({"paySign": "?"}, "paySign"),
        ({"paySign": ""}, "paySign"),
    ],
)
def test_a_call_of_the_bridge_that_does_not_hold_is_refused_with_the_reason(
    server: Running, merchant: Merchant, openid: str, changes: dict[str, str], field: str
) -> None:
    _, prepay_id = opened_for(merchant, openid)
    refused = bridge(server, call(merchant, prepay_id, **changes))
    assert refused.status_code == 400
    assert refused.json()["error"].startswith(field)


def test_the_bridge_takes_only_a_live_prepay_id_of_the_application_itself(
    server: Running, merchant: Merchant, openid: str
) -> None:
    press = Merchant(server.data, "merchants/press.env")
    out_trade_no, prepay_id = opened_for(merchant, openid)
    _, opened = prepay(merchant, NATIVE)
    a_code = opened["code_url"].rpartition("/")[2]
    assert "another application" in bridge(server, call(press, prepay_id)).json()["error"]
    assert "unknown" in bridge(server, call(merchant, a_code)).json()["error"]
    # Opened again: the newer prepay_id counts.
    _, newer = prepay(merchant, JSAPI, out_trade_no, payer={"openid": openid})
    assert bridge(server, call(merchant, prepay_id)).status_code == 400
    assert bridge(server, call(merchant, newer["prepay_id"])).status_code == 200


PAGE = """<!doctype html><title>shop</title><script src="{script}"></script>
<button id="go">pay</button><p id="said"></p>
<script>
document.getElementById("go").onclick = () => WeixinJSBridge.invoke(
  "getBrandWCPayRequest", {given}, (answer) => {{
    document.getElementById("said").textContent = answer.err_msg;
  }});
</script>"""


@contextmanager
def page_of(content: str, policy: str) -> Iterator[str]:
    """The address of a page of a shop that says so, under a Content-Security-Policy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as shop:
        thread = Thread(target=shop.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{shop.server_port}"
        finally:
            shop.shutdown()
            thread.join()


def test_a_page_pays_through_the_bridge_in_a_real_browser(
    server: Running, merchant: Merchant, openid: str
) -> None:
    numbers = []
    with Browser(server.url, size="phone") as browser:
        driver = browser.driver
        for policy in ("default-src * 'unsafe-inline'", "connect-src 'self'"):
            out_trade_no, prepay_id = opened_for(merchant, openid)
            numbers.append(out_trade_no)
            given = json.dumps(call(merchant, prepay_id))
            content = PAGE.format(script=f"{server.url}/bridge.js", given=given)
            with page_of(content, policy) as shop:
                driver.get(f"{shop}/order")
                browser.find("go").click()
                if "connect-src" in policy:
                    # The page may not ask the sandbox: its own window goes there and comes back.
                    browser.press("pay")
                    browser.wait(
                        lambda: driver.current_url == f"{shop}/order",
                        "the browser comes back to the shop",
                    )
                    continue
                own = driver.current_window_handle
                browser.wait(lambda: len(driver.window_handles) == 2, "the cashier opens")
                (cashier,) = set(driver.window_handles) - {own}
                driver.switch_to.window(cashier)
                browser.press("pay")
                driver.switch_to.window(own)
                browser.wait(
                    lambda: driver.find_element(By.ID, "said").text == "get_brand_wcpay_request:ok",
                    "the page is told",
                )
    assert [server.trade(one)["paid_count"] for one in numbers] == [1, 1]
