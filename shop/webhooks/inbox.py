"""The inbox: a verified notice is stored once, before anything else, and applied once (I6).

Applying goes through the same door as the sweeper's questions (`payments.settle`). A stored notice
is worked off later where the order's lease cannot be had at once; it is acknowledged all the same.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from shop.db import changed_rows, db, end_read, inserted_id, transaction
from shop.errors import Superseded
from shop.gateways.base import Notice, NoticeKind, NoticeRefused, Outcome
from shop.payments import store
from shop.payments.desk import Desk, log
from shop.payments.settle import REFUSALS, Applied, Money, apply_money
from shop.webhooks import content
from shop.webhooks.models import StoredNotice

# How long after a failed try a stored notice is looked at again, and the longest pause.
FIRST_RETRY_S = 2
LONGEST_RETRY_S = 600
# Anybody can send us nonsense: of what was not believed, so much is kept for an operator to see.
REFUSED_KEPT_MAX = 5_000
REFUSED_KEPT_DAYS = 30
REFUSED_BODY_MAX = 4_096

_KEPT_HEADERS = (
    "wechatpay-timestamp",
    "wechatpay-nonce",
    "wechatpay-signature",
    "wechatpay-serial",
    "wechatpay-signature-type",
    "content-type",
    "user-agent",
)


@dataclass(frozen=True, kw_only=True)
class Account:
    """A merchant's account at a gateway: at whose address a callback came in."""

    channel: str
    merchant: str


def store_verified(
    desk: Desk, account: Account, notice: Notice, headers: Mapping[str, str], body: bytes
) -> int:
    """Store a verified notice, once per account and notice_id; the row's id is returned.

    Raises what the database raises where it cannot be stored: then it must not be acknowledged.
    """
    now = desk.clock.now()
    values = {
        **asdict(account),
        "notice_id": notice.notice_id,
        "state": "verified",
        "out_trade_no": notice.out_trade_no[:64],
        "headers": _kept(headers),
        "body": body,
        "content": content.dump(notice),
        "received_at": now,
        "received_count": 1,
        "due_at": now + timedelta(seconds=FIRST_RETRY_S),
        "tries": 0,
    }
    try:
        return transaction(lambda: inserted_id(insert(StoredNotice).values(**values)))
    except IntegrityError:
        return transaction(lambda: _count_again(account, notice.notice_id))


def _count_again(account: Account, notice_id: str) -> int:
    same = (
        StoredNotice.channel == account.channel,
        StoredNotice.merchant == account.merchant,
        StoredNotice.notice_id == notice_id,
    )
    changed_rows(
        update(StoredNotice).where(*same).values(received_count=StoredNotice.received_count + 1)
    )
    return db.session.scalars(select(StoredNotice.id).where(*same)).one()


def store_refused(
    desk: Desk, account: Account, refusal: NoticeRefused, headers: Mapping[str, str], body: bytes
) -> None:
    """Record a callback that was not believed, within bounds. It moves nothing."""
    log.error(
        "notice_refused",
        **asdict(account),
        reason=refusal.reason,
        detail=refusal.detail,
        out_trade_no=refusal.out_trade_no,
    )
    now = desk.clock.now()

    def work() -> None:
        kept = db.session.scalar(
            select(func.count()).where(
                StoredNotice.state == "refused", StoredNotice.notice_id.is_(None)
            )
        )
        # One whose signature held (its id is known) is the gateway's word and always kept.
        if (kept or 0) >= REFUSED_KEPT_MAX and refusal.notice_id is None:
            return
        db.session.execute(
            insert(StoredNotice).values(
                **asdict(account),
                state="refused",
                outcome=refusal.reason,
                detail=refusal.detail[:1_000],
                out_trade_no=refusal.out_trade_no[:64] if refusal.out_trade_no else None,
                headers=_kept(headers),
                body=body[:REFUSED_BODY_MAX],
                received_at=now,
                received_count=1,
                tries=0,
                finished_at=now,
            )
        )

    transaction(work)


