"""Alipay's notices of what is neither a payment nor a refund: created, closed, finished.

Which of them come unasked is a setting of the product ("通知触发条件"; its pages disagree over the
years): TRADE_SUCCESS always; here also TRADE_CLOSED, for page and WAP pay. The others can be
ordered, as a merchant may have them switched on. None of them is to be relied on.
"""

import sqlite3

from sandbox import alipay_objects, notices, trades
from sandbox.keys import Identity
from sandbox.merchants import Merchants
from sandbox.notices import Wish
from sandbox.trades import ALIPAY, Trade

STATUSES = ("WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED")
_CLOSED_IS_TOLD = frozenset({"page", "wap"})


class NotSo(ValueError):
    """The trade is not, and was not, what the notice would say."""


def closed(tx: sqlite3.Connection, identity: Identity, trade: Trade, now: int) -> None:
    """An unpaid trade was closed, by the merchant or by time."""
    if trade.product in _CLOSED_IS_TOLD:
        _tell(tx, trade, alipay_objects.notice(trade, identity), now)


def time_out(tx: sqlite3.Connection, merchants: Merchants, now: int) -> None:
    """Close what was not paid in time, and say so where that is told.

    A trade that somebody asked about in the instant before is closed already: not told.
    """
    rows = tx.execute(
        "SELECT id FROM trades WHERE channel = ? AND state = 'open' AND expires_at_ms <= ?",
        (ALIPAY, now),
    ).fetchall()
    for row in rows:
        trade = trades.find_by_id(tx, row["id"], now)
        closed(tx, merchants.of(trade.merchant).identity, trade, now)


def finish(tx: sqlite3.Connection, trade: Trade, now: int) -> Trade:
    """The time for refunds is over. Raises NotSo where nothing is left that was paid."""
    if trade.state != "paid" or trade.fully_refunded:
        raise NotSo("only a paid trade that is not fully refunded can be finished")
    tx.execute(
        "UPDATE trades SET finished_at_ms = ? WHERE id = ? AND finished_at_ms IS NULL",
        (now, trade.id),
    )
    return trades.find_by_id(tx, trade.id, now)


def order(
    tx: sqlite3.Connection, merchants: Merchants, trade: Trade, status: str, now: int
) -> None:
    """Send one notice of this trade_status now. TRADE_FINISHED finishes the trade first.

    Raises NotSo for a status that the trade does not have; WAIT_BUYER_PAY it had, late as it comes.
    """
    if trade.channel != ALIPAY or status not in STATUSES:
        raise NotSo(f"trade_status: one of {', '.join(STATUSES)}, of a trade at Alipay")
    if trade.state == "unscanned":
        raise NotSo("its code was not scanned: there is no trade yet")
    identity = merchants.of(trade.merchant).identity
    if status == "WAIT_BUYER_PAY":
        _tell(tx, trade, alipay_objects.waiting_notice(trade, identity), now)
        return
    if status == "TRADE_FINISHED":
        trade = finish(tx, trade, now)
    is_now = alipay_objects.trade_status(trade)
    if is_now != status:
        raise NotSo(f"the trade is {is_now}, not {status}")
    _tell(tx, trade, alipay_objects.notice(trade, identity), now)


def _tell(tx: sqlite3.Connection, trade: Trade, payload: dict[str, str], now: int) -> None:
    notices.enqueue(
        tx,
        trade_id=trade.id,
        channel=ALIPAY,
        kind="payment",
        url=trade.notify_url,
        payload=payload,
        wish=Wish(),
        now=now,
    )
