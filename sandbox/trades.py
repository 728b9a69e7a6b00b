"""One payment at a gateway: opened, scanned, paid, closed. Both channels share this life.

Every function works inside the caller's transaction and takes the moment as `now`. A rule that
stands in the way is a `Refusal`; the channels' views give it their own error code.
"""

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sandbox import chance, clock

WECHATPAY = "wechatpay"
ALIPAY = "alipay"
CHANNELS = (WECHATPAY, ALIPAY)
# An unpaid WeChat Pay order is closed by the gateway after 7 days.
WECHATPAY_AUTO_CLOSE_MS = 7 * 86_400_000


class Why(StrEnum):
    """What stands in the way."""

    NOT_FOUND = "there is no such trade"
    PAID = "it is paid"
    CLOSED = "it is closed"
    EXPIRED = "its time to pay is over"
    DIFFERENT = "the number was used with other parameters"
    CODE_DEAD = "this code no longer works"
    UNSCANNED = "its code was not scanned"


class Refusal(Exception):
    """The trade's state does not allow this."""

    def __init__(self, why: Why) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(frozen=True, kw_only=True)
class NewTrade:
    """What a prepay asks for. `digest` stands for all parameters that a repeat must share, beside
    the product."""

    channel: str
    merchant: str
    product: str
    out_trade_no: str
    subject: str
    attach: str
    amount_fen: int
    notify_url: str
    digest: str
    expires_at_ms: int
    return_url: str = ""
    quit_url: str = ""
    payer_openid: str = ""
    client_ip: str = ""
    certified: bool = False


@dataclass(frozen=True, kw_only=True)
class Trade:
    """One row of `trades`, with what was refunded."""

    id: int
    channel: str
    merchant: str
    product: str
    out_trade_no: str
    subject: str
    attach: str
    amount_fen: int
    notify_url: str
    return_url: str
    quit_url: str
    payer_openid: str
    client_ip: str
    certified: bool
    digest: str
    state: str
    transaction_id: str | None
    expires_at_ms: int
    created_at_ms: int
    paid_at_ms: int | None
    closed_at_ms: int | None
    refused_at_ms: int | None
    finished_at_ms: int | None
    refunded_fen: int

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """From a row of `_SELECT`."""
        return cls(**dict(row))

    @property
    def fully_refunded(self) -> bool:
        """Whether all the money is back, or on its way."""
        return self.state == "paid" and self.refunded_fen >= self.amount_fen


_SELECT = """SELECT t.*, (SELECT coalesce(sum(r.amount_fen), 0) FROM refunds r
    WHERE r.trade_id = t.id AND NOT (r.outcome = 'closed' AND r.settled_at_ms IS NOT NULL)
    ) AS refunded_fen FROM trades t """


def _one(tx: sqlite3.Connection, where: str, value: object, now: int) -> Trade | None:
    row = tx.execute(_SELECT + where, value if isinstance(value, tuple) else (value,)).fetchone()
    if row is None:
        return None
    trade = Trade.of(row)
    if not _lapsed(trade, now):
        return trade
    tx.execute(
        "UPDATE trades SET state = 'closed', closed_at_ms = ? WHERE id = ? AND state = 'open'",
        (now, trade.id),
    )
    return Trade.of(tx.execute(_SELECT + "WHERE t.id = ?", (trade.id,)).fetchone())


def _lapsed(trade: Trade, now: int) -> bool:
    """Whether the gateway itself closes it now: Alipay at the expiry, WeChat Pay after a week
    (until then an expired order stays NOTPAY there)."""
    if trade.state != "open":
        return False
    if trade.channel == ALIPAY:
        return now >= trade.expires_at_ms
    return now >= trade.created_at_ms + WECHATPAY_AUTO_CLOSE_MS


def find(
    tx: sqlite3.Connection, channel: str, merchant: str, out_trade_no: str, now: int
) -> Trade | None:
    """By the merchant's number. An Alipay code that nobody scanned is found, as `unscanned`."""
    where = "WHERE t.channel = ? AND t.merchant = ? AND t.out_trade_no = ?"
    return _one(tx, where, (channel, merchant, out_trade_no), now)


