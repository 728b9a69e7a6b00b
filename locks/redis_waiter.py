"""One acquire at Redis: asking, queueing up, hearing of the hand-over, claiming."""

import random

from locks.base import Request
from locks.clock import now_ns
from locks.held import Grant
from locks.redis_caller import Caller
from locks.redis_scripts import ACQUIRE
from locks.redis_wire import Reply, ReplyError
from locks.subscription import Subscription

# A waiter asks again this often, or when the holder's time is out, but not more often than that.
POLL_S, SHORTEST_POLL_S = 1.0, 0.05
NS_PER_US = 1_000


class Waiter:
    """Waits for one request. `leave` must be called in the end, whatever came of it."""

    def __init__(self, caller: Caller, request: Request) -> None:
        self._caller = caller
        self._request = request
        self._subscription: Subscription | None = None
        self._ahead: int | None = None
        self.is_queued = False
        """Whether the token may stand in the queue, or have been handed the key from there."""

    def wait(self) -> Grant:
        """Raises LockTimeout and LockUnavailable; the token is still queued or granted then."""
        request = self._request
        if request.wait_ms:
            self._subscription = self._caller.idle_subscription(request.key)
        handed_over_us: int | None = None
        while True:
            sent_ns = now_ns()
            reply = self._ask()
            if isinstance(reply, bytes):
                return self._granted(reply, sent_ns, handed_over_us)
            ahead, ttl_ms = reply
            if self._ahead is None:
                self._ahead = ahead
            if request.deadline.is_over():
                raise request.timeout()
            if self._subscription is None:
                self._subscription = self._caller.subscribe(request.key)
            else:
                handed_over_us = self._hear(self._subscription, ttl_ms)

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
            channel,
            wait_ms,
        )

    def _hear(self, subscription: Subscription, ttl_ms: int) -> int | None:
        """Wait for the hand-over (gives its time) or for the time to ask again."""
        timeout_s = POLL_S * random.uniform(0.8, 1.0)  # noqa: S311 - spreads the load, no secret
        if ttl_ms >= 0:
            # A dead or frozen holder's end: whoever asks first then makes Redis serve the next.
            late_s = random.uniform(0.002, 0.02)  # noqa: S311
            timeout_s = min(timeout_s, max(SHORTEST_POLL_S, ttl_ms / 1_000 + late_s))
        timeout_s = min(timeout_s, self._request.deadline.left_s())
        try:
            return subscription.wait_for(self._request.token, timeout_s)
        except (OSError, ReplyError):
            subscription.home.drop(subscription)
            self._subscription = None
            return None

    def _granted(self, reply: bytes, sent_ns: int, handed_over_us: int | None) -> Grant:
        request = self._request
        fence, _, now_us = reply.partition(b"|")
        handover_ns = None
        if now_us and handed_over_us is not None:
            handover_ns = max(0, int(now_us) - handed_over_us) * NS_PER_US
        return Grant(
            request.key,
            request.token,
            int(fence),
            request.lease_ms,
            sent_ns,
            ahead=self._ahead or 0,
            handover_ns=handover_ns,
        )
