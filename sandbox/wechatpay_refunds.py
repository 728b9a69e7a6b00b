"""WeChat Pay APIv3: refund, refund query."""

from flask import Blueprint, Response, request

from sandbox import clock, events, refunds, trades, wechatpay_objects
from sandbox import wechatpay_checks as checks
from sandbox.core import sandbox
from sandbox.refunds import RefundRefused, Terms, WhyNot
from sandbox.trades import WECHATPAY
from sandbox.wechatpay import find
from sandbox.wechatpay_checks import ApiError
from sandbox.wechatpay_door import Answer, merchant, run

blueprint = Blueprint("wechatpay_refunds", __name__, url_prefix="/v3")

_REFUND_REFUSALS = {
    WhyNot.NOT_PAID: (404, "RESOURCE_NOT_EXISTS"),
    WhyNot.DIFFERENT: (400, "INVALID_REQUEST"),
    WhyNot.TOO_MUCH: (400, "INVALID_REQUEST"),
    WhyNot.TOO_MANY: (400, "INVALID_REQUEST"),
    WhyNot.TOO_SOON: (429, "FREQUENCY_LIMITED"),
    WhyNot.TOO_OLD: (400, "INVALID_REQUEST"),
    WhyNot.NO_MONEY: (403, "NOT_ENOUGH"),
}


@blueprint.post("/refund/domestic/refunds")
def refund() -> Response:
    """Accept a refund. 200 means accepted: `status` says whether it is done."""
    return run("refund", _refund)


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
    trade = find(by_number or None, by_id or None)
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
    return run("refund_query", lambda: _query_refund(out_refund_no))


def _query_refund(out_refund_no: str) -> Answer:
    box, now = sandbox(), clock.now_ms()
    with box.store.write() as tx:
        events.time_passes(tx, box.merchants, now)
        found = refunds.find(tx, WECHATPAY, merchant(), out_refund_no)
        if found is None:
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "退款单不存在")
        trade = trades.find_by_id(tx, found.trade_id, now)
    return 200, wechatpay_objects.refund(found, trade)
