"""WeChat Pay APIv3 for one merchant: Native prepay, query, close, refund, refund query.

Every request is verified before anything else; every 2xx answer is signed (204 too), 4xx and 5xx
answers carry no Wechatpay-* headers, as documented.
"""

import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request

from sandbox import clock, events, faults, refunds, trades, wechatpay_objects, wechatpay_sign
from sandbox import wechatpay_checks as checks
from sandbox.core import sandbox
from sandbox.keys import Keys
from sandbox.refunds import RefundRefused, Terms, WhyNot
from sandbox.trades import WECHATPAY, Refusal, Trade, Why
from sandbox.wechatpay_checks import ApiError

blueprint = Blueprint("wechatpay", __name__, url_prefix="/v3")

Answer = tuple[int, dict[str, Any] | None]

_PREPAY_REFUSALS = {
    Why.PAID: (403, "OUT_TRADE_NO_USED"),
    Why.CLOSED: (400, "ORDER_CLOSED"),
    Why.DIFFERENT: (403, "OUT_TRADE_NO_USED"),
    Why.EXPIRED: (400, "INVALID_REQUEST"),
}
_REFUND_REFUSALS = {
    WhyNot.NOT_PAID: (404, "RESOURCE_NOT_EXISTS"),
    WhyNot.DIFFERENT: (400, "INVALID_REQUEST"),
    WhyNot.TOO_MUCH: (400, "INVALID_REQUEST"),
    WhyNot.TOO_MANY: (400, "INVALID_REQUEST"),
    WhyNot.TOO_SOON: (429, "FREQUENCY_LIMITED"),
    WhyNot.TOO_OLD: (400, "INVALID_REQUEST"),
    WhyNot.NO_MONEY: (403, "NOT_ENOUGH"),
}


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


def _run(op: str, call: Callable[[], Answer]) -> Response:
    """Verify, act, sign; or fail as ordered."""
    broken = error_answer(ApiError(500, "SYSTEM_ERROR", "系统异常，请稍后重试"))
    return faults.around(sandbox().store, WECHATPAY, op, lambda: _answered(call), broken)


def _answered(call: Callable[[], Answer]) -> Response:
    try:
        g.keys = _verify()
        status, content = call()
    except ApiError as error:
        return error_answer(error)
    answer = Response(status=status) if content is None else _json(status, content)
    now = clock.now_ms()
    serial = wechatpay_sign.answer_serial(_keys(), request.headers.get("Wechatpay-Serial"), now)
    signed = wechatpay_sign.signed_headers(_keys(), answer.get_data(), now, serial)
    answer.headers.update(signed)
    return answer


def _keys() -> Keys:
    """Of the merchant who signed this request."""
    found: Keys = g.keys
    return found


def _merchant() -> str:
    return _keys().identity.merchant


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


def _check_mchid(given: object) -> None:
    if given is None:
        checks.bad("/mchid", "is needed")
    if given != _keys().identity.mchid:
        detail = {"field": "/mchid", "issue": "not the merchant that signed", "location": "body"}
        raise ApiError(400, "INVALID_REQUEST", "商户号与签名的商户号不一致", detail)


@blueprint.post("/pay/transactions/native")
def prepay() -> Response:
    """Open a payment; the answer's code_url leads to the cashier page."""
    return _run("prepay", _prepay)


def _prepay() -> Answer:
    box, now = sandbox(), clock.now_ms()
    body = checks.body_of(request.get_data())
    _check_mchid(body.get("mchid"))
    if checks.text(body, "appid", 32) != _keys().identity.appid:
        raise ApiError(400, "APPID_MCHID_NOT_MATCH", "AppID和mch_id不匹配")
    new = checks.new_trade(_merchant(), body, now)
    try:
        with box.store.write() as tx:
            token = trades.open_trade(tx, new, code_lifetime_s=box.config.code_lifetime_s, now=now)
    except Refusal as refusal:
        status, code = _PREPAY_REFUSALS[refusal.why]
        raise ApiError(status, code, str(refusal)) from None
    return 200, {"code_url": f"{box.config.base_url}/cashier/wechatpay/{token}"}


@blueprint.get("/pay/transactions/out-trade-no/<out_trade_no>")
def query_by_number(out_trade_no: str) -> Response:
    """The transaction, by the merchant's number."""
    return _run("query", lambda: _query(out_trade_no, None))


