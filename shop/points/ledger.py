"""Double-entry booking: the only code that changes a balance.

Called inside `shop.db.transaction`. Every movement is balanced per currency and unique on its
cause, so that booking the same thing twice is refused by the database (invariants I3, L5).
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from shop.db import changed_rows, db, inserted_id
from shop.points.models import LedgerAccount, LedgerEntry, LedgerTransaction

POINTS_ISSUED = "shop:points:issued"
POINTS_REDEEMED = "shop:points:redeemed"
CASH_SALES = "shop:cash:sales"
CASH_SURPLUS = "shop:cash:surplus"


def points_account(member_id: int) -> str:
    """Points that a member can spend."""
    return f"member:{member_id}:points"


def held_account(member_id: int) -> str:
    """Points of a member that a payment under way holds."""
    return f"member:{member_id}:points-held"


def gateway_account(channel: str) -> str:
    """Cash that a gateway took for us."""
    return f"gateway:{channel}:cash"


class BalanceTooLow(Exception):
    """A booking would take an account below its floor."""

    def __init__(self, account: str) -> None:
        super().__init__(f"account {account} has too little")
        self.account = account


def book(
    cause: str, entries: Mapping[str, int], *, now: datetime, order_code: str | None = None
) -> None:
    """Book one balanced movement: account code → what is added to it (points or fen).

    Accounts are written in the order of their codes, the same for everyone, so that two bookings
    cannot deadlock. Raises BalanceTooLow (nothing may then be committed), ValueError for entries
    that do not balance, and IntegrityError where `cause` was booked before.
    """
    moved = {code: amount for code, amount in entries.items() if amount != 0}
    _require_balance(moved)
    transaction_id = inserted_id(
        insert(LedgerTransaction).values(cause=cause, order_code=order_code, created_at=now)
    )
    ids = _account_ids(sorted(moved))
    for code in sorted(moved):
        amount = moved[code]
        changed = changed_rows(
            update(LedgerAccount)
            .where(
                LedgerAccount.id == ids[code],
                or_(
                    LedgerAccount.min_balance.is_(None),
                    LedgerAccount.balance + amount >= LedgerAccount.min_balance,
                ),
            )
            .values(balance=LedgerAccount.balance + amount, version=LedgerAccount.version + 1)
        )
        if changed == 0:
            raise BalanceTooLow(code)
    db.session.execute(
        insert(LedgerEntry),
        [
            {"transaction_id": transaction_id, "account_id": ids[code], "amount": amount}
            for code, amount in moved.items()
        ],
    )


def balance(code: str) -> int:
    """The stored balance of an account; 0 where nothing was ever booked on it."""
    found = db.session.scalar(select(LedgerAccount.balance).where(LedgerAccount.code == code))
    return found or 0


def _currency(code: str) -> str:
    return "CNY" if ":cash" in code else "POINTS"


def _require_balance(entries: Mapping[str, int]) -> None:
    sums: dict[str, int] = {}
    for code, amount in entries.items():
        sums[_currency(code)] = sums.get(_currency(code), 0) + amount
    if not sums or any(sums.values()):
        raise ValueError(f"entries do not balance: {dict(entries)}")


def _account_ids(codes: list[str]) -> dict[str, int]:
    rows = db.session.execute(
        select(LedgerAccount.code, LedgerAccount.id).where(LedgerAccount.code.in_(codes))
    )
    ids = {code: account_id for code, account_id in rows}
    for code in codes:
        if code not in ids:
            ids[code] = _open_account(code)
    return ids


def _open_account(code: str) -> int:
    """Make the account; where another was first, take that one."""
    try:
        with db.session.begin_nested():
            return inserted_id(
                insert(LedgerAccount).values(
                    code=code,
                    currency=_currency(code),
                    balance=0,
                    min_balance=0 if code.startswith("member:") else None,
                    version=0,
                )
            )
    except IntegrityError:
        return db.session.execute(
            select(LedgerAccount.id).where(LedgerAccount.code == code)
        ).scalar_one()
