"""Notices that `wechatpay-axios-plugin` signs under a platform certificate are believed where the
merchant is in certificate mode or migrates, and nothing that differs from them is."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.settings import WeChatPaySettings
from shop.gateways.base import NoticeKind, NoticeRefused, Outcome
from shop.gateways.wechatpay import WeChatPay
from tests.contracts.replay import FixedClock
from tests.integration.keys import wechatpay_keys
from tests.integration.third_party import (
    sign_wechatpay_notice,
    third_party,
    wechatpay_transaction,
)
from tests.integration.wechatpay_platform import Platform, platform

__all__ = ["third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

NUMBER = "PO20260101000001"
SIGNED_AT = datetime(2026, 1, 1, 4, 0, tzinfo=UTC)
KEYS = wechatpay_keys()
FIRST, SECOND = (
    platform(number, starts_at=SIGNED_AT - timedelta(days=9), ends_at=SIGNED_AT + timedelta(days=9))
    for number in (1, 2)
)
GIVEN = FIRST.pem + SECOND.pem
MODES = ["certificates", "migration"]


def settings(mode: str) -> WeChatPaySettings:
    both = replace(KEYS.settings(), platform_certs_pem=GIVEN)
    return both if mode == "migration" else replace(both, public_key_id="", public_key_pem="")


def gateway(mode: str, at: datetime = SIGNED_AT) -> WeChatPay:
    return WeChatPay(
        settings(mode), connect_timeout_ms=1_000, read_timeout_ms=1_000, clock=FixedClock(at)
    )


def signed(
    signer: Platform, resource: dict[str, Any] | None = None, **changes: Any
) -> tuple[dict[str, str], bytes]:
    return sign_wechatpay_notice(
        replace(KEYS, platform=signer.pair),
        resource or wechatpay_transaction(KEYS, NUMBER, 8_888),
        timestamp=int(SIGNED_AT.timestamp()),
        serial=signer.serial,
        **changes,
    )


def refused_reason(by: WeChatPay, headers: dict[str, str], body: bytes) -> str:
    with pytest.raises(NoticeRefused) as refused:
        by.read_notice(headers, body)
    return refused.value.reason


def altered(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


@pytest.mark.parametrize("mode", MODES)
def test_a_payment_notice_is_believed_under_each_valid_certificate(mode: str) -> None:
    for signer in (FIRST, SECOND):
        notice = gateway(mode).read_notice(*signed(signer))
        assert (notice.kind, notice.outcome) == (NoticeKind.PAYMENT, Outcome.SUCCEEDED)
        assert (notice.out_trade_no, notice.amount_fen) == (NUMBER, 8_888)


@pytest.mark.parametrize("mode", MODES)
def test_a_refund_notice_is_believed(mode: str) -> None:
    resource = {
        "mchid": KEYS.mchid,
        "out_trade_no": NUMBER,
        "transaction_id": "4200001234567890",
        "out_refund_no": "RF1",
        "refund_id": "5030000",
        "refund_status": "ABNORMAL",
        "user_received_account": "支付用户零钱",
        "amount": {"total": 8_888, "refund": 100, "payer_total": 8_888, "payer_refund": 100},
    }
    headers, body = signed(FIRST, resource, event_type="REFUND.ABNORMAL")
    by = gateway(mode)
    notice = by.read_notice(headers, body)
    assert (notice.kind, notice.outcome) == (NoticeKind.REFUND, Outcome.PENDING)
    assert (notice.out_refund_no, notice.amount_fen) == ("RF1", 100)
    for at in range(0, len(body), 37):
        assert refused_reason(by, headers, altered(body, at)) == "bad_signature"


def test_the_public_keys_notice_is_believed_while_the_merchant_migrates_and_not_without() -> None:
    headers, body = sign_wechatpay_notice(
        KEYS, wechatpay_transaction(KEYS, NUMBER, 8_888), timestamp=int(SIGNED_AT.timestamp())
    )
    assert gateway("migration").read_notice(headers, body).out_trade_no == NUMBER
    assert refused_reason(gateway("certificates"), headers, body) == "unknown_serial"


@pytest.mark.parametrize("mode", MODES)
def test_altered_forms_are_refused(mode: str) -> None:
    by = gateway(mode)
    headers, body = signed(FIRST)
    by.read_notice(headers, body)
    for other in (body + b" ", b"\n" + body, body[:-1], b""):
        assert refused_reason(by, headers, other) == "bad_signature"
    for at in range(0, len(body), 13):
        assert refused_reason(by, headers, altered(body, at)) == "bad_signature"
    for name, value, reason in (
        ("Wechatpay-Serial", SECOND.serial, "bad_signature"),
        ("Wechatpay-Serial", f"{int(FIRST.serial, 16) ^ 1:X}", "unknown_serial"),
        ("Wechatpay-Serial", f"-{FIRST.serial}", "unknown_serial"),
        ("Wechatpay-Serial", f"0x{FIRST.serial}", "unknown_serial"),
        ("Wechatpay-Timestamp", str(int(SIGNED_AT.timestamp()) + 1), "bad_signature"),
        ("Wechatpay-Timestamp", str(int(SIGNED_AT.timestamp()) - 301), "stale"),
        ("Wechatpay-Nonce", headers["Wechatpay-Nonce"] + "0", "bad_signature"),
        ("Wechatpay-Signature", signed(FIRST)[0]["Wechatpay-Signature"], "bad_signature"),
        ("Wechatpay-Signature", "WECHATPAY/SIGNTEST/" + "A" * 325, "bad_signature"),
    ):
        assert refused_reason(by, {**headers, name: value}, body) == reason, (name, value)


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_that_has_ended_vouches_for_nothing(mode: str) -> None:
    late = SIGNED_AT + timedelta(days=10)
    headers, body = sign_wechatpay_notice(
        replace(KEYS, platform=FIRST.pair),
        wechatpay_transaction(KEYS, NUMBER, 8_888),
        timestamp=int(late.timestamp()),
        serial=FIRST.serial,
    )
    assert refused_reason(gateway(mode, late), headers, body) == "unknown_serial"
