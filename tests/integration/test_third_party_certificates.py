"""Alipay's certificate mode in the eyes of npm's official `alipay-sdk`: the same numbers, notices
that it signed are believed, and nothing that differs from them is."""

from urllib.parse import parse_qsl, urlencode

import pytest

from shop.clock import SystemClock
from shop.gateways.alipay import Alipay
from shop.gateways.alipay_chain import cert_sn, root_cert_sn
from shop.gateways.base import NoticeKind, NoticeRefused, Outcome
from tests.integration.alipay_certificates import authority, certified, text_of
from tests.integration.keys import new_key_pair
from tests.integration.third_party import (
    alipay_certificate_numbers,
    alipay_trade,
    sign_alipay_notice,
    third_party,
)

__all__ = ["third_party"]
pytestmark = pytest.mark.usefixtures("third_party")

ALL = certified()
NUMBER = "PO20260101000001"
CERTIFICATES = {
    "app": text_of(ALL.app),
    "alipay": text_of(ALL.alipay) + ALL.middle.pem,
    "root": ALL.root.pem,
}


def gateway() -> Alipay:
    return Alipay(
        ALL.settings(), connect_timeout_ms=1_000, read_timeout_ms=1_000, clock=SystemClock()
    )


def notice(**changes: str) -> bytes:
    trade = alipay_trade(ALL.keys, NUMBER, "88.88", alipay_cert_sn=cert_sn(ALL.alipay), **changes)
    return sign_alipay_notice(ALL.keys, trade, certificates=CERTIFICATES)


def refused_reason(believer: Alipay, body: bytes) -> str:
    with pytest.raises(NoticeRefused) as refused:
        believer.read_notice({}, body)
    return refused.value.reason


def test_certificates_have_the_numbers_that_the_official_sdk_gives_them() -> None:
    other = authority("Root R2")
    roots = {**CERTIFICATES, "root": f"{ALL.root.pem}\n{other.pem}"}
    assert alipay_certificate_numbers(ALL.keys, roots) == {
        "app": cert_sn(ALL.app),
        "alipay": cert_sn(ALL.alipay),
        "root": root_cert_sn([ALL.root.certificate, other.certificate]),
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (NoticeKind.PAYMENT, Outcome.SUCCEEDED)),
        ({"trade_status": "TRADE_FINISHED"}, (NoticeKind.PAYMENT, Outcome.SUCCEEDED)),
        ({"trade_status": "WAIT_BUYER_PAY"}, (NoticeKind.PAYMENT, Outcome.PENDING)),
        (
            {"refund_fee": "8.88", "gmt_refund": "2026-01-01 13:00:00", "out_biz_no": "RF1"},
            (NoticeKind.REFUND, Outcome.SUCCEEDED),
        ),
    ],
)
def test_a_notice_that_the_sdk_signed_in_certificate_mode_is_believed(
    changes: dict[str, str], expected: tuple[NoticeKind, Outcome]
) -> None:
    found = gateway().read_notice({}, notice(**changes))
    assert (found.kind, found.outcome, found.out_trade_no) == (*expected, NUMBER)


def test_any_altered_field_of_such_a_notice_is_refused() -> None:
    believer, body = gateway(), notice()
    fields = dict(parse_qsl(body.decode(), strict_parsing=True))
    believer.read_notice({}, body)
    for name, value in fields.items():
        for other in (value + "0", value[:-1], ""):
            altered = urlencode({**fields, name: other}).encode()
            assert refused_reason(believer, altered) in {
                "bad_signature",
                "malformed",
                "unknown_serial",
            }
    for name in fields:
        without = urlencode({key: fields[key] for key in fields if key != name}).encode()
        assert refused_reason(believer, without) in {"bad_signature", "malformed"}


def test_a_notice_that_a_stranger_signed_under_alipays_number_is_refused() -> None:
    trade = alipay_trade(ALL.keys, NUMBER, "88.88", alipay_cert_sn=cert_sn(ALL.alipay))
    stranger = type(ALL.keys)(app=ALL.keys.app, alipay=new_key_pair())
    assert refused_reason(gateway(), sign_alipay_notice(stranger, trade)) == "bad_signature"
