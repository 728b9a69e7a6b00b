"""A whole shop's books as plain values, read from outside its code, to compare before and after."""

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

MONEY_TABLES = (
    "orders",
    "payment_attempts",
    "transitions",
    "ledger_accounts",
    "ledger_transactions",
    "ledger_entries",
    "products",
)


def books(database_url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table in which a payment leaves a trace."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        return {
            table: [
                dict(row)
                for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()
            ]
            for table in MONEY_TABLES
        }


def notices_in(database_url: str, out_trade_no: str | None) -> list[dict[str, Any]]:
    """The stored notices about a payment, oldest first; None: those that name none."""
    engine = create_engine(database_url, poolclass=NullPool)
    where = "IS NULL" if out_trade_no is None else "= :number"
    with engine.connect() as connection:
        found = connection.execute(
            text(f"SELECT * FROM notices WHERE out_trade_no {where} ORDER BY id"),
            {} if out_trade_no is None else {"number": out_trade_no},
        )
        return [dict(row) for row in found.mappings()]
