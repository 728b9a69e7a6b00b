"""DESIGN section 6, checked on a database from outside the shop's own code.

Plain SQL over a connection of its own, so that a bug in the shop's models cannot hide here.
`broken(url)` lists every breach in words; an empty list is what every test wants to see.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from statemachine.attempt import AttemptChart
from statemachine.order import OrderChart

PAID_STATES = ("paid", "refunding", "refunded")


def broken(database_url: str) -> list[str]:
    """Every invariant of the books that does not hold, in words."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        return [
            *_i1_settling_payments(connection),
            *_i1_what_was_due(connection),
            *_i2_cash(connection),
            *_i2_other_side(connection),
            *_i3_ledger(connection),
            *_i4_stock(connection),
            *_i5_transitions(connection),
            *_i5_attempts(connection),
            *_i5_fences(connection),
            *_i6_notices(connection),
            *_i7_keys(connection),
            *_holds_match_orders(connection),
        ]


def _rows(connection: Connection, sql: str) -> list[Any]:
    return list(connection.execute(text(sql)).mappings())


def _i1_settling_payments(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT o.code, o.state, COUNT(a.id) AS settling FROM orders o LEFT JOIN payment_attempts a"
        " ON a.order_id = o.id AND a.role = 'settling' GROUP BY o.code, o.state",
    ):
        expected = 1 if row["state"] in PAID_STATES else 0
        if row["settling"] != expected:
            yield f"I1 {row['code']} is {row['state']} with {row['settling']} settling payments"
    for row in _rows(
        connection,
        "SELECT order_code, COUNT(*) AS n FROM payment_attempts"
        " WHERE state IN ('opening', 'pending') GROUP BY order_code HAVING COUNT(*) > 1",
    ):
        yield f"I1 {row['order_code']} has {row['n']} open attempts"


def _i1_what_was_due(connection: Connection) -> Iterator[str]:
    """An order is paid by what it costs, and takes the member's points once, or not at all."""
    for row in _rows(
        connection,
        "SELECT o.code, o.points, o.amount_fen, a.points AS paid_points, a.amount_fen AS paid_fen"
        " FROM payment_attempts a JOIN orders o ON o.id = a.order_id WHERE a.role = 'settling'",
    ):
        if (row["points"], row["amount_fen"]) != (row["paid_points"], row["paid_fen"]):
            yield f"I1 {row['code']} is settled by another amount: {dict(row)}"
    for row in _rows(
        connection,
        "SELECT o.code, o.state, o.points, (SELECT COUNT(*) FROM ledger_transactions t"
        " WHERE t.order_code = o.code AND t.cause LIKE 'capture:%') AS captures FROM orders o",
    ):
        expected = 1 if row["state"] in PAID_STATES and row["points"] > 0 else 0
        if row["captures"] != expected:
            yield f"I1 {row['code']} is {row['state']} with {row['captures']} captures of points"


def _i2_cash(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT channel, transaction_id, COUNT(*) AS n FROM payment_attempts"
        " WHERE transaction_id IS NOT NULL GROUP BY channel, transaction_id HAVING COUNT(*) > 1",
    ):
        yield f"I2 {row['channel']} {row['transaction_id']} is booked {row['n']} times"
    booked: dict[str, int] = defaultdict(int)
    for row in _rows(
        connection,
        "SELECT channel, amount_fen FROM payment_attempts WHERE state = 'succeeded'",
    ):
        booked[f"gateway:{row['channel']}:cash"] += row["amount_fen"]
    for row in _rows(
        connection, "SELECT code, balance FROM ledger_accounts WHERE code LIKE 'gateway:%'"
    ):
        if row["balance"] != booked[row["code"]]:
            yield f"I2 {row['code']} holds {row['balance']}, attempts say {booked[row['code']]}"


def _i2_other_side(connection: Connection) -> Iterator[str]:
    """Cash is booked as sales exactly where it settled orders, and as owed back exactly where it
    was surplus; points are redeemed exactly for the orders that are paid."""
    for account, owed in (
        (
            "shop:cash:sales",
            "SELECT SUM(amount_fen) AS due FROM payment_attempts WHERE role = 'settling'",
        ),
        (
            "shop:cash:surplus",
            "SELECT SUM(amount_fen) AS due FROM payment_attempts WHERE role = 'surplus'",
        ),
        (
            "shop:points:redeemed",
            "SELECT -SUM(points) AS due FROM orders WHERE state IN ('paid', 'refunding')",
        ),
    ):
        (row,) = _rows(connection, owed)
        due = -(row["due"] or 0)
        booked = _rows(connection, f"SELECT balance FROM ledger_accounts WHERE code = '{account}'")
        balance = booked[0]["balance"] if booked else 0
        if balance != due:
            yield f"I2 {account} says {balance}, the payments say {due}"


