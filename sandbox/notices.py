"""The queue of callbacks: one row per event, one row per delivery, the documented schedule."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Self

from sandbox import chance, fault_orders
from sandbox.fault_orders import NOTICE, TELLINGS

# Waits after each failed delivery, in seconds; then the gateway gives up.
SCHEDULES_S: dict[str, tuple[float, ...]] = {
    # WeChat Pay, payment notice: 15s/15s/30s/3m/10m/20m/30m/30m/30m/60m/3h/3h/3h/6h/6h.
    "wechatpay": (
        *(15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600),
        *(10_800, 10_800, 10_800, 21_600, 21_600),
    ),
    # Alipay, asynchronous notice: 4m,10m,10m,1h,2h,6h,15h; QR products first try 3 times at once.
    "alipay": (0, 0, 0, 240, 600, 600, 3_600, 7_200, 21_600, 54_000),
}
# A sender that died leaves its notice to another after this. Longer than a delivery can take.
CLAIM_MS = 30_000
MAX_REPEATS = 100
_muted: ContextVar[bool] = ContextVar("muted", default=False)


@contextmanager
def muted() -> Iterator[None]:
    """What is accepted within is never told of by a notice."""
    before = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(before)


def is_muted() -> bool:
    """Whether we are within `muted`."""
    return _muted.get()


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One event to tell the merchant of; `payload` is the plain content."""

    id: int
    event_id: str
    trade_id: int
    channel: str
    merchant: str
    kind: str
    url: str
    payload: dict[str, Any]
    state: str
    failures: int
    repeats_left: int
    next_at_ms: int | None
    created_at_ms: int

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """From a row."""
        return cls(**{**dict(row), "payload": json.loads(row["payload"])})


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What one sending came to."""

    at_ms: int
    duration_ms: int
    http_status: int | None
    result: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How the member's side wants an event told: not at all, late, or more than once."""

    send: bool = True
    repeats: int = 0
    delay_ms: int = 0
    # Held back until a later notice of the trade was sent, or `delay_ms` is over.
    held: bool = False


def enqueue(
    tx: sqlite3.Connection,
    *,
    trade_id: int,
    channel: str,
    kind: str,
    url: str,
    payload: dict[str, Any],
    wish: Wish,
    now: int,
) -> None:
    """Put an event into the queue. With no address there is nobody to tell: nothing is stored."""
    if not url:
        return
    event_id = _event_id(channel)
    wish = _as_ordered(tx, trade_id, channel, wish)
    made = tx.execute(
        "INSERT INTO notices (event_id, trade_id, channel, merchant, kind, url, payload, state,"
        " repeats_left, next_at_ms, created_at_ms)"
        " VALUES (?, ?, ?, (SELECT merchant FROM trades WHERE id = ?), ?, ?, ?, ?, ?, ?, ?)",
        (
            *(event_id, trade_id, channel, trade_id, kind, url, json.dumps(payload)),
            "waiting" if wish.send else "dropped",
            min(wish.repeats, MAX_REPEATS),
            now + wish.delay_ms if wish.send else None,
            now,
        ),
    )
    if wish.held:
        tx.execute("INSERT INTO held_notices (notice_id) VALUES (?)", (made.lastrowid,))


def _as_ordered(tx: sqlite3.Connection, trade_id: int, channel: str, wish: Wish) -> Wish:
    """The wish, changed by a fault that was ordered for notices."""
    row = tx.execute("SELECT merchant FROM trades WHERE id = ?", (trade_id,)).fetchone()
    fault = fault_orders.take(tx, channel, NOTICE, row["merchant"], TELLINGS)
    if fault is None:
        return wish
    if fault.kind == "never":
        return replace(wish, send=False)
    if fault.kind == "duplicate":
        return replace(wish, repeats=wish.repeats + fault.repeats)
    return replace(wish, delay_ms=fault.delay_ms, held=fault.kind == "reorder")


def _event_id(channel: str) -> str:
    if channel == "wechatpay":
        return f"EV-{chance.hexadecimal(32)}"
    return chance.hexadecimal(34)


def send_again(tx: sqlite3.Connection, trade_id: int, now: int) -> int:
    """Send every notice of a trade once more, now, dropped and given-up ones too. How many?"""
    changed = tx.execute(
        "UPDATE notices SET next_at_ms = ?, repeats_left = 0,"
        " state = CASE WHEN state = 'delivered' THEN 'delivered' ELSE 'waiting' END"
        " WHERE trade_id = ?",
        (now, trade_id),
    )
    return changed.rowcount


