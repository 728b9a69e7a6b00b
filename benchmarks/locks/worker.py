"""One process of the crew: reads a command per line, answers a line, both JSON.

    {"do": "hello"}                                 answers {}, once it has come up
    {"do": "open", "contender": "kazoo", "address": "127.0.0.1:2181", "lease_ms": 10000}
    {"do": "take", "key": "k"}                      answers when it holds: {"held_ns": …}
    {"do": "give"}                                  {"giving_ns": …}
    {"do": "work", "key": "k", "threads": 4, "hold_s": 0.001, "start_ns": …,
     "count": 10}  (or "until_ns": …)               {"turns": …}: per thread, per turn, asked,
                                                    held, giving, given
    {"do": "spin", "keys": ["a", "b"], "for_s": 0.5}  a thread per key; {"cycles": …, "took_ns": …}
    {"do": "close"}

Whatever goes wrong is answered as {"error": …}. The process ends with its input.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.locks.contenders import CONTENDERS, Client, Release

NS_PER_S = 1_000_000_000
# For all threads of a spin to have connected.
START_TIMEOUT_S = 60.0


class Worker:
    """Carries out the commands."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._release: Release | None = None

    def carry_out(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command. Raises whatever the lock raises."""
        what = command.pop("do")
        actions: dict[str, Callable[..., dict[str, Any]]] = {
            "hello": dict,
            "open": self._open,
            "take": self._take,
            "give": self._give,
            "work": self._work,
            "spin": self._spin,
            "close": self._close,
        }
        return actions[what](**command)

    def _connected(self) -> Client:
        if self._client is None:
            raise RuntimeError("nothing is open")
        return self._client

    def _open(self, contender: str, address: str, lease_ms: int) -> dict[str, Any]:
        self._client = CONTENDERS[contender].connect(address, lease_ms)
        return {}

    def _close(self) -> dict[str, Any]:
        self._connected().close()
        self._client = None
        return {}

    def _take(self, key: str) -> dict[str, Any]:
        self._release = self._connected().take(key)
        return {"held_ns": time.monotonic_ns()}

    def _give(self) -> dict[str, Any]:
        if self._release is None:
            raise RuntimeError("nothing is held")
        giving_ns = time.monotonic_ns()
        self._release()
        return {"giving_ns": giving_ns}

    def _work(
        self,
        key: str,
        threads: int,
        hold_s: float,
        start_ns: int,
        count: int | None = None,
        until_ns: int | None = None,
    ) -> dict[str, Any]:
        """Closed loop. Who asked before the end has its turn after it too, so no wait is cut."""
        take = self._connected().take
        turns: list[list[tuple[int, int, int, int]]] = [[] for _ in range(threads)]

        def loop(mine: list[tuple[int, int, int, int]]) -> None:
            time.sleep(max(0, start_ns - time.monotonic_ns()) / NS_PER_S)
            while (count is None or len(mine) < count) and (
                until_ns is None or time.monotonic_ns() < until_ns
            ):
                asked_ns = time.monotonic_ns()
                release = take(key)
                held_ns = time.monotonic_ns()
                time.sleep(hold_s)
                giving_ns = time.monotonic_ns()
                release()
                mine.append((asked_ns, held_ns, giving_ns, time.monotonic_ns()))

        _side_by_side([partial(loop, mine) for mine in turns])
        return {"turns": turns}

    def _spin(self, keys: list[str], for_s: float) -> dict[str, Any]:
        """Cycles without a hold, each thread on a key of its own; all connected beforehand."""
        take = self._connected().take
        counts = [0] * len(keys)
        ready = threading.Barrier(len(keys) + 1, timeout=START_TIMEOUT_S)
        span_ns: list[int] = []

        def loop(place: int) -> None:
            take(keys[place])()
            ready.wait()
            end_ns = time.monotonic_ns() + int(for_s * NS_PER_S)
            while time.monotonic_ns() < end_ns:
                take(keys[place])()
                counts[place] += 1

        def watch() -> None:
            ready.wait()
            span_ns.append(time.monotonic_ns())

        _side_by_side([watch, *(partial(loop, place) for place in range(len(keys)))])
        return {"cycles": sum(counts), "took_ns": time.monotonic_ns() - span_ns[0]}


def _side_by_side(jobs: list[Callable[[], None]]) -> None:
    """Run each in a thread of its own; raises the first error."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - it is raised by the caller's thread
            errors.append(error)

    if len(jobs) == 1:
        jobs[0]()
        return
    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def main() -> None:
    """Serve until the input ends."""
    logging.disable(logging.CRITICAL)  # libraries tell of every wait
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.carry_out(json.loads(line))
        except Exception as error:  # noqa: BLE001 - every failure is the run's to judge
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
