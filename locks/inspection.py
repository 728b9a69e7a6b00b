"""What an operator sees of a lock service: who holds a key, and who waits for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HeldKey:
    """One key that is held or waited for, as the service told at one moment."""

    key: str
    holder: str
    """Who holds it, as well as the back end knows (host and process, or the lease's token)."""
    fence: int
    """The holder's fencing token."""
    remaining_ms: int | None
    """What is left of the lease if nobody renews it; None where only a session's end ends it."""
    waiters: tuple[str, ...] = ()
    """Those who wait, the next one first."""
