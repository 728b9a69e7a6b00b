"""Money back: accepted once per number, never more than was paid, settled after a while."""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sandbox import chance, clock, notices, settings
from sandbox.trades import Trade

# WeChat Pay, domestic refunds: at most 50 partial refunds, within 365 days of the payment.
MAX_REFUNDS = 50
MAX_AGE_MS = 365 * 86_400_000


class WhyNot(StrEnum):
    """Why a refund is refused."""

    NOT_PAID = "the trade is not paid"
    DIFFERENT = "the refund number was used with other parameters"
    TOO_MUCH = "more than is left to refund"
    TOO_MANY = "too many refunds of this trade"
    TOO_SOON = "too soon after the last refund"
    TOO_OLD = "the payment is too old"
    NO_MONEY = "the merchant's balance does not suffice"


class RefundRefused(Exception):
    """The refund was not accepted; no money moves."""

    def __init__(self, why: WhyNot) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Refund:
    """One row of `refunds`."""

    id: int
    trade_id: int
    channel: str
    merchant: str
    out_refund_no: str
    refund_id: str
    amount_fen: int
    notify_url: str
    outcome: str
    created_at_ms: int
    settles_at_ms: int
    settled_at_ms: int | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """From a row."""
        return cls(**dict(row))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A channel's rules: least time between refunds, and how long one is under way."""

    interval_ms: int
    delay_ms: int


def find(
    tx: sqlite3.Connection,
    channel: str,
    merchant: str,
    out_refund_no: str,
    trade_id: int | None = None,
) -> Refund | None:
    """By the merchant's number; with a trade's key, among that trade's refunds only."""
    row = tx.execute(
        "SELECT * FROM refunds WHERE channel = ? AND merchant = ? AND out_refund_no = ?"
        " AND (? IS NULL OR trade_id = ?)",
        (channel, merchant, out_refund_no, trade_id, trade_id),
    ).fetchone()
    return None if row is None else Refund.of(row)


def of_trade(tx: sqlite3.Connection, trade_id: int) -> list[Refund]:
    """All refunds of a trade, oldest first."""
    rows = tx.execute("SELECT * FROM refunds WHERE trade_id = ? ORDER BY id", (trade_id,))
    return [Refund.of(row) for row in rows]


def accept(
    tx: sqlite3.Connection,
    trade: Trade,
    *,
    out_refund_no: str,
    amount_fen: int,
    notify_url: str,
    terms: Terms,
    now: int,
) -> tuple[Refund, bool]:
    """Accept it, or give the one accepted before under this number. Raises RefundRefused.

    The second value says whether it is new.
    """
    per_trade = trade.id if trade.channel == "alipay" else None
    known = find(tx, trade.channel, trade.merchant, out_refund_no, per_trade)
    if known is not None:
        if known.trade_id != trade.id or known.amount_fen != amount_fen:
            raise RefundRefused(WhyNot.DIFFERENT)
        return known, False
    _check(tx, trade, amount_fen, terms, now)
    _withdraw(tx, trade, amount_fen)
    notify_url = "" if notices.is_muted() else notify_url
    outcome = "success"
    if trade.channel == "wechatpay":
        outcome = settings.take(tx, trade.merchant, "wechatpay_next_refund")
    tx.execute(
        "INSERT INTO refunds (trade_id, channel, merchant, out_refund_no, refund_id, amount_fen,"
        " notify_url, outcome, created_at_ms, settles_at_ms, settled_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(trade.id, trade.channel, trade.merchant, out_refund_no),
            *("50" + clock.day(now) + chance.digits(18), amount_fen, notify_url, outcome, now),
            *(now + terms.delay_ms, None if terms.delay_ms else now),
        ),
    )
    made = find(tx, trade.channel, trade.merchant, out_refund_no, trade.id)
    assert made is not None  # noqa: S101 - inserted in this very transaction
    return made, True


def _check(tx: sqlite3.Connection, trade: Trade, amount_fen: int, terms: Terms, now: int) -> None:
    if trade.state != "paid" or trade.paid_at_ms is None:
        raise RefundRefused(WhyNot.NOT_PAID)
    if now > trade.paid_at_ms + MAX_AGE_MS:
        raise RefundRefused(WhyNot.TOO_OLD)
    if amount_fen > trade.amount_fen - trade.refunded_fen:
        raise RefundRefused(WhyNot.TOO_MUCH)
    earlier = of_trade(tx, trade.id)
    if len(earlier) >= MAX_REFUNDS:
        raise RefundRefused(WhyNot.TOO_MANY)
    if earlier and now < earlier[-1].created_at_ms + terms.interval_ms:
        raise RefundRefused(WhyNot.TOO_SOON)


def _withdraw(tx: sqlite3.Connection, trade: Trade, amount_fen: int) -> None:
    row = tx.execute(
        "SELECT available_fen FROM balances WHERE channel = ? AND merchant = ?",
        (trade.channel, trade.merchant),
    ).fetchone()
    if row is not None and row["available_fen"] < amount_fen:
        raise RefundRefused(WhyNot.NO_MONEY)
    _deposit(tx, trade.channel, trade.merchant, -amount_fen)


def _deposit(tx: sqlite3.Connection, channel: str, merchant: str, amount_fen: int) -> None:
    tx.execute(
        "UPDATE balances SET available_fen = available_fen + ? WHERE channel = ? AND merchant = ?",
        (amount_fen, channel, merchant),
    )


def settle_due(tx: sqlite3.Connection, now: int) -> list[Refund]:
    """Mark those whose time has come as done, and give them. What is closed did not go back."""
    rows = tx.execute(
        "UPDATE refunds SET settled_at_ms = ? WHERE settled_at_ms IS NULL AND settles_at_ms <= ?"
        " RETURNING *",
        (now, now),
    ).fetchall()
    settled = [Refund.of(row) for row in rows]
    for refund in settled:
        if refund.outcome == "closed":
            _deposit(tx, refund.channel, refund.merchant, refund.amount_fen)
    return settled
