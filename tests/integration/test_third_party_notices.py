"""Notices signed by npm's official `alipay-sdk` and by `wechatpay-axios-plugin` are believed as
they are, and nothing that differs from them is."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.base import (
    Notice,
    NoticeKind,
    NoticeRefused,
    Outcome,
)
from shop.gateways.wechatpay import WeChatPay
from tests.integration.keys import alipay_keys, new_key_pair, wechatpay_keys
from tests.integration.third_party import (
    alipay_trade,
    sign_alipay_notice,
    sign_wechatpay_notice,
    third_party,
    wechatpay_transaction,
)

__all__ = ["third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

NUMBER = "PO20260101000001"
SIGNED_HEADERS = [
    "Wechatpay-Serial",
    "Wechatpay-Timestamp",
    "Wechatpay-Nonce",
    "Wechatpay-Signature-Type",
    "Wechatpay-Signature",
]


class ClockAt:
    """A clock that stands still."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        return self._moment


SIGNED_AT = datetime(2026, 1, 1, 4, 0, tzinfo=UTC)


def wechatpay(clock: ClockAt | SystemClock | None = None) -> WeChatPay:
    return WeChatPay(
        wechatpay_keys().settings(),
        connect_timeout_ms=1_000,
        read_timeout_ms=1_000,
        clock=clock or ClockAt(SIGNED_AT),
    )


def alipay() -> Alipay:
    return Alipay(
        alipay_keys().settings(),
        connect_timeout_ms=1_000,
        read_timeout_ms=1_000,
        clock=SystemClock(),
    )


def wechatpay_notice(**changes: object) -> tuple[dict[str, str], bytes]:
    transaction = wechatpay_transaction(wechatpay_keys(), NUMBER, 8_888, **changes)
    return sign_wechatpay_notice(
        wechatpay_keys(), transaction, timestamp=int(SIGNED_AT.timestamp())
    )


def refused_reason(gateway: WeChatPay | Alipay, headers: Mapping[str, str], body: bytes) -> str:
    with pytest.raises(NoticeRefused) as refused:
        gateway.read_notice(headers, body)
    return refused.value.reason


def altered(value: bytes, at: int) -> list[bytes]:
    """`value` with the byte at `at` changed: one bit, to a digit or letter, to a separator."""
    others = {value[at] ^ 1, ord("0"), ord("A"), ord("&"), ord(" ")} - {value[at]}
    return [value[:at] + bytes([other]) + value[at + 1 :] for other in sorted(others)]


def test_a_wechatpay_payment_notice_signed_by_the_plugin_is_believed() -> None:
    headers, body = wechatpay_notice(transaction_id="4200001234567890")
    notice = wechatpay().read_notice(headers, body)
    assert notice.kind is NoticeKind.PAYMENT
    assert notice.outcome is Outcome.SUCCEEDED
    assert notice.out_trade_no == NUMBER
    assert notice.transaction_id == "4200001234567890"
    assert (notice.amount_fen, notice.currency) == (8_888, "CNY")
    assert notice.paid_at == datetime(2026, 1, 1, 4, 0, tzinfo=UTC)


def test_header_names_are_read_in_any_case() -> None:
    headers, body = wechatpay_notice()
    lower = {name.lower(): value for name, value in headers.items()}
    assert wechatpay().read_notice(lower, body).out_trade_no == NUMBER


@pytest.mark.parametrize(
    ("event", "status", "outcome"),
    [
        ("REFUND.SUCCESS", "SUCCESS", Outcome.SUCCEEDED),
        ("REFUND.CLOSED", "CLOSED", Outcome.FAILED),
        ("REFUND.ABNORMAL", "ABNORMAL", Outcome.PENDING),
    ],
)
def test_a_wechatpay_refund_notice_signed_by_the_plugin_is_believed(
    event: str, status: str, outcome: Outcome
) -> None:
    keys = wechatpay_keys()
    resource = {
        "mchid": keys.mchid,
        "out_trade_no": NUMBER,
        "transaction_id": "4200001234567890",
        "out_refund_no": "RF1",
        "refund_id": "5030000",
        "refund_status": status,
        "user_received_account": "支付用户零钱",
        "amount": {"total": 8_888, "refund": 100, "payer_total": 8_888, "payer_refund": 100},
    }
    headers, body = sign_wechatpay_notice(keys, resource, event_type=event)
    notice = wechatpay(SystemClock()).read_notice(headers, body)
    assert notice.kind is NoticeKind.REFUND
    assert (notice.outcome, notice.out_refund_no, notice.amount_fen) == (outcome, "RF1", 100)


