"""Stored notices."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Blob, Model, UtcDateTime


class StoredNotice(Model):
    """A callback as it came in, and what became of it.

    `verified`: believed, waiting to be applied. `applied`: done, `outcome` says what it did.
    `refused`: not believed, or contradicting the books; `outcome` says why. Refused ones whose
    signature failed have no `notice_id`, as it could be anybody's word. `merchant` is the one at
    whose address it came in, and by whose keys it was judged. `content` is what was read from a
    verified one (decrypted), as `content.dump` writes it.
    """

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("channel", "merchant", "notice_id"),
        CheckConstraint("state IN ('verified', 'applied', 'refused')", name="state"),
        CheckConstraint("channel IN ('wechatpay', 'alipay')", name="channel"),
        Index("ix_notices_state_due_at", "state", "due_at"),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    channel: Mapped[str] = mapped_column(String(16))
    merchant: Mapped[str] = mapped_column(String(32), default="default", server_default="default")
    notice_id: Mapped[str | None] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[str | None] = mapped_column(Text)
    out_trade_no: Mapped[str | None] = mapped_column(String(64), index=True)
    headers: Mapped[str] = mapped_column(Text)
    body: Mapped[bytes] = mapped_column(Blob)
    content: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_count: Mapped[int] = mapped_column(Integer, default=1)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
