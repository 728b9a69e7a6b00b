"""Leases in Redis: one round trip to take, one to release, and a direct hand-over between.

    holder                      Redis                         first waiter
      | -- acquire -----------> | owner = A                        |
      |                         | <------ subscribe, acquire ----- |  queued
      | -- release -----------> | owner = B for 2 s, publish ----> |  wakes, holds the key
      |                         | <------ renew ------------------ |  its whole lease

The releasing script mints the next fence and hands over in the same step, so the key is never free
while somebody waits and nobody races for it. A dead waiter has no listener on its channel and is
passed over at once; a frozen one loses its turn after two seconds. A waiter that wakes holds the
key without another word. It asks for its whole lease when it first needs more than is left, or
after a fifth of a second: so a short hold costs no third request. Who handed a key over looks two
seconds later whether it was taken up, once for many hand-overs (claim_watch). Who waits asks again
when the holder's time should be out, and else every fifteen seconds: so a lost message costs so
much more, and never the wait.

No request is repeated without our knowing: a lost reply is asked for again with the same token,
which the scripts know, so that a grant whose reply was lost is found and not waited for.
"""

from locks.base import BaseLock, Request
from locks.clock import now_ns
from locks.errors import LockTimeout, LockUnavailable
from locks.held import Grant, HeldLease
from locks.inspection import HeldKey
from locks.observe import LockObserver
from locks.on_redis.address import parse_redis_url
from locks.on_redis.caller import Caller
from locks.on_redis.claim_watch import ClaimWatch
from locks.on_redis.inspection import as_held_key, list_held
from locks.on_redis.link import LinkBroken, Refused
from locks.on_redis.scripts import HANDED_OVER, INSPECT, RELEASE, RENEW, WATCH
from locks.on_redis.token import Tokens
from locks.on_redis.waiter import Waiter


class RedisLock(BaseLock):
    """Redis 5 or later, wherever the URL says (see address)."""

    backend = "redis"

    def __init__(self, url: str, observer: LockObserver | None = None) -> None:
        """Connects to nothing. Raises LockConfigError."""
        self._address = parse_redis_url(url)
        self._calls = Caller(self._address)
        self._tokens = Tokens()
        super().__init__(observer)

    def _take(self, request: Request) -> Grant:
        waiter = Waiter(self._calls, request, self._check_open)
        try:
            return waiter.wait()
        except LockUnavailable:
            # It may have been granted or queued for all we know; asking now would only hang again,
            # unless it was us who closed.
            free = self._free_for_sure if self._closed else self._free_later
            free(request.key, request.token, "", request.lease_ms)
            raise
        except LockTimeout:
            if waiter.is_queued:
                self._free_for_sure(request.key, request.token, "", request.lease_ms)
            raise
        finally:
            waiter.leave()

    def _renew(self, leases: list[HeldLease]) -> None:
        sent_ns = now_ns()
        calls = [(lease.key, (lease.token, lease.lease_ms)) for lease in leases]
        failure: LockUnavailable | None = None
        for number, reply in self._calls.run_all(RENEW, calls):
            lease = leases[number]
            if isinstance(reply, LockUnavailable):
                failure = reply
            elif reply == 1:
                lease.extend(sent_ns, lease.lease_ms)
            else:
                self._renewer.lose(lease, "Redis no longer has it: it ran out or was wiped.")
        if failure is not None:
            raise failure

    def _free(self, key: str, token: str, place: str) -> bool:
        # The answer says whether the token held the key. After a lost reply and a second try it
        # says no, though the first one released it: either way the token holds nothing now.
        if self._calls.run(RELEASE, key, token) == HANDED_OVER and not self._closed:
            self._claims.handed_over(key)
        return True

    def _list_held(self, limit: int) -> list[HeldKey]:
        try:
            return list_held(self._calls, limit)
        except (LinkBroken, Refused) as error:
            raise LockUnavailable(f"Redis: {error}") from error

    def _break(self, key: str) -> HeldKey | None:
        broken = as_held_key(key, self._calls.run(INSPECT, key, "break"))
        if broken is not None and broken.waiters:
            self._claims.handed_over(key)
        return broken

    def _ping(self) -> None:
        self._calls.ping()

    def close(self) -> None:
        """See LeaseLock."""
        self._claims.close()
        super().close()

    def _disconnect(self) -> None:
        self._calls.close()

    def _forget(self) -> None:
        self._calls.abandon()
        self._calls = Caller(self._address)
        self._claims = self._claim_watch()
        self._tokens = Tokens()

    def _claim_watch(self) -> ClaimWatch:
        return ClaimWatch(
            lambda keys: self._calls.run_all(WATCH, [(key, ()) for key in keys]),
            lambda chore: self._renewer.add_chore(chore),
        )

    def _new_token(self) -> str:
        return self._tokens.new()