def test_an_alipay_notice_signed_by_the_official_sdk_is_believed() -> None:
    params = alipay_trade(alipay_keys(), NUMBER, "88.88")
    notice = alipay().read_notice({}, sign_alipay_notice(alipay_keys(), params))
    assert notice.kind is NoticeKind.PAYMENT
    assert notice.outcome is Outcome.SUCCEEDED
    assert notice.out_trade_no == NUMBER
    assert notice.notice_id == params["notify_id"]
    assert notice.transaction_id == params["trade_no"]
    assert notice.amount_fen == 8_888
    assert notice.paid_at == datetime(2026, 1, 1, 4, 0, tzinfo=UTC)


def test_an_alipay_notice_with_empty_values_is_believed_as_the_official_sdk_signs_it() -> None:
    params = alipay_trade(alipay_keys(), NUMBER, "88.88", passback_params="", refund_fee="")
    notice = alipay().read_notice({}, sign_alipay_notice(alipay_keys(), params))
    assert notice.kind is NoticeKind.PAYMENT


@pytest.mark.slow
def test_any_altered_byte_of_a_wechatpay_body_is_refused() -> None:
    gateway = wechatpay()
    headers, body = wechatpay_notice()
    gateway.read_notice(headers, body)
    for at in range(len(body)):
        for other in altered(body, at):
            assert refused_reason(gateway, headers, other) == "bad_signature"


def test_a_lengthened_or_shortened_wechatpay_body_is_refused() -> None:
    gateway = wechatpay()
    headers, body = wechatpay_notice()
    for other in (body + b"\n", body + b" ", b"\n" + body, body[:-1], body[1:], b""):
        assert refused_reason(gateway, headers, other) == "bad_signature"


@pytest.mark.parametrize("name", SIGNED_HEADERS)
def test_any_altered_byte_of_a_signed_header_is_refused(name: str) -> None:
    gateway = wechatpay()
    headers, body = wechatpay_notice()
    expected = {
        "Wechatpay-Serial": {"unknown_serial", "malformed"},
        "Wechatpay-Timestamp": {"stale", "bad_signature", "malformed"},
        "Wechatpay-Nonce": {"bad_signature", "malformed"},
        "Wechatpay-Signature-Type": {"bad_signature", "malformed"},
        "Wechatpay-Signature": {"bad_signature", "malformed"},
    }[name]
    value = headers[name].encode()
    for at in range(len(value)):
        for other in altered(value, at):
            changed = {**headers, name: other.decode("latin-1")}
            assert refused_reason(gateway, changed, body) in expected


@pytest.mark.parametrize("name", SIGNED_HEADERS)
def test_a_lengthened_missing_or_repeated_signed_header_is_refused(name: str) -> None:
    gateway = wechatpay()
    headers, body = wechatpay_notice()
    for more in ("0", "=", "\n", " ", "!"):
        gateway_reason = refused_reason(gateway, {**headers, name: headers[name] + more}, body)
        assert gateway_reason in {"unknown_serial", "stale", "bad_signature", "malformed"}
    if name != "Wechatpay-Signature-Type":
        without = {key: value for key, value in headers.items() if key != name}
        assert refused_reason(gateway, without, body) == "malformed"
    twice = {**headers, name.lower(): headers[name]}
    assert refused_reason(gateway, twice, body) == "malformed"


