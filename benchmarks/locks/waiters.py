"""What waiters cost while they wait, and what becomes of the second when the first is gone."""

import time
from dataclasses import dataclass

from benchmarks.locks.contenders import QUEUE, Contender
from benchmarks.locks.crew import Crew, Gang, Worker, WorkerFailed

NS_PER_S = 1_000_000_000
# For waiters to have asked, and their clients to have come to rest.
SETTLE_S = 0.4
# Leases and sessions of the queue's contenders: short, since some are waited out.
QUEUE_LEASE_MS = 4_000
# Between two contenders' releases, so that they do not disturb each other.
STAGGER_S = 0.1

KILLED, FROZEN = "killed", "frozen"


@dataclass(frozen=True)
class Idle:
    """What waiters did while they waited."""

    share: float
    """CPU of all of them, as a share of one core."""
    switches: float
    """How often one of them was given a core. Unlike the share it depends on no machine."""


def measure_idle(gang: Gang, key: str, for_s: float) -> Idle:
    """Of all workers but the first, which holds the key."""
    holder, waiters = gang.workers[0], gang.workers[1:]
    holder.ask("take", key=key)
    for waiter in waiters:
        waiter.tell("take", key=key)
    time.sleep(SETTLE_S)
    switches, cpu_ns, start_ns = _switches(waiters), _cpu_ns(waiters), time.monotonic_ns()
    time.sleep(for_s)
    share = (_cpu_ns(waiters) - cpu_ns) / (time.monotonic_ns() - start_ns)
    switches = _switches(waiters) - switches
    holder.ask("give")
    left = list(waiters)
    while left:  # in whatever order they are served
        served = Worker.first_to_answer(left)
        left.remove(served)
        served.ask("give")
    return Idle(share, switches / len(waiters))


def _cpu_ns(workers: list[Worker]) -> int:
    return sum(worker.cpu_ns() for worker in workers)


def _switches(workers: list[Worker]) -> int:
    return sum(worker.switches() for worker in workers)


@dataclass
class _Queue:
    """A holder and two waiters, in the order in which they asked."""

    contender: Contender
    key: str
    holder: Worker
    first: Worker
    second: Worker


Delay = tuple[Contender, str, int]


def measure_queue(
    crew: Crew, contenders: list[Contender], addresses: dict[str, str]
) -> tuple[list[Delay], list[str]]:
    """From the release to the second waiter's hold, in ns; and what went wrong.

    All contenders wait at the same time, each with workers of its own, since waiting costs nearly
    nothing and takes long.
    """
    delays: list[Delay] = []
    failures: list[str] = []
    for fate in (KILLED, FROZEN):
        queues = [
            _Queue(contender, f"{contender.name}-{QUEUE}-{fate}", *crew.workers[at : at + 3])
            for at, contender in zip(range(0, 3 * len(contenders), 3), contenders, strict=True)
        ]
        try:
            _line_up(queues, addresses)
            delays += _serve(queues, fate, failures)
        except WorkerFailed as error:
            failures.append(f"{QUEUE}, first waiter {fate}: {error}")
        crew.replace(*(worker for q in queues for worker in (q.holder, q.first, q.second)))
    return delays, failures


def _line_up(queues: list[_Queue], addresses: dict[str, str]) -> None:
    for queue in queues:
        for worker in (queue.holder, queue.first, queue.second):
            name, address = queue.contender.name, addresses[queue.contender.service]
            worker.ask("open", contender=name, address=address, lease_ms=QUEUE_LEASE_MS)
            # Connects what is connected on first use only.
            worker.ask("take", key=f"{queue.key}-warm")
            worker.ask("give")
    for queue in queues:
        queue.holder.ask("take", key=queue.key)
    for queue in queues:
        queue.first.tell("take", key=queue.key)
    time.sleep(SETTLE_S)
    for queue in queues:
        queue.second.tell("take", key=queue.key)
    time.sleep(SETTLE_S)


def _serve(queues: list[_Queue], fate: str, failures: list[str]) -> list[Delay]:
    """Lose the first waiter, release, and see when the second holds."""
    given_ns: dict[str, int] = {}
    delays: list[Delay] = []

    def noted(queue: _Queue, error: WorkerFailed) -> None:
        failures.append(f"{QUEUE}, first waiter {fate}, {queue.contender.title}: {error}")

    for queue in queues:
        if fate == KILLED:
            queue.first.kill()
        else:
            queue.first.freeze()
        time.sleep(STAGGER_S)
        try:
            given_ns[queue.key] = queue.holder.ask("give")["giving_ns"]
        except WorkerFailed as error:
            noted(queue, error)
        time.sleep(STAGGER_S)
    for queue in (each for each in queues if each.key in given_ns):
        try:
            held_ns = queue.second.answer()["held_ns"]
            delays.append((queue.contender, fate, held_ns - given_ns[queue.key]))
        except WorkerFailed as error:
            noted(queue, error)
    return delays
