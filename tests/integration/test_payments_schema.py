"""Migrations up and down, and what the database itself refuses, on every database."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Inspector, Table, UniqueConstraint, insert, inspect
from sqlalchemy.exc import IntegrityError, OperationalError

from shop.db import Base, db
from tests.integration.payments_support import DATABASES, Shop, migrate, shop_inside
from tests.processes import remove_folder
from tests.shopkit import Sandbox

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=DATABASES)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    sandbox = Sandbox()  # for its keys; no gateway is asked
    with shop_inside(request.param, tmp_path_factory.mktemp("schema"), request, sandbox) as made:
        yield made
    remove_folder(sandbox.folder)


def tables() -> list[Table]:
    found = [table for table in Base.metadata.sorted_tables if table.name in _names()]
    assert len(found) >= 13
    return found


def _names() -> set[str]:
    return set(inspect(db.engine).get_table_names())


def test_the_migrations_make_what_the_models_say(shop: Shop) -> None:
    migrate("check")
    assert {table.name for table in Base.metadata.sorted_tables} == _names() - {"alembic_version"}


def _unique_columns(inspector: Inspector, table: str) -> set[tuple[str | None, ...]]:
    """What is unique there, as a constraint or as an index."""
    found: set[tuple[str | None, ...]] = set()
    for constraint in inspector.get_unique_constraints(table):
        found.add(tuple(constraint["column_names"]))
    for index in inspector.get_indexes(table):
        if index["unique"]:
            found.add(tuple(index["column_names"]))
    return found


def test_every_unique_rule_of_the_models_is_in_the_database(shop: Shop) -> None:
    inspector: Inspector = inspect(db.engine)
    rules = 0
    for table in tables():
        held = _unique_columns(inspector, table.name)
        for constraint in table.constraints:
            if isinstance(constraint, UniqueConstraint):
                assert tuple(column.name for column in constraint.columns) in held, table.name
                rules += 1
    assert rules >= 15


def test_every_check_of_the_models_is_in_the_database(shop: Shop) -> None:
    inspector: Inspector = inspect(db.engine)
    rules = 0
    for table in tables():
        held = {one["name"] for one in inspector.get_check_constraints(table.name)}
        for constraint in table.constraints:
            if isinstance(constraint, CheckConstraint):
                assert constraint.name in held, (table.name, constraint.name)
                rules += 1
    assert rules >= 15


# One good row of each table, and what must not be made of it.

MEMBER = {"login": "m", "display_name": "m", "password_hash": "-", "created_at": NOW}
PRODUCT = {
    "sku": "s",
    "name_zh": "s",
    "name_en": "s",
    "description_zh": "",
    "description_en": "",
    "art": "mug",
    "price_mode": "mixed",
    "price_points": 0,
    "price_fen": 1_000,
    "points_min": 0,
    "points_max": 500,
    "stock_on_hand": 1,
    "stock_reserved": 0,
    "stock_taken": 0,
    "active": True,
    "position": 0,
}
ORDER = {
    "code": "O1",
    "submit_token": "t1",
    "state": "created",
    "version": 0,
    "lock_fence": 0,
    "points": 1,
    "amount_fen": 1,
    "created_at": NOW,
    "expires_at": NOW,
}
ATTEMPT = {
    "order_code": "O1",
    "channel": "wechatpay",
    "out_trade_no": "O101",
    "state": "pending",
    "version": 0,
    "role": "none",
    "open_key": "O1",
    "amount_fen": 1,
    "points": 1,
    "asked_count": 0,
    "created_at": NOW,
    "expires_at": NOW,
}
SETTLED = {
    **ATTEMPT,
    "out_trade_no": "O102",
    "state": "succeeded",
    "role": "settling",
    "open_key": None,
    "settling_key": "O1",
    "transaction_id": "42",
}
CLOSED = {**ATTEMPT, "out_trade_no": "O103", "state": "closed", "open_key": None}
SURPLUS = {
    **SETTLED,
    "out_trade_no": "O104",
    "role": "surplus",
    "settling_key": None,
    "transaction_id": "43",
}
NOTICE = {
    "channel": "wechatpay",
    "notice_id": "n1",
    "state": "verified",
    "headers": "{}",
    "body": b"{}",
    "received_at": NOW,
    "received_count": 1,
    "tries": 0,
}
REQUEST = {
    "client": "c",
    "request_no": "r",
    "fingerprint": "f",
    "state": "in_progress",
    "claim_no": "1",
    "created_at": NOW,
    "claimed_at": NOW,
}
MOVE = {
    "order_code": "O1",
    "subject": "order",
    "subject_no": "O1",
    "version": 1,
    "from_state": "created",
    "to_state": "paying",
    "event": "begin_payment",
    "actor": "member",
    "fence": 1,
    "cause": "-",
    "at": NOW,
}
ACCOUNT = {
    "code": "member:1:points",
    "currency": "POINTS",
    "balance": 0,
    "min_balance": 0,
    "version": 0,
}
BOOKING = {"cause": "x", "created_at": NOW}
LINE = {"name_zh": "-", "name_en": "-", "art": "-", "quantity": 1, "points": 1, "amount_fen": 1}
ENTRY = {"amount": 1}
ADJUSTMENT = {"delta": 1, "cause": "x", "created_at": NOW}

# (what, table, the good row, changes to it; an empty change is the same row again)
REFUSED: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("one login twice", "members", MEMBER, {}),
    ("one sku twice", "products", PRODUCT, {}),
    ("stock below zero", "products", PRODUCT, {"sku": "x", "stock_on_hand": -1}),
    ("reserve below zero", "products", PRODUCT, {"sku": "x", "stock_reserved": -1}),
    ("taken below zero", "products", PRODUCT, {"sku": "x", "stock_taken": -1}),
    ("an unknown way to price", "products", PRODUCT, {"sku": "x", "price_mode": "free"}),
    ("more points than worth", "products", PRODUCT, {"sku": "x", "points_max": 1_001}),
    ("no price", "products", PRODUCT, {"sku": "x", "price_fen": 0, "points_max": 0}),
    ("one submit token twice", "orders", ORDER, {"code": "O2"}),
    ("one order code twice", "orders", ORDER, {"submit_token": "t2"}),
    ("an unknown state", "orders", ORDER, {"code": "O2", "submit_token": "t", "state": "PAID"}),
    ("no state", "orders", ORDER, {"code": "O2", "submit_token": "t", "state": None}),
    ("less than no points", "orders", ORDER, {"code": "O2", "submit_token": "t", "points": -1}),
    ("less than no cash", "orders", ORDER, {"code": "O2", "submit_token": "t", "amount_fen": -1}),
    (
        "an order of nothing",
        "orders",
        ORDER,
        {"code": "O2", "submit_token": "t", "points": 0, "amount_fen": 0},
    ),
    ("a second open attempt", "payment_attempts", ATTEMPT, {"out_trade_no": "x"}),
    (
        "one number twice",
        "payment_attempts",
        CLOSED,
        {},
    ),
    (
        "an open attempt that hides from the rule",
        "payment_attempts",
        ATTEMPT,
        {"out_trade_no": "x", "open_key": None},
    ),
    (
        "an open attempt under another order's key",
        "payment_attempts",
        ATTEMPT,
        {"out_trade_no": "x", "open_key": "O9"},
    ),
    (
        "an ended attempt that keeps the key",
        "payment_attempts",
        CLOSED,
        {"out_trade_no": "x", "open_key": "O1"},
    ),
    (
        "a second settling payment",
        "payment_attempts",
        SETTLED,
        {"out_trade_no": "x", "transaction_id": "44"},
    ),
    (
        "a settling payment that hides from the rule",
        "payment_attempts",
        SETTLED,
        {"out_trade_no": "x", "transaction_id": "44", "settling_key": None},
    ),
    (
        "a settling payment under another order's key",
        "payment_attempts",
        SETTLED,
        {"out_trade_no": "x", "transaction_id": "44", "settling_key": "O9"},
    ),
    (
        "a settling payment that did not succeed",
        "payment_attempts",
        CLOSED,
        {"out_trade_no": "x", "role": "settling", "settling_key": "O9"},
    ),
    (
        "money without a role",
        "payment_attempts",
        SURPLUS,
        {"out_trade_no": "x", "transaction_id": "44", "role": "none"},
    ),
    ("one transaction twice", "payment_attempts", SURPLUS, {"out_trade_no": "x"}),
    ("an unknown channel", "payment_attempts", CLOSED, {"out_trade_no": "x", "channel": "cash"}),
    ("an unknown attempt state", "payment_attempts", CLOSED, {"out_trade_no": "x", "state": "ok"}),
    ("a negative amount", "payment_attempts", CLOSED, {"out_trade_no": "x", "amount_fen": -1}),
    ("one notice twice", "notices", NOTICE, {}),
    ("an unknown notice state", "notices", NOTICE, {"notice_id": "n2", "state": "new"}),
    ("a notice of nobody", "notices", NOTICE, {"notice_id": "n2", "channel": "points"}),
    ("one key twice", "payment_requests", REQUEST, {}),
    (
        "an answer that is none",
        "payment_requests",
        REQUEST,
        {"request_no": "x", "state": "answered"},
    ),
    (
        "an answer before its time",
        "payment_requests",
        REQUEST,
        {"request_no": "x", "answer_status": 200, "answer_body": b""},
    ),
    ("one version twice", "transitions", MOVE, {}),
    ("an unknown actor", "transitions", MOVE, {"version": 2, "actor": "nobody"}),
    ("an unknown subject", "transitions", MOVE, {"version": 2, "subject": "cart"}),
    ("one account twice", "ledger_accounts", ACCOUNT, {}),
    ("a balance below its floor", "ledger_accounts", ACCOUNT, {"code": "x", "balance": -1}),
    ("an unknown currency", "ledger_accounts", ACCOUNT, {"code": "x", "currency": "EUR"}),
    ("one cause twice", "ledger_transactions", BOOKING, {}),
    ("two sides on one account", "ledger_entries", ENTRY, {}),
    ("an entry of nothing", "ledger_entries", ENTRY, {"amount": 0}),
    ("a line of nothing", "order_lines", LINE, {"quantity": 0}),
    ("a line that gives money", "order_lines", LINE, {"amount_fen": -1}),
    ("one adjustment twice", "stock_adjustments", ADJUSTMENT, {}),
    ("an order of nobody", "orders", ORDER, {"code": "O2", "submit_token": "t", "member_id": 999}),
    ("a line of no order", "order_lines", LINE, {"order_id": 999}),
    ("an attempt on no order", "payment_attempts", CLOSED, {"out_trade_no": "x", "order_id": 999}),
]


def add(table: str, row: dict[str, Any]) -> int:
    done = db.session.execute(insert(Base.metadata.tables[table]).values(**row))
    return int(done.inserted_primary_key[0])  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def parents(shop: Shop) -> dict[str, dict[str, int]]:
    """All good rows, committed: none of them is refused. What each table's rows point to."""
    member, product = add("members", MEMBER), add("products", PRODUCT)
    order = add("orders", {**ORDER, "member_id": member})
    account, booking = add("ledger_accounts", ACCOUNT), add("ledger_transactions", BOOKING)
    refers = {
        "orders": {"member_id": member},
        "payment_attempts": {"order_id": order},
        "order_lines": {"order_id": order, "product_id": product},
        "ledger_entries": {"account_id": account, "transaction_id": booking},
        "stock_adjustments": {"product_id": product},
    }
    good: list[tuple[str, dict[str, Any]]] = [
        *(("payment_attempts", row) for row in (ATTEMPT, SETTLED, CLOSED, SURPLUS)),
        ("notices", NOTICE),
        # Those that were not believed have no id, and there may be many.
        ("notices", {**NOTICE, "notice_id": None}),
        ("notices", {**NOTICE, "notice_id": None}),
        ("payment_requests", REQUEST),
        ("transitions", MOVE),
        ("order_lines", LINE),
        ("ledger_entries", ENTRY),
        ("stock_adjustments", ADJUSTMENT),
    ]
    for table, row in good:
        add(table, {**row, **refers.get(table, {})})
    db.session.commit()
    return refers


@pytest.mark.parametrize(
    ("table", "row", "change"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_the_database_itself_refuses(
    shop: Shop,
    parents: dict[str, dict[str, int]],
    table: str,
    row: dict[str, Any],
    change: dict[str, Any],
) -> None:
    # MariaDB calls a broken CHECK an operational error (4025).
    with pytest.raises((IntegrityError, OperationalError)) as refused:
        add(table, {**row, **parents.get(table, {}), **change})
    db.session.rollback()
    if isinstance(refused.value, OperationalError):
        assert refused.value.orig is not None
        assert refused.value.orig.args[0] == 4025


def test_the_migrations_can_be_undone_and_done_again(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shop: Shop
) -> None:
    kind = {"mysql": "mariadb"}.get(db.engine.dialect.name, db.engine.dialect.name)
    with shop_inside(kind, tmp_path_factory.mktemp("down"), request, shop.kit.sandbox):
        migrate("downgrade", "base")
        assert _names() == {"alembic_version"}
        migrate("upgrade")
        migrate("check")
        assert {one.name for one in Base.metadata.sorted_tables} <= _names()
