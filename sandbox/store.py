"""The sandbox's books in one SQLite file (WAL): they survive a restart.

Every change is one short `BEGIN IMMEDIATE` transaction, so that simultaneous requests, in several
threads or processes, are put in a row. No connection is carried across a fork.
"""

import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sandbox import files

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 15.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trades (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL CHECK (channel IN ('wechatpay', 'alipay')),
    merchant TEXT NOT NULL,
    product TEXT NOT NULL
        CHECK (product IN ('native', 'jsapi', 'h5', 'precreate', 'page', 'wap')),
    out_trade_no TEXT NOT NULL,
    subject TEXT NOT NULL,
    attach TEXT NOT NULL,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    notify_url TEXT NOT NULL,
    return_url TEXT NOT NULL,          -- where the browser goes after paying; '' for nowhere
    quit_url TEXT NOT NULL,            -- where it goes when the member turns away
    payer_openid TEXT NOT NULL,        -- jsapi: who is going to pay
    client_ip TEXT NOT NULL,           -- h5: from where
    certified INTEGER NOT NULL,        -- Alipay: asked for in certificate mode, told in it
    digest TEXT NOT NULL,              -- of the request: the same again, or another?
    state TEXT NOT NULL CHECK (state IN ('unscanned', 'open', 'paid', 'closed')),
    transaction_id TEXT UNIQUE,        -- Alipay: from the scan; WeChat Pay: from the payment
    expires_at_ms INTEGER NOT NULL,    -- no payment from then on
    created_at_ms INTEGER NOT NULL,
    paid_at_ms INTEGER,
    closed_at_ms INTEGER,
    refused_at_ms INTEGER,             -- the member said no; the trade stays payable
    finished_at_ms INTEGER,            -- Alipay: no refund from then on
    UNIQUE (channel, merchant, out_trade_no)
);
CREATE INDEX IF NOT EXISTS trades_open ON trades (expires_at_ms)
    WHERE state = 'open' AND channel = 'alipay';
CREATE TABLE IF NOT EXISTS codes (     -- what QR codes say; only the newest of a trade works
    token TEXT PRIMARY KEY,
    trade_id INTEGER NOT NULL REFERENCES trades,
    expires_at_ms INTEGER NOT NULL,
    replaced INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS codes_by_trade ON codes (trade_id);
CREATE TABLE IF NOT EXISTS charges (   -- money taken: at most once per trade
    trade_id INTEGER PRIMARY KEY REFERENCES trades,
    transaction_id TEXT NOT NULL UNIQUE,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
    id INTEGER PRIMARY KEY,
    trade_id INTEGER NOT NULL REFERENCES trades,
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    out_refund_no TEXT NOT NULL,
    refund_id TEXT NOT NULL UNIQUE,
    amount_fen INTEGER NOT NULL CHECK (amount_fen > 0),
    notify_url TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('success', 'abnormal', 'closed')), -- once settled
    created_at_ms INTEGER NOT NULL,
    settles_at_ms INTEGER NOT NULL,
    settled_at_ms INTEGER
);
-- WeChat Pay: the number is unique per merchant; Alipay: per trade.
CREATE UNIQUE INDEX IF NOT EXISTS refunds_wechatpay ON refunds (merchant, out_refund_no)
    WHERE channel = 'wechatpay';
CREATE UNIQUE INDEX IF NOT EXISTS refunds_by_trade ON refunds (trade_id, out_refund_no);
CREATE INDEX IF NOT EXISTS refunds_open ON refunds (settles_at_ms) WHERE settled_at_ms IS NULL;
CREATE TABLE IF NOT EXISTS late_payments (
    trade_id INTEGER PRIMARY KEY REFERENCES trades,
    due_at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS balances (  -- no row: the merchant's balance never runs out
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    available_fen INTEGER NOT NULL CHECK (available_fen >= 0),
    PRIMARY KEY (channel, merchant)
);
CREATE TABLE IF NOT EXISTS merchant_settings (  -- no row: the default of `settings`
    merchant TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (merchant, name)
);
CREATE TABLE IF NOT EXISTS openids (   -- the members that an application has met
    openid TEXT PRIMARY KEY,
    appid TEXT NOT NULL,
    member TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS oauth_codes ( -- each good for one openid, once
    code TEXT PRIMARY KEY,
    appid TEXT NOT NULL,
    openid TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS bill_links (
    token TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    request TEXT NOT NULL,             -- which bill, in the channel's own words (JSON)
    expires_at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS starts (id INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS notices (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,     -- the same in every delivery
    trade_id INTEGER NOT NULL REFERENCES trades,
    channel TEXT NOT NULL,
    merchant TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('payment', 'refund')),
    url TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'given_up', 'dropped')),
    failures INTEGER NOT NULL DEFAULT 0,
    repeats_left INTEGER NOT NULL DEFAULT 0,
    next_at_ms INTEGER,                -- null: nothing more to do
    created_at_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS notices_due ON notices (next_at_ms) WHERE next_at_ms IS NOT NULL;
CREATE INDEX IF NOT EXISTS notices_by_trade ON notices (trade_id);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY,
    notice_id INTEGER NOT NULL REFERENCES notices,
    at_ms INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    http_status INTEGER,
    result TEXT NOT NULL CHECK (result IN ('acknowledged', 'refused', 'timeout', 'unreachable')),
    detail TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_by_notice ON deliveries (notice_id);
CREATE TABLE IF NOT EXISTS held_notices (  -- waiting for a later one of the same trade
    notice_id INTEGER PRIMARY KEY REFERENCES notices
);
CREATE TABLE IF NOT EXISTS fault_orders (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    op TEXT NOT NULL,
    kind TEXT NOT NULL,
    merchant TEXT NOT NULL,            -- '' for any
    times INTEGER NOT NULL,            -- still to come
    delay_ms INTEGER NOT NULL,
    probability REAL NOT NULL,
    offset_s INTEGER NOT NULL,
    repeats INTEGER NOT NULL,
    asked INTEGER NOT NULL DEFAULT 0   -- how many calls it might have met
);
"""

# Books made by another schema than this are set aside.
_VERSION = zlib.crc32(_SCHEMA.encode()) & 0x7FFF_FFFF


class Store:
    """A small pool of connections to the file; each is used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._idle: list[sqlite3.Connection] = []
        # Connections made before a fork: neither usable nor safe to close in the child.
        self._foreign: list[sqlite3.Connection] = []
        self._closed = False
        with files.locked(path.with_name(f".{path.name}.lock")):
            self._set_aside_old()
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
        path.chmod(0o600)

    def _set_aside_old(self) -> None:
        """Books of another version are kept beside the new ones, which begin empty."""
        if not self._path.exists():
            return
        with closing(self._connect()) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            empty = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is None
            if empty or version == _VERSION:
                return
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = self._path.with_name(f"{self._path.stem}.{version}{self._path.suffix}")
        self._path.replace(kept)
        log.warning("%s is of another version: kept as %s, new books begin.", self._path, kept)

    def starts(self) -> int:
        """How often these books were opened by a server; this time is counted."""
        with self.write() as tx:
            return tx.execute("INSERT INTO starts DEFAULT VALUES").lastrowid or 0

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _take(self) -> sqlite3.Connection:
        if self._pid != os.getpid():
            self._guard = threading.Lock()
            self._foreign += self._idle
            self._idle = []
            self._pid = os.getpid()
        with self._guard:
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._guard:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that may change things: all of it, or nothing if the block raises."""
        connection = self._take()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            self._give_back(connection)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        connection = self._take()
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is given back."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
