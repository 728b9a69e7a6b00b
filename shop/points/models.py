"""Ledger accounts, transactions and entries."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime


class LedgerAccount(Model):
    """An account in one currency. Its balance is the sum of its entries (invariant I3).

    `min_balance` is 0 for what belongs to a member, none for the shop's own counter-accounts. The
    database refuses a balance below it.
    """

    __tablename__ = "ledger_accounts"
    __table_args__ = (
        CheckConstraint("currency IN ('POINTS', 'CNY')", name="currency"),
        CheckConstraint("min_balance IS NULL OR balance >= min_balance", name="floor"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    code: Mapped[str] = mapped_column(String(64), unique=True)
    currency: Mapped[str] = mapped_column(String(8))
    balance: Mapped[int] = mapped_column(BigInt, default=0)
    min_balance: Mapped[int | None] = mapped_column(BigInt)
    version: Mapped[int] = mapped_column(BigInt, default=0)


class LedgerTransaction(Model):
    """A balanced movement, unique on its cause: the same cause can never be booked twice."""

    __tablename__ = "ledger_transactions"

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    cause: Mapped[str] = mapped_column(String(96), unique=True)
    order_code: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class LedgerEntry(Model):
    """One side of a transaction: `amount` is added to the account (points or fen)."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("transaction_id", "account_id"),
        CheckConstraint("amount <> 0", name="amount"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    transaction_id: Mapped[int] = mapped_column(ForeignKey("ledger_transactions.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("ledger_accounts.id"), index=True)
    amount: Mapped[int] = mapped_column(BigInt)
