"""The floor: one points-only payment written by hand, without framework, ORM or chart.

It takes a Redis lock and writes the rows that the shop writes (order, attempt, two transitions,
ledger transaction with two entries, two balances, stock), and checks what must be checked, in as
few statements as that takes. What it leaves out is what the shop adds: states as a declared chart,
several databases, dedup of requests, several lock services, errors for people.
"""

import secrets
import time
from datetime import UTC, datetime

import psycopg
import redis

LEASE_MS = 15_000
RELEASE = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"


class Floor:
    """One connection to PostgreSQL, one to Redis."""

    def __init__(self, dsn: str, redis_url: str) -> None:
        self._db = psycopg.connect(dsn, autocommit=False)
        self._redis = redis.Redis.from_url(redis_url)
        self._release = self._redis.script_load(RELEASE)

    def close(self) -> None:
        """Close both connections."""
        self._db.close()
        self._redis.close()

    def pay(self, member_id: int, code: str) -> None:
        """Pay one order by points. Raises RuntimeError where it could not be done."""
        token = secrets.token_hex(8)
        key = f"floor:{code}"
        if not self._redis.set(key, token, nx=True, px=LEASE_MS):
            raise RuntimeError("locked")
        try:
            self._write(member_id, code, time.time_ns() // 1_000)
        finally:
            self._redis.evalsha(self._release, 1, key, token)

    def _write(self, member_id: int, code: str, fence: int) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        number = f"{code}01"
        with self._db.transaction(), self._db.cursor() as cursor:
            cursor.execute(
                "UPDATE orders SET state = 'paid', version = version + 2, lock_fence = %s,"
                " paid_at = %s WHERE code = %s AND member_id = %s AND state = 'created'"
                " AND amount_fen = 0 AND lock_fence < %s"
                " RETURNING id, points, expires_at, (SELECT product_id FROM order_lines"
                " WHERE order_id = orders.id), (SELECT quantity FROM order_lines"
                " WHERE order_id = orders.id)",
                (fence, now, code, member_id, fence),
            )
            row = cursor.fetchone()
            if row is None:
                raise RuntimeError("not payable")
            order_id, points, expires_at, product_id, quantity = row
            cursor.execute(
                "INSERT INTO payment_attempts (order_id, order_code, channel, out_trade_no, state,"
                " version, role, settling_key, amount_fen, points, transaction_id, asked_count,"
                " created_at, expires_at, paid_at) VALUES (%s, %s, 'points', %s, 'succeeded', 0,"
                " 'settling', %s, 0, %s, %s, 0, %s, %s, %s)",
                (order_id, code, number, code, points, number, now, expires_at, now),
            )
            cursor.execute(
                "INSERT INTO transitions (order_code, subject, subject_no, version, from_state,"
                " to_state, event, actor, fence, cause, at) VALUES"
                " (%s, 'order', %s, 1, 'created', 'paying', 'begin_payment', 'member', %s,"
                " 'pay by points', %s),"
                " (%s, 'order', %s, 2, 'paying', 'paid', 'settle', 'member', %s, 'points', %s)",
                (code, code, fence, now, code, code, fence, now),
            )
            member, redeemed = f"member:{member_id}:points", "shop:points:redeemed"
            cursor.execute(
                "UPDATE ledger_accounts SET balance = balance - %s, version = version + 1"
                " WHERE code = %s AND balance >= %s RETURNING id",
                (points, member, points),
            )
            member_account = cursor.fetchone()
            if member_account is None:
                raise RuntimeError("not enough points")
            cursor.execute(
                "UPDATE ledger_accounts SET balance = balance + %s, version = version + 1"
                " WHERE code = %s RETURNING id",
                (points, redeemed),
            )
            shop_account = cursor.fetchone()
            assert shop_account is not None  # noqa: S101 - made by the seed
            cursor.execute(
                "WITH t AS (INSERT INTO ledger_transactions (cause, order_code, created_at)"
                " VALUES (%s, %s, %s) RETURNING id) INSERT INTO ledger_entries"
                " (transaction_id, account_id, amount) SELECT t.id, v.a, v.n FROM t,"
                " (VALUES (%s::bigint, %s::bigint), (%s::bigint, %s::bigint)) AS v(a, n)",
                (
                    f"capture:{number}",
                    code,
                    now,
                    member_account[0],
                    -points,
                    shop_account[0],
                    points,
                ),
            )
            cursor.execute(
                "UPDATE products SET stock_on_hand = stock_on_hand - %s,"
                " stock_taken = stock_taken + %s WHERE id = %s AND stock_on_hand >= %s",
                (quantity, quantity, product_id, quantity),
            )
            if cursor.rowcount != 1:
                raise RuntimeError("out of stock")
