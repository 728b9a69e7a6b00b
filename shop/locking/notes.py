"""What an operator must be able to see of the locks: each kind of event is noted in one place."""

from contextvars import ContextVar

import structlog

from shop.metrics import tell

log = structlog.get_logger("payonce.locking")

_degraded: ContextVar[bool] = ContextVar("payonce_lock_degraded", default=False)


def begin_answer() -> None:
    """A request begins: nothing was done without the lock service yet."""
    _degraded.set(False)


def is_answer_degraded() -> bool:
    """Whether the request at hand claimed an order without the lock service."""
    return _degraded.get()


def note_degraded(order_code: str, *, fence: int, reason: str) -> None:
    """An order was claimed by the database alone, as the lock service is away."""
    _degraded.set(True)
    tell.claim_degraded()
    log.warning("lock_degraded", order_code=order_code, fence=fence, reason=reason)


def note_fence_refused(order_code: str, *, held: tuple[int, int], stored: tuple[int, int]) -> None:
    """L2 refused a write: pairs of epoch and fence, of the holder and of the order's row."""
    overtaken = held[0] == stored[0] and held[1] < stored[1]
    tell.fence_refused("holder" if overtaken else "epoch")
    log.warning("fence_refused", order_code=order_code, held=held, stored=stored)
