"""Leases in Redis: one round trip to take, one to release, and a direct hand-over between.

    holder                      Redis                         first waiter
      | -- acquire -----------> | owner = A                        |
      |                         | <------ subscribe, acquire ----- |  queued
      | -- release -----------> | owner = B for 2 s, publish ----> |  wakes
      |                         | <------ acquire (claim) -------- |  its whole lease

The releasing script mints the next fence and hands over in the same step, so the key is never free
while somebody waits and nobody races for it. A dead waiter has no listener on its channel and is
passed over at once; a frozen one loses its turn with the claim. Every waiter asks again each
second, so a lost message or a lost server costs a second, not the wait.

The client library never retries: a lost reply is asked for again by us with the same token, which
the scripts know, so that a grant whose reply was lost is found and not waited for.
"""

import random
import threading
import time
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, ConnectionPool
from redis.retry import Retry

from locks.base import BaseLock, Request
from locks.clock import NS_PER_S, now_ns
from locks.errors import LockUnavailable
from locks.held import Grant, HeldLease
from locks.observe import LockObserver
from locks.redis_scripts import ACQUIRE, RELEASE, RENEW, Script, lock_keys
from locks.subscription import Subscription, Subscriptions

# An unreachable service must be known within about a second; a reply takes well under 10 ms.
CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S = 0.75, 1.0
# A connection that broke while idle costs one quick retry; a time-out is the answer.
RETRY_WITHIN_S = 0.5
ATTEMPTS, RETRY_PAUSE_S = 3, 0.01
POLL_S = 1.0
MAX_CONNECTIONS = 10_000

_BROKEN = (redis.ConnectionError, redis.TimeoutError, OSError)


