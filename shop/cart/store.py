"""Reading and writing cart rows. Writes run inside `shop.db.transaction`."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import case, delete, func, insert, select, update

from shop.cart.models import QUANTITY_MAX, CartItem
from shop.catalog.models import Product
from shop.db import changed_rows, db


def items_of(member_id: int) -> list[tuple[Product, int]]:
    """What is in the cart and still for sale, oldest first."""
    rows = db.session.execute(
        select(Product, CartItem.quantity)
        .join(CartItem, CartItem.product_id == Product.id)
        .where(CartItem.member_id == member_id, Product.active)
        .order_by(CartItem.id)
    )
    return [(product, quantity) for product, quantity in rows]


def count_of(member_id: int) -> int:
    """How many pieces are in the cart."""
    total = db.session.scalar(
        select(func.sum(CartItem.quantity))
        .join(Product, CartItem.product_id == Product.id)
        .where(CartItem.member_id == member_id, Product.active)
    )
    return int(total or 0)


def lines_of(member_id: int) -> int:
    """How many different goods are in the cart."""
    return db.session.scalar(select(func.count()).where(CartItem.member_id == member_id)) or 0


def raise_quantity(member_id: int, product_id: int, by: int) -> bool:
    """Put more of what is in the cart already, up to the most; False where it is not there."""
    more = CartItem.quantity + by
    return bool(
        changed_rows(
            update(CartItem)
            .where(CartItem.member_id == member_id, CartItem.product_id == product_id)
            .values(quantity=case((more > QUANTITY_MAX, QUANTITY_MAX), else_=more))
        )
    )


def insert_item(member_id: int, product_id: int, quantity: int, now: datetime) -> None:
    """Put something new into the cart; IntegrityError where it is there already."""
    db.session.execute(
        insert(CartItem).values(
            member_id=member_id, product_id=product_id, quantity=quantity, added_at=now
        )
    )


def set_quantity(member_id: int, product_id: int, quantity: int) -> None:
    """Change how many of something in the cart there are."""
    changed_rows(
        update(CartItem)
        .where(CartItem.member_id == member_id, CartItem.product_id == product_id)
        .values(quantity=quantity)
    )


def remove_items(member_id: int, product_ids: Iterable[int]) -> None:
    """Take these goods out of the cart."""
    changed_rows(
        delete(CartItem).where(
            CartItem.member_id == member_id, CartItem.product_id.in_(list(product_ids))
        )
    )
