"""Reading orders and attempts for payments; writing is `shop.orders.moves`' work."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, or_, select, update

from shop.db import changed_rows, db
from shop.locking.models import LockEpoch
from shop.locking.store import Epoch
from shop.orders.models import Order
from shop.payments.models import PaymentAttempt


def fresh_order(code: str) -> Order | None:
    """The order as it is committed now, with its lines."""
    return db.session.scalars(
        select(Order).where(Order.code == code).execution_options(populate_existing=True)
    ).one_or_none()


@dataclass(frozen=True, kw_only=True)
class LockMark:
    """The current epoch, and epoch and fence of who wrote an order last."""

    epoch: Epoch
    pair: tuple[int, int]


def lock_mark(order_code: str) -> LockMark | None:
    """Read at one moment; None before the first epoch, zeros where there is no such order."""
    found = db.session.execute(
        select(LockEpoch.epoch, LockEpoch.realm, Order.lock_epoch, Order.lock_fence)
        .select_from(LockEpoch)
        .outerjoin(Order, Order.code == order_code)
        .order_by(LockEpoch.epoch.desc())
        .limit(1)
    ).one_or_none()
    if found is None:
        return None
    return LockMark(
        epoch=Epoch(number=found.epoch, realm=found.realm),
        pair=(found.lock_epoch or 0, found.lock_fence or 0),
    )


def fresh_attempt(out_trade_no: str) -> PaymentAttempt | None:
    """The attempt as it is committed now."""
    return db.session.scalars(
        select(PaymentAttempt)
        .where(PaymentAttempt.out_trade_no == out_trade_no)
        .execution_options(populate_existing=True)
    ).one_or_none()


def open_attempt(order_code: str) -> PaymentAttempt | None:
    """The order's one open attempt."""
    return db.session.scalars(
        select(PaymentAttempt)
        .where(PaymentAttempt.open_key == order_code)
        .execution_options(populate_existing=True)
    ).one_or_none()


def latest_attempt(order_code: str) -> PaymentAttempt | None:
    """The attempt that the member should be shown: the settling one, or else the newest."""
    return db.session.scalars(
        select(PaymentAttempt)
        .where(PaymentAttempt.order_code == order_code)
        .order_by(PaymentAttempt.settling_key.is_(None), PaymentAttempt.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).one_or_none()


def transaction_is_booked(channel: str, transaction_id: str) -> bool:
    """Whether some attempt was already paid by this gateway transaction."""
    found = select(PaymentAttempt.id).where(
        PaymentAttempt.channel == channel, PaymentAttempt.transaction_id == transaction_id
    )
    return db.session.scalar(found) is not None


def surplus_of(order_code: str) -> int:
    """Fen that gateways took for the order beyond what it owed."""
    found = select(func.sum(PaymentAttempt.amount_fen)).where(
        PaymentAttempt.order_code == order_code, PaymentAttempt.role == "surplus"
    )
    return int(db.session.scalar(found) or 0)


def attempt_count(order_code: str) -> int:
    """How often it was tried to pay this order."""
    return (
        db.session.scalar(select(func.count()).where(PaymentAttempt.order_code == order_code)) or 0
    )


def ask_soon(out_trade_no: str, now: datetime) -> None:
    """Make the sweeper look at this attempt next, if it is open."""
    changed_rows(
        update(PaymentAttempt)
        .where(PaymentAttempt.out_trade_no == out_trade_no, PaymentAttempt.open_key.is_not(None))
        .values(due_at=now)
    )


@dataclass(frozen=True, kw_only=True)
class DueAttempt:
    """What the sweeper read of an attempt. Plain values: a row would show what is true later."""

    attempt_id: int
    out_trade_no: str
    order_code: str
    channel: str
    merchant: str
    asked_count: int
    due_at: datetime
    expires_at: datetime

    @property
    def account(self) -> tuple[str, str]:
        """Whom to ask: channel and merchant."""
        return (self.channel, self.merchant)


def due_attempts(
    now: datetime, limit: int, *, but_not: Collection[tuple[str, str]] = ()
) -> list[DueAttempt]:
    """Attempts that shall be asked after by now, the most overdue first: the open ones, and those
    that ended while their code could still be scanned.

    Those of the accounts `but_not` (channel and merchant) are left out.
    """
    rows = db.session.execute(
        select(
            PaymentAttempt.id.label("attempt_id"),
            PaymentAttempt.out_trade_no,
            PaymentAttempt.order_code,
            PaymentAttempt.channel,
            PaymentAttempt.merchant,
            PaymentAttempt.asked_count,
            PaymentAttempt.due_at,
            PaymentAttempt.expires_at,
        )
        .where(
            PaymentAttempt.due_at <= now,
            *(
                or_(PaymentAttempt.channel != channel, PaymentAttempt.merchant != merchant)
                for channel, merchant in but_not
            ),
        )
        .order_by(PaymentAttempt.due_at)
        .limit(limit)
    )
    return [DueAttempt(**row) for row in rows.mappings()]


def put_off(due: DueAttempt, until: datetime) -> bool:
    """Take a due attempt on: its next look is `until`. False where another sweeper was first, or
    where it needs no look any more."""
    return (
        changed_rows(
            update(PaymentAttempt)
            .where(
                PaymentAttempt.id == due.attempt_id,
                PaymentAttempt.due_at == due.due_at,
            )
            .values(due_at=until, asked_count=PaymentAttempt.asked_count + 1)
        )
        == 1
    )


def expired_orders(now: datetime, limit: int, *, after_id: int = 0) -> list[tuple[int, str]]:
    """(id, code) of unpaid orders whose time is over, by id: without an open payment, nor one that
    may have been paid since it ended and is to be asked after."""
    rows = db.session.execute(
        select(Order.id, Order.code)
        .where(
            Order.state.in_(("created", "failed")),
            Order.expires_at <= now,
            Order.id > after_id,
            ~exists().where(
                PaymentAttempt.order_code == Order.code, PaymentAttempt.due_at.is_not(None)
            ),
        )
        .order_by(Order.id)
        .limit(limit)
    )
    return [(order_id, code) for order_id, code in rows]


def look_no_more(out_trade_no: str) -> None:
    """Nothing is to be asked any more about this attempt, which has ended."""
    changed_rows(
        update(PaymentAttempt)
        .where(PaymentAttempt.out_trade_no == out_trade_no, PaymentAttempt.open_key.is_(None))
        .values(due_at=None)
    )


def note_fault(out_trade_no: str, fault_code: str) -> None:
    """Write down, at the attempt, what an operator must look at."""
    changed_rows(
        update(PaymentAttempt)
        .where(PaymentAttempt.out_trade_no == out_trade_no)
        .values(fault_code=fault_code)
    )
