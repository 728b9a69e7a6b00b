"""Whatever arrives at a callback address, reading it gives a `Notice` or a `NoticeRefused`."""

import base64
import json
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import Gateway, Notice, NoticeKind, NoticeRefused, Outcome
from shop.gateways.reading import MAX_NOTICE_BYTES
from shop.gateways.wechatpay import WeChatPay
from tests.integration.alipay_certificates import certified
from tests.integration.gateway_server import sign, wechatpay_envelope
from tests.integration.keys import alipay_keys, wechatpay_keys
from tests.integration.third_party import alipay_trade, wechatpay_transaction
from tests.integration.wechatpay_platform import platform

REASONS = {
    "bad_signature",
    "stale",
    "unknown_serial",
    "malformed",
    "wrong_app",
    "wrong_merchant",
}
WECHATPAY = WeChatPay(
    wechatpay_keys().settings(),
    connect_timeout_ms=1_000,
    read_timeout_ms=1_000,
    clock=SystemClock(),
)
ALIPAY = Alipay(
    alipay_keys().settings(),
    connect_timeout_ms=1_000,
    read_timeout_ms=1_000,
    clock=SystemClock(),
)

BY_CERTIFICATE = platform()
GATEWAYS = (
    WECHATPAY,
    WeChatPay(
        replace(
            wechatpay_keys().settings(),
            public_key_id="",
            public_key_pem="",
            platform_certs_pem=BY_CERTIFICATE.pem,
        ),
        connect_timeout_ms=1_000,
        read_timeout_ms=1_000,
        clock=SystemClock(),
    ),
    ALIPAY,
    Alipay(
        certified().settings(),
        connect_timeout_ms=1_000,
        read_timeout_ms=1_000,
        clock=SystemClock(),
    ),
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
WECHATPAY_HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Wechatpay-Serial",
            "wechatpay-serial",
            "Wechatpay-Timestamp",
            "Wechatpay-Nonce",
            "Wechatpay-Signature",
            "Wechatpay-Signature-Type",
            "HTTP_WECHATPAY_SIGNATURE",
        ]
    ),
    st.text()
    | st.sampled_from(
        [
            wechatpay_keys().public_key_id,
            BY_CERTIFICATE.serial,
            f" {BY_CERTIFICATE.serial}",
            "WECHATPAY2-SHA256-RSA2048",
            "WECHATPAY/SIGNTEST/AAAA",
            str(int(time.time())),
            "AAAA",
            "9" * 12,
        ]
    ),
)


def read(gateway: Gateway, headers: dict[str, str], body: bytes) -> Notice | NoticeRefused:
    """The notice or the refusal; anything else escapes and fails the test."""
    try:
        return gateway.read_notice(headers, body)
    except NoticeRefused as refused:
        found = refused
    assert found.reason in REASONS
    return found


def sealed(content: object, **changes: object) -> bytes:
    """The body of a WeChat Pay notice with its resource truly encrypted."""
    nonce = "0123456789ab"
    text = json.dumps(content).encode()
    key = AESGCM(wechatpay_keys().apiv3_key.encode())
    envelope: dict[str, Any] = {
        "id": "EV-1",
        "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS",
        "resource": {
            "original_type": "transaction",
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": base64.b64encode(key.encrypt(nonce.encode(), text, b"")).decode(),
            "associated_data": "",
            "nonce": nonce,
        },
    }
    resource_changes = changes.pop("resource", None)
    envelope.update(changes)
    if isinstance(resource_changes, dict):
        envelope["resource"].update(resource_changes)
    return json.dumps(envelope).encode()


def signed_form(fields: dict[str, str]) -> bytes:
    """The body of an Alipay notice with a true signature."""
    content = "&".join(f"{key}={fields[key]}" for key in sorted(fields))
    signature = sign(alipay_keys().alipay.private_pem, content)
    return urlencode({**fields, "sign_type": "RSA2", "sign": signature}).encode()


def signed_and_read(body: bytes) -> Notice | NoticeRefused:
    return read(WECHATPAY, wechatpay_envelope(wechatpay_keys(), body), body)


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.text()) | WECHATPAY_HEADERS, st.binary())
def test_any_bytes_under_any_headers_are_refused_in_good_order(
    headers: dict[str, str], body: bytes
) -> None:
    for gateway in GATEWAYS:
        assert isinstance(read(gateway, headers, body), NoticeRefused)


@settings(deadline=None)
@given(JSON)
def test_any_well_signed_json_is_no_wechatpay_notice(value: object) -> None:
    refused = signed_and_read(json.dumps(value).encode())
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"


@settings(deadline=None)
@given(JSON)
def test_any_well_sealed_json_is_no_wechatpay_transaction(value: object) -> None:
    refused = signed_and_read(sealed(value))
    assert isinstance(refused, NoticeRefused)
    assert (refused.reason, refused.notice_id) == ("malformed", "EV-1")


@settings(deadline=None)
@given(
    st.sampled_from(sorted(wechatpay_transaction(wechatpay_keys(), "PO1", 1))),
    JSON,
)
def test_a_wechatpay_transaction_with_any_field_replaced_is_read_or_refused(
    name: str, value: object
) -> None:
    resource = {**wechatpay_transaction(wechatpay_keys(), "PO1", 1), name: value}
    found = signed_and_read(sealed(resource))
    if isinstance(found, Notice):
        assert found.amount_fen == 1 or (isinstance(found.amount_fen, int) and name == "amount")
        assert found.out_trade_no == resource["out_trade_no"]


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_any_well_signed_form_is_no_alipay_notice(fields: dict[str, str]) -> None:
    fields = {key: value for key, value in fields.items() if key not in {"sign", "sign_type"}}
    try:
        body = signed_form(fields)
    except UnicodeEncodeError:  # a lone surrogate cannot be sent at all
        return
    assert isinstance(read(ALIPAY, {}, body), NoticeRefused)


