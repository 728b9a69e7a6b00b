"""Reading and writing accounts in the database. Writes run inside `shop.db.transaction`."""

from datetime import datetime

from sqlalchemy import delete, func, insert, or_, select, update

from shop.db import changed_rows, db
from shop.merchants.models import MerchantAccount
from shop.orders.models import Order
from shop.payments.models import PaymentAttempt


def version_of(name: str) -> int | None:
    """The version of a merchant's row, on a connection of its own: whoever asks may be in the
    middle of something, and must see what is committed now."""
    with db.engine.connect() as connection:
        return connection.scalar(
            select(MerchantAccount.version).where(MerchantAccount.name == name)
        )


def sealed_of(name: str) -> str | None:
    """What is sealed in a merchant's row; likewise."""
    with db.engine.connect() as connection:
        return connection.scalar(select(MerchantAccount.sealed).where(MerchantAccount.name == name))


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
            name=name, sealed=sealed, version=1, created_at=now, updated_at=now
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


def payments_under_way(name: str) -> int:
    """Attempts of a merchant of which its gateways must still be asked."""
    return (
        db.session.scalar(
            select(func.count()).where(
                PaymentAttempt.merchant == name,
                or_(PaymentAttempt.open_key.is_not(None), PaymentAttempt.due_at.is_not(None)),
            )
        )
        or 0
    )


def unpaid_orders(name: str, now: datetime) -> int:
    """Orders that can still be paid to a merchant."""
    return (
        db.session.scalar(
            select(func.count()).where(
                Order.merchant == name,
                Order.state.in_(("created", "failed", "paying")),
                Order.expires_at > now,
            )
        )
        or 0
    )
