"""Reading a member's orders; their state is written by `shop.orders.moves` alone."""

from sqlalchemy import select

from shop.db import db
from shop.orders.models import Order, Transition
from shop.payments.models import PaymentAttempt

# One page of the list; older orders are reached page by page.
ORDERS_PER_PAGE = 20


def order_by_token(member_id: int, submit_token: str) -> Order | None:
    """The order that this form was already turned into."""
    return db.session.scalars(
        select(Order)
        .where(Order.member_id == member_id, Order.submit_token == submit_token)
        .execution_options(populate_existing=True)
    ).one_or_none()


def order_of(member_id: int, code: str) -> Order | None:
    """The member's own order under this code, as it is committed now."""
    return db.session.scalars(
        select(Order)
        .where(Order.code == code, Order.member_id == member_id)
        .execution_options(populate_existing=True)
    ).one_or_none()


def orders_of(member_id: int, *, page: int) -> tuple[list[Order], bool]:
    """One page of the member's orders (from 1), newest first, and whether there are older ones."""
    found = list(
        db.session.scalars(
            select(Order)
            .where(Order.member_id == member_id)
            .order_by(Order.created_at.desc(), Order.id.desc())
            .offset((page - 1) * ORDERS_PER_PAGE)
            .limit(ORDERS_PER_PAGE + 1)
        )
    )
    return found[:ORDERS_PER_PAGE], len(found) > ORDERS_PER_PAGE


def transitions_of(order_code: str) -> list[Transition]:
    """All recorded moves of the order and its attempts, oldest first."""
    return list(
        db.session.scalars(
            select(Transition)
            .where(Transition.order_code == order_code)
            .order_by(Transition.at, Transition.id)
        )
    )


def attempts_of(order_code: str) -> list[PaymentAttempt]:
    """All tries to pay the order, oldest first."""
    return list(
        db.session.scalars(
            select(PaymentAttempt)
            .where(PaymentAttempt.order_code == order_code)
            .order_by(PaymentAttempt.id)
        )
    )
