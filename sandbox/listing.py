"""What the portals list: trades of one channel, searched, filtered and in pages; counts."""

import sqlite3
from dataclasses import dataclass

from sandbox import trades
from sandbox.trades import CHANNELS, Trade

PAGE_ROWS = 50
STATES = ("unscanned", "open", "paid", "closed")
MAX_PAGE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the reader asked for: a part of a number, a state, a merchant; "" is any."""

    channel: str
    number: str = ""
    state: str = ""
    merchant: str = ""
    page: int = 1


@dataclass(frozen=True, kw_only=True)
class Found:
    """One page of trades, newest first."""

    trades: list[Trade]
    total: int
    pages: int


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a channel has seen: trades by state, and the money that moved, in fen."""

    channel: str
    trades: int
    paid: int
    taken_fen: int
    refunded_fen: int


def find(tx: sqlite3.Connection, wanted: Wanted, now: int) -> Found:
    """The page that was asked for; the last one where there are fewer."""
    condition = (
        " FROM trades t WHERE t.channel = :channel"
        " AND (:state = '' OR t.state = :state) AND (:merchant = '' OR t.merchant = :merchant)"
        " AND (:number = '' OR instr(t.out_trade_no, :number) > 0"
        " OR instr(coalesce(t.transaction_id, ''), :number) > 0)"
    )
    given = {
        "channel": wanted.channel,
        "state": wanted.state,
        "merchant": wanted.merchant,
        "number": wanted.number,
    }
    total: int = tx.execute(f"SELECT count(*){condition}", given).fetchone()[0]
    pages = max(1, -(-total // PAGE_ROWS))
    skipped = (min(max(wanted.page, 1), pages) - 1) * PAGE_ROWS
    rows = tx.execute(
        f"SELECT t.id{condition} ORDER BY t.id DESC LIMIT {PAGE_ROWS} OFFSET {skipped}",
        given,
    ).fetchall()
    found = [trades.find_by_id(tx, row["id"], now) for row in rows]
    return Found(trades=found, total=total, pages=pages)


def counts(tx: sqlite3.Connection) -> list[Count]:
    """Of each channel."""
    return [_count(tx, channel) for channel in CHANNELS]


def _count(tx: sqlite3.Connection, channel: str) -> Count:
    row = tx.execute(
        "SELECT count(*) AS trades, coalesce(sum(state = 'paid'), 0) AS paid"
        " FROM trades WHERE channel = ?",
        (channel,),
    ).fetchone()
    taken = tx.execute(
        "SELECT coalesce(sum(c.amount_fen), 0) FROM charges c JOIN trades t ON t.id = c.trade_id"
        " WHERE t.channel = ?",
        (channel,),
    ).fetchone()[0]
    refunded = tx.execute(
        "SELECT coalesce(sum(amount_fen), 0) FROM refunds WHERE channel = ?"
        " AND NOT (outcome = 'closed' AND settled_at_ms IS NOT NULL)",
        (channel,),
    ).fetchone()[0]
    return Count(
        channel=channel,
        trades=row["trades"],
        paid=row["paid"],
        taken_fen=taken,
        refunded_fen=refunded,
    )
