"""What WeChat Pay says when it fails as ordered: errors, and answers that are spoiled."""

import json
from typing import Any

from flask import Response, request

from sandbox import clock, forgeries, wechatpay_sign
from sandbox.core import sandbox
from sandbox.fault_orders import Fault
from sandbox.keys import Keys
from sandbox.trades import WECHATPAY

CHANNEL = WECHATPAY
# Every field that some answer has, none with a value that it could have.
WRONG_SHAPE: dict[str, Any] = {
    "code_url": 7,
    "prepay_id": None,
    "h5_url": [],
    "out_trade_no": {"no": "1"},
    "transaction_id": 42,
    "trade_state": ["SUCCESS"],
    "status": {"SUCCESS": True},
    "refund_id": False,
    "amount": "much",
    "success_time": 1,
    "download_url": 9,
    "hash_type": None,
    "data": "none",
}
_ERRORS = {
    "frequency_limit": (429, "FREQUENCY_LIMITED", "频率超限"),
    "system_error": (500, "SYSTEM_ERROR", "系统异常，请稍后重试"),
    "unavailable": (503, "SERVICE_UNAVAILABLE", "服务不可用"),
}


def caller() -> Keys | None:
    """Who says to call; nothing is verified yet."""
    _, _, rest = request.headers.get("Authorization", "").partition('mchid="')
    return sandbox().merchants.by_mchid(rest.partition('"')[0])


def out_trade_no() -> str:
    """The number in the address of a close."""
    return str((request.view_args or {}).get("out_trade_no", ""))


def error(kind: str) -> Response:
    """Unsigned, as every answer that is no 2xx."""
    status, code, message = _ERRORS[kind]
    return _json(status, {"code": code, "message": message})


def signed(keys: Keys, content: dict[str, Any]) -> Response:
    """200 with this content, rightly signed for the caller."""
    answer = _json(200, content)
    now = clock.now_ms()
    serial = wechatpay_sign.answer_serial(keys, request.headers.get("Wechatpay-Serial"), now)
    signed_headers = wechatpay_sign.signed_headers(keys, answer.get_data(), now, serial)
    answer.headers.update(signed_headers)
    return answer


def content(answer: Response) -> dict[str, Any]:
    """The fields of an answer; none where there is no body."""
    found = answer.get_json(silent=True) if answer.is_json else None
    return found if isinstance(found, dict) else {}


def succeeded(answer: Response) -> bool:
    """Whether it is signed: errors and downloaded files are not."""
    return "Wechatpay-Signature" in answer.headers


def forged(keys: Keys, answer: Response, fault: Fault) -> Response:
    """The true content under a signature that does not hold."""
    serial = answer.headers["Wechatpay-Serial"]
    forgeries.wechatpay(answer.headers, keys, answer.get_data(), serial, fault)
    return answer


def _json(status: int, fields: dict[str, Any]) -> Response:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return Response(text, status=status, content_type="application/json; charset=utf-8")
