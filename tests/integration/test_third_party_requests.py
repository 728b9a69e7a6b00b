"""Requests that our gateways sign are well signed in the eyes of npm's official `alipay-sdk` and of
`wechatpay-axios-plugin`."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import PrepayRequest, Product, RefundRequest
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import gateway_server
from tests.integration.keys import alipay_keys, wechatpay_keys
from tests.integration.third_party import (
    alipay_request_is_valid,
    third_party,
    wechatpay_request_is_valid,
)

__all__ = ["third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

NUMBER = "PO20260101000001"
PREPAY = PrepayRequest(
    out_trade_no=NUMBER,
    amount_fen=8_888,
    subject="保温杯 & 茶叶 {100%}",
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    notify_url="http://127.0.0.1:8000/webhooks",
    product=Product.NATIVE,
)
REFUND = RefundRequest(
    out_trade_no=NUMBER,
    out_refund_no="RF1",
    refund_fen=100,
    total_fen=8_888,
    reason="多付的款",
    notify_url="http://127.0.0.1:8000/webhooks",
)


def test_the_plugin_finds_every_wechatpay_request_of_ours_well_signed() -> None:
    keys = wechatpay_keys()
    with gateway_server() as server:
        gateway = WeChatPay(
            keys.settings(server.url),
            connect_timeout_ms=2_000,
            read_timeout_ms=5_000,
            clock=SystemClock(),
        )
        gateway.prepay(PREPAY)
        gateway.query(NUMBER)
        gateway.close(NUMBER)
        gateway.refund(REFUND)
        gateway.query_refund(NUMBER, "RF1")
        assert [(seen.method, seen.target) for seen in server.requests] == [
            ("POST", "/v3/pay/transactions/native"),
            ("GET", f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={keys.mchid}"),
            ("POST", f"/v3/pay/transactions/out-trade-no/{NUMBER}/close"),
            ("POST", "/v3/refund/domestic/refunds"),
            ("GET", "/v3/refund/domestic/refunds/RF1"),
        ]
    for seen in server.requests:
        scheme, _, rest = seen.headers["Authorization"].partition(" ")
        given = dict(part.split("=", 1) for part in rest.split(","))
        fields = {name: value.strip('"') for name, value in given.items()}
        assert scheme == "WECHATPAY2-SHA256-RSA2048"
        assert (fields["mchid"], fields["serial_no"]) == (keys.mchid, keys.cert_serial)
        assert seen.headers["Wechatpay-Serial"] == keys.public_key_id
        body = seen.body.decode()
        valid = {
            text: wechatpay_request_is_valid(
                keys,
                method=seen.method,
                uri=seen.target,
                timestamp=fields["timestamp"],
                nonce=fields["nonce_str"],
                body=text,
                signature=fields["signature"],
            )
            for text in (body, body + " ")
        }
        assert valid == {body: True, body + " ": False}


def test_the_official_sdk_finds_every_alipay_request_of_ours_well_signed() -> None:
    keys = alipay_keys()
    with gateway_server() as server:
        gateway = Alipay(
            keys.settings(f"{server.url}/gateway.do"),
            connect_timeout_ms=2_000,
            read_timeout_ms=5_000,
            clock=SystemClock(),
        )
        gateway.prepay(replace(PREPAY, product=Product.PRECREATE))
        gateway.query(NUMBER)
        gateway.close(NUMBER)
        gateway.refund(REFUND)
        gateway.query_refund(NUMBER, "RF1")
    asked = [dict(parse_qsl(seen.body.decode())) for seen in server.requests]
    assert [params["method"] for params in asked] == [
        "alipay.trade.precreate",
        "alipay.trade.query",
        "alipay.trade.close",
        "alipay.trade.refund",
        "alipay.trade.fastpay.refund.query",
    ]
    for params in asked:
        assert alipay_request_is_valid(keys, params)
        assert not alipay_request_is_valid(keys, {**params, "app_id": "0"})
