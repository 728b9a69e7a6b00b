"""What happens to trades besides API calls: the member's acts, and time passing.

Each function changes the books and queues the notices of the change in one transaction.
"""

import sqlite3
from typing import Any

from sandbox import alipay_events, alipay_objects, notices, refunds, trades, wechatpay_objects
from sandbox.merchants import Merchants
from sandbox.notices import Wish
from sandbox.refunds import Refund
from sandbox.trades import Trade

ALWAYS = Wish()


def member_pays(
    tx: sqlite3.Connection, merchants: Merchants, trade: Trade, wish: Wish, now: int
) -> Trade:
    """The member confirms on the phone. Raises trades.Refusal."""
    paid = trades.pay(tx, trade, now)
    identity = merchants.of(paid.merchant).identity
    if paid.channel == trades.WECHATPAY:
        payload: dict[str, Any] = wechatpay_objects.transaction(paid, identity)
    else:
        payload = alipay_objects.notice(paid, identity)
    notices.enqueue(
        tx,
        trade_id=paid.id,
        channel=paid.channel,
        kind="payment",
        url=paid.notify_url,
        payload=payload,
        wish=wish,
        now=now,
    )
    return paid


def member_pays_later(tx: sqlite3.Connection, trade: Trade, due_at_ms: int) -> None:
    """Note that the member will confirm then, whatever has happened until then."""
    tx.execute(
        "INSERT INTO late_payments (trade_id, due_at_ms) VALUES (?, ?)"
        " ON CONFLICT (trade_id) DO UPDATE SET due_at_ms = excluded.due_at_ms",
        (trade.id, due_at_ms),
    )


def late_payment_due_ms(tx: sqlite3.Connection, trade: Trade) -> int | None:
    """When the member is going to confirm, if so."""
    row = tx.execute("SELECT due_at_ms FROM late_payments WHERE trade_id = ?", (trade.id,))
    found = row.fetchone()
    return None if found is None else int(found["due_at_ms"])


def refund_settled(tx: sqlite3.Connection, merchants: Merchants, refund: Refund, now: int) -> None:
    """Tell the merchant what became of a refund."""
    trade = trades.find_by_id(tx, refund.trade_id, now)
    identity = merchants.of(trade.merchant).identity
    if trade.channel == trades.WECHATPAY:
        payload: dict[str, Any] = wechatpay_objects.refund_notice(refund, trade, identity)
    else:
        payload = alipay_objects.refund_notice(refund, trade, identity)
    notices.enqueue(
        tx,
        trade_id=trade.id,
        channel=trade.channel,
        kind="refund",
        url=refund.notify_url,
        payload=payload,
        wish=ALWAYS,
        now=now,
    )


def time_passes(tx: sqlite3.Connection, merchants: Merchants, now: int) -> None:
    """Do what is due: late payments (refused where the trade no longer allows it), refunds,
    and the end of Alipay's trades that nobody paid."""
    rows = tx.execute(
        "DELETE FROM late_payments WHERE due_at_ms <= ? RETURNING trade_id", (now,)
    ).fetchall()
    for row in rows:
        trade = trades.find_by_id(tx, row["trade_id"], now)
        try:
            member_pays(tx, merchants, trade, ALWAYS, now)
        except trades.Refusal:
            trades.refuse(tx, trade, now)
    for refund in refunds.settle_due(tx, now):
        refund_settled(tx, merchants, refund, now)
    alipay_events.time_out(tx, merchants, now)
