"""What WeChat Pay says of a trade and of a refund: the objects of answers and notices."""

from typing import Any

from sandbox import clock, openids
from sandbox.keys import Identity
from sandbox.refunds import Refund
from sandbox.trades import Trade

TRADE_TYPES = {"native": "NATIVE", "jsapi": "JSAPI", "h5": "MWEB"}
_REFUND_STATUS = {"success": "SUCCESS", "abnormal": "ABNORMAL", "closed": "CLOSED"}
_STATES = {
    "NOTPAY": "订单未支付",
    "SUCCESS": "支付成功",
    "REFUND": "转入退款",
    "CLOSED": "订单已关闭",
}


def trade_state(trade: Trade) -> str:
    """REFUND as soon as any refund was accepted: it means that money was taken. A refund that
    was closed has given nothing back: with no other it is SUCCESS again."""
    if trade.state == "paid":
        return "REFUND" if trade.refunded_fen else "SUCCESS"
    return "CLOSED" if trade.state == "closed" else "NOTPAY"


def transaction(trade: Trade, identity: Identity) -> dict[str, Any]:
    """The transaction of a query's answer and of a decrypted payment notice.

    Before payment transaction_id, success_time and payer are absent.
    """
    state = trade_state(trade)
    amount: dict[str, Any] = {"total": trade.amount_fen, "currency": "CNY"}
    content: dict[str, Any] = {
        "appid": identity.appid,
        "mchid": identity.mchid,
        "out_trade_no": trade.out_trade_no,
        "trade_state": state,
        "trade_state_desc": _STATES[state],
        "amount": amount,
    }
    if trade.attach:
        content["attach"] = trade.attach
    if trade.paid_at_ms is not None:
        amount |= {"payer_total": trade.amount_fen, "payer_currency": "CNY"}
        content |= {
            "transaction_id": trade.transaction_id,
            "trade_type": TRADE_TYPES[trade.product],
            "bank_type": "OTHERS",
            "success_time": clock.rfc3339(trade.paid_at_ms),
            "payer": {"openid": trade.payer_openid or openids.openid_of(identity.appid)},
            "promotion_detail": [],
        }
    return content


def refund_status(refund: Refund) -> str:
    """PROCESSING until it is settled."""
    return "PROCESSING" if refund.settled_at_ms is None else _REFUND_STATUS[refund.outcome]


def refund(refund: Refund, trade: Trade) -> dict[str, Any]:
    """The refund of the API's answers."""
    content: dict[str, Any] = {
        "refund_id": refund.refund_id,
        "out_refund_no": refund.out_refund_no,
        "transaction_id": trade.transaction_id,
        "out_trade_no": trade.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "create_time": clock.rfc3339(refund.created_at_ms),
        "status": refund_status(refund),
        "funds_account": "AVAILABLE",
        "amount": {
            "total": trade.amount_fen,
            "refund": refund.amount_fen,
            "payer_total": trade.amount_fen,
            "payer_refund": refund.amount_fen,
            "settlement_refund": refund.amount_fen,
            "settlement_total": trade.amount_fen,
            "discount_refund": 0,
            "currency": "CNY",
        },
        "promotion_detail": [],
    }
    if refund.settled_at_ms is not None and refund.outcome == "success":
        content["success_time"] = clock.rfc3339(refund.settled_at_ms)
    return content


def refund_notice(refund: Refund, trade: Trade, identity: Identity) -> dict[str, Any]:
    """The decrypted content of a refund notice; note `refund_status`, not `status`."""
    content: dict[str, Any] = {
        "mchid": identity.mchid,
        "out_trade_no": trade.out_trade_no,
        "transaction_id": trade.transaction_id,
        "out_refund_no": refund.out_refund_no,
        "refund_id": refund.refund_id,
        "refund_status": _REFUND_STATUS[refund.outcome],
        "user_received_account": "支付用户零钱",
        "amount": {
            "total": trade.amount_fen,
            "refund": refund.amount_fen,
            "payer_total": trade.amount_fen,
            "payer_refund": refund.amount_fen,
        },
    }
    if refund.outcome == "success":
        content["success_time"] = clock.rfc3339(refund.settled_at_ms or refund.created_at_ms)
    return content
