"""What the shop does with points: grant, hold, capture, release. All inside `transaction`."""

from datetime import datetime

from sqlalchemy import select

from shop.db import db
from shop.errors import NotEnoughPoints
from shop.points import ledger
from shop.points.models import LedgerTransaction


def grant(member_id: int, points: int, cause: str, *, now: datetime) -> bool:
    """Give points to a member, once per cause. Answers whether this call did it."""
    known = select(LedgerTransaction.id).where(LedgerTransaction.cause == cause)
    if db.session.scalar(known) is not None:
        return False
    entries = {ledger.points_account(member_id): points, ledger.POINTS_ISSUED: -points}
    ledger.book(cause, entries, now=now)
    return True


def available(member_id: int) -> int:
    """The points that the member can spend now."""
    return ledger.balance(ledger.points_account(member_id))


def hold(member_id: int, points: int, *, cause: str, order_code: str, now: datetime) -> None:
    """Set points aside for a payment that begins. Raises NotEnoughPoints."""
    if points == 0:
        return
    entries = {ledger.points_account(member_id): -points, ledger.held_account(member_id): points}
    try:
        ledger.book(f"hold:{cause}", entries, order_code=order_code, now=now)
    except ledger.BalanceTooLow as error:
        raise NotEnoughPoints(order_code=order_code) from error


def release(member_id: int, points: int, *, cause: str, order_code: str, now: datetime) -> None:
    """Give held points back to the member: the payment came to nothing."""
    if points == 0:
        return
    entries = {ledger.held_account(member_id): -points, ledger.points_account(member_id): points}
    ledger.book(f"release:{cause}", entries, order_code=order_code, now=now)


def capture(member_id: int, points: int, *, cause: str, order_code: str, now: datetime) -> None:
    """Take held points for good: the order is paid."""
    if points == 0:
        return
    entries = {ledger.held_account(member_id): -points, ledger.POINTS_REDEEMED: points}
    ledger.book(f"capture:{cause}", entries, order_code=order_code, now=now)


def spend(member_id: int, points: int, *, cause: str, order_code: str, now: datetime) -> None:
    """Take points at once, where nothing can come between hold and capture."""
    entries = {ledger.points_account(member_id): -points, ledger.POINTS_REDEEMED: points}
    try:
        ledger.book(f"capture:{cause}", entries, order_code=order_code, now=now)
    except ledger.BalanceTooLow as error:
        raise NotEnoughPoints(order_code=order_code) from error


def take_cash(
    channel: str, amount_fen: int, *, surplus: bool, cause: str, order_code: str, now: datetime
) -> None:
    """Book cash that a gateway took: for the sale, or owed back to the payer (surplus)."""
    side = ledger.CASH_SURPLUS if surplus else ledger.CASH_SALES
    entries = {ledger.gateway_account(channel): amount_fen, side: -amount_fen}
    ledger.book(f"cash:{cause}", entries, order_code=order_code, now=now)
