"""Reading a WeChat Pay callback (APIv3, "支付成功回调通知", "退款结果回调通知")."""

import json
from collections.abc import Mapping
from typing import Any

from config.settings import WeChatPaySettings
from shop.gateways import outcomes
from shop.gateways.base import Notice, NoticeKind, NoticeRefused
from shop.gateways.reading import (
    MAX_DETAIL,
    MAX_NOTICE_BYTES,
    BadField,
    identifier,
    read_amount,
    rfc3339_utc,
)
from shop.gateways.wechatpay_envelope import EnvelopeRefused
from shop.gateways.wechatpay_wire import Wire

_ORIGINAL_TYPES = {
    "TRANSACTION.SUCCESS": "transaction",
    "REFUND.SUCCESS": "refund",
    "REFUND.ABNORMAL": "refund",
    "REFUND.CLOSED": "refund",
}


def read_wechatpay_notice(
    wire: Wire, settings: WeChatPaySettings, headers: Mapping[str, str], body: bytes
) -> Notice:
    """Verify, decrypt and read a callback. Raises NoticeRefused and nothing else."""
    notice_id: str | None = None
    out_trade_no: str | None = None
    try:
        if len(body) > MAX_NOTICE_BYTES:
            raise NoticeRefused("malformed", f"longer than {MAX_NOTICE_BYTES} bytes")
        envelope = _object(wire.open_notice(headers.items(), body), "the body")
        notice_id = identifier(envelope, "id")
        fields = _open_resource(wire, envelope)
        out_trade_no = identifier(fields, "out_trade_no")
        if envelope["event_type"] == "TRANSACTION.SUCCESS":
            return _payment(settings, notice_id, fields)
        return _refund(settings, notice_id, fields)
    except NoticeRefused as refused:
        refused.notice_id, refused.out_trade_no = notice_id, out_trade_no
        raise
    except EnvelopeRefused as error:
        raise NoticeRefused(error.reason, error.detail) from None
    except Exception as error:  # noqa: BLE001  # whatever a stranger's bytes made the parsers raise
        raise NoticeRefused(
            "malformed",
            f"{type(error).__name__}: {error}"[:MAX_DETAIL],
            notice_id=notice_id,
            out_trade_no=out_trade_no,
        ) from None


def _object(text: str, what: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise BadField(f"{what} is not a JSON object")
    return value


def _open_resource(wire: Wire, envelope: Mapping[str, Any]) -> dict[str, Any]:
    if envelope.get("resource_type") != "encrypt-resource":
        raise BadField("resource_type is not encrypt-resource")
    event_type = identifier(envelope, "event_type")
    resource = envelope.get("resource")
    if not isinstance(resource, dict):
        raise BadField("no resource")
    if resource.get("algorithm") != "AEAD_AES_256_GCM":
        raise BadField("the resource's algorithm is not AEAD_AES_256_GCM")
    if resource.get("original_type") != _ORIGINAL_TYPES.get(event_type, ""):
        raise BadField(f"event_type {event_type!r} is not known, or not of this resource")
    associated_data = resource.get("associated_data")
    text = wire.decrypt(
        ciphertext=resource["ciphertext"],
        nonce=resource["nonce"],
        associated_data="" if associated_data is None else associated_data,
    )
    if text is None:
        raise BadField("the resource cannot be decrypted: is the APIv3 key right?")
    return _object(text, "the resource")


def _payment(settings: WeChatPaySettings, notice_id: str, fields: Mapping[str, Any]) -> Notice:
    if fields.get("appid") != settings.appid:
        raise NoticeRefused("wrong_app", "the notice is for another application")
    _check_merchant(settings, fields)
    state = identifier(fields, "trade_state")
    amount_fen, currency = read_amount(fields, "total")
    return Notice(
        kind=NoticeKind.PAYMENT,
        notice_id=notice_id,
        out_trade_no=identifier(fields, "out_trade_no"),
        outcome=outcomes.outcome_of(outcomes.WECHATPAY_TRADE_STATES, state),
        trade_state=state,
        transaction_id=identifier(fields, "transaction_id"),
        amount_fen=amount_fen,
        currency=currency,
        paid_at=rfc3339_utc(fields.get("success_time")),
    )


def _refund(settings: WeChatPaySettings, notice_id: str, fields: Mapping[str, Any]) -> Notice:
    # A refund notice names the merchant, but no application.
    _check_merchant(settings, fields)
    state = identifier(fields, "refund_status")
    amount_fen, currency = read_amount(fields, "refund", currency="CNY")
    return Notice(
        kind=NoticeKind.REFUND,
        notice_id=notice_id,
        out_trade_no=identifier(fields, "out_trade_no"),
        outcome=outcomes.outcome_of(outcomes.WECHATPAY_REFUND_STATES, state),
        trade_state=state,
        transaction_id=identifier(fields, "transaction_id"),
        amount_fen=amount_fen,
        currency=currency,
        paid_at=rfc3339_utc(fields.get("success_time")),
        out_refund_no=identifier(fields, "out_refund_no"),
    )


def _check_merchant(settings: WeChatPaySettings, fields: Mapping[str, Any]) -> None:
    if fields.get("mchid") != settings.mchid:
        raise NoticeRefused("wrong_merchant", "the notice is for another merchant")
