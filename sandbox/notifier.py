"""The gateways' own time: one thread watches what is due, a few send notices.

Started by the first request in the process that serves (so that no thread is lost in a fork), and
stopped at exit. The queue is in the store: a process that dies loses nothing, and two processes on
one store do not send the same notice at once.
"""

import atexit
import contextlib
import os
import queue
import sqlite3
import threading

from sandbox import clock, events, fault_orders, notices, settings
from sandbox.delivery import deliver
from sandbox.dials import Dials
from sandbox.fault_orders import NOTICE, SENDINGS
from sandbox.merchants import Merchants
from sandbox.notices import Notice
from sandbox.store import Store

# Slow receivers hold a sender for up to the time-out; others must not wait behind them.
SENDERS = 8
# How often the store is looked at for what another process put there.
LOOK_S = 0.25


class Notifier:
    """Threads of this process; see the module."""

    def __init__(self, dials: Dials, merchants: Merchants, store: Store) -> None:
        self._dials = dials
        self._merchants = merchants
        self._store = store
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(SENDERS)

    def ensure_started(self) -> None:
        """Start the threads of this process, once."""
        if self._pid != os.getpid():  # forked: the threads stayed behind, start our own
            self._reset()
        with self._guard:
            if self._threads or self._stopping.is_set():
                return
            targets = [self._watch] + [self._send] * SENDERS
            self._threads = [
                threading.Thread(target=target, name=f"sandbox-notifier-{number}", daemon=True)
                for number, target in enumerate(targets)
            ]
            for thread in self._threads:
                thread.start()
        atexit.register(self.stop)

    def wake(self) -> None:
        """Look at the store now: something was queued."""
        self._wake.set()

    def stop(self) -> None:
        """Let the sendings under way end, then end the threads. Safe to repeat."""
        if self._pid != os.getpid():
            return
        self._stopping.set()
        self._wake.set()
        for _ in range(SENDERS):
            self._work.put(None)
        with self._guard:
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(timeout=self._dials.config.notice_timeout_s + 5)
        atexit.unregister(self.stop)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            wait_s = LOOK_S
            # A locked or full disk: nothing is lost, the next look tries again.
            with contextlib.suppress(sqlite3.OperationalError):
                wait_s = self._look()
            self._wake.wait(wait_s)

    def _look(self) -> float:
        """Do what is due and give the seconds until the next look."""
        now = clock.now_ms()
        with self._store.read() as tx:
            due = notices.next_due_ms(tx)
        if due is None:
            return LOOK_S
        if due > now:
            return min(LOOK_S, (due - now) / 1_000)
        free = self._claim_senders()
        found: list[Notice] = []
        try:
            with self._store.write() as tx:
                events.time_passes(tx, self._merchants, now)
                found = notices.claim_due(tx, free, now)
        finally:
            for _ in range(free - len(found)):
                self._free.release()
        for notice in found:
            self._work.put(notice)
        # With every sender busy, their end wakes us; with work left over, look again at once.
        return LOOK_S if len(found) == free else 0.0

    def _claim_senders(self) -> int:
        free = 0
        while self._free.acquire(blocking=False):
            free += 1
        return free

    def _send(self) -> None:
        while (notice := self._work.get()) is not None:
            try:
                self._deliver(notice)
            finally:
                self._free.release()
                self._wake.set()

    def _deliver(self, notice: Notice) -> None:
        if self._stopping.is_set():
            with self._store.write() as tx:
                notices.release(tx, notice, clock.now_ms())
            return
        keys = self._merchants.of(notice.merchant)
        with self._store.read() as tx:
            signed_by = settings.get(tx, notice.merchant, "wechatpay_notices")
        fault = fault_orders.next_of(self._store, notice.channel, NOTICE, notice.merchant, SENDINGS)
        config = self._dials.config
        delivery = deliver(keys, notice, signed_by, config.notice_timeout_s, fault)
        # If this fails for good the claim runs out and the notice is sent again.
        with contextlib.suppress(sqlite3.OperationalError), self._store.write() as tx:
            now = clock.now_ms()
            notices.record(tx, notice, delivery, config.time_scale, now)
