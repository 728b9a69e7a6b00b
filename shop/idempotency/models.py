"""The dedup table: where the idempotency key lives."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime


class PaymentRequest(Model):
    """A request that a client named, its fingerprint, and its answer once there is one.

    `in_progress`: somebody is at work. `unanswered`: it came to nothing, and may be sent again.
    `unsure`: as that, but something may have been done. `answered`: final.
    """

    __tablename__ = "payment_requests"
    __table_args__ = (
        UniqueConstraint("client", "request_no"),
        CheckConstraint(
            "state IN ('in_progress', 'unanswered', 'unsure', 'answered')", name="state"
        ),
        CheckConstraint(
            "(state = 'answered' AND answer_status IS NOT NULL AND answer_body IS NOT NULL)"
            " OR (state <> 'answered' AND answer_status IS NULL AND answer_body IS NULL)",
            name="answer",
        ),
    )

    id: Mapped[int] = mapped_column(BigInt, primary_key=True)
    client: Mapped[str] = mapped_column(String(64))
    request_no: Mapped[str] = mapped_column(String(128))
    fingerprint: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    claim_no: Mapped[str] = mapped_column(String(32))
    answer_status: Mapped[int | None] = mapped_column(Integer)
    answer_body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    claimed_at: Mapped[datetime] = mapped_column(UtcDateTime)
