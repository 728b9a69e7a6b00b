"""Reading the epochs."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select

from shop.db import db
from shop.locking.models import LockEpoch


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: its number, and whose fences count in it."""

    number: int
    realm: str


def current_epoch() -> Epoch | None:
    """The current epoch as it is committed now; None before the first."""
    found = db.session.execute(
        select(LockEpoch.epoch, LockEpoch.realm).order_by(LockEpoch.epoch.desc()).limit(1)
    ).one_or_none()
    return None if found is None else Epoch(number=found.epoch, realm=found.realm)


def is_current(epoch: int) -> ColumnElement[bool]:
    """The condition, for a statement that writes: no later epoch has begun."""
    return select(func.max(LockEpoch.epoch)).scalar_subquery() == epoch
