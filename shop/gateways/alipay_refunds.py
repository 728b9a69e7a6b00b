"""Money that goes back: alipay.trade.refund, its query, and alipay.trade.cancel."""

from typing import Final

from shop.gateways import outcomes
from shop.gateways.alipay_answers import ask, plain_text
from shop.gateways.alipay_wire import Wire
from shop.gateways.base import CancelAction, CancelResult, Outcome, RefundRequest, RefundResult
from shop.gateways.reading import fault, our_number
from shop.gateways.replies import bad_answer, looked_up
from shop.money import yuan_text

MAX_REASON: Final = 256
"""alipay.trade.refund, `refund_reason`."""


def refund(wire: Wire, request: RefundRequest) -> RefundResult:
    """alipay.trade.refund: done only if the answer says `fund_change=Y`.

    Without it the refund may be done already (a repeated call) or not at all: UNKNOWN with our
    fault code `no_fund_change`; ask `query_refund`, ten seconds later. `refund_fee` in the answer
    is the sum of the trade's refunds, and is not looked at.
    """
    trade, number = our_number(request.out_trade_no), our_number(request.out_refund_no)
    content = {
        "refund_amount": yuan_text(request.refund_fen),
        "out_trade_no": trade,
        "out_request_no": number,
        "refund_reason": plain_text(request.reason, MAX_REASON),
    }
    reply = ask(lambda: wire.ask("alipay.trade.refund", content))
    if reply.fault is not None:
        return RefundResult(outcome=looked_up(outcomes.ALIPAY_REFUND, reply), fault=reply.fault)
    if reply.fields.get("out_trade_no") != trade:
        return RefundResult(outcome=Outcome.UNKNOWN, fault=bad_answer("another payment's"))
    if reply.fields.get("fund_change") != "Y":
        return RefundResult(outcome=Outcome.UNKNOWN, fault=fault("no_fund_change"))
    return RefundResult(outcome=Outcome.SUCCEEDED, refund_id=number, status="fund_change=Y")


def query_refund(wire: Wire, out_trade_no: str, out_refund_no: str) -> RefundResult:
    """alipay.trade.fastpay.refund.query.

    An answer without `refund_status` means not received, failed, or not yet: UNKNOWN with our
    fault code `no_refund_status`; ask for the refund again under the same number.
    """
    trade, number = our_number(out_trade_no), our_number(out_refund_no)
    content = {"out_request_no": number, "out_trade_no": trade}
    reply = ask(lambda: wire.ask("alipay.trade.fastpay.refund.query", content))
    if reply.fault is not None:
        outcome = looked_up(outcomes.ALIPAY_REFUND_QUERY, reply)
        return RefundResult(outcome=outcome, fault=reply.fault)
    status = reply.fields.get("refund_status")
    if not status:
        return RefundResult(outcome=Outcome.UNKNOWN, fault=fault("no_refund_status"))
    if status != "REFUND_SUCCESS":
        return RefundResult(outcome=Outcome.UNKNOWN, fault=bad_answer("refund_status"))
    told = (reply.fields.get("out_trade_no"), reply.fields.get("out_request_no"))
    if told != (trade, number):
        return RefundResult(outcome=Outcome.UNKNOWN, fault=bad_answer("another refund's"))
    return RefundResult(outcome=Outcome.SUCCEEDED, refund_id=number, status=status)


def cancel(wire: Wire, out_trade_no: str) -> CancelResult:
    """alipay.trade.cancel: closes what is unpaid, **refunds what is paid**.

    With `retry_flag=Y` the call failed and is to be made again: UNKNOWN, whatever else is said.
    """
    number = our_number(out_trade_no)
    reply = ask(lambda: wire.ask("alipay.trade.cancel", {"out_trade_no": number}))
    retry = reply.fields.get("retry_flag") == "Y"
    if reply.fault is not None:
        return CancelResult(outcome=looked_up(outcomes.ALIPAY_CANCEL, reply), fault=reply.fault)
    if reply.fields.get("out_trade_no", number) != number:
        return CancelResult(outcome=Outcome.UNKNOWN, fault=bad_answer("another payment's"))
    named = reply.fields.get("action") or CancelAction.NONE
    if retry or named not in set(CancelAction):
        return CancelResult(
            outcome=Outcome.UNKNOWN, retry=retry, fault=fault("not_cancelled", f"action {named}")
        )
    return CancelResult(outcome=Outcome.SUCCEEDED, action=CancelAction(named))
