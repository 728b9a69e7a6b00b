"""What Alipay says of a trade: the fields of answers and of notices. Amounts are yuan strings."""

import json
from dataclasses import replace
from typing import Any

from sandbox import clock
from sandbox.keys import Identity
from sandbox.money import yuan
from sandbox.refunds import Refund
from sandbox.trades import Trade

# The one demo member.
BUYER_ID = "2088000000000001"
BUYER_LOGON_ID = "mem***@sandbox.example"
SELLER_EMAIL = "shop@sandbox.example"


def trade_status(trade: Trade) -> str:
    """TRADE_CLOSED is both: timed out unpaid, and fully refunded."""
    if trade.state == "paid":
        if trade.fully_refunded:
            return "TRADE_CLOSED"
        return "TRADE_SUCCESS" if trade.finished_at_ms is None else "TRADE_FINISHED"
    return "TRADE_CLOSED" if trade.state == "closed" else "WAIT_BUYER_PAY"


def _numbers(trade: Trade) -> dict[str, Any]:
    return {"trade_no": trade.transaction_id, "out_trade_no": trade.out_trade_no}


def _amounts(trade: Trade) -> dict[str, str]:
    """Once it is paid, everything was paid; before that nothing was."""
    paid = yuan(trade.amount_fen if trade.state == "paid" else 0)
    return {
        "total_amount": yuan(trade.amount_fen),
        "receipt_amount": paid,
        "buyer_pay_amount": paid,
        "invoice_amount": paid,
        "point_amount": "0.00",
    }


def query(trade: Trade) -> dict[str, Any]:
    """The answer of trade.query. send_pay_date is there exactly if it was paid."""
    content: dict[str, Any] = {
        **_numbers(trade),
        "buyer_logon_id": BUYER_LOGON_ID,
        "buyer_user_id": BUYER_ID,
        "trade_status": trade_status(trade),
        **_amounts(trade),
    }
    if trade.paid_at_ms is not None:
        content["send_pay_date"] = clock.plain(trade.paid_at_ms)
        content["fund_bill_list"] = [
            {"amount": yuan(trade.amount_fen), "fund_channel": "ALIPAYACCOUNT"}
        ]
    return content


def closed(trade: Trade) -> dict[str, Any]:
    """The answer of trade.close."""
    return _numbers(trade)


def refunded(trade: Trade, *, changed: bool, now: int) -> dict[str, Any]:
    """The answer of trade.refund. refund_fee is the sum of all refunds of the trade so far."""
    return {
        **_numbers(trade),
        "buyer_logon_id": BUYER_LOGON_ID,
        "buyer_user_id": BUYER_ID,
        "fund_change": "Y" if changed else "N",
        "refund_fee": yuan(trade.refunded_fen),
        "send_back_fee": yuan(trade.refunded_fen),
        "gmt_refund_pay": clock.plain(now),
    }


def refund_state(refund: Refund, trade: Trade) -> dict[str, Any]:
    """The answer of fastpay.refund.query for a refund that is known."""
    return {
        **_numbers(trade),
        "out_request_no": refund.out_refund_no,
        "total_amount": yuan(trade.amount_fen),
        "refund_amount": yuan(refund.amount_fen),
        "refund_status": "REFUND_SUCCESS",
    }


def notice(trade: Trade, identity: Identity) -> dict[str, str]:
    """The fields of a notice of the trade as it is now, without those of one delivery (time, id,
    signature). An empty `alipay_cert_sn` asks for the certificate of that moment."""
    fields = {
        "app_id": identity.alipay_app_id,
        "auth_app_id": identity.alipay_app_id,
        "charset": "utf-8",
        "version": "1.0",
        "trade_no": trade.transaction_id or "",
        "out_trade_no": trade.out_trade_no,
        "trade_status": trade_status(trade),
        **_amounts(trade),
        "seller_id": identity.alipay_seller_id,
        "seller_email": SELLER_EMAIL,
        "buyer_id": BUYER_ID,
        "buyer_logon_id": BUYER_LOGON_ID,
        "subject": trade.subject,
        "passback_params": trade.attach,
        "gmt_create": clock.plain(trade.created_at_ms),
    }
    if trade.paid_at_ms is not None:
        fields["gmt_payment"] = clock.plain(trade.paid_at_ms)
        bill = [{"amount": yuan(trade.amount_fen), "fundChannel": "ALIPAYACCOUNT"}]
        fields["fund_bill_list"] = json.dumps(bill, separators=(",", ":"))
    if trade.closed_at_ms is not None:
        fields["gmt_close"] = clock.plain(trade.closed_at_ms)
    told = {name: value for name, value in fields.items() if value}
    return told | {"alipay_cert_sn": ""} if trade.certified else told


def waiting_notice(trade: Trade, identity: Identity) -> dict[str, str]:
    """What a notice of the trade's creation says, whatever has happened since."""
    waiting = replace(
        trade, state="open", paid_at_ms=None, closed_at_ms=None, finished_at_ms=None, refunded_fen=0
    )
    return notice(waiting, identity)


def refund_notice(refund: Refund, trade: Trade, identity: Identity) -> dict[str, str]:
    """A refund is told as a change of its trade: TRADE_SUCCESS when partial, else TRADE_CLOSED."""
    fields = notice(trade, identity) | {
        "refund_fee": yuan(trade.refunded_fen),
        "send_back_fee": yuan(trade.refunded_fen),
        "out_biz_no": refund.out_refund_no,
        "gmt_refund": clock.plain(refund.settled_at_ms or refund.created_at_ms),
    }
    if trade.fully_refunded:
        fields["gmt_close"] = fields["gmt_refund"]
    return fields
