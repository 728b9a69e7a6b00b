"""Cart items."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime

QUANTITY_MAX = 99
"""Of one product, per order: keeps totals far from any overflow and one member from a run."""


class CartItem(Model):
    """So many of one product in one member's cart."""

    __tablename__ = "cart_items"
    __table_args__ = (
        UniqueConstraint("member_id", "product_id"),
        CheckConstraint(f"quantity BETWEEN 1 AND {QUANTITY_MAX}", name="quantity"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int] = mapped_column(Integer)
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
