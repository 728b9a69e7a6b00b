"""One acquire at Redis: asking, queueing up, hearing of the hand-over, claiming."""

import random
import secrets
from collections.abc import Callable
from typing import NamedTuple

from locks.base import Request
from locks.clock import NS_PER_MS, now_ns
from locks.held import Grant
from locks.on_redis.caller import Caller
from locks.on_redis.link import LinkBroken, Refused, Reply
from locks.on_redis.scripts import ACQUIRE, CLAIM_MS
from locks.on_redis.subscription import HandOver, Subscription
from locks.protocol import MAX_FENCE

# Who waits asks again when the holder's time is out, and else this seldom: a long queue costs next
# to nothing. Whether one that was served has woken is watched by who served it (claim_watch).
POLL_S = 15.0
SHORTEST_POLL_S = 0.05
NS_PER_US = 1_000
# A hand-over that is heard of after such a part of the claim is asked after: little is left of it.
LATE_DIVISOR = 4
# As many as 16 s of the clock that fences are counted by.
SALT_BITS = 24


class Asked(NamedTuple):
    """One question, and the server's clock when it answered: that sets its clock against ours.

    Its clock may be stepped between. What comes out is never before the question nor after now,
    so that a claim is overrated by the time since the question at most, which fences allow for.
    """

    sent_ns: int
    heard_ns: int
    server_us: int

    def earliest_ns(self, server_us: int) -> int:
        """Our clock at a later moment of the server's, not later than it was."""
        return self._after(self.sent_ns, server_us)

    def likely_ns(self, server_us: int) -> int:
        """The same, as likely too late as too early."""
        return self._after((self.sent_ns + self.heard_ns) // 2, server_us)

    def _after(self, start_ns: int, server_us: int) -> int:
        return min(now_ns(), start_ns + max(0, server_us - self.server_us) * NS_PER_US)


class Waiter:
    """Waits for one request. `leave` must be called in the end, whatever came of it."""

    def __init__(self, caller: Caller, request: Request, check_open: Callable[[], None]) -> None:
        """`check_open` raises LockUnavailable once the lock is closed."""
        self._caller = caller
        self._request = request
        self._check_open = check_open
        self._subscription: Subscription | None = None
        self._ahead: int | None = None
        # Where the floor decides the fence, nobody else gets the same one by it.
        room = MAX_FENCE - request.fence_floor - 1
        self._salt = min(secrets.randbits(SALT_BITS), room) if request.fence_floor else 0
        self.is_queued = False
        """Whether the token may stand in the queue, or have been handed the key from there."""

    def wait(self) -> Grant:
        """Raises LockTimeout and LockUnavailable; the token may be queued or granted then."""
        request = self._request
        if request.wait_ms:
            self._subscription = self._caller.idle_subscription(request.key)
        heard_nothing = False
        while True:
            self._check_open()
            sent_ns = now_ns()
            reply = self._ask()
            if isinstance(reply, bytes):
                if heard_nothing:
                    self._drop()  # for all we know it is deaf
                return self._granted(int(reply), sent_ns)
            ahead, ttl_ms, server_us = reply
            asked = Asked(sent_ns, now_ns(), server_us)
            if self._ahead is None:
                self._ahead = ahead
            if request.deadline.is_over():
                raise request.timeout()
            if self._subscription is None:
                self._subscription = self._caller.subscribe(request.key)
                continue
            heard = self._hear(self._subscription, _pause_s(ttl_ms))
            heard_nothing = heard is None
            grant = self._handed_over(heard, asked) if heard is not None else None
            if grant is not None:
                return grant

    def leave(self) -> None:
        """The subscription is for the next one."""
        if self._subscription is not None:
            self._subscription.home.put_back(self._subscription)
            self._subscription = None

    def _ask(self) -> Reply:
        """Take the key, or else stand in the queue if there is a subscription for it."""
        request, subscription = self._request, self._subscription
        channel, wait_ms = "", 0
        if subscription is not None:
            if self._caller.is_where(subscription, request.key):
                channel, wait_ms = subscription.channel, request.deadline.left_ms()
                self.is_queued = True
            else:  # another server took over, and nobody is heard there yet
                self.leave()
        return self._caller.run(
            ACQUIRE,
            request.key,
            request.token,
            request.lease_ms,
            request.fence_floor,
            self._salt,
            channel,
            wait_ms,
        )

    def _hear(self, subscription: Subscription, pause_s: float) -> HandOver | None:
        """Wait for the hand-over or for the time to ask again."""
        timeout_s = min(pause_s, self._request.deadline.left_s())
        try:
            return subscription.wait_for(self._request.token, timeout_s)
        except (LinkBroken, Refused):
            self._drop()
            return None

    def _drop(self) -> None:
        """No other waiter must rely on this subscription."""
        if self._subscription is not None:
            self._subscription.home.drop(self._subscription)
            self._subscription = None

    def _granted(self, fence: int, sent_ns: int) -> Grant:
        request = self._request
        return Grant(
            request.key,
            request.token,
            fence,
            request.lease_ms,
            sent_ns,
            ahead=self._ahead or 0,
        )

    def _handed_over(self, heard: HandOver, asked: Asked) -> Grant | None:
        """The key, as long as a claim lasts; None if it is better to ask for it again."""
        request = self._request
        since_ns = asked.earliest_ns(heard.at_us)
        is_late = now_ns() - since_ns > CLAIM_MS * NS_PER_MS // LATE_DIVISOR
        if is_late or heard.fence <= request.fence_floor or self._caller.wants_confirmation:
            return None
        return Grant(
            request.key,
            request.token,
            heard.fence,
            request.lease_ms,
            since_ns,
            ttl_ms=CLAIM_MS,
            is_partial=True,
            ahead=self._ahead or 0,
            handover_ns=max(0, now_ns() - asked.likely_ns(heard.at_us)),
        )


def _pause_s(ttl_ms: int) -> float:
    """How long to wait before asking again, if the holder has ttl_ms left."""
    poll_s = POLL_S * random.uniform(0.8, 1.0)  # noqa: S311 - spreads the load, no secret
    if ttl_ms < 0:
        return poll_s
    # Whoever asks first after a dead or frozen holder's end makes Redis serve the next.
    late_s = random.uniform(0.002, 0.02)  # noqa: S311
    return min(poll_s, max(SHORTEST_POLL_S, ttl_ms / 1_000 + late_s))