def apply_stored(desk: Desk, row_id: int, *, actor: str, wait_ms: int) -> str:
    """Apply a stored notice if that has not been done; its row's state is returned.

    Raises the ShopError family where it could not be done now: it stays stored, and due.
    """
    end_read()
    row = _fresh(row_id)
    if row.state != "verified" or row.content is None:
        return row.state
    notice = content.load(row.content)
    attempt = store.fresh_attempt(notice.out_trade_no)
    if attempt is not None and (
        attempt.merchant != row.merchant
        or (attempt.channel == row.channel and attempt.is_elsewhere(notice.account))
    ):
        # Whatever it tells of: one account's keys vouch for nothing of another's.
        return transaction(lambda: _finish(desk, row_id, Applied.WRONG_MERCHANT))
    if notice.kind is not NoticeKind.PAYMENT or notice.outcome is not Outcome.SUCCEEDED:
        return transaction(lambda: _note(desk, row_id, notice))
    if attempt is None:
        return transaction(lambda: _finish(desk, row_id, Applied.UNKNOWN_TRADE))
    money = Money(
        channel=row.channel,
        merchant=row.merchant,
        out_trade_no=notice.out_trade_no,
        transaction_id=notice.transaction_id or "",
        amount_fen=notice.amount_fen if notice.amount_fen is not None else -1,
        currency=notice.currency,
        paid_at=notice.paid_at,
        cause=f"notice {notice.notice_id}"[:128],
    )
    with desk.claim(attempt.order_code, actor=actor, wait_ms=wait_ms) as claim:
        end_read()
        apply_money(desk, claim, money, also=lambda applied: _mark(desk, row_id, applied))
    end_read()
    return _fresh(row_id).state


def _mark(desk: Desk, row_id: int, applied: Applied) -> None:
    """In the transaction that applied it; a notice that somebody else applied rolls ours back."""
    if not _finish_one(desk, row_id, applied):
        raise Superseded(order_code="")


def _finish(desk: Desk, row_id: int, applied: Applied) -> str:
    _finish_one(desk, row_id, applied)
    return _fresh(row_id).state


def _finish_one(desk: Desk, row_id: int, applied: Applied) -> bool:
    state = "refused" if applied in REFUSALS else "applied"
    if state == "refused":
        log.error("notice_contradicts_books", notice_row=row_id, outcome=applied.value)
    return _write_end(desk, row_id, state, applied.value)


def _note(desk: Desk, row_id: int, notice: Notice) -> str:
    """Notices that do not tell of money taken settle nothing: they make the sweeper ask now."""
    store.ask_soon(notice.out_trade_no, desk.clock.now())
    _write_end(desk, row_id, "applied", f"noted {notice.trade_state}"[:64])
    return "applied"


def _write_end(desk: Desk, row_id: int, state: str, outcome: str) -> bool:
    return (
        changed_rows(
            update(StoredNotice)
            .where(StoredNotice.id == row_id, StoredNotice.state == "verified")
            .values(state=state, outcome=outcome, due_at=None, finished_at=desk.clock.now())
        )
        == 1
    )


def due_notices(desk: Desk, limit: int) -> list[int]:
    """Ids of stored notices whose next try is due."""
    end_read()
    return list(
        db.session.scalars(
            select(StoredNotice.id)
            .where(StoredNotice.state == "verified", StoredNotice.due_at <= desk.clock.now())
            .order_by(StoredNotice.due_at)
            .limit(limit)
        )
    )


def work_off(desk: Desk, row_id: int) -> None:
    """The sweeper's try at a stored notice. Puts the next try off first, so that a notice whose
    application dies on the way does not hold up the others."""
    row = _fresh(row_id)
    pause_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(row.tries, 10))
    transaction(
        lambda: changed_rows(
            update(StoredNotice)
            .where(StoredNotice.id == row_id)
            .values(
                tries=StoredNotice.tries + 1,
                due_at=desk.clock.now() + timedelta(seconds=pause_s),
            )
        )
    )
    apply_stored(desk, row_id, actor="sweeper", wait_ms=desk.settings.lock_wait_ms)


def prune_refused(desk: Desk) -> None:
    """Forget old callbacks that were never believed."""
    before = desk.clock.now() - timedelta(days=REFUSED_KEPT_DAYS)
    transaction(
        lambda: changed_rows(
            delete(StoredNotice).where(
                StoredNotice.state == "refused",
                StoredNotice.notice_id.is_(None),
                StoredNotice.received_at < before,
            )
        )
    )


def _fresh(row_id: int) -> StoredNotice:
    return db.session.scalars(
        select(StoredNotice)
        .where(StoredNotice.id == row_id)
        .execution_options(populate_existing=True)
    ).one()


def _kept(headers: Mapping[str, str]) -> str:
    lower = {name.lower(): value for name, value in headers.items()}
    return json.dumps({name: lower[name][:512] for name in _KEPT_HEADERS if name in lower})
