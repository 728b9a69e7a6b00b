"""Products, their prices and their stock."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime


class PriceMode(StrEnum):
    """How a product is priced."""

    POINTS = "points"
    CASH = "cash"
    MIXED = "mixed"


class Product(Model):
    """Something that can be bought.

    `points`: costs `price_points`. `cash`: costs `price_fen`. `mixed`: is worth `price_fen`, of
    which the member pays from `points_min` to `points_max` points (one point stands for
    `money.FEN_PER_POINT` fen) and the rest in cash.

    `line` is the product line it belongs to, by which the configuration may choose the merchant.

    Stock moves from on hand to reserved (paying), then to taken (paid) or back (released). The sum
    of the three changes by `StockAdjustment` only (invariant I4).
    """

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("price_mode IN ('points', 'cash', 'mixed')", name="price_mode"),
        CheckConstraint(
            "(price_mode = 'points' AND price_points > 0 AND price_fen = 0"
            " AND points_min = 0 AND points_max = 0)"
            " OR (price_mode = 'cash' AND price_points = 0 AND price_fen > 0"
            " AND points_min = 0 AND points_max = 0)"
            " OR (price_mode = 'mixed' AND price_points = 0 AND price_fen > 0"
            " AND points_min >= 0 AND points_max >= points_min AND points_max <= price_fen)",
            name="price",
        ),
        CheckConstraint(
            "stock_on_hand >= 0 AND stock_reserved >= 0 AND stock_taken >= 0", name="stock"
        ),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    sku: Mapped[str] = mapped_column(String(32), unique=True)
    name_zh: Mapped[str] = mapped_column(String(80))
    name_en: Mapped[str] = mapped_column(String(80))
    description_zh: Mapped[str] = mapped_column(Text)
    description_en: Mapped[str] = mapped_column(Text)
    art: Mapped[str] = mapped_column(String(32))
    line: Mapped[str] = mapped_column(String(32), default="", server_default="")
    price_mode: Mapped[str] = mapped_column(String(8))
    price_points: Mapped[int] = mapped_column(BigInt, default=0)
    price_fen: Mapped[int] = mapped_column(BigInt, default=0)
    points_min: Mapped[int] = mapped_column(BigInt, default=0)
    points_max: Mapped[int] = mapped_column(BigInt, default=0)
    stock_on_hand: Mapped[int] = mapped_column(Integer, default=0)
    stock_reserved: Mapped[int] = mapped_column(Integer, default=0)
    stock_taken: Mapped[int] = mapped_column(Integer, default=0)
    active: Mapped[bool] = mapped_column(default=True)
    position: Mapped[int] = mapped_column(Integer, default=0)


class StockAdjustment(Model):
    """An operator's (or the seed's) change to how many there are; unique on its cause."""

    __tablename__ = "stock_adjustments"

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    delta: Mapped[int] = mapped_column(Integer)
    cause: Mapped[str] = mapped_column(String(96), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
