"""Merchants' accounts that are kept in the database."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from shop.db import BigInt, Model, UtcDateTime


class MerchantAccount(Model):
    """One merchant's credentials, sealed (`shop.merchants.cipher`).

    `version` grows with every change of them, and tells running processes to read them again. It
    begins anywhere: a row that was removed and added again has no version that it had before.
    """

    __tablename__ = "merchant_accounts"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    sealed: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInt)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
