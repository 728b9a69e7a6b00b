"""Reading and writing accounts in the database. Writes run inside `shop.db.transaction`."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Select, delete, func, insert, or_, select, update

from shop.db import changed_rows, db
from shop.merchants.models import MerchantAccount
from shop.orders.models import Order
from shop.payments.models import PaymentAttempt
from shop.webhooks.models import StoredNotice

T = TypeVar("T")


def version_of(name: str) -> int | None:
    """The version of a merchant's row."""
    return _value(select(MerchantAccount.version).where(MerchantAccount.name == name))


def sealed_of(name: str) -> str | None:
    """What is sealed in a merchant's row."""
    return _value(select(MerchantAccount.sealed).where(MerchantAccount.name == name))


def _value(statement: "Select[T]") -> T | None:
    """One value, read by a thread that may be in the middle of something: on the connection that
    it has, as all others may be held by threads that wait for it; else on one given back at once.
    """
    session = db.session()
    if session.in_transaction():
        return session.connection().scalar(statement)
    with db.engine.connect() as connection:
        return connection.scalar(statement)


def accounts() -> list[MerchantAccount]:
    """All rows, by name."""
    return list(
        db.session.scalars(
            select(MerchantAccount)
            .order_by(MerchantAccount.name)
            .execution_options(populate_existing=True)
        )
    )


def insert_account(name: str, sealed: str, now: datetime) -> None:
    """A new merchant; IntegrityError where there is one of this name."""
    db.session.execute(
        insert(MerchantAccount).values(
            name=name,
            sealed=sealed,
            version=secrets.randbits(62),
            created_at=now,
            updated_at=now,
        )
    )


def replace_account(name: str, sealed: str, now: datetime, *, version: int | None = None) -> bool:
    """New credentials, where the row still has `version`; whether it has."""
    change = update(MerchantAccount).where(MerchantAccount.name == name)
    if version is not None:
        change = change.where(MerchantAccount.version == version)
    return (
        changed_rows(
            change.values(sealed=sealed, version=MerchantAccount.version + 1, updated_at=now)
        )
        == 1
    )


def delete_account(name: str) -> bool:
    """Forget a merchant's credentials; whether there were any."""
    return changed_rows(delete(MerchantAccount).where(MerchantAccount.name == name)) == 1


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """An attempt of which its gateway must still be asked, and at which account it was begun."""

    out_trade_no: str
    channel: str
    account: str


def payments_under_way(name: str) -> list[UnderWay]:
    """Attempts of a merchant of which its gateways must still be asked."""
    rows = db.session.execute(
        select(PaymentAttempt.out_trade_no, PaymentAttempt.channel, PaymentAttempt.account)
        .where(
            PaymentAttempt.merchant == name,
            or_(PaymentAttempt.open_key.is_not(None), PaymentAttempt.due_at.is_not(None)),
        )
        .order_by(PaymentAttempt.id)
    )
    return [UnderWay(**row) for row in rows.mappings()]


def surplus_payments(name: str) -> list[str]:
    """Payments of a merchant whose money nothing was owed for."""
    return list(
        db.session.scalars(
            select(PaymentAttempt.out_trade_no)
            .where(PaymentAttempt.merchant == name, PaymentAttempt.role == "surplus")
            .order_by(PaymentAttempt.id)
        )
    )


def unpaid_orders(name: str, now: datetime) -> list[str]:
    """Orders that can still be paid to a merchant."""
    return list(
        db.session.scalars(
            select(Order.code)
            .where(
                Order.merchant == name,
                Order.state.in_(("created", "failed", "paying")),
                Order.expires_at > now,
            )
            .order_by(Order.id)
        )
    )


def waiting_notices(name: str) -> int:
    """How many notices of a merchant are believed and not applied so far."""
    return (
        db.session.scalar(
            select(func.count()).where(
                StoredNotice.merchant == name, StoredNotice.state == "verified"
            )
        )
        or 0
    )