def _i3_ledger(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT e.transaction_id AS id, a.currency AS currency, SUM(e.amount) AS total"
        " FROM ledger_entries e JOIN ledger_accounts a ON a.id = e.account_id"
        " GROUP BY e.transaction_id, a.currency HAVING SUM(e.amount) <> 0",
    ):
        yield f"I3 ledger transaction {row['id']} is off by {row['total']} {row['currency']}"
    for row in _rows(
        connection,
        "SELECT a.code, a.balance, COALESCE(SUM(e.amount), 0) AS entries FROM ledger_accounts a"
        " LEFT JOIN ledger_entries e ON e.account_id = a.id GROUP BY a.code, a.balance",
    ):
        if row["balance"] != row["entries"]:
            yield f"I3 {row['code']} says {row['balance']}, its entries {row['entries']}"
        if row["code"].startswith("member:") and row["balance"] < 0:
            yield f"I3 {row['code']} is below zero: {row['balance']}"


def _i4_stock(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT p.id, p.sku, p.stock_on_hand, p.stock_reserved, p.stock_taken,"
        " (SELECT COALESCE(SUM(s.delta), 0) FROM stock_adjustments s WHERE s.product_id = p.id)"
        " AS brought,"
        " (SELECT COALESCE(SUM(l.quantity), 0) FROM order_lines l JOIN orders o"
        "  ON o.id = l.order_id WHERE l.product_id = p.id AND o.state = 'paying') AS reserved,"
        " (SELECT COALESCE(SUM(l.quantity), 0) FROM order_lines l JOIN orders o"
        "  ON o.id = l.order_id WHERE l.product_id = p.id"
        "  AND o.state IN ('paid', 'refunding', 'refunded')) AS taken FROM products p",
    ):
        stock = (row["stock_on_hand"], row["stock_reserved"], row["stock_taken"])
        if min(stock) < 0 or sum(stock) != row["brought"]:
            yield f"I4 {row['sku']} has {stock}, {row['brought']} were brought in"
        if (row["stock_reserved"], row["stock_taken"]) != (row["reserved"], row["taken"]):
            yield f"I4 {row['sku']} has {stock}, orders say {row['reserved']}, {row['taken']}"


def _holds_match_orders(connection: Connection) -> Iterator[str]:
    """Points held are exactly those of the orders that are paying (DESIGN section 4)."""
    held = {
        row["code"]: row["balance"]
        for row in _rows(
            connection, "SELECT code, balance FROM ledger_accounts WHERE code LIKE '%points-held'"
        )
    }
    for row in _rows(
        connection,
        "SELECT m.id, (SELECT COALESCE(SUM(o.points), 0) FROM orders o WHERE o.member_id = m.id"
        " AND o.state = 'paying') AS due FROM members m",
    ):
        found = held.get(f"member:{row['id']}:points-held", 0)
        if found != row["due"]:
            yield f"I3 member {row['id']} has {found} points held, orders hold {row['due']}"


def _i5_transitions(connection: Connection) -> Iterator[str]:
    allowed = {
        (state.id, transition.event, transition.target.id)
        for state in OrderChart.states
        for transition in state.transitions
    }
    paths: dict[str, list[Any]] = defaultdict(list)
    for row in _rows(
        connection,
        "SELECT subject_no, version, from_state, to_state, event, epoch, fence FROM transitions"
        " WHERE subject = 'order' ORDER BY subject_no, version",
    ):
        paths[row["subject_no"]].append(row)
    for order in _rows(connection, "SELECT * FROM orders"):
        code, state, pair, version = order["code"], "created", (0, 0), 0
        for step in paths[code]:
            move = (step["from_state"], step["event"], step["to_state"])
            if step["from_state"] != state or move not in allowed:
                yield f"I5 {code}: {move} after {state}"
            written = (step["epoch"], step["fence"])
            if written < pair:
                yield f"I5 {code}: fence fell from {pair} to {written}"
            if step["version"] != version + 1:
                yield f"I5 {code}: version {step['version']} after {version}"
            state, pair, version = step["to_state"], written, step["version"]
        if (state, version) != (order["state"], order["version"]):
            yield f"I5 {code}: path ends in {state} {version}, row says {dict(order)}"
        row = (order["lock_epoch"], order["lock_fence"])
        if row < pair:
            yield f"I5 {code}: row's fence {row} is below {pair}"