class RedisLock(BaseLock):
    """Redis 5 or later, one server. Sentinel would replace `_new_pool` alone."""

    backend = "redis"

    def __init__(self, url: str, observer: LockObserver | None = None) -> None:
        self._url = url
        self._clients: tuple[redis.Redis, Subscriptions] | None = None
        self._new_pool()  # connects to nothing, but refuses a URL that it cannot read
        super().__init__(observer)

    def _new_pool(self) -> ConnectionPool:
        """Where all connections come from."""
        return ConnectionPool.from_url(
            self._url,
            max_connections=MAX_CONNECTIONS,
            protocol=2,
            driver_info=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=REPLY_TIMEOUT_S,
            **({} if self._url.startswith("unix:") else {"socket_keepalive": True}),
            retry=Retry(NoBackoff(), 0),
        )

    def _take(self, request: Request) -> Grant:
        subscriptions = self._client()[1]
        subscription = subscriptions.idle() if request.wait_ms else None
        queued = subscription is not None
        try:
            while True:
                sent_ns = now_ns()
                fence = self._ask(request, subscription)
                if fence is not None:
                    queued = False
                    return Grant(request.key, request.token, fence, request.lease_ms, sent_ns)
                if request.deadline.is_over():
                    raise request.timeout()
                if subscription is None:
                    subscription = self._subscribe(subscriptions)
                    queued = True
                elif not self._hear(subscription, request):
                    subscriptions.drop(subscription)
                    subscription = None
        except LockUnavailable:
            # It may have been granted or queued for all we know; asking now would only hang again.
            self._free_later(request.key, request.token, "", request.lease_ms)
            queued = False
            raise
        finally:
            if queued:
                self._free_for_sure(request.key, request.token, "", request.lease_ms)
            if subscription is not None:
                subscriptions.put_back(subscription)

    def _ask(self, request: Request, subscription: Subscription | None) -> int | None:
        """The fence, if the key is ours now; else we are queued, if there is a subscription."""
        channel, wait_ms = "", 0
        if subscription is not None:
            channel, wait_ms = subscription.channel, request.deadline.left_ms()
        reply = self._run(
            ACQUIRE,
            request.key,
            (request.token, request.lease_ms, request.fence_floor, channel, wait_ms),
        )
        return int(reply[0]) if reply else None

    def _subscribe(self, subscriptions: Subscriptions) -> Subscription:
        try:
            return subscriptions.fresh()
        except (redis.RedisError, OSError) as error:
            raise LockUnavailable(f"Redis: {error}") from error

    def _hear(self, subscription: Subscription, request: Request) -> bool:
        """Wait for the hand-over or for the time to ask again. False: the connection broke."""
        poll_s = POLL_S * random.uniform(0.8, 1.0)  # noqa: S311 - spreads the load, no secret
        try:
            subscription.wait_for(request.token, min(poll_s, request.deadline.left_s()))
        except (redis.RedisError, OSError):
            return False
        return True

    def _renew(self, leases: list[HeldLease]) -> None:
        sent_ns = now_ns()
        client, _ = self._client()
        pipeline = client.pipeline(transaction=False)
        for lease in leases:
            words = _by_sha(RENEW, lease.key, (lease.token, lease.lease_ms))
            pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
        try:
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            raise LockUnavailable(f"Redis: {error}") from error
        for lease, reply in zip(leases, replies, strict=True):
            answer = reply
            if isinstance(reply, redis.exceptions.NoScriptError):
                answer = self._run(RENEW, lease.key, (lease.token, lease.lease_ms))
            if isinstance(answer, Exception):
                raise LockUnavailable(f"Redis: {answer}") from answer
            if answer == 1:
                lease.extend(sent_ns)
            else:
                self._renewer.lose(lease, "Redis no longer has it: it ran out or was wiped.")

    def _free(self, key: str, token: str, place: str) -> bool:
        # The answer says whether the token held the key. After a lost reply and a second try it
        # says no, though the first one released it: either way the token holds nothing now.
        self._run(RELEASE, key, (token,))
        return True

    def _ping(self) -> None:
        self._command("PING")

    def _run(self, script: Script, key: str, arguments: tuple[str | int, ...]) -> Any:
        """A script's reply. Safe to repeat, since all our scripts are, for the same token.

        Raises LockUnavailable.
        """
        try:
            return self._command(*_by_sha(script, key, arguments))
        except redis.exceptions.NoScriptError:
            # A server that was restarted or flushed; it keeps the text from now on.
            return self._command("EVAL", script.text, 4, *lock_keys(key), *arguments)

    def _command(self, *words: str | int) -> Any:
        client, _ = self._client()
        started_ns = now_ns()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return client.execute_command(*words)  # type: ignore[no-untyped-call]
            except redis.exceptions.NoScriptError:
                raise
            except _BROKEN as error:
                if attempt == ATTEMPTS or now_ns() - started_ns > RETRY_WITHIN_S * NS_PER_S:
                    raise LockUnavailable(f"Redis: {error}") from error
                time.sleep(RETRY_PAUSE_S)
            except redis.RedisError as error:
                raise LockUnavailable(f"Redis refused: {error}") from error
        raise AssertionError("unreachable")

    def _client(self) -> tuple[redis.Redis, Subscriptions]:
        """The clients of this process."""
        with self._guard:
            if self._clients is None:
                pool = self._new_pool()
                subscriptions = Subscriptions(lambda: _connection_of(pool))
                self._clients = redis.Redis(connection_pool=pool), subscriptions
            return self._clients

    def _disconnect(self) -> None:
        with self._guard:
            clients, self._clients = self._clients, None
        if clients is not None:
            client, subscriptions = clients
            subscriptions.close()
            client.connection_pool.disconnect()

    def _forget(self) -> None:
        self._guard = threading.Lock()
        if self._clients is not None:
            # Lest a waiter of a parent that dies be taken for alive by its copy in the child.
            self._clients[1].close()
        self._clients = None


def _connection_of(pool: ConnectionPool) -> AbstractConnection:
    """A connection like the pool's, but not of its number: it is held for long."""
    connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
    return connection


def _by_sha(script: Script, key: str, arguments: tuple[str | int, ...]) -> tuple[str | int, ...]:
    return ("EVALSHA", script.sha, 4, *lock_keys(key), *arguments)
