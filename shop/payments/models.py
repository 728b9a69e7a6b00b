"""Payment attempts."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime
from shop.orders.models import in_list
from statemachine.attempt import ATTEMPT_STATES

CHANNELS = ("points", "wechatpay", "alipay")


class PaymentAttempt(Model):
    """One try to pay one order on one channel.

    The rules that the database itself holds (L3), in the portable form of a partial unique index,
    a nullable column that repeats the order's code only while the rule applies:
    `open_key` (at most one open attempt per order), `settling_key` (at most one settling payment
    per order). Beside them one row per (channel, transaction_id), and per out_trade_no.

    `account` says at which account of its merchant it was begun (`Gateway.account`), which may be
    another one by now; it is empty for points, and where it was begun before this was kept.
    """

    __tablename__ = "payment_attempts"
    __table_args__ = (
        UniqueConstraint("open_key", name="uq_payment_attempts_open_key"),
        UniqueConstraint("settling_key", name="uq_payment_attempts_settling_key"),
        UniqueConstraint("channel", "transaction_id"),
        CheckConstraint(in_list("state", ATTEMPT_STATES), name="state"),
        CheckConstraint(in_list("channel", CHANNELS), name="channel"),
        CheckConstraint("amount_fen >= 0 AND points >= 0", name="amounts"),
        CheckConstraint(
            "(state IN ('opening', 'pending') AND open_key IS NOT NULL AND open_key = order_code)"
            " OR (state NOT IN ('opening', 'pending') AND open_key IS NULL)",
            name="open_key",
        ),
        CheckConstraint(
            "(role = 'settling' AND state = 'succeeded' AND settling_key IS NOT NULL"
            " AND settling_key = order_code)"
            " OR (role = 'surplus' AND state = 'succeeded' AND settling_key IS NULL)"
            " OR (role = 'none' AND state <> 'succeeded' AND settling_key IS NULL)",
            name="role",
        ),
        Index("ix_payment_attempts_due_at", "due_at"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    order_code: Mapped[str] = mapped_column(String(32), index=True)
    channel: Mapped[str] = mapped_column(String(16))
    product: Mapped[str] = mapped_column(String(16), default="", server_default="")
    merchant: Mapped[str] = mapped_column(String(32), default="default", server_default="default")
    account: Mapped[str] = mapped_column(String(128), default="", server_default="")
    payer_openid: Mapped[str] = mapped_column(String(128), default="", server_default="")
    client_ip: Mapped[str] = mapped_column(String(45), default="", server_default="")
    out_trade_no: Mapped[str] = mapped_column(String(32), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(BigInt, default=0)
    role: Mapped[str] = mapped_column(String(16), default="none")
    open_key: Mapped[str | None] = mapped_column(String(32))
    settling_key: Mapped[str | None] = mapped_column(String(32))
    amount_fen: Mapped[int] = mapped_column(BigInt)
    points: Mapped[int] = mapped_column(BigInt)
    transaction_id: Mapped[str | None] = mapped_column(String(128))
    ticket: Mapped[str | None] = mapped_column(Text)
    ticket_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    fault_code: Mapped[str | None] = mapped_column(String(64))
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    asked_count: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    def is_elsewhere(self, account: str) -> bool:
        """Whether it was certainly begun at another account than this."""
        return "" not in {account, self.account} and account != self.account