def _i5_attempts(connection: Connection) -> Iterator[str]:
    """An attempt's recorded moves form a path of its chart, ending where the attempt is."""
    allowed = {
        (state.id, transition.event, transition.target.id)
        for state in AttemptChart.states
        for transition in state.transitions
    }
    paths: dict[str, list[Any]] = defaultdict(list)
    for row in _rows(
        connection,
        "SELECT subject_no, version, from_state, to_state, event FROM transitions"
        " WHERE subject = 'attempt' ORDER BY subject_no, version",
    ):
        paths[row["subject_no"]].append(row)
    for attempt in _rows(
        connection, "SELECT out_trade_no, channel, state, version FROM payment_attempts"
    ):
        number = attempt["out_trade_no"]
        # Points alone are taken in the transaction that makes the attempt.
        state, version = "succeeded" if attempt["channel"] == "points" else "opening", 0
        for step in paths.pop(number, []):
            move = (step["from_state"], step["event"], step["to_state"])
            if step["from_state"] != state or move not in allowed:
                yield f"I5 {number}: {move} after {state}"
            if step["version"] != version + 1:
                yield f"I5 {number}: version {step['version']} after {version}"
            state, version = step["to_state"], step["version"]
        if (state, version) != (attempt["state"], attempt["version"]):
            yield f"I5 {number}: path ends in {state} {version}, row says {dict(attempt)}"
    for number in paths:
        yield f"I5 {number} has moves but no attempt"


def _i5_fences(connection: Connection) -> Iterator[str]:
    """Epoch and fence of all moves of an order and its attempts never fall, as they were written,
    and each epoch is one that began."""
    last: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    epochs = {row["epoch"] for row in _rows(connection, "SELECT epoch FROM lock_epochs")}
    for row in _rows(connection, "SELECT order_code, epoch, fence FROM transitions ORDER BY id"):
        code, pair = row["order_code"], (row["epoch"], row["fence"])
        if pair < last[code]:
            yield f"I5 {code}: fence {pair} after {last[code]}"
        # 0 stands for the time before there were epochs.
        if pair[0] and pair[0] not in epochs:
            yield f"I5 {code}: was moved in epoch {pair[0]}, which never began"
        last[code] = pair


def _i6_notices(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT channel, merchant, notice_id, COUNT(*) AS n FROM notices"
        " WHERE notice_id IS NOT NULL GROUP BY channel, merchant, notice_id HAVING COUNT(*) > 1",
    ):
        yield f"I6 {row['channel']} notice {row['notice_id']} is stored {row['n']} times"
    for row in _rows(
        connection,
        "SELECT n.notice_id, n.out_trade_no FROM notices n LEFT JOIN payment_attempts a"
        " ON a.out_trade_no = n.out_trade_no AND a.merchant = n.merchant AND a.state = 'succeeded'"
        " WHERE n.state = 'applied' AND n.outcome IN ('settled', 'surplus', 'already_applied')"
        " AND a.id IS NULL",
    ):
        yield f"I6 notice {row['notice_id']} is applied but {row['out_trade_no']} is not paid"
    for row in _rows(
        connection,
        "SELECT out_trade_no, COUNT(*) AS n FROM notices WHERE outcome IN ('settled', 'surplus')"
        " GROUP BY out_trade_no HAVING COUNT(*) > 1",
    ):
        yield f"I6 {row['n']} notices each paid {row['out_trade_no']}"


def _i7_keys(connection: Connection) -> Iterator[str]:
    for row in _rows(
        connection,
        "SELECT client, request_no, COUNT(*) AS n FROM payment_requests"
        " GROUP BY client, request_no HAVING COUNT(*) > 1",
    ):
        yield f"I7 {row['client']} {row['request_no']} has {row['n']} rows"
    for row in _rows(
        connection,
        "SELECT member_id, submit_token, COUNT(*) AS n FROM orders"
        " GROUP BY member_id, submit_token HAVING COUNT(*) > 1",
    ):
        yield f"I7 member {row['member_id']} has {row['n']} orders of {row['submit_token']}"
