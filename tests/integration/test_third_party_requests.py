"""Requests that our gateways sign are well signed in the eyes of npm's official `alipay-sdk` and of
`wechatpay-axios-plugin`."""

from dataclasses import replace
from datetime import UTC, date, datetime
from io import BytesIO
from urllib.parse import parse_qsl

import pytest

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import PrepayRequest, Product, RefundRequest
from shop.gateways.wechatpay import WeChatPay
from tests.integration.gateway_server import gateway_server, wechatpay_reply
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


BILL_FILE = "/v3/billdownload/file?token=a%2Fb%3D"


def test_the_plugin_finds_every_wechatpay_request_of_ours_well_signed() -> None:
    keys = wechatpay_keys()
    with gateway_server() as server:
        gateway = WeChatPay(
            replace(keys.settings(server.url), products=("native", "jsapi", "h5")),
            connect_timeout_ms=2_000,
            read_timeout_ms=5_000,
            clock=SystemClock(),
        )
        gateway.prepay(PREPAY)
        gateway.prepay(replace(PREPAY, product=Product.JSAPI, payer_openid="oUpF8uMuAJO"))
        gateway.prepay(replace(PREPAY, product=Product.H5, client_ip="203.0.113.7"))
        gateway.query(NUMBER)
        gateway.query_transaction("4200001234567890")
        gateway.close(NUMBER)
        gateway.refund(REFUND)
        gateway.query_refund(NUMBER, "RF1")
        file = {"hash_type": "SHA1", "hash_value": "0" * 40, "download_url": server.url + BILL_FILE}
        server.script = lambda _seen: wechatpay_reply(keys, file)
        gateway.download_bill(date(2026, 1, 1), BytesIO())
        assert [(seen.method, seen.target) for seen in server.requests] == [
            ("POST", "/v3/pay/transactions/native"),
            ("POST", "/v3/pay/transactions/jsapi"),
            ("POST", "/v3/pay/transactions/h5"),
            ("GET", f"/v3/pay/transactions/out-trade-no/{NUMBER}?mchid={keys.mchid}"),
            ("GET", f"/v3/pay/transactions/id/4200001234567890?mchid={keys.mchid}"),
            ("POST", f"/v3/pay/transactions/out-trade-no/{NUMBER}/close"),
            ("POST", "/v3/refund/domestic/refunds"),
            ("GET", "/v3/refund/domestic/refunds/RF1"),
            ("GET", "/v3/bill/tradebill?bill_date=2026-01-01&bill_type=ALL&tar_type=GZIP"),
            ("GET", BILL_FILE),
        ]
    for seen in server.requests:
        scheme, _, rest = seen.headers["Authorization"].partition(" ")
        given = dict(part.split("=", 1) for part in rest.split(","))
        fields = {name: value.strip('"') for name, value in given.items()}
        assert scheme == "WECHATPAY2-SHA256-RSA2048"
        assert (fields["mchid"], fields["serial_no"]) == (keys.mchid, keys.cert_serial)
        assert seen.headers["Wechatpay-Serial"] == keys.public_key_id
        # That what differs is found invalid need be shown only once.
        for text in (seen.body.decode(), " ")[: 2 if seen is server.requests[0] else 1]:
            valid = wechatpay_request_is_valid(
                keys,
                method=seen.method,
                uri=seen.target,
                timestamp=fields["timestamp"],
                nonce=fields["nonce_str"],
                body=text,
                signature=fields["signature"],
            )
            assert valid is (text != " ")


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
