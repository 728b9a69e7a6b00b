"""Reading what WeChat Pay says of a refund (APIv3, "申请退款", "查询单笔退款")."""

from shop.gateways import outcomes
from shop.gateways.base import Outcome, RefundResult
from shop.gateways.reading import BadField, fault, identifier, read_amount
from shop.gateways.replies import Reply, bad_answer, looked_up


def read_refund(
    reply: Reply,
    table: outcomes.Table,
    *,
    trade: str,
    number: str,
    refund_fen: int | None = None,
) -> RefundResult:
    """The result of asking for, or after, refund `number` of `trade`; of `refund_fen` if given."""
    if reply.fault is not None:
        return RefundResult(outcome=looked_up(table, reply), fault=reply.fault)
    fields = reply.fields
    try:
        if fields.get("out_refund_no") != number or fields.get("out_trade_no") != trade:
            raise BadField("the answer is about another refund")
        told_fen, _ = read_amount(fields, "refund", currency="CNY")
        if refund_fen is not None and told_fen != refund_fen:
            raise BadField("the answer is about another amount")
        status, refund_id = identifier(fields, "status"), identifier(fields, "refund_id")
        if status not in outcomes.WECHATPAY_REFUND_STATES:
            raise BadField(f"status {status!r} is not known")
    except BadField as error:
        return RefundResult(outcome=Outcome.UNKNOWN, fault=bad_answer(error))
    stuck = status in {"ABNORMAL", "CLOSED"}
    return RefundResult(
        outcome=outcomes.WECHATPAY_REFUND_STATES[status],
        refund_id=refund_id,
        status=status,
        fault=fault(status, "see the merchant portal") if stuck else None,
    )
