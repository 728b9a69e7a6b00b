"""Beginning an epoch: the first by whoever comes first, every later one by an operator."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from locks import LeaseLock
from shop.clock import Clock
from shop.db import db, transaction
from shop.locking import store
from shop.locking.models import LockEpoch
from shop.locking.store import Epoch

log = structlog.get_logger("payonce.locking")

# Each try is lost only to somebody who began an epoch in the same instant.
TRIES = 5
# A service is asked for a lease as long as this before it is believed.
PROBE_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What `adopt` found or did. `before` is None where there was no epoch yet."""

    epoch: Epoch
    before: Epoch | None

    @property
    def is_new(self) -> bool:
        """Whether an epoch began just now."""
        return self.epoch != self.before


def begin_first(lock: LeaseLock, clock: Clock) -> None:
    """Where there is no epoch yet, the first one begins: this lock service's.

    Raises LockUnavailable where that cannot say whose fences it grants.
    """
    _begin(lock, clock, "first start", lambda before, realm: before is None)


def adopt(lock: LeaseLock, clock: Clock, *, anew: bool = False, reason: str = "adopted") -> Adopted:
    """From now on the books believe this lock service, and refuse the one before it.

    Whoever still holds a lease of the service before writes nothing more, whatever it believes.
    Does nothing where the books believe this one already; with `anew` an epoch begins even then.
    That is for a Redis that lost its data while its clock was set back: leases that it granted
    before have fences above those that it grants now.

    Raises LockUnavailable, and changes nothing, if this service does not answer or grants nothing:
    a slip in LOCK_URL must not stop the shop that works on another one.
    """
    lock.ping()
    # One that answers may still grant nothing: a replica, say, or a user without the rights. The
    # key is nobody else's, and no order's.
    probe = lock.acquire(f"--adopt-{secrets.token_hex(8)}", lease_ms=PROBE_MS, wait_ms=0)
    probe.release()

    def is_due(before: Epoch | None, realm: str) -> bool:
        return anew or before is None or before.realm != realm

    return _begin(lock, clock, reason, is_due)


def _begin(
    lock: LeaseLock, clock: Clock, reason: str, is_due: Callable[[Epoch | None, str], bool]
) -> Adopted:
    realm = lock.realm()

    def work() -> Adopted:
        before = store.current_epoch()
        if before is not None and not is_due(before, realm):
            return Adopted(epoch=before, before=before)
        epoch = Epoch(number=1 if before is None else before.number + 1, realm=realm)
        db.session.execute(
            insert(LockEpoch).values(
                epoch=epoch.number, realm=realm, since=clock.now(), reason=reason[:128]
            )
        )
        return Adopted(epoch=epoch, before=before)

    for left in reversed(range(TRIES)):
        try:
            adopted = transaction(work)
        except IntegrityError:
            # Somebody else began the epoch of this number: look at whose it is.
            if not left:
                raise
        else:
            if adopted.is_new:
                log.warning(
                    "lock_epoch_begun", epoch=adopted.epoch.number, realm=realm, reason=reason
                )
            return adopted
    raise AssertionError("unreachable")