def find_by_transaction(
    tx: sqlite3.Connection, channel: str, merchant: str, transaction_id: str, now: int
) -> Trade | None:
    """By the gateway's number, among the merchant's own."""
    where = "WHERE t.channel = ? AND t.merchant = ? AND t.transaction_id = ?"
    return _one(tx, where, (channel, merchant, transaction_id), now)


def find_everywhere(tx: sqlite3.Connection, out_trade_no: str, now: int) -> list[Trade]:
    """Of all merchants, at both gateways, under this number; oldest first."""
    rows = tx.execute("SELECT id FROM trades WHERE out_trade_no = ? ORDER BY id", (out_trade_no,))
    return [find_by_id(tx, row["id"], now) for row in rows.fetchall()]


def find_by_id(tx: sqlite3.Connection, trade_id: int, now: int) -> Trade:
    """By our own key; it must exist."""
    trade = _one(tx, "WHERE t.id = ?", trade_id, now)
    if trade is None:
        raise Refusal(Why.NOT_FOUND)
    return trade


def newest(tx: sqlite3.Connection, limit: int) -> list[Trade]:
    """The last trades opened."""
    rows = tx.execute(_SELECT + "ORDER BY t.id DESC LIMIT ?", (limit,)).fetchall()
    return [Trade.of(row) for row in rows]


def open_trade(tx: sqlite3.Connection, new: NewTrade, *, code_lifetime_s: int, now: int) -> str:
    """Open it, or give an open one a new code; the old code dies. Gives the code's token.

    Refuses a number that is paid, closed, expired, or known with other parameters. An Alipay code
    that nobody scanned is no trade yet: its parameters are simply replaced.
    """
    known = find(tx, new.channel, new.merchant, new.out_trade_no, now)
    if known is None:
        trade_id = _insert(tx, new, now)
        expires_at_ms = new.expires_at_ms
    elif known.state == "unscanned":
        trade_id, expires_at_ms = known.id, new.expires_at_ms
        tx.execute(
            "UPDATE trades SET product = ?, subject = ?, attach = ?, amount_fen = ?,"
            " notify_url = ?, return_url = ?, quit_url = ?, certified = ?, digest = ?,"
            " expires_at_ms = ?, created_at_ms = ? WHERE id = ?",
            (
                *(new.product, new.subject, new.attach, new.amount_fen, new.notify_url),
                *(new.return_url, new.quit_url, new.certified, new.digest),
                *(new.expires_at_ms, now, known.id),
            ),
        )
    else:
        _check_repeat(known, new, now)
        trade_id, expires_at_ms = known.id, known.expires_at_ms
    tx.execute("UPDATE codes SET replaced = 1 WHERE trade_id = ?", (trade_id,))
    token = _token(new.product, now)
    code_expires_at_ms = min(expires_at_ms, now + code_lifetime_s * 1_000)
    tx.execute(
        "INSERT INTO codes (token, trade_id, expires_at_ms) VALUES (?, ?, ?)",
        (token, trade_id, code_expires_at_ms),
    )
    return token


def _check_repeat(known: Trade, new: NewTrade, now: int) -> None:
    if known.state == "paid":
        raise Refusal(Why.PAID)
    if known.state == "closed":
        raise Refusal(Why.CLOSED)
    if known.digest != new.digest or known.product != new.product:
        raise Refusal(Why.DIFFERENT)
    if now >= known.expires_at_ms:
        raise Refusal(Why.EXPIRED)


def _insert(tx: sqlite3.Connection, new: NewTrade, now: int) -> int:
    cursor = tx.execute(
        "INSERT INTO trades (channel, merchant, product, out_trade_no, subject, attach,"
        " amount_fen, notify_url, return_url, quit_url, payer_openid, client_ip, certified, digest,"
        " state, expires_at_ms, created_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(new.channel, new.merchant, new.product, new.out_trade_no, new.subject, new.attach),
            *(new.amount_fen, new.notify_url, new.return_url, new.quit_url),
            *(new.payer_openid, new.client_ip, new.certified, new.digest),
            "unscanned" if new.channel == ALIPAY else "open",
            *(new.expires_at_ms, now),
        ),
    )
    assert cursor.lastrowid is not None  # noqa: S101 - an INSERT always has one
    return cursor.lastrowid


