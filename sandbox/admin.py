"""What happened, as JSON, and the member's acts. For one's own machine: nobody is asked who he is.

Errors are {"error": "…"} with 400, 404 or 409.
"""

import sqlite3
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sandbox import (
    alipay_events,
    alipay_objects,
    clock,
    events,
    notices,
    refunds,
    trades,
    wechatpay_objects,
)
from sandbox.core import sandbox
from sandbox.fault_orders import BadOrder
from sandbox.notices import MAX_REPEATS, Wish
from sandbox.trades import Refusal, Trade, Why

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

MAX_ROWS = 10_000
DEFAULT_ROWS = 500
MAX_NOTICE_DELAY_MS = 3_600_000


def _error(status: int, message: str) -> Response:
    answer = jsonify(error=message)
    answer.status_code = status
    return answer


def _whole(name: str, default: int, high: int) -> int:
    """A whole number of the query string; 400 when it is none or out of bounds."""
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= high):
        raise BadOrder(f"{name} must be a whole number from 0 to {high}")
    return int(text)


def _find(tx: sqlite3.Connection, out_trade_no: str, now: int) -> Trade:
    """By number; ?channel= and ?merchant= decide where several know it, else the newest."""
    channel, merchant = request.args.get("channel"), request.args.get("merchant")
    found = [
        trade
        for trade in trades.find_everywhere(tx, out_trade_no, now)
        if channel in {None, trade.channel} and merchant in {None, trade.merchant}
    ]
    if not found:
        raise Refusal(Why.NOT_FOUND)
    return max(found, key=lambda trade: trade.id)


def _charges(tx: sqlite3.Connection, trade_id: int | None, limit: int) -> list[dict[str, Any]]:
    rows = tx.execute(
        "SELECT t.channel, t.out_trade_no, c.transaction_id, c.amount_fen, c.at_ms"
        " FROM charges c JOIN trades t ON t.id = c.trade_id WHERE ? IS NULL OR t.id = ?"
        " ORDER BY c.at_ms, t.id LIMIT ?",
        (trade_id, trade_id, limit),
    ).fetchall()
    return [{**dict(row), "at": clock.rfc3339(row["at_ms"])} for row in rows]


def _summary(tx: sqlite3.Connection, trade: Trade) -> dict[str, Any]:
    if trade.channel == trades.WECHATPAY:
        gateway_state = wechatpay_objects.trade_state(trade)
    else:
        gateway_state = alipay_objects.trade_status(trade)
    code = tx.execute(
        "SELECT token FROM codes WHERE trade_id = ? AND replaced = 0", (trade.id,)
    ).fetchone()
    base_url = sandbox().config.base_url
    charges = _charges(tx, trade.id, MAX_ROWS)
    return {
        "channel": trade.channel,
        "merchant": trade.merchant,
        "product": trade.product,
        "out_trade_no": trade.out_trade_no,
        "state": trade.state,
        # A code that nobody scanned is no trade at Alipay.
        "gateway_state": None if trade.state == "unscanned" else gateway_state,
        "amount_fen": trade.amount_fen,
        "refunded_fen": trade.refunded_fen,
        "transaction_id": trade.transaction_id,
        "paid_count": len(charges),
        "charges": charges,
        "expires_at": clock.rfc3339(trade.expires_at_ms),
        "cashier_url": code and f"{base_url}/cashier/{trade.channel}/{code['token']}",
    }


def _full(tx: sqlite3.Connection, trade: Trade) -> dict[str, Any]:
    def shown(notice: notices.Notice) -> dict[str, Any]:
        sent = [asdict(delivery) for delivery in notices.deliveries(tx, notice.id)]
        return {**asdict(notice), "deliveries": sent}

    return {
        **_summary(tx, trade),
        "refunds": [asdict(refund) for refund in refunds.of_trade(tx, trade.id)],
        "notices": [shown(notice) for notice in notices.of_trade(tx, trade.id)],
    }


@blueprint.errorhandler(Refusal)
def _refused(refusal: Refusal) -> Response:
    status = 404 if refusal.why is Why.NOT_FOUND else 409
    return _error(status, str(refusal))


@blueprint.errorhandler(alipay_events.NotSo)
def _not_so(error: alipay_events.NotSo) -> Response:
    return _error(409, str(error))


@blueprint.errorhandler(BadOrder)
def _bad_order(error: BadOrder) -> Response:
    return _error(400, str(error))


@blueprint.get("/trades")
def all_trades() -> Response:
    """Newest first; ?limit= (500)."""
    limit = _whole("limit", DEFAULT_ROWS, MAX_ROWS)
    with sandbox().store.read() as tx:
        found = [_summary(tx, trade) for trade in trades.newest(tx, limit)]
    return jsonify(trades=found)


@blueprint.get("/trades/<out_trade_no>")
def one_trade(out_trade_no: str) -> Response:
    """Everything of one trade."""
    with sandbox().store.write() as tx:
        return jsonify(_full(tx, _find(tx, out_trade_no, clock.now_ms())))


@blueprint.post("/trades/<out_trade_no>/pay")
def pay(out_trade_no: str) -> Response:
    """The member scans and pays. ?notice=yes|no, ?repeat=N (N sendings more than the first),
    ?notice_delay_ms=. 409 where the trade no longer takes money."""
    wished = request.args.get("notice", "yes")
    if wished not in {"yes", "no"}:
        return _error(400, "notice must be yes or no")
    wish = Wish(
        send=wished == "yes",
        repeats=_whole("repeat", 0, MAX_REPEATS),
        delay_ms=_whole("notice_delay_ms", 0, MAX_NOTICE_DELAY_MS),
    )
    box, now = sandbox(), clock.now_ms()
    with box.store.write() as tx:
        trade = trades.scan(tx, _find(tx, out_trade_no, now), now)
        paid = events.member_pays(tx, box.merchants, trade, wish, now)
        answer = jsonify(_full(tx, paid))
    box.notifier.wake()
    return answer


@blueprint.post("/trades/<out_trade_no>/notices")
def send_notices(out_trade_no: str) -> Response:
    """Send all its notices once more, dropped ones too: {"sent": how many}. With ?trade_status=
    one new notice of that status instead (Alipay; TRADE_FINISHED also ends the time for refunds);
    409 where the trade has another."""
    box, now = sandbox(), clock.now_ms()
    status = request.args.get("trade_status")
    with box.store.write() as tx:
        trade = _find(tx, out_trade_no, now)
        if status is None:
            count = notices.send_again(tx, trade.id, now)
        else:
            alipay_events.order(tx, box.merchants, trade, status, now)
            count = 1
    box.notifier.wake()
    return jsonify(sent=count)


@blueprint.get("/charges")
def all_charges() -> Response:
    """Every charge that took money, oldest first."""
    with sandbox().store.read() as tx:
        return jsonify(charges=_charges(tx, None, MAX_ROWS))
