"""Asking Redis: at the right server, again if an answer was lost, and never for long."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

import redis

from locks.clock import NS_PER_S, now_ns
from locks.errors import LockUnavailable
from locks.on_redis.address import RedisAddress
from locks.on_redis.cluster import Cluster
from locks.on_redis.link import LinkBroken, Refused, Reply, packed
from locks.on_redis.node import Node
from locks.on_redis.routes import OneServer, Route
from locks.on_redis.scripts import ACQUIRE, Script
from locks.on_redis.sentinel import Sentinels
from locks.on_redis.subscription import Subscription

# A connection that broke while idle costs one quick retry; a time-out is the answer.
RETRY_WITHIN_S = 0.5
ATTEMPTS, RETRY_PAUSE_S = 4, 0.01
# Replicas have this long to confirm a grant, where that is wanted; less than a reply may take.
CONFIRM_MS = 500
# These say at once what to do next: send the script's text, ask another server (MOVED, ASK).
_NO_PAUSE = (redis.exceptions.NoScriptError, redis.exceptions.AskError)

# The key of a script's run, and its arguments.
Call = tuple[str, tuple[str | int, ...]]


class Caller:
    """All connections of one lock object in one process.

    Every method raises LockUnavailable when Redis does not answer, within about two seconds, or
    when it refuses.
    """

    def __init__(self, address: RedisAddress) -> None:
        """Connects to nothing yet."""
        self._route = _route_to(address)
        self._confirmations = address.wait_replicas

    def run(self, script: Script, key: str, *arguments: str | int) -> Reply:
        """A script's reply. It may run twice, so that must do no harm with the same token."""
        request = script.by_sha(key, *arguments)
        started_ns = now_ns()
        detour: Node | None = None
        for attempt in itertools.count(1):
            node, is_detour = detour, detour is not None
            try:
                if node is None:
                    node = self._route.node_for(key)
                return self._ask(node, script, request, is_detour)
            except (LinkBroken, Refused) as error:
                is_in_vain = self._is_in_vain(node, error)
                if is_in_vain or attempt == ATTEMPTS or _is_late(started_ns):
                    raise self._failure(node, error) from error
                if isinstance(error, redis.exceptions.NoScriptError):
                    # A server that was restarted or flushed. It keeps the text from now on.
                    request, detour = script.by_text(key, *arguments), node if is_detour else None
                else:
                    detour = self._route.detour(error) if isinstance(error, Refused) else None
                if not isinstance(error, _NO_PAUSE):
                    time.sleep(RETRY_PAUSE_S)
        raise AssertionError("unreachable")

    def run_all(self, script: Script, calls: Sequence[Call]) -> Iterator[tuple[int, Reply]]:
        """The number of each of many runs of one script, and its reply, as they come.

        In one round trip to each server; one that broke is asked after the others, lest they wait
        for it. Raises nothing: a run that failed has its LockUnavailable in its reply's place.
        """
        started_ns = now_ns()
        left: Sequence[int] = range(len(calls))
        for attempt in range(1, ATTEMPTS + 1):
            failures: dict[int, LinkBroken | Refused] = {}
            for number, reply in self._ask_all(script, calls, left):
                if isinstance(reply, LinkBroken | Refused):
                    failures[number] = reply
                else:
                    yield number, reply
            left = [number for number in failures if isinstance(failures[number], LinkBroken)]
            is_last = attempt == ATTEMPTS or _is_late(started_ns)
            for number, failure in failures.items():
                if is_last or isinstance(failure, Refused):
                    yield number, LockUnavailable(f"Redis: {failure}")
            if is_last or not left:
                return
            time.sleep(RETRY_PAUSE_S)

    @property
    def wants_confirmation(self) -> bool:
        """Whether replicas must confirm a grant before it counts."""
        return self._confirmations > 0

    def idle_subscription(self, key: str) -> Subscription | None:
        """One that is connected to the server where the key is, and not in use, if there is any."""
        return self._node_for(key).subscriptions.idle()

    def subscribe(self, key: str) -> Subscription:
        """A new subscription at the server where the key is."""
        for attempt in itertools.count(1):
            node = self._node_for(key)
            try:
                return node.subscriptions.fresh()
            except (LinkBroken, Refused) as error:
                self._broke(node)
                # Another server may have taken over meanwhile.
                if attempt == ATTEMPTS or self._node_for(key) is node:
                    raise LockUnavailable(f"Redis at {node}: {error}") from error
        raise AssertionError("unreachable")

    def is_where(self, subscription: Subscription, key: str) -> bool:
        """Whether it is connected to the server where the key is now."""
        return subscription.home is self._node_for(key).subscriptions

    def nodes(self) -> list[Node]:
        """All servers that may hold a key."""
        try:
            return self._route.nodes()
        except (LinkBroken, Refused) as error:
            raise LockUnavailable(f"Redis: {error}") from error

    def ping(self) -> None:
        """Ask every server for a sign of life."""
        for node in self.nodes():
            try:
                node.ping()
            except (LinkBroken, Refused) as error:
                self._broke(node)
                raise LockUnavailable(f"Redis at {node}: {error}") from error

    def close(self) -> None:
        """Close all connections; threads that wait are woken."""
        self._route.close()

    def abandon(self) -> None:
        """Close a forked child's copies of the connections without a word to Redis."""
        self._route.abandon()

    def _node_for(self, key: str) -> Node:
        try:
            return self._route.node_for(key)
        except (LinkBroken, Refused) as error:
            raise LockUnavailable(f"Redis: {error}") from error

    def _broke(self, node: Node) -> None:
        node.broke_ns = now_ns()
        self._route.broke(node)

    def _is_in_vain(self, node: Node | None, error: LinkBroken | Refused) -> bool:
        """Take note of a failure; gives whether it would come again if one asked again."""
        if isinstance(error, LinkBroken):
            if node is not None:
                self._broke(node)
            return False
        if node is None:
            return True
        if isinstance(error, redis.exceptions.NoScriptError):
            return False
        return self._route.detour(error) is None and not self._route.refused(node, error)

    def _failure(self, node: Node | None, error: LinkBroken | Refused) -> LockUnavailable:
        if isinstance(error, Refused):
            return LockUnavailable(f"Redis refused: {error}{self._route.advice(error)}")
        return LockUnavailable(f"Redis at {node}: {error}" if node else f"Redis: {error}")

    def _ask_all(
        self, script: Script, calls: Sequence[Call], asked: Sequence[int]
    ) -> Iterator[tuple[int, Reply]]:
        """The replies to the calls `asked`, or the failure of each."""
        by_node: dict[Node, list[int]] = defaultdict(list)
        for number in asked:
            try:
                by_node[self._route.node_for(calls[number][0])].append(number)
            except (LinkBroken, Refused) as error:
                yield number, error
        for node in sorted(by_node, key=lambda node: node.broke_ns):
            numbers = by_node[node]
            requests = [script.by_sha(calls[number][0], *calls[number][1]) for number in numbers]
            answers: Sequence[Reply]
            try:
                answers = node.ask_all(requests)
            except (LinkBroken, Refused) as error:  # the latter if the server lets nobody in
                if isinstance(error, LinkBroken):
                    self._broke(node)
                answers = [error] * len(numbers)
            answered_ns = now_ns()
            for number, answer in zip(numbers, answers, strict=True):
                if isinstance(answer, Refused) and not _is_late(answered_ns):
                    key, arguments = calls[number]
                    try:  # a script not known, a key moved
                        answer = self.run(script, key, *arguments)
                    except LockUnavailable as error:
                        answer = error
                yield number, answer

    def _ask(self, node: Node, script: Script, request: bytes, is_detour: bool) -> Reply:
        if is_detour:
            return node.ask_after(packed("ASKING"), request)
        if script is not ACQUIRE or not self._confirmations:
            return node.ask(request)
        wait = packed("WAIT", self._confirmations, CONFIRM_MS)
        reply, confirmed = replies = node.ask_all([request, wait])
        for refusal in replies:
            if isinstance(refusal, Refused):
                raise refusal
        if isinstance(reply, bytes) and confirmed < self._confirmations:
            raise LinkBroken(
                f"{confirmed} of {self._confirmations} replicas confirmed the lease in time."
            )
        return reply


def _route_to(address: RedisAddress) -> Route:
    if address.is_cluster:
        return Cluster(address)
    if address.master is not None:
        return Sentinels(address, address.master)
    return OneServer(address.servers[0])


def _is_late(started_ns: int) -> bool:
    return now_ns() - started_ns > RETRY_WITHIN_S * NS_PER_S