def by_code(tx: sqlite3.Connection, channel: str, token: str, now: int) -> tuple[Trade, bool]:
    """The trade behind a QR code, and whether the code still works.

    Raises Refusal(NOT_FOUND) for a token that was never given out on this channel.
    """
    code = tx.execute(
        "SELECT c.* FROM codes c JOIN trades t ON t.id = c.trade_id"
        " WHERE c.token = ? AND t.channel = ?",
        (token, channel),
    ).fetchone()
    if code is None:
        raise Refusal(Why.NOT_FOUND)
    trade = find_by_id(tx, code["trade_id"], now)
    return trade, not code["replaced"] and now < code["expires_at_ms"]


def scan(tx: sqlite3.Connection, trade: Trade, now: int) -> Trade:
    """The member's phone reads the code: only now does an Alipay trade come to be."""
    if trade.state != "unscanned":
        return trade
    if now >= trade.expires_at_ms:
        raise Refusal(Why.EXPIRED)
    tx.execute(
        "UPDATE trades SET state = 'open', transaction_id = ?, created_at_ms = ?"
        " WHERE id = ? AND state = 'unscanned'",
        (_alipay_number(now), now, trade.id),
    )
    return find_by_id(tx, trade.id, now)


def pay(tx: sqlite3.Connection, trade: Trade, now: int) -> Trade:
    """Take the money, once. Refuses a trade that is paid, closed or expired."""
    if trade.state == "paid":
        raise Refusal(Why.PAID)
    if trade.state == "closed":
        raise Refusal(Why.CLOSED)
    if now >= trade.expires_at_ms:
        raise Refusal(Why.EXPIRED)
    if trade.state == "unscanned":
        raise Refusal(Why.UNSCANNED)
    transaction_id = trade.transaction_id or _wechatpay_number(now)
    tx.execute(
        "INSERT INTO charges (trade_id, transaction_id, amount_fen, at_ms) VALUES (?, ?, ?, ?)",
        (trade.id, transaction_id, trade.amount_fen, now),
    )
    tx.execute(
        "UPDATE trades SET state = 'paid', transaction_id = ?, paid_at_ms = ? WHERE id = ?",
        (transaction_id, now, trade.id),
    )
    tx.execute(
        "UPDATE balances SET available_fen = available_fen + ? WHERE channel = ? AND merchant = ?",
        (trade.amount_fen, trade.channel, trade.merchant),
    )
    tx.execute("DELETE FROM late_payments WHERE trade_id = ?", (trade.id,))
    return find_by_id(tx, trade.id, now)


def close(tx: sqlite3.Connection, trade: Trade, now: int) -> Trade:
    """No more payment from now on. Closing a closed one changes nothing; a paid one is refused."""
    if trade.state == "paid":
        raise Refusal(Why.PAID)
    if trade.state == "closed":
        return trade
    tx.execute("UPDATE trades SET state = 'closed', closed_at_ms = ? WHERE id = ?", (now, trade.id))
    tx.execute("DELETE FROM late_payments WHERE trade_id = ?", (trade.id,))
    return find_by_id(tx, trade.id, now)


def refuse(tx: sqlite3.Connection, trade: Trade, now: int) -> None:
    """The member turns away. The trade stays payable: WeChat Pay says NOTPAY, Alipay
    WAIT_BUYER_PAY."""
    tx.execute("UPDATE trades SET refused_at_ms = ? WHERE id = ?", (now, trade.id))


def _token(product: str, now: int) -> str:
    """What a code says. JSAPI's is the prepay_id, which begins with wx and the moment."""
    if product == "jsapi":
        return f"wx{clock.compact(now)}{chance.hexadecimal(20)}"
    return chance.token()


def _wechatpay_number(now: int) -> str:
    return "4200" + chance.digits(6) + clock.day(now) + chance.digits(10)


def _alipay_number(now: int) -> str:
    return clock.day(now) + "2200" + chance.digits(16)