def test_a_notice_that_names_no_type_of_signature_is_of_the_documented_one() -> None:
    headers, body = wechatpay_notice()
    del headers["Wechatpay-Signature-Type"]
    assert wechatpay().read_notice(headers, body).out_trade_no == NUMBER
    for at in range(0, len(body), 40):
        for other in altered(body, at):
            assert refused_reason(wechatpay(), headers, other) == "bad_signature"


def test_the_border_between_nonce_and_body_cannot_be_moved() -> None:
    gateway = wechatpay()
    headers, body = wechatpay_notice()
    moved = {**headers, "Wechatpay-Nonce": f"{headers['Wechatpay-Nonce']}\n{body.decode()}"}
    assert refused_reason(gateway, moved, b"") == "malformed"


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_notice_within_five_minutes_is_fresh(seconds: int) -> None:
    headers, body = wechatpay_notice()
    at = ClockAt(SIGNED_AT + timedelta(seconds=seconds))
    assert wechatpay(at).read_notice(headers, body).out_trade_no == NUMBER


@pytest.mark.parametrize("seconds", [-86_400, -301, 301, 86_400 * 365])
def test_a_notice_outside_five_minutes_is_stale(seconds: int) -> None:
    headers, body = wechatpay_notice()
    at = ClockAt(SIGNED_AT + timedelta(seconds=seconds))
    assert refused_reason(wechatpay(at), headers, body) == "stale"


@pytest.mark.parametrize("serial", ["PUB_KEY_ID_0000", "444F4864EA9B34415A", "0", "x" * 200])
def test_a_notice_under_an_unknown_serial_is_refused(serial: str) -> None:
    keys = wechatpay_keys()
    headers, body = sign_wechatpay_notice(
        keys, wechatpay_transaction(keys, NUMBER, 1), serial=serial
    )
    assert refused_reason(wechatpay(SystemClock()), headers, body) == "unknown_serial"


def test_a_probe_with_a_signtest_signature_is_refused() -> None:
    headers, body = wechatpay_notice()
    probe = {**headers, "Wechatpay-Signature": "WECHATPAY/SIGNTEST/" + "A" * 325}
    assert refused_reason(wechatpay(), probe, body) == "bad_signature"


def test_a_wechatpay_notice_signed_with_a_strange_key_is_refused() -> None:
    keys = wechatpay_keys()
    strange = type(keys)(merchant=keys.merchant, platform=new_key_pair(), apiv3_key=keys.apiv3_key)
    headers, body = sign_wechatpay_notice(strange, wechatpay_transaction(keys, NUMBER, 1))
    assert refused_reason(wechatpay(SystemClock()), headers, body) == "bad_signature"


def test_a_wechatpay_notice_encrypted_with_a_strange_key_is_refused() -> None:
    keys = wechatpay_keys()
    strange = type(keys)(merchant=keys.merchant, platform=keys.platform, apiv3_key="x" * 32)
    headers, body = sign_wechatpay_notice(
        strange, wechatpay_transaction(keys, NUMBER, 1), notice_id="EV-1"
    )
    with pytest.raises(NoticeRefused) as refused:
        wechatpay(SystemClock()).read_notice(headers, body)
    assert (refused.value.reason, refused.value.notice_id) == ("malformed", "EV-1")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"appid": "wx0000000000000000"}, "wrong_app"),
        ({"mchid": "1900000000"}, "wrong_merchant"),
    ],
)
def test_a_wechatpay_notice_for_another_app_or_merchant_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    headers, body = wechatpay_notice(**changes)
    with pytest.raises(NoticeRefused) as refused:
        wechatpay().read_notice(headers, body)
    assert refused.value.reason == reason
    assert refused.value.out_trade_no == NUMBER
    assert refused.value.notice_id is not None


