"""Reading an Alipay callback (OpenAPI, "异步通知说明", "异步通知验签").

Notices carry no clock rule: repeats come for a day under one `notify_id`, which the inbox tells
apart. What is read are the decoded fields, as the signature covers them; how they were escaped on
the way (`%2B` or `%2b`) is nobody's business.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from config.settings import AlipaySettings
from shop.gateways import outcomes
from shop.gateways.alipay_certs import UnknownCertificate
from shop.gateways.alipay_wire import SIGN_TYPE, Wire
from shop.gateways.base import Notice, NoticeKind, NoticeRefused, Outcome
from shop.gateways.reading import (
    MAX_DETAIL,
    MAX_NOTICE_BYTES,
    BadField,
    alipay_utc,
    identifier,
    yuan_amount,
)
from shop.money import fen_from_yuan

MAX_FIELDS = 100
"""A real notice has about thirty."""

# What is signed are names and values joined by `=` and `&`: without these bounds the border between
# two fields could be moved, and one that is read be hidden within one that is not.
_NAME = re.compile(r"[0-9A-Za-z_]{1,64}")
_READ = re.compile(
    "alipay_cert_sn|app_id|charset|gmt_payment|gmt_refund|notify_id|notify_type|out_biz_no"
    "|out_trade_no|refund_fee|seller_id|total_amount|trade_no|trade_status"
)
_HIDDEN = re.compile(f"&(?:{_READ.pattern})=")


def read_alipay_notice(wire: Wire, settings: AlipaySettings, body: bytes) -> Notice:
    """Verify and read a callback. Raises NoticeRefused and nothing else."""
    notice_id: str | None = None
    out_trade_no: str | None = None
    try:
        fields = _verified_fields(wire, body)
        notice_id = identifier(fields, "notify_id")
        out_trade_no = identifier(fields, "out_trade_no")
        if fields.get("app_id") != settings.app_id:
            raise NoticeRefused("wrong_app", "the notice is for another application")
        if fields.get("seller_id") != settings.seller_id:
            raise NoticeRefused("wrong_merchant", "the notice is for another seller")
        if fields.get("notify_type") != "trade_status_sync":
            raise BadField("notify_type is not trade_status_sync")
        return _refund(fields) if _tells_of_refund(fields) else _payment(fields)
    except NoticeRefused as refused:
        refused.notice_id, refused.out_trade_no = notice_id, out_trade_no
        raise
    except Exception as error:  # noqa: BLE001  # whatever a stranger's bytes made the parsers raise
        raise NoticeRefused(
            "malformed",
            f"{type(error).__name__}: {error}"[:MAX_DETAIL],
            notice_id=notice_id,
            out_trade_no=out_trade_no,
        ) from None


def _verified_fields(wire: Wire, body: bytes) -> dict[str, str]:
    """The form's non-empty fields, without the signature. Raises NoticeRefused."""
    fields = _form(body)
    signature, sign_type = fields.pop("sign", ""), fields.pop("sign_type", "")
    if sign_type != SIGN_TYPE:
        raise NoticeRefused("bad_signature", f"sign_type is not {SIGN_TYPE}")
    if not signature:
        raise NoticeRefused("bad_signature", "not signed")
    if fields.get("charset", "utf-8").lower() != "utf-8":
        raise NoticeRefused("malformed", "charset is not utf-8")
    try:
        believed = wire.holds(fields, signature)
    except UnknownCertificate as error:
        raise NoticeRefused("unknown_serial", str(error)[:MAX_DETAIL]) from None
    except Exception as error:  # noqa: BLE001  # an exception while verifying is "not verified"
        raise NoticeRefused("bad_signature", f"{type(error).__name__}"[:MAX_DETAIL]) from None
    if not believed:
        raise NoticeRefused("bad_signature", "the signature does not hold")
    return {name: value for name, value in fields.items() if value}


def _form(body: bytes) -> dict[str, str]:
    if len(body) > MAX_NOTICE_BYTES:
        raise NoticeRefused("malformed", f"longer than {MAX_NOTICE_BYTES} bytes")
    pairs = parse_qsl(
        body.decode("ascii"),
        keep_blank_values=True,
        strict_parsing=True,
        encoding="utf-8",
        errors="strict",
        max_num_fields=MAX_FIELDS,
    )
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadField("a field stands twice")
    for name, value in fields.items():
        grown = "&" in value if _READ.fullmatch(name) else _HIDDEN.search(value)
        if grown or _NAME.fullmatch(name) is None:
            raise BadField("a field is hidden within another")
    return fields


def _tells_of_refund(fields: Mapping[str, str]) -> bool:
    """A notice of a refund repeats the payment's fields and adds its own."""
    fee = fields.get("refund_fee")
    return "gmt_refund" in fields or (fee is not None and fen_from_yuan(fee) > 0)


def _payment(fields: Mapping[str, str]) -> Notice:
    state = identifier(fields, "trade_status")
    paid_at = alipay_utc(fields.get("gmt_payment"))
    outcome = outcomes.outcome_of(outcomes.ALIPAY_TRADE_STATES, state)
    if outcome is Outcome.FAILED and "gmt_payment" in fields:
        outcome = Outcome.SUCCEEDED  # closed after being paid: wholly refunded since
    return Notice(
        kind=NoticeKind.PAYMENT,
        notice_id=identifier(fields, "notify_id"),
        out_trade_no=identifier(fields, "out_trade_no"),
        outcome=outcome,
        trade_state=state,
        transaction_id=identifier(fields, "trade_no"),
        amount_fen=yuan_amount(fields, "total_amount"),
        paid_at=paid_at,
    )


def _refund(fields: Mapping[str, str]) -> Notice:
    """A refund notice says that money went back, and under which number, but not how much.

    `refund_fee` is the sum of all refunds of the trade so far, so no amount is taken from it; and
    without `out_biz_no` it does not even say which refund is meant: then the outcome is UNKNOWN.
    """
    named = "out_biz_no" in fields
    return Notice(
        kind=NoticeKind.REFUND,
        notice_id=identifier(fields, "notify_id"),
        out_trade_no=identifier(fields, "out_trade_no"),
        outcome=Outcome.SUCCEEDED if named else Outcome.UNKNOWN,
        trade_state=identifier(fields, "trade_status"),
        transaction_id=identifier(fields, "trade_no"),
        amount_fen=None,
        paid_at=alipay_utc(fields.get("gmt_payment")),
        out_refund_no=identifier(fields, "out_biz_no") if named else None,
    )
