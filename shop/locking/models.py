"""The epochs of the lock service: whose fences the books believe, and since when."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import Model, UtcDateTime


class LockEpoch(Model):
    """From `since` on, fences are those of `realm`. The highest epoch is the current one.

    Rows are added and never changed. Fences of one realm can be compared; an order keeps the epoch
    beside the fence, so that those of two realms never are.
    """

    __tablename__ = "lock_epochs"
    __table_args__ = (CheckConstraint("epoch > 0", name="epoch"),)

    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    realm: Mapped[str] = mapped_column(String(128))
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(String(128))
