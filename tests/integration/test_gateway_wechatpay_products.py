"""JSAPI and H5 beside Native, and how the payer's openid is learnt."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from config.settings import WeChatPaySettings
from shop.clock import SystemClock
from shop.gateways.base import LoginRefused, Outcome, PayerLogin, PrepayRequest, Product
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    gateway_server,
    wechatpay_reply,
)
from tests.integration.keys import wechatpay_keys

KEYS = wechatpay_keys()
NUMBER, OPENID = "PO20260101000001", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
SECRET = "0123456789abcdef0123456789abcdef"
REQUEST = PrepayRequest(
    out_trade_no=NUMBER,
    amount_fen=8_888,
    subject="保温杯",
    expires_at=datetime.now(UTC) + timedelta(minutes=30),
    notify_url="http://127.0.0.1:8000/webhooks/wechatpay",
    product=Product.NATIVE,
)
JSAPI = replace(REQUEST, product=Product.JSAPI, payer_openid=OPENID)
H5 = replace(REQUEST, product=Product.H5, client_ip="2001:db8::7")


@pytest.fixture(scope="module")
def running() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture
def server(running: GatewayServer) -> GatewayServer:
    running.reset()
    return running


def settings(url: str, *products: str) -> WeChatPaySettings:
    return replace(
        KEYS.settings(url),
        products=products or ("native", "jsapi", "h5"),
        app_secret=SECRET,
        authorize_url=f"{url}/authorize",
        openid_url=f"{url}/access_token",
    )


def gateway_at(url: str, *products: str) -> WeChatPay:
    return WeChatPay(
        settings(url, *products),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=SystemClock(),
    )


def login_at(url: str) -> PayerLogin:
    login = gateway_at(url).payer_login
    assert login is not None
    return login


@pytest.mark.parametrize(
    ("request_", "field", "ticket", "more"),
    [
        (REQUEST, "code_url", "weixin://wxpay/bizpayurl?pr=1", {}),
        (JSAPI, "prepay_id", "wx26112221580621e9b071c00d9e093b0000", {"payer": {"openid": OPENID}}),
        (
            H5,
            "h5_url",
            "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx1",
            {"scene_info": {"payer_client_ip": "2001:db8::7", "h5_info": {"type": "Wap"}}},
        ),
    ],
    ids=["native", "jsapi", "h5"],
)
def test_each_product_is_opened_at_its_own_address_with_what_it_needs(
    server: GatewayServer, request_: PrepayRequest, field: str, ticket: str, more: dict[str, Any]
) -> None:
    server.script = lambda _seen: wechatpay_reply(KEYS, {field: ticket})
    opened = gateway_at(server.url).prepay(request_)
    assert (opened.outcome, opened.ticket, opened.sent) == (Outcome.SUCCEEDED, ticket, True)
    assert server.requests[0].target == f"/v3/pay/transactions/{request_.product}"
    sent = json.loads(server.requests[0].body)
    known = {
        *("appid", "mchid", "description", "out_trade_no"),
        *("time_expire", "notify_url", "amount"),
    }
    assert {name: value for name, value in sent.items() if name not in known} == more
    until = request_.expires_at.replace(microsecond=0)
    assert datetime.fromisoformat(sent["time_expire"]) == until


@pytest.mark.parametrize("request_", [REQUEST, JSAPI, H5], ids=["native", "jsapi", "h5"])
@pytest.mark.parametrize("ticket", [None, "", 7, "x" * 513, "a\nb", {"url": "x"}])
def test_a_ticket_that_cannot_be_one_is_unknown(
    server: GatewayServer, request_: PrepayRequest, ticket: object
) -> None:
    fields = dict.fromkeys(("code_url", "prepay_id", "h5_url"), ticket)
    server.script = lambda _seen: wechatpay_reply(KEYS, fields)
    assert gateway_at(server.url).prepay(request_).outcome is Outcome.UNKNOWN


def test_no_browser_is_sent_to_what_is_no_web_address(server: GatewayServer) -> None:
    server.script = lambda _seen: wechatpay_reply(KEYS, {"h5_url": "javascript:alert(1)"})
    assert gateway_at(server.url).prepay(H5).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "request_",
    [replace(JSAPI, payer_openid=""), replace(H5, client_ip="")],
    ids=["jsapi", "h5"],
)
def test_what_a_product_needs_to_know_must_be_given(
    server: GatewayServer, request_: PrepayRequest
) -> None:
    with pytest.raises(ValueError, match=f"{request_.product} needs the payer's"):
        gateway_at(server.url).prepay(request_)
    assert server.requests == []


def test_only_the_merchants_own_products_are_opened(server: GatewayServer) -> None:
    gateway = gateway_at(server.url, "native", "h5")
    assert gateway.products == {Product.NATIVE, Product.H5}
    assert gateway.payer_login is None
    for call in (
        lambda: gateway.prepay(JSAPI),
        lambda: gateway.hand_over(Product.JSAPI, "wx1"),
        lambda: gateway.prepay(replace(REQUEST, product=Product.PAGE)),
    ):
        with pytest.raises(ValueError, match="not a product of this merchant"):
            call()
    assert server.requests == []


def test_a_prepay_that_found_no_connection_was_never_sent(server: GatewayServer) -> None:
    with gateway_server() as gone:
        url = gone.url
    assert gateway_at(url).prepay(REQUEST).sent is False
    assert gateway_at("http://gateway.invalid").prepay(REQUEST).sent is False
    server.script = lambda _seen: Reply(status=502)
    assert gateway_at(server.url).prepay(REQUEST).sent is True


def test_a_native_ticket_is_shown_and_an_h5_ticket_leads_back_to_the_shop() -> None:
    gateway = gateway_at("http://127.0.0.1:9")
    assert gateway.hand_over(Product.NATIVE, "weixin://1").qr_text == "weixin://1"
    ticket, back = (
        "https://wx.tenpay.com/x?prepay_id=wx1",
        "https://shop.example/orders/1?a=b&c=茶#d",
    )
    assert gateway.hand_over(Product.H5, ticket).url == ticket
    url = gateway.hand_over(Product.H5, ticket, return_url=back).url
    assert url is not None
    assert parse_qsl(urlsplit(url).query) == [("prepay_id", "wx1"), ("redirect_url", back)]


def test_each_bridge_call_is_signed_anew_over_the_four_lines() -> None:
    gateway = gateway_at("http://127.0.0.1:9")
    calls = [gateway.hand_over(Product.JSAPI, "wx1").bridge_call for _ in range(2)]
    key = load_pem_public_key(KEYS.merchant.public_pem.encode())
    assert isinstance(key, RSAPublicKey)
    for call in calls:
        assert call is not None
        signed = dict(call)
        signature = base64.b64decode(signed.pop("paySign"))
        assert signed.pop("signType") == "RSA"
        assert (signed["appId"], signed["package"]) == (KEYS.appid, "prepay_id=wx1")
        assert abs(int(signed["timeStamp"]) - datetime.now(UTC).timestamp()) < 300
        names = ("appId", "timeStamp", "nonceStr", "package")
        lines = "".join(f"{signed[name]}\n" for name in names).encode()
        key.verify(signature, lines, PKCS1v15(), SHA256())
        with pytest.raises(InvalidSignature):
            key.verify(signature, lines.replace(b"wx1", b"wx2"), PKCS1v15(), SHA256())
    assert calls[0] != calls[1]


def test_the_login_leads_to_wechat_with_its_parameters_in_the_documented_order() -> None:
    back = "https://shop.example/pay/wechat/openid?x=1&y=茶"
    address = urlsplit(login_at("http://127.0.0.1:9").authorize_url(back, "a1B2"))
    assert address.fragment == "wechat_redirect"
    assert parse_qsl(address.query) == [
        ("appid", KEYS.appid),
        ("redirect_uri", back),
        ("response_type", "code"),
        ("scope", "snsapi_base"),
        ("state", "a1B2"),
    ]
    for state in ("", "a-b", "x" * 129, "茶"):
        with pytest.raises(ValueError, match="letters and digits"):
            login_at("http://127.0.0.1:9").authorize_url(back, state)


def test_a_code_is_changed_into_the_openid(server: GatewayServer) -> None:
    server.script = lambda _seen: Reply(body=json.dumps({"openid": OPENID}).encode())
    assert login_at(server.url).openid_of("a&b=c") == OPENID
    target = urlsplit(server.requests[0].target)
    assert (target.path, parse_qs(target.query)) == (
        "/access_token",
        {
            "appid": [KEYS.appid],
            "secret": [SECRET],
            "code": ["a&b=c"],
            "grant_type": ["authorization_code"],
        },
    )


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Reply(body=b'{"errcode":40029,"errmsg":"invalid code"}'), "40029"),
        (Reply(body=b'{"errcode":-1,"errmsg":"system error"}'), "-1"),
        (Reply(body=b'{"errcode":"40029"}'), "bad_answer"),
        (Reply(body=b'{"errcode":true}'), "bad_answer"),
        (Reply(body=b'{"errcode":1e999}'), "bad_answer"),
        (Reply(body=b'{"errcode":0}'), "bad_answer"),
        (Reply(body=b'{"openid":""}'), "bad_answer"),
        (Reply(body=b'{"openid":"a b"}'), "bad_answer"),
        (Reply(body=b'{"openid":["a"]}'), "bad_answer"),
        (Reply(body=b"[]"), "bad_answer"),
        (Reply(body=b"\xff"), "bad_answer"),
        (Reply(body=b" " * (1024 * 1024 + 1)), "bad_answer"),
        (Reply(status=302, headers={"Location": "/"}), "bad_answer"),
        (Reply(status=503), "server_error"),
    ],
    ids=range(14),
)
def test_a_login_that_fails_is_told_by_its_code_alone(
    server: GatewayServer, said: Reply, code: str
) -> None:
    server.script = lambda _seen: said
    with pytest.raises(LoginRefused) as refused:
        login_at(server.url).openid_of("code")
    assert refused.value.code == code
    assert SECRET not in repr(refused.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["", "a b", "茶", "x" * 513, "a\r\nb"])
def test_a_code_that_cannot_be_one_is_not_sent(server: GatewayServer, code: str) -> None:
    with pytest.raises(LoginRefused, match="bad_code"):
        login_at(server.url).openid_of(code)
    assert server.requests == []


def test_a_login_that_cannot_be_reached_says_nothing_of_the_secret() -> None:
    with gateway_server() as gone:
        url = gone.url
    with pytest.raises(LoginRefused) as refused:
        login_at(url).openid_of("code")
    assert refused.value.code == "unreachable"
    assert SECRET not in f"{refused.value!r}{refused.value.__context__!r}"