def claim_due(tx: sqlite3.Connection, limit: int, now: int) -> list[Notice]:
    """Take notices whose time has come; nobody else gets them for CLAIM_MS."""
    rows = tx.execute(
        "UPDATE notices SET next_at_ms = ? WHERE id IN (SELECT id FROM notices"
        " WHERE next_at_ms <= ? ORDER BY next_at_ms, id LIMIT ?) RETURNING *",
        (now + CLAIM_MS, now, limit),
    ).fetchall()
    return [Notice.of(row) for row in rows]


def release(tx: sqlite3.Connection, notice: Notice, now: int) -> None:
    """Give back a claimed notice that was not sent."""
    tx.execute("UPDATE notices SET next_at_ms = ? WHERE id = ?", (now, notice.id))


def next_due_ms(tx: sqlite3.Connection) -> int | None:
    """When the next thing of any kind is due: a notice, a late payment, a refund."""
    row = tx.execute(
        "SELECT min(due) AS due FROM (SELECT min(next_at_ms) AS due FROM notices"
        " WHERE next_at_ms IS NOT NULL"
        " UNION ALL SELECT min(due_at_ms) FROM late_payments"
        " UNION ALL SELECT min(settles_at_ms) FROM refunds WHERE settled_at_ms IS NULL"
        # What Alipay closes when its time is over.
        " UNION ALL SELECT min(expires_at_ms) FROM trades"
        " WHERE state = 'open' AND channel = 'alipay')"
    ).fetchone()
    due: int | None = row["due"]
    return due


def record(
    tx: sqlite3.Connection, notice: Notice, delivery: Delivery, time_scale: float, now: int
) -> None:
    """Store a delivery and decide what comes next by the channel's schedule."""
    _let_go_earlier(tx, notice, now)
    tx.execute(
        "INSERT INTO deliveries (notice_id, at_ms, duration_ms, http_status, result, detail)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(notice.id, delivery.at_ms, delivery.duration_ms, delivery.http_status),
            *(delivery.result, delivery.detail[:300]),
        ),
    )
    state, failures, repeats = notice.state, notice.failures, notice.repeats_left
    next_at_ms: int | None = None
    if delivery.result == "acknowledged" or state == "delivered":
        state = "delivered"  # a repeat of something acknowledged is never retried
        if repeats:
            repeats, next_at_ms = repeats - 1, now
    else:
        schedule = SCHEDULES_S[notice.channel]
        if failures < len(schedule):
            next_at_ms = now + round(schedule[failures] * 1_000 * time_scale)
        else:
            state = "given_up"
        failures += 1
    # Somebody may have asked for another sending meanwhile: the time they set stays.
    tx.execute(
        "UPDATE notices SET state = ?, failures = ?, repeats_left = ?,"
        " next_at_ms = CASE WHEN next_at_ms = ? THEN ? ELSE next_at_ms END WHERE id = ?",
        (state, failures, repeats, notice.next_at_ms, next_at_ms, notice.id),
    )


def _let_go_earlier(tx: sqlite3.Connection, sent: Notice, now: int) -> None:
    """Send now what was held back for this later notice of the same trade."""
    rows = tx.execute(
        "DELETE FROM held_notices WHERE notice_id IN"
        " (SELECT id FROM notices WHERE trade_id = ? AND id < ?) RETURNING notice_id",
        (sent.trade_id, sent.id),
    ).fetchall()
    for row in rows:
        tx.execute(
            "UPDATE notices SET next_at_ms = ? WHERE id = ? AND next_at_ms > ?",
            (now, row["notice_id"], now),
        )


def of_trade(tx: sqlite3.Connection, trade_id: int) -> list[Notice]:
    """A trade's notices, oldest first."""
    rows = tx.execute("SELECT * FROM notices WHERE trade_id = ? ORDER BY id", (trade_id,))
    return [Notice.of(row) for row in rows]


def newest(tx: sqlite3.Connection, limit: int) -> list[Notice]:
    """The last notices queued."""
    rows = tx.execute("SELECT * FROM notices ORDER BY id DESC LIMIT ?", (limit,))
    return [Notice.of(row) for row in rows]


def deliveries(tx: sqlite3.Connection, notice_id: int) -> list[Delivery]:
    """What became of each sending, oldest first."""
    rows = tx.execute(
        "SELECT at_ms, duration_ms, http_status, result, detail FROM deliveries"
        " WHERE notice_id = ? ORDER BY id",
        (notice_id,),
    )
    return [Delivery(**dict(row)) for row in rows]
