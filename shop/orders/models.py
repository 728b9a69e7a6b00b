"""Orders, their lines and their recorded transitions."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from shop.db import BigInt, Model, UtcDateTime
from statemachine.order import ORDER_STATES


def in_list(column: str, values: tuple[str, ...]) -> str:
    """The SQL of "column is one of these words"."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Order(Model):
    """What a member agreed to pay, and how far that came.

    `version` grows by one with every recorded transition (L1). `lock_fence` is the highest fencing
    token that has written this row, in the epoch of the lock service that `lock_epoch` names (L2):
    the pair never falls. `merchant` is whose accounts at the gateways take the money.
    """

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("member_id", "submit_token"),
        CheckConstraint(in_list("state", ORDER_STATES), name="state"),
        CheckConstraint(
            "points >= 0 AND amount_fen >= 0 AND points + amount_fen > 0", name="amounts"
        ),
        Index("ix_orders_member_id_created_at", "member_id", "created_at"),
        Index("ix_orders_state_expires_at", "state", "expires_at"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    code: Mapped[str] = mapped_column(String(32), unique=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"))
    submit_token: Mapped[str] = mapped_column(String(64))
    merchant: Mapped[str] = mapped_column(String(32), default="default", server_default="default")
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(BigInt, default=0)
    lock_epoch: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    lock_fence: Mapped[int] = mapped_column(BigInt, default=0)
    points: Mapped[int] = mapped_column(BigInt)
    amount_fen: Mapped[int] = mapped_column(BigInt)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    lines: Mapped[list["OrderLine"]] = relationship(order_by="OrderLine.id")


class OrderLine(Model):
    """So many of one product, with the name and price of the day it was ordered."""

    __tablename__ = "order_lines"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("points >= 0 AND amount_fen >= 0", name="amounts"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    name_zh: Mapped[str] = mapped_column(String(80))
    name_en: Mapped[str] = mapped_column(String(80))
    art: Mapped[str] = mapped_column(String(32))
    quantity: Mapped[int] = mapped_column(Integer)
    points: Mapped[int] = mapped_column(BigInt)
    amount_fen: Mapped[int] = mapped_column(BigInt)


class Transition(Model):
    """One recorded move of an order or of a payment attempt; never changed afterwards.

    `subject` is `order` or `attempt`, `subject_no` its code or `out_trade_no`, `version` the
    version that the move led to. `actor` says who caused it: member, partner, gateway, sweeper or
    operator.
    """

    __tablename__ = "transitions"
    __table_args__ = (
        UniqueConstraint("subject", "subject_no", "version"),
        CheckConstraint("subject IN ('order', 'attempt')", name="subject"),
        CheckConstraint(
            "actor IN ('member', 'partner', 'gateway', 'sweeper', 'operator')", name="actor"
        ),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    order_code: Mapped[str] = mapped_column(String(32), index=True)
    subject: Mapped[str] = mapped_column(String(8))
    subject_no: Mapped[str] = mapped_column(String(40))
    version: Mapped[int] = mapped_column(BigInt)
    from_state: Mapped[str] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    event: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(16))
    epoch: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    fence: Mapped[int] = mapped_column(BigInt)
    cause: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime] = mapped_column(UtcDateTime)
