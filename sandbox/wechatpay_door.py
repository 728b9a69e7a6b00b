"""The door of WeChat Pay APIv3: every request is verified before anything else.

Every 2xx answer is signed (204 too); 4xx and 5xx answers carry no Wechatpay-* headers, as
documented.
"""

import json
from collections.abc import Callable
from typing import Any

from flask import Response, g, request

from sandbox import clock, faults, wechatpay_sign
from sandbox import wechatpay_checks as checks
from sandbox.core import sandbox
from sandbox.keys import Keys
from sandbox.trades import WECHATPAY
from sandbox.wechatpay_checks import ApiError

Answer = tuple[int, dict[str, Any] | None]


def error_answer(error: ApiError) -> Response:
    """An unsigned answer with the error's code."""
    content: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.detail is not None:
        content["detail"] = error.detail
    return _json(error.status, content)


def _json(status: int, content: dict[str, Any]) -> Response:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    body = text.encode("utf-8", "replace")  # an error may quote what is no text
    return Response(body, status=status, content_type="application/json; charset=utf-8")


def run(op: str, call: Callable[[], Answer]) -> Response:
    """Verify, act, sign; or fail as ordered."""
    return _around(op, lambda: _answered(call))


def run_file(op: str, call: Callable[[], bytes]) -> Response:
    """Verify and give a file, which is not signed; or fail as ordered."""

    def file() -> Response:
        try:
            g.keys = _verify()
            return Response(call(), content_type="application/octet-stream")
        except ApiError as error:
            return error_answer(error)

    return _around(op, file)


def _around(op: str, call: Callable[[], Response]) -> Response:
    broken = error_answer(ApiError(500, "SYSTEM_ERROR", "系统异常，请稍后重试"))
    return faults.around(sandbox().store, WECHATPAY, op, call, broken)


def _answered(call: Callable[[], Answer]) -> Response:
    try:
        g.keys = _verify()
        status, content = call()
    except ApiError as error:
        return error_answer(error)
    answer = Response(status=status) if content is None else _json(status, content)
    now = clock.now_ms()
    serial = wechatpay_sign.answer_serial(caller(), request.headers.get("Wechatpay-Serial"), now)
    signed = wechatpay_sign.signed_headers(caller(), answer.get_data(), now, serial)
    answer.headers.update(signed)
    return answer


def caller() -> Keys:
    """Of the merchant who signed this request."""
    found: Keys = g.keys
    return found


def merchant() -> str:
    """The caller's name."""
    return caller().identity.merchant


def _target() -> str:
    """Path and query exactly as the client wrote them: they are signed so."""
    raw = request.environ.get("RAW_URI") or request.environ["REQUEST_URI"]
    return str(raw)


def _verify() -> Keys:
    try:
        keys = wechatpay_sign.check_request(
            sandbox().merchants,
            method=request.method,
            target=_target(),
            authorization=request.headers.get("Authorization", ""),
            body=request.get_data(),
            now=clock.now_ms(),
        )
    except wechatpay_sign.SignError as error:
        detail = {"field": error.field, "issue": error.issue, "location": "authorization"}
        raise ApiError(401, "SIGN_ERROR", "签名错误", detail) from None
    serial = request.headers.get("Wechatpay-Serial")
    if serial is not None and not wechatpay_sign.knows_serial(keys, serial):
        checks.bad("Wechatpay-Serial", "unknown key", serial, "header")
    if not request.headers.get("User-Agent"):
        checks.bad("User-Agent", "is needed", None, "header")
    if request.accept_mimetypes and not request.accept_mimetypes.accept_json:
        checks.bad("Accept", "must allow application/json", request.headers["Accept"], "header")
    if request.method == "POST" and not request.is_json:
        checks.bad("Content-Type", "must be application/json", request.content_type, "header")
    return keys


def check_mchid(given: object) -> None:
    """The mchid of a body or query must be the caller's. Raises ApiError."""
    if given is None:
        checks.bad("/mchid", "is needed")
    if given != caller().identity.mchid:
        detail = {"field": "/mchid", "issue": "not the merchant that signed", "location": "body"}
        raise ApiError(400, "INVALID_REQUEST", "商户号与签名的商户号不一致", detail)
