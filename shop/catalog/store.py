"""Reading products."""

from collections.abc import Iterable

from sqlalchemy import select

from shop.catalog.models import Product
from shop.db import db


def products_for_sale() -> list[Product]:
    """Everything in the shop, in the order of the shop front."""
    return list(
        db.session.scalars(
            select(Product).where(Product.active).order_by(Product.position, Product.id)
        )
    )


def product_by_sku(sku: str) -> Product | None:
    """The product for sale under this number."""
    return db.session.scalars(
        select(Product).where(Product.sku == sku, Product.active)
    ).one_or_none()


def products_by_id(ids: Iterable[int]) -> dict[int, Product]:
    """The products for sale among these ids, as they are committed now."""
    found = db.session.scalars(
        select(Product)
        .where(Product.id.in_(set(ids)), Product.active)
        .execution_options(populate_existing=True)
    )
    return {product.id: product for product in found}
