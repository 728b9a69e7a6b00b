"""Alipay's gateway.do for one application: precreate, query, close, cancel, refund and its query.

GET and POST, query and body merged. HTTP 200 whatever the outcome; business answers are signed,
gateway-level errors (the caller is not known) are not.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request

from sandbox import alipay_checks as checks
from sandbox import alipay_objects, alipay_sign, clock, events, faults, refunds, trades
from sandbox.alipay_checks import AlipayError, business
from sandbox.core import sandbox
from sandbox.refunds import Refund, RefundRefused, Terms, WhyNot
from sandbox.trades import ALIPAY, Refusal, Trade, Why

blueprint = Blueprint("alipay", __name__)

_PRECREATE_REFUSALS = {
    Why.PAID: "TRADE_HAS_SUCCESS",
    Why.CLOSED: "TRADE_HAS_CLOSE",
    Why.DIFFERENT: "CONTEXT_INCONSISTENT",
    Why.EXPIRED: "TRADE_HAS_CLOSE",
}
_REFUND_REFUSALS = {
    WhyNot.NOT_PAID: "TRADE_STATUS_ERROR",
    WhyNot.DIFFERENT: "DISCORDANT_REPEAT_REQUEST",
    WhyNot.TOO_MUCH: "REFUND_AMT_NOT_EQUAL_TOTAL",
    WhyNot.TOO_MANY: "TRADE_NOT_ALLOW_REFUND",
    WhyNot.TOO_OLD: "TRADE_NOT_ALLOW_REFUND",
    WhyNot.NO_MONEY: "SELLER_BALANCE_NOT_ENOUGH",
}
Params = dict[str, str]


@blueprint.route("/gateway.do", methods=["GET", "POST"])
def gateway() -> Response:
    """One door for every method."""
    params: Params = {**request.args.to_dict(), **request.form.to_dict()}
    method = params.get("method", "")
    op, _ = METHODS.get(method, ("", None))
    if not op:
        return _answered(method, params)
    broken = Response("<html>500</html>", status=500, content_type="text/html")
    call: Callable[[], Response] = lambda: _answered(method, params)  # noqa: E731
    return faults.around(sandbox().store, ALIPAY, op, call, broken)


def _answered(method: str, params: Params) -> Response:
    box = sandbox()
    # Who calls is known by the application; an unknown one is refused by the checks.
    keys = box.merchants.by_alipay_app_id(params.get("app_id", "")) or box.merchants.of("default")
    g.merchant = keys.identity.merchant
    name = f"{method.replace('.', '_')}_response" if method in METHODS else "error_response"
    try:
        checks.check_public(keys, params, set(METHODS), clock.now_ms())
        _, handler = METHODS[method]
        content = {"code": "10000", "msg": "Success", **handler(checks.biz_content(params), params)}
    except AlipayError as error:
        if not error.signed:
            return _json(alipay_sign.unsigned_answer(name, error.content()))
        content = error.content()
    return _json(alipay_sign.signed_answer(keys.alipay_private, name, content))


def _json(body: str) -> Response:
    return Response(body, content_type="application/json;charset=utf-8")


def _precreate(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """Make a code. There is no trade until somebody scans it."""
    box, now = sandbox(), clock.now_ms()
    new = checks.new_trade(g.merchant, biz, params.get("notify_url", ""), now)
    try:
        with box.store.write() as tx:
            token = trades.open_trade(tx, new, code_lifetime_s=box.config.code_lifetime_s, now=now)
    except Refusal as refusal:
        business(_PRECREATE_REFUSALS[refusal.why], str(refusal))
    code = f"{box.config.base_url}/cashier/alipay/{token}"
    return {"out_trade_no": new.out_trade_no, "qr_code": code}


def _known(tx: sqlite3.Connection, biz: dict[str, Any], now: int) -> Trade:
    """The trade meant by trade_no (which wins) or out_trade_no; it must have been scanned."""
    by_id = checks.text(biz, "trade_no", 64, required=False)
    by_number = checks.text(biz, "out_trade_no", 64, required=False)
    if by_id:
        trade = trades.find_by_transaction(tx, ALIPAY, g.merchant, by_id, now)
    elif by_number:
        trade = trades.find(tx, ALIPAY, g.merchant, by_number, now)
    else:
        business("INVALID_PARAMETER", "out_trade_no 与 trade_no 不能同时为空")
    if trade is None or trade.state == "unscanned":
        business("TRADE_NOT_EXIST", "交易不存在")
    return trade


def _query(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """10000 says only that the call worked: trade_status says the rest."""
    with sandbox().store.write() as tx:
        trade = _known(tx, biz, clock.now_ms())
    return alipay_objects.query(trade)


def _close(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """Only from WAIT_BUYER_PAY."""
    now = clock.now_ms()
    with sandbox().store.write() as tx:
        trade = _known(tx, biz, now)
        if trade.state != "open":
            business("TRADE_STATUS_ERROR", "交易状态不合法")
        return alipay_objects.closed(trades.close(tx, trade, now))


def _cancel(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """For unknown results: closes what is unpaid, gives back what was paid. Safe to repeat."""
    box, now = sandbox(), clock.now_ms()
    with box.store.write() as tx:
        trade = _known(tx, biz, now)
        answer = {**alipay_objects.closed(trade), "retry_flag": "N"}
        if trade.state != "paid":
            trades.close(tx, trade, now)
            return {**answer, "action": "close"}
        left_fen = trade.amount_fen - trade.refunded_fen
        if left_fen:
            # The cancellation has no number of its own; it happens once per trade.
            number = f"cancel{trade.transaction_id}"
            _accept(tx, trade, number, left_fen, Terms(interval_ms=0, delay_ms=0), now)
    box.notifier.wake()
    return {**answer, "action": "refund"}


def _accept(
    tx: sqlite3.Connection, trade: Trade, number: str, amount_fen: int, terms: Terms, now: int
) -> tuple[Refund, bool]:
    """Accept a refund, done at once, and queue its notice. Raises AlipayError."""
    try:
        refund, new = refunds.accept(
            tx,
            trade,
            out_refund_no=number,
            amount_fen=amount_fen,
            notify_url=trade.notify_url,
            terms=terms,
            now=now,
        )
    except RefundRefused as refused:
        if refused.why is WhyNot.TOO_SOON:
            raise AlipayError("40005", "isv.app-call-limited", "调用频次超限") from None
        business(_REFUND_REFUSALS[refused.why], str(refused))
    if new:
        events.refund_settled(tx, sandbox().merchants, refund, now)
    return refund, new


def _refund(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """Give money back at once. Same number and amount: nothing more happens, fund_change N."""
    box, now = sandbox(), clock.now_ms()
    amount_fen = checks.fen(biz, "refund_amount")
    number = checks.text(biz, "out_request_no", 64, required=False)
    if number and not checks.OUT_REQUEST_NO.fullmatch(number):
        business("INVALID_PARAMETER", "参数无效：out_request_no")
    checks.text(biz, "refund_reason", 256, required=False)
    interval_ms = box.config.scaled_ms(box.config.alipay_refund_interval_s)
    with box.store.write() as tx:
        trade = _known(tx, biz, now)
        if not number:
            if amount_fen != trade.amount_fen:
                business("INVALID_PARAMETER", "部分退款必须传入 out_request_no")
            number = trade.out_trade_no
        terms = Terms(interval_ms=interval_ms, delay_ms=0)
        _, new = _accept(tx, trade, number, amount_fen, terms, now)
        after = trades.find_by_id(tx, trade.id, now)
    box.notifier.wake()
    return alipay_objects.refunded(after, changed=new, now=now)


def _refund_query(biz: dict[str, Any], params: Params) -> dict[str, Any]:
    """A number that is not known is no error: the answer just says nothing of it."""
    now = clock.now_ms()
    number = checks.text(biz, "out_request_no", 64)
    with sandbox().store.write() as tx:
        trade = _known(tx, biz, now)
        found = refunds.find(tx, ALIPAY, g.merchant, number, trade.id)
    return {} if found is None else alipay_objects.refund_state(found, trade)


Handler = Callable[[dict[str, Any], Params], dict[str, Any]]

# Each method, the operation that faults are ordered for, and what does it.
METHODS: dict[str, tuple[str, Handler]] = {
    "alipay.trade.precreate": ("prepay", _precreate),
    "alipay.trade.query": ("query", _query),
    "alipay.trade.close": ("close", _close),
    "alipay.trade.cancel": ("close", _cancel),
    "alipay.trade.refund": ("refund", _refund),
    "alipay.trade.fastpay.refund.query": ("refund_query", _refund_query),
}