@blueprint.get("/pay/transactions/id/<transaction_id>")
def query_by_transaction(transaction_id: str) -> Response:
    """The transaction, by the gateway's number."""
    return _run("query", lambda: _query(None, transaction_id))


def _query(out_trade_no: str | None, transaction_id: str | None) -> Answer:
    _check_mchid(request.args.get("mchid"))
    trade = _find(out_trade_no, transaction_id)
    if trade is None:
        raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在")
    return 200, wechatpay_objects.transaction(trade, _keys().identity)


def _find(out_trade_no: str | None, transaction_id: str | None) -> Trade | None:
    now = clock.now_ms()
    with sandbox().store.write() as tx:
        if transaction_id is not None:
            return trades.find_by_transaction(tx, WECHATPAY, _merchant(), transaction_id, now)
        return trades.find(tx, WECHATPAY, _merchant(), out_trade_no or "", now)


@blueprint.post("/pay/transactions/out-trade-no/<out_trade_no>/close")
def close(out_trade_no: str) -> Response:
    """No more payment under this number: 204, signed, empty. Safe to repeat."""
    return _run("close", lambda: _close(out_trade_no))


def _close(out_trade_no: str) -> Answer:
    box, now = sandbox(), clock.now_ms()
    _check_mchid(checks.body_of(request.get_data()).get("mchid"))
    with box.store.write() as tx:
        trade = trades.find(tx, WECHATPAY, _merchant(), out_trade_no, now)
        if trade is None:
            if box.config.wechatpay_close_unknown_as_204:
                return 204, None
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在")
        try:
            trades.close(tx, trade, now)
        except Refusal:
            code = box.config.wechatpay_close_paid_code
            raise ApiError(400, code, "该订单已支付") from None
    return 204, None


@blueprint.post("/refund/domestic/refunds")
def refund() -> Response:
    """Accept a refund. 200 means accepted: `status` says whether it is done."""
    return _run("refund", _refund)


def _refund() -> Answer:
    box, now = sandbox(), clock.now_ms()
    body = checks.body_of(request.get_data())
    number = checks.text(body, "out_refund_no", 64)
    if not checks.OUT_REFUND_NO.fullmatch(number):
        checks.bad("/out_refund_no", "1 to 64 of 0-9 A-Z a-z _ - | * @", number)
    checks.text(body, "reason", 80, required=False)
    amount = checks.amount_of(body, currency_required=True)
    refund_fen, total_fen = checks.fen(amount, "refund"), checks.fen(amount, "total")
    by_id = checks.text(body, "transaction_id", 32, required=False)
    by_number = checks.text(body, "out_trade_no", 32, required=False)
    if not by_id and not by_number:
        checks.bad("/out_trade_no", "this or transaction_id is needed")
    terms = Terms(
        interval_ms=box.config.scaled_ms(box.config.wechatpay_refund_interval_s),
        delay_ms=max(1, box.config.scaled_ms(box.config.refund_delay_s)),
    )
    notify_url = checks.notify_url(body, required=False)
    trade = _find(by_number or None, by_id or None)
    if trade is None:
        raise ApiError(404, "RESOURCE_NOT_EXISTS", "订单不存在")
    if trade.amount_fen != total_fen:
        raise ApiError(400, "INVALID_REQUEST", "订单金额与支付时不一致")
    try:
        with box.store.write() as tx:
            fresh = trades.find_by_id(tx, trade.id, now)
            accepted, _ = refunds.accept(
                tx,
                fresh,
                out_refund_no=number,
                amount_fen=refund_fen,
                notify_url=notify_url,
                terms=terms,
                now=now,
            )
    except RefundRefused as refused:
        status, code = _REFUND_REFUSALS[refused.why]
        raise ApiError(status, code, str(refused)) from None
    box.notifier.wake()
    return 200, wechatpay_objects.refund(accepted, fresh)


@blueprint.get("/refund/domestic/refunds/<out_refund_no>")
def query_refund(out_refund_no: str) -> Response:
    """What became of a refund."""
    return _run("refund_query", lambda: _query_refund(out_refund_no))


def _query_refund(out_refund_no: str) -> Answer:
    box, now = sandbox(), clock.now_ms()
    with box.store.write() as tx:
        events.time_passes(tx, box.merchants, now)
        found = refunds.find(tx, WECHATPAY, _merchant(), out_refund_no)
        if found is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        trade = trades.find_by_id(tx, found.trade_id, now)
    return 200, wechatpay_objects.refund(found, trade)
