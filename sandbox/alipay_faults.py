"""What Alipay says when it fails as ordered: errors, and answers that are spoiled."""

import json
from typing import Any

from flask import Response, request

from sandbox import alipay_certs, alipay_checks, alipay_sign, chance, clock, forgeries, signing
from sandbox.core import sandbox
from sandbox.fault_orders import Fault
from sandbox.keys import Keys
from sandbox.trades import ALIPAY

CHANNEL = ALIPAY
# Every field that some answer has, none with a value that it could have.
WRONG_SHAPE: dict[str, Any] = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": {"no": "1"},
    "trade_no": 42,
    "qr_code": 7,
    "trade_status": ["TRADE_SUCCESS"],
    "total_amount": {"value": None},
    "fund_change": [],
    "refund_fee": "much",
    "refund_status": {"REFUND_SUCCESS": True},
    "action": 1,
    "bill_download_url": False,
}
_ERRORS = {
    "frequency_limit": ("40005", "Call Limited", "isv.app-call-limited", "调用频次超限"),
    "system_error": ("40004", "Business Failed", "ACQ.SYSTEM_ERROR", "系统错误"),
    "unavailable": (*("20000", "Service Currently Unavailable", "isp.unknow-error", "系统繁忙"),),
}


def caller() -> Keys | None:
    """Who says to call; nothing is verified yet."""
    return sandbox().merchants.by_alipay_app_id(request.values.get("app_id", ""))


def out_trade_no() -> str:
    """The number in the business parameters; "" where only trade_no is given."""
    try:
        found = json.loads(request.values.get("biz_content", ""))
    except (ValueError, RecursionError):
        return ""
    return str(found.get("out_trade_no", "")) if isinstance(found, dict) else ""


def error(kind: str) -> Response:
    """An error of the gateway, signed where it is known for whom."""
    code, message, sub_code, sub_message = _ERRORS[kind]
    fields = {"code": code, "msg": message, "sub_code": sub_code, "sub_msg": sub_message}
    keys = caller()
    if keys is None:
        return _json(alipay_sign.unsigned_answer(_name(), fields))
    return signed(keys, fields)


def signed(keys: Keys, fields: dict[str, Any]) -> Response:
    """This content, rightly signed for the caller."""
    signer = _signer(keys)
    return _json(alipay_sign.signed_answer(signer.key, _name(), fields, signer.cert_sn))


def content(answer: Response) -> dict[str, Any]:
    """The fields of an answer."""
    whole = answer.get_json(silent=True)
    found = whole.get(_name()) if isinstance(whole, dict) else None
    return found if isinstance(found, dict) else {}


def succeeded(answer: Response) -> bool:
    """Whether the call worked."""
    return content(answer).get("code") == "10000"


def forged(keys: Keys, answer: Response, fault: Fault) -> Response:
    """The true content under a signature that does not hold."""
    fields = content(answer)
    if fault.kind == "no_signature":
        return _json(alipay_sign.unsigned_answer(_name(), fields))
    signer = _signer(keys)
    if fault.kind == "other_serial":
        # In public-key mode nothing says which key it was: it is one that nobody knows.
        sn = signer.cert_sn and chance.hexadecimal(32)
        key = signer.key if sn else forgeries.stranger()
        return _json(alipay_sign.signed_answer(key, _name(), fields, sn))
    true = alipay_sign.signed_answer(signer.key, _name(), fields, signer.cert_sn)
    start = true.rindex('"sign":')
    return _json(f'{true[:start]}"sign":{json.dumps(signing.sign(signer.key, b"{}"))}}}')


def _signer(keys: Keys) -> alipay_certs.Signer:
    certified = alipay_checks.certified(request.values)
    return alipay_certs.signer(keys, certified=certified, now=clock.now_ms())


def _name() -> str:
    return f"{request.values.get('method', '').replace('.', '_')}_response"


def _json(text: str) -> Response:
    return Response(text, content_type="application/json;charset=utf-8")