@pytest.mark.slow
def test_any_altered_byte_of_an_alipay_body_is_refused_unless_it_says_the_very_same() -> None:
    # `%2B` and `%2b`, or `+` and `%20`, are two spellings of one form: the fields are signed, not
    # their spelling.
    gateway = alipay()
    body = sign_alipay_notice(alipay_keys(), alipay_trade(alipay_keys(), NUMBER, "88.88"))
    fields = parse_qsl(body.decode(), keep_blank_values=True)
    notice = gateway.read_notice({}, body)
    for at in range(len(body)):
        for other in altered(body, at):
            text = other.decode("latin-1")
            if parse_qsl(text, keep_blank_values=True) == fields:
                assert gateway.read_notice({}, other) == notice
            else:
                assert refused_reason(gateway, {}, other) in {"bad_signature", "malformed"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"app_id": "2014072300000000"}, "wrong_app"),
        ({"seller_id": "2088000000000000"}, "wrong_merchant"),
        ({"notify_type": "trade_other"}, "malformed"),
    ],
)
def test_an_alipay_notice_for_another_app_or_seller_is_refused(
    changes: dict[str, str], reason: str
) -> None:
    body = sign_alipay_notice(
        alipay_keys(), alipay_trade(alipay_keys(), NUMBER, "88.88", **changes)
    )
    with pytest.raises(NoticeRefused) as refused:
        alipay().read_notice({}, body)
    assert refused.value.reason == reason
    assert refused.value.out_trade_no == NUMBER


def test_an_alipay_notice_signed_with_a_strange_key_is_refused() -> None:
    keys = alipay_keys()
    strange = type(keys)(app=keys.app, alipay=new_key_pair())
    body = sign_alipay_notice(strange, alipay_trade(keys, NUMBER, "88.88"))
    assert refused_reason(alipay(), {}, body) == "bad_signature"


def test_an_alipay_notice_of_another_sign_type_is_refused() -> None:
    body = sign_alipay_notice(alipay_keys(), alipay_trade(alipay_keys(), NUMBER, "88.88"))
    for other in (b"sign_type=RSA&", b"sign_type=&", b""):
        changed = body.replace(b"sign_type=RSA2&", other)
        assert changed != body
        assert refused_reason(alipay(), {}, changed) == "bad_signature"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"refund_fee": "8.88", "gmt_refund": "2026-01-01 13:00:00", "out_biz_no": "RF1"},
            (NoticeKind.REFUND, Outcome.SUCCEEDED, "RF1"),
        ),
        (
            {
                "trade_status": "TRADE_CLOSED",
                "refund_fee": "88.88",
                "gmt_refund": "2026-01-01 13:00:00.320",
                "out_biz_no": "RF1",
            },
            (NoticeKind.REFUND, Outcome.SUCCEEDED, "RF1"),
        ),
        ({"refund_fee": "88.88"}, (NoticeKind.REFUND, Outcome.UNKNOWN, None)),
        ({"refund_fee": "0.00"}, (NoticeKind.PAYMENT, Outcome.SUCCEEDED, None)),
        ({"trade_status": "TRADE_FINISHED"}, (NoticeKind.PAYMENT, Outcome.SUCCEEDED, None)),
        ({"trade_status": "WAIT_BUYER_PAY"}, (NoticeKind.PAYMENT, Outcome.PENDING, None)),
        ({"trade_status": "TRADE_CLOSED"}, (NoticeKind.PAYMENT, Outcome.SUCCEEDED, None)),
        (
            {"trade_status": "TRADE_CLOSED", "gmt_payment": ""},
            (NoticeKind.PAYMENT, Outcome.FAILED, None),
        ),
        ({"trade_status": "TRADE_NEW_STATE"}, (NoticeKind.PAYMENT, Outcome.UNKNOWN, None)),
    ],
)
def test_an_alipay_notice_tells_a_payment_from_a_refund(
    changes: dict[str, str], expected: tuple[NoticeKind, Outcome, str | None]
) -> None:
    params = alipay_trade(alipay_keys(), NUMBER, "88.88", **changes)
    notice: Notice = alipay().read_notice({}, sign_alipay_notice(alipay_keys(), params))
    assert (notice.kind, notice.outcome, notice.out_refund_no) == expected