@settings(deadline=None)
@given(st.sampled_from(sorted(alipay_trade(alipay_keys(), "PO1", "0.01"))), st.text())
def test_an_alipay_trade_with_any_field_replaced_is_read_or_refused(name: str, value: str) -> None:
    try:
        body = signed_form(alipay_trade(alipay_keys(), "PO1", "0.01") | {name: value})
    except UnicodeEncodeError:
        return
    found = read(ALIPAY, {}, body)
    if isinstance(found, Notice) and found.kind is NoticeKind.PAYMENT:
        assert found.amount_fen == 1 or name == "total_amount"


@pytest.mark.parametrize("gateway", [WECHATPAY, ALIPAY], ids=["wechatpay", "alipay"])
def test_a_body_beyond_the_bound_is_refused_unread(gateway: Gateway) -> None:
    refused = read(gateway, {}, b"a=" + b"b" * MAX_NOTICE_BYTES)
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"
    assert "longer than" in refused.detail


def test_json_nested_without_end_is_refused() -> None:
    refused = signed_and_read(b"[" * 60_000)
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"resource_type": "plain"},
        {"event_type": "TRANSACTION.UNHEARD"},
        {"event_type": "REFUND.SUCCESS"},
        {"id": ""},
        {"id": "x" * 129},
        {"resource": {"algorithm": "AEAD_SM4_GCM"}},
        {"resource": {"nonce": ""}},
        {"resource": {"nonce": None}},
        {"resource": {"ciphertext": "AAAA"}},
        {"resource": {"ciphertext": 7}},
        {"resource": {"associated_data": "transaction"}},
    ],
)
def test_a_well_signed_wechatpay_notice_of_a_strange_form_is_refused(
    changes: dict[str, object],
) -> None:
    resource = wechatpay_transaction(wechatpay_keys(), "PO1", 1)
    assert isinstance(signed_and_read(sealed(resource)), Notice)
    refused = signed_and_read(sealed(resource, **changes))
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"


@pytest.mark.parametrize("total", [0, -1, True, 1.0, "1", None, 10**20])
def test_a_wechatpay_amount_that_is_no_positive_whole_number_is_refused(total: object) -> None:
    resource = wechatpay_transaction(
        wechatpay_keys(), "PO1", 1, amount={"total": total, "currency": "CNY"}
    )
    assert isinstance(signed_and_read(sealed(resource)), NoticeRefused)


def test_the_currency_of_a_wechatpay_notice_is_passed_on_for_the_books_to_check() -> None:
    resource = wechatpay_transaction(
        wechatpay_keys(), "PO1", 1, amount={"total": 1, "currency": "USD"}
    )
    notice = signed_and_read(sealed(resource))
    assert isinstance(notice, Notice)
    assert (notice.currency, notice.outcome) == ("USD", Outcome.SUCCEEDED)


@pytest.mark.parametrize("amount", ["0.00", "-1.00", "1.001", "1e2", "１.00", "", "100000000.01"])
def test_an_alipay_amount_that_is_no_positive_yuan_amount_is_refused(amount: str) -> None:
    refused = read(ALIPAY, {}, signed_form(alipay_trade(alipay_keys(), "PO1", amount)))
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"


def test_an_alipay_field_that_stands_twice_is_refused() -> None:
    body = signed_form(alipay_trade(alipay_keys(), "PO1", "0.01"))
    assert isinstance(read(ALIPAY, {}, body), Notice)
    refused = read(ALIPAY, {}, body + b"&total_amount=0.01")
    assert isinstance(refused, NoticeRefused)
    assert refused.reason == "malformed"


def test_the_borders_between_an_alipay_notices_fields_cannot_be_moved() -> None:
    fields = alipay_trade(
        *(alipay_keys(), "PO1", "0.01"),
        trade_status="TRADE_CLOSED",
        refund_fee="0.01",
        gmt_refund="2026-01-01 13:00:00",
        out_biz_no="RF1",
    )
    true = read(ALIPAY, {}, signed_form(fields))
    assert isinstance(true, Notice)
    signature = dict(parse_qsl(signed_form(fields).decode()))["sign"]
    for one, after in pairwise(sorted(fields)):
        rest = {name: value for name, value in fields.items() if name not in {one, after}}
        for moved in (
            {one: f"{fields[one]}&{after}={fields[after]}"},
            {f"{one}={fields[one]}&{after}": fields[after]},
        ):
            body = urlencode({**rest, **moved, "sign_type": "RSA2", "sign": signature}).encode()
            found = read(ALIPAY, {}, body)
            assert isinstance(found, NoticeRefused) or found == true


def test_an_alipay_signature_spelt_another_way_is_refused() -> None:
    # The last sign before the padding has four unused bits: many spellings, one signature.
    body = signed_form(alipay_trade(alipay_keys(), "PO1", "0.01")).decode()
    start = body.split("sign=", 1)[0]
    fields = dict(part.split("=", 1) for part in body.split("&"))
    signature = base64.b64encode(
        base64.b64decode(fields["sign"].replace("%2B", "+").replace("%2F", "/").replace("%3D", "="))
    ).decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    sibling = alphabet[alphabet.index(signature[-3]) ^ 1]
    for spelling in (signature[:-3] + sibling + "==", signature[:9] + "\n" + signature[9:]):
        assert base64.decodebytes(spelling.encode()) == base64.b64decode(signature)
        refused = read(ALIPAY, {}, f"{start}sign={quote_plus(spelling)}".encode())
        assert isinstance(refused, NoticeRefused)
        assert refused.reason == "bad_signature"
