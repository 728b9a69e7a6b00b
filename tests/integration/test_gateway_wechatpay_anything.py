"""Whatever WeChat Pay's side answers, each call has one of the four outcomes and raises nothing."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shop.clock import SystemClock
from shop.gateways.base import (
    GatewayFault,
    LoginRefused,
    Outcome,
    PrepayRequest,
    Product,
    RefundRequest,
)
from shop.gateways.reading import BadField
from shop.gateways.wechatpay import WeChatPay
from shop.gateways.wechatpay_certificates import read_certificates
from shop.gateways.wechatpay_keys import REFRESH_EVERY
from tests.integration.gateway_server import (
    GatewayServer,
    Reply,
    gateway_server,
    wechatpay_envelope,
    wechatpay_reply,
)
from tests.integration.keys import wechatpay_keys
from tests.integration.wechatpay_platform import certificate_list, listed, platform

KEYS = wechatpay_keys()
NUMBER = "PO1"
PREPAY = PrepayRequest(
    out_trade_no=NUMBER,
    amount_fen=1,
    subject="保温杯",
    expires_at=datetime(2036, 1, 1, tzinfo=UTC),
    notify_url="http://127.0.0.1:9/",
    product=Product.JSAPI,
    payer_openid="o1",
)
REFUND = RefundRequest(
    out_trade_no=NUMBER,
    out_refund_no="RF1",
    refund_fen=1,
    total_fen=1,
    reason="",
    notify_url="http://127.0.0.1:9/",
)
# What moves money or stock: no answer that proves nothing may be read as one of these.
BELIEVED = {Outcome.SUCCEEDED, Outcome.FAILED}

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            *("prepay_id", "mchid", "appid", "out_trade_no", "transaction_id", "trade_state"),
            *("amount", "status", "refund_id", "out_refund_no", "success_time"),
            *("hash_type", "hash_value", "download_url", "data", "code", "openid", "errcode"),
        ]
    ),
    ANY_JSON
    | st.sampled_from([NUMBER, "RF1", KEYS.mchid, KEYS.appid, "SUCCESS", "SHA1", {"total": 1}]),
)
MANY = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def server() -> Iterator[GatewayServer]:
    with gateway_server() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: GatewayServer) -> WeChatPay:
    chosen = replace(
        KEYS.settings(server.url),
        products=("jsapi",),
        app_secret="s",
        openid_url=f"{server.url}/openid",
    )
    return WeChatPay(chosen, connect_timeout_ms=5_000, read_timeout_ms=30_000, clock=SystemClock())


def answers(gateway: WeChatPay) -> list[tuple[Outcome, GatewayFault | None]]:
    """What every call makes of it."""
    results = (
        gateway.prepay(PREPAY),
        gateway.query(NUMBER),
        gateway.query_transaction(NUMBER),
        gateway.close(NUMBER),
        gateway.refund(REFUND),
        gateway.query_refund(NUMBER, "RF1"),
        gateway.download_bill(date(2026, 1, 1), io.BytesIO()),
    )
    return [(result.outcome, result.fault) for result in results]


@MANY
@given(st.integers(200, 599), st.binary(max_size=200), st.booleans())
def test_any_bytes_under_any_status_prove_nothing(
    server: GatewayServer, gateway: WeChatPay, status: int, body: bytes, in_form: bool
) -> None:
    assume(body != b"{}")  # which is signed below
    headers = {}
    if in_form:
        headers = {**wechatpay_envelope(KEYS, b"{}"), "Content-Type": "application/json"}
    server.script = lambda _seen: Reply(status=status, headers=headers, body=body)
    for outcome, fault in answers(gateway):
        assert fault is not None
        assert outcome is Outcome.UNKNOWN


@MANY
@given(ANY_JSON | FIELDS)
def test_any_well_signed_json_has_an_outcome(
    server: GatewayServer, gateway: WeChatPay, value: object
) -> None:
    server.script = lambda _seen: wechatpay_reply(KEYS, value)
    for outcome, fault in answers(gateway):
        assert outcome is Outcome.SUCCEEDED or fault is not None


@MANY
@given(st.integers(400, 599), st.dictionaries(st.sampled_from(["code", "message"]), ANY_JSON))
def test_any_error_answer_proves_nothing_unless_its_code_is_in_the_table(
    server: GatewayServer, gateway: WeChatPay, status: int, value: dict[str, object]
) -> None:
    body = json.dumps(value).encode()
    server.script = lambda _seen: Reply(status=status, body=body)
    assert not any(outcome in BELIEVED for outcome, _ in answers(gateway))


@MANY
@given(st.binary(max_size=200) | FIELDS.map(lambda one: json.dumps(one).encode()))
def test_any_answer_to_a_login_is_an_openid_or_refused(
    server: GatewayServer, gateway: WeChatPay, body: bytes
) -> None:
    server.script = lambda _seen: Reply(body=body)
    assert gateway.payer_login is not None
    try:
        openid = gateway.payer_login.openid_of("code")
    except LoginRefused:
        return
    assert openid
    assert openid.isascii()


@settings(deadline=None)
@given(ANY_JSON | st.lists(ANY_JSON, max_size=3), st.text())
def test_any_list_of_certificates_is_read_or_refused(data: object, opened: str) -> None:
    with pytest.raises(BadField):
        read_certificates({"data": data}, lambda _sealed: opened)


class Moving:
    """The machine's clock, moved by `ahead`."""

    ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


CERTIFICATE = platform()


def test_a_certificate_with_any_field_replaced_is_taken_whole_or_not_at_all(
    server: GatewayServer,
) -> None:
    clock = Moving()
    gateway = WeChatPay(
        replace(KEYS.settings(server.url), fetch_certs=True, public_key_id=""),
        connect_timeout_ms=5_000,
        read_timeout_ms=30_000,
        clock=clock,
    )

    @MANY
    @given(
        st.sampled_from(["serial_no", "expire_time", "encrypt_certificate", "effective_time"]),
        ANY_JSON,
        st.sampled_from(["algorithm", "nonce", "associated_data", "ciphertext"]) | st.none(),
    )
    def replaced(name: str, value: object, inner: str | None) -> None:
        entry = listed(KEYS, CERTIFICATE)
        if inner is None:
            entry[name] = value
        else:
            entry["encrypt_certificate"] = {**entry["encrypt_certificate"], inner: value}
        clock.ahead += REFRESH_EVERY
        list_of_it = certificate_list(KEYS, [entry], signer=CERTIFICATE, now=clock.now())
        server.requests.clear()
        server.script = lambda _seen: list_of_it
        result = gateway.query(NUMBER)
        assert server.requests[0].target == "/v3/certificates"
        assert result.fault is not None
        assert result.fault.code in {"no_certificates", "bad_answer"}

    replaced()
