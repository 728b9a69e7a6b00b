"""Alipay's gateway.do: payments, their queries, ends and refunds; bills and certificates.

GET and POST, query and body merged. HTTP 200 whatever the outcome; business answers are signed,
gateway-level errors (the caller is not known) are not. Page and WAP pay answer with a page.
"""

import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, request

from sandbox import (
    alipay_bill,
    alipay_certs,
    alipay_events,
    alipay_objects,
    alipay_pages,
    alipay_sign,
    clock,
    events,
    faults,
    refunds,
    trades,
)
from sandbox import alipay_checks as checks
from sandbox.alipay_checks import PRECREATE, AlipayError, Call, Product, business
from sandbox.alipay_pages import PAGES
from sandbox.core import sandbox
from sandbox.refunds import Refund, RefundRefused, Terms, WhyNot
from sandbox.trades import ALIPAY, Refusal, Trade, Why

blueprint = Blueprint("alipay", __name__)

_PAYMENT_REFUSALS = {
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
Params = Mapping[str, str]


@blueprint.route("/gateway.do", methods=["GET", "POST"])
def gateway() -> Response:
    """One door for every method."""
    params: Params = {**request.args.to_dict(), **request.form.to_dict()}
    method = params.get("method", "")
    call: Callable[[], Response] = lambda: _answered(method, params)  # noqa: E731
    if method in PAGES:
        op, call = "prepay", lambda: _page(PAGES[method], params)
    elif method in METHODS:
        op, _ = METHODS[method]
    else:
        return call()
    broken = Response("<html>500</html>", status=500, content_type="text/html")
    return faults.around(sandbox().store, ALIPAY, op, call, broken)


def _call(params: Params) -> Call:
    """Who calls, for what. Raises AlipayError."""
    box, now = sandbox(), clock.now_ms()
    # Who calls is known by the application; an unknown one is refused by the checks.
    keys = box.merchants.by_alipay_app_id(params.get("app_id", "")) or box.merchants.of("default")
    checks.check_public(keys, params, {*METHODS, *PAGES}, now)
    return Call(
        keys=keys,
        certified=checks.certified(params),
        now=now,
        params=params,
        biz=checks.biz_content(params),
    )


def _answered(method: str, params: Params) -> Response:
    name = f"{method.replace('.', '_')}_response" if method in METHODS else "error_response"
    try:
        call = _call(params)
        _, handler = METHODS[method]
        content = {"code": "10000", "msg": "Success", **handler(call)}
    except AlipayError as error:
        if not error.signed:
            return _json(alipay_sign.unsigned_answer(name, error.content()))
        content = error.content()
    if method == DOWNLOAD_CERTIFICATE:
        return _json(alipay_sign.unsigned_answer(name, content))
    signer = _signer(params)
    return _json(alipay_sign.signed_answer(signer.key, name, content, signer.cert_sn))


def _page(product: Product, params: Params) -> Response:
    """Lead the browser to the cashier; what is wrong is told by a page."""
    box = sandbox()
    try:
        call = _call(params)
        new = checks.new_trade(call, product)
        try:
            with box.store.write() as tx:
                address = alipay_pages.open_cashier(tx, box, new, call.now)
        except Refusal as refusal:
            business(_PAYMENT_REFUSALS[refusal.why], str(refusal))
    except AlipayError as error:
        return alipay_pages.error_page(error)
    return Response(status=302, headers={"Location": address})


def _signer(params: Params) -> alipay_certs.Signer:
    """Of an answer to a caller who is known."""
    keys = sandbox().merchants.by_alipay_app_id(params["app_id"])
    assert keys is not None  # noqa: S101 - checked before
    return alipay_certs.signer(keys, certified=checks.certified(params), now=clock.now_ms())


def _json(body: str) -> Response:
    return Response(body, content_type="application/json;charset=utf-8")


def _precreate(call: Call) -> dict[str, Any]:
    """Make a code. There is no trade until somebody scans it."""
    box, lifetime_s = sandbox(), sandbox().config.code_lifetime_s
    new = checks.new_trade(call, PRECREATE)
    try:
        with box.store.write() as tx:
            token = trades.open_trade(tx, new, code_lifetime_s=lifetime_s, now=call.now)
    except Refusal as refusal:
        business(_PAYMENT_REFUSALS[refusal.why], str(refusal))
    code = f"{box.config.base_url}/cashier/alipay/{token}"
    return {"out_trade_no": new.out_trade_no, "qr_code": code}


def _known(tx: sqlite3.Connection, call: Call) -> Trade:
    """The trade meant by trade_no (which wins) or out_trade_no; it must have been scanned."""
    by_id = checks.text(call.biz, "trade_no", 64, required=False)
    by_number = checks.text(call.biz, "out_trade_no", 64, required=False)
    if by_id:
        trade = trades.find_by_transaction(tx, ALIPAY, call.merchant, by_id, call.now)
    elif by_number:
        trade = trades.find(tx, ALIPAY, call.merchant, by_number, call.now)
    else:
        business("INVALID_PARAMETER", "out_trade_no 与 trade_no 不能同时为空")
    if trade is None or trade.state == "unscanned":
        business("TRADE_NOT_EXIST", "交易不存在")
    return trade


def _query(call: Call) -> dict[str, Any]:
    """10000 says only that the call worked: trade_status says the rest."""
    with sandbox().store.write() as tx:
        trade = _known(tx, call)
    return alipay_objects.query(trade)


def _close(call: Call) -> dict[str, Any]:
    """Only from WAIT_BUYER_PAY."""
    with sandbox().store.write() as tx:
        trade = _known(tx, call)
        if trade.state != "open":
            business("TRADE_STATUS_ERROR", "交易状态不合法")
        closed = _closed(tx, call, trade)
    sandbox().notifier.wake()
    return alipay_objects.closed(closed)


def _closed(tx: sqlite3.Connection, call: Call, trade: Trade) -> Trade:
    closed = trades.close(tx, trade, call.now)
    alipay_events.closed(tx, call.keys.identity, closed, call.now)
    return closed


def _cancel(call: Call) -> dict[str, Any]:
    """For unknown results: closes what is unpaid, gives back what was paid. Safe to repeat."""
    box = sandbox()
    with box.store.write() as tx:
        trade = _known(tx, call)
        answer = {**alipay_objects.closed(trade), "retry_flag": "N"}
        if trade.state == "paid":
            _refuse_finished(trade)
            answer["action"] = "refund"
            left_fen = trade.amount_fen - trade.refunded_fen
            if left_fen:
                # The cancellation has no number of its own; it happens once per trade.
                number = f"cancel{trade.transaction_id}"
                _accept(tx, call, trade, number, left_fen, Terms(interval_ms=0, delay_ms=0))
        else:
            answer["action"] = "close"
            if trade.state == "open":
                _closed(tx, call, trade)
    box.notifier.wake()
    return answer


def _refuse_finished(trade: Trade) -> None:
    if trade.finished_at_ms is not None:
        business("TRADE_HAS_FINISHED", "交易已完结，不可退款")


def _accept(
    tx: sqlite3.Connection, call: Call, trade: Trade, number: str, amount_fen: int, terms: Terms
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
            now=call.now,
        )
    except RefundRefused as refused:
        if refused.why is WhyNot.TOO_SOON:
            raise AlipayError("40005", "isv.app-call-limited", "调用频次超限") from None
        business(_REFUND_REFUSALS[refused.why], str(refused))
    if new:
        events.refund_settled(tx, sandbox().merchants, refund, call.now)
    return refund, new


def _refund(call: Call) -> dict[str, Any]:
    """Give money back at once. Same number and amount: nothing more happens, fund_change N."""
    box, biz = sandbox(), call.biz
    amount_fen = checks.fen(biz, "refund_amount")
    number = checks.text(biz, "out_request_no", 64, required=False)
    if number and not checks.OUT_REQUEST_NO.fullmatch(number):
        business("INVALID_PARAMETER", "参数无效：out_request_no")
    checks.text(biz, "refund_reason", 256, required=False)
    interval_ms = box.config.scaled_ms(box.config.alipay_refund_interval_s)
    with box.store.write() as tx:
        trade = _known(tx, call)
        if not number:
            if amount_fen != trade.amount_fen:
                business("INVALID_PARAMETER", "部分退款必须传入 out_request_no")
            number = trade.out_trade_no
        if refunds.find(tx, ALIPAY, call.merchant, number, trade.id) is None:
            _refuse_finished(trade)
        terms = Terms(interval_ms=interval_ms, delay_ms=0)
        _, new = _accept(tx, call, trade, number, amount_fen, terms)
        after = trades.find_by_id(tx, trade.id, call.now)
    box.notifier.wake()
    return alipay_objects.refunded(after, changed=new, now=call.now)


def _refund_query(call: Call) -> dict[str, Any]:
    """A number that is not known is no error: the answer just says nothing of it."""
    number = checks.text(call.biz, "out_request_no", 64)
    with sandbox().store.write() as tx:
        trade = _known(tx, call)
        found = refunds.find(tx, ALIPAY, call.merchant, number, trade.id)
    return {} if found is None else alipay_objects.refund_state(found, trade)


def _bill(call: Call) -> dict[str, Any]:
    """The address of a day's or month's bill, good for 30 s."""
    box = sandbox()
    with box.store.write() as tx:
        address = alipay_bill.offer(tx, call, box.config.base_url, at_once=box.config.bills_at_once)
    return {"bill_download_url": address}


@blueprint.get("/downloadBillFile.resource")
def download_bill() -> Response:
    """The bill behind such an address, unsigned; too late, a page that says so."""
    box, token = sandbox(), request.args.get("token", "")
    with box.store.read() as tx:
        content = alipay_bill.fetch(tx, box.merchants, token, clock.now_ms())
    if content is None:
        page = "<!doctype html><meta charset=utf-8><p>下载超时，请重新下载"
        return Response(page, content_type="text/html;charset=utf-8")
    return Response(content, content_type="application/zip")


def _certificate(call: Call) -> dict[str, Any]:
    """One of Alipay's certificates, by its SN."""
    try:
        content = alipay_certs.download(call.keys, checks.text(call.biz, "alipay_cert_sn", 64))
    except alipay_certs.Refused as refused:
        raise AlipayError("40002", refused.sub_code, refused.message) from None
    return {"alipay_cert_content": content}


Handler = Callable[[Call], dict[str, Any]]
DOWNLOAD_CERTIFICATE = "alipay.open.app.alipaycert.download"

# Each method, the operation that faults are ordered for, and what does it.
METHODS: dict[str, tuple[str, Handler]] = {
    "alipay.trade.precreate": ("prepay", _precreate),
    "alipay.trade.query": ("query", _query),
    "alipay.trade.close": ("close", _close),
    "alipay.trade.cancel": ("cancel", _cancel),
    "alipay.trade.refund": ("refund", _refund),
    "alipay.trade.fastpay.refund.query": ("refund_query", _refund_query),
    "alipay.data.dataservice.bill.downloadurl.query": ("bill", _bill),
    DOWNLOAD_CERTIFICATE: ("certificates", _certificate),
}
