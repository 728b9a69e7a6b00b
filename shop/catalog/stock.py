"""Stock on its way: reserved while an order is paying, then taken or released (invariant I4).

All inside `shop.db.transaction`. Products are written in the order of their ids, the same for
everyone, so that two orders cannot deadlock.
"""

from collections.abc import Iterable

from sqlalchemy import select, update

from shop.catalog.models import Product
from shop.db import changed_rows, db
from shop.errors import OutOfStock
from shop.orders.models import OrderLine


def reserve(lines: Iterable[OrderLine]) -> None:
    """Set the goods aside. Raises OutOfStock, naming the product; then nothing may be committed."""
    _shift(lines, source="stock_on_hand", target="stock_reserved")


def release(lines: Iterable[OrderLine]) -> None:
    """Put reserved goods back on the shelf."""
    _shift(lines, source="stock_reserved", target="stock_on_hand")


def take(lines: Iterable[OrderLine]) -> None:
    """Hand reserved goods over."""
    _shift(lines, source="stock_reserved", target="stock_taken")


def take_at_once(lines: Iterable[OrderLine]) -> None:
    """Hand goods over from the shelf, where nothing can come between reserving and taking."""
    _shift(lines, source="stock_on_hand", target="stock_taken")


def _shift(lines: Iterable[OrderLine], *, source: str, target: str) -> None:
    quantities: dict[int, int] = {}
    for line in lines:
        quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    source_column = getattr(Product, source)
    target_column = getattr(Product, target)
    for product_id in sorted(quantities):
        quantity = quantities[product_id]
        changed = changed_rows(
            update(Product)
            .where(Product.id == product_id, source_column >= quantity)
            .values({source: source_column - quantity, target: target_column + quantity})
        )
        if changed == 0:
            names = db.session.execute(
                select(Product.name_en, Product.name_zh).where(Product.id == product_id)
            ).one()
            raise OutOfStock(product=names.name_en, product_zh=names.name_zh)
