"""The dedup table: one effect and one answer per (client, idempotency key).

The first request with a key claims its row, does the work and stores the answer; every later one
gets that answer, byte for byte. A key that comes back with another request is refused, whatever
became of the first. While the first is at work the others are told so. A claim whose worker died is
taken over after `TAKEOVER_AFTER_S`; the work must therefore be safe to enter again, which payments
are (their own states and numbers make a second entry resume, not repeat). Answers that are not
final (an error of ours, an unknown outcome, "in progress") are never stored: the same request may
be sent again at once.

Follows draft-ietf-httpapi-idempotency-key-header-07, section 2.
"""

import hashlib
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from shop.clock import Clock
from shop.db import changed_rows, db, end_read, transaction
from shop.errors import IdempotencyKeyMissing, IdempotencyKeyReused, PaymentInProgress, ShopError
from shop.idempotency.models import PaymentRequest

# Longer than a whole pay request can take (lock wait, two gateway calls with their time-outs), so
# that a claim older than this has no living worker.
TAKEOVER_AFTER_S = 60

REQUEST_NO_MAX = 128


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A stored or fresh answer. `replayed` marks one that an earlier request produced."""

    status: int
    body: bytes
    replayed: bool = False


class _Claimed(Enum):
    """How a key became ours to work for."""

    NEW = "new"
    AGAIN = "again, after a try that may have had its effect"


def fingerprint(*parts: str) -> str:
    """A digest of all that makes a request this request (method, path, body)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def answered_once(
    clock: Clock,
    *,
    client: str,
    request_no: str,
    fingerprint: str,
    work: Callable[[], Answer],
    resume: Callable[[], Answer] | None = None,
) -> Answer:
    """The answer to this request: the stored one, or that of `work`, stored when it is final.

    Raises IdempotencyKeyMissing (no key, or not 1 to 128 printable ASCII characters),
    IdempotencyKeyReused (same key, another request), PaymentInProgress (the first one is still at
    work), and whatever `work` raises; the same request may then be sent again. `resume` is called
    in place of `work` where an earlier try of this very request may have had its effect (its worker
    died, or its outcome was unknown): what `work` would refuse as done already may be its doing.
    """
    if not 1 <= len(request_no) <= REQUEST_NO_MAX or not (
        request_no.isascii() and request_no.isprintable()
    ):
        raise IdempotencyKeyMissing()
    claim_no = secrets.token_hex(16)
    claimed = _claim(clock, client, request_no, fingerprint, claim_no)
    if isinstance(claimed, Answer):
        return claimed
    try:
        answer = resume() if claimed is _Claimed.AGAIN and resume is not None else work()
    except Exception as error:
        certain = isinstance(error, ShopError) and not error.may_have_acted
        # With the database away this fails as well; then the claim is taken over when it is old.
        with suppress(InterfaceError, OperationalError):
            _give_up(client, request_no, claim_no, unsure=claimed is _Claimed.AGAIN or not certain)
        raise
    if not _store(client, request_no, claim_no, answer):
        return _winners_answer(client, request_no)
    return answer


def _claim(
    clock: Clock, client: str, request_no: str, fingerprint: str, claim_no: str
) -> "Answer | _Claimed":
    """Claim the key, or give the answer that is there."""
    now = clock.now()

    def insert_claim() -> None:
        db.session.execute(
            insert(PaymentRequest).values(
                client=client,
                request_no=request_no,
                fingerprint=fingerprint,
                state="in_progress",
                claim_no=claim_no,
                created_at=now,
                claimed_at=now,
            )
        )

    try:
        transaction(insert_claim)
        return _Claimed.NEW
    except IntegrityError:
        pass
    row = _row(client, request_no)
    if row.fingerprint != fingerprint:
        raise IdempotencyKeyReused()
    if row.state == "answered":
        return _replay(row)
    claimed = _Claimed.NEW if row.state == "unanswered" else _Claimed.AGAIN
    if not _take_over(clock, row, claim_no):
        raise PaymentInProgress()
    return claimed


def _take_over(clock: Clock, row: PaymentRequest, claim_no: str) -> bool:
    """Become the worker of a key that nobody works for, or whose worker is long gone."""
    now = clock.now()
    if row.state == "in_progress" and row.claimed_at > now - timedelta(seconds=TAKEOVER_AFTER_S):
        return False
    seen, state, row_id = row.claim_no, row.state, row.id
    return transaction(
        lambda: (
            changed_rows(
                update(PaymentRequest)
                .where(
                    PaymentRequest.id == row_id,
                    PaymentRequest.claim_no == seen,
                    PaymentRequest.state == state,
                )
                .values(claim_no=claim_no, claimed_at=now, state="in_progress")
            )
            == 1
        )
    )


def _store(client: str, request_no: str, claim_no: str, answer: Answer) -> bool:
    """Store the answer if the claim is still ours."""
    return transaction(
        lambda: (
            changed_rows(
                update(PaymentRequest)
                .where(
                    PaymentRequest.client == client,
                    PaymentRequest.request_no == request_no,
                    PaymentRequest.claim_no == claim_no,
                    PaymentRequest.state == "in_progress",
                )
                .values(state="answered", answer_status=answer.status, answer_body=answer.body)
            )
            == 1
        )
    )


def _give_up(client: str, request_no: str, claim_no: str, *, unsure: bool) -> None:
    """Leave the key without an answer; the same request may come again."""
    transaction(
        lambda: changed_rows(
            update(PaymentRequest)
            .where(
                PaymentRequest.client == client,
                PaymentRequest.request_no == request_no,
                PaymentRequest.claim_no == claim_no,
                PaymentRequest.state == "in_progress",
            )
            .values(state="unsure" if unsure else "unanswered")
        )
    )


def _winners_answer(client: str, request_no: str) -> Answer:
    """We were taken over while at work; the answer of the one who took over is the only one."""
    row = _row(client, request_no)
    if row.state != "answered":
        raise PaymentInProgress()
    return _replay(row)


def _row(client: str, request_no: str) -> PaymentRequest:
    end_read()
    return db.session.scalars(
        select(PaymentRequest)
        .where(PaymentRequest.client == client, PaymentRequest.request_no == request_no)
        .execution_options(populate_existing=True)
    ).one()


def _replay(row: PaymentRequest) -> Answer:
    if row.answer_status is None or row.answer_body is None:
        raise RuntimeError("an answered request without an answer; the database forbids it")
    return Answer(status=row.answer_status, body=row.answer_body, replayed=True)
