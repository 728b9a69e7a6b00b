"""The six things that are measured, each for one round.

    cycle    one process, one key that nobody else wants: take and give back, beside the floor
    crowd    16 processes, one key, holds of 1 ms: first so many turns each, then a closed loop
    gthread  the same turns in 4 processes of 4 threads, as gunicorn's gthread workers have it
    keys     one process, 1 to 64 threads, each with a key of its own
    idle     15 processes blocked behind one holder: their CPU
    queue    the first of two waiters is killed, or frozen: when does the second get its turn

Contenders come in another order in each round, so that none always has the same neighbour.
"""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.locks.book import Book, Entry
from benchmarks.locks.contenders import (
    CONTENDERS,
    CROWD,
    CYCLE,
    GTHREAD,
    IDLE,
    KEYS,
    MEASURES,
    MS_PER_S,
    QUEUE,
    Client,
    Contender,
    floor_of,
)
from benchmarks.locks.crew import Crew, Gang, WorkerFailed
from benchmarks.locks.figures import Crowd, Turn, TwoHolders, crowd, jain
from benchmarks.locks.waiters import measure_idle, measure_queue

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000
LEASE_MS = 10_000
HOLD_S = 0.001
# From the order to begin until the beginning: for all processes to have read it.
START_NS = 100 * NS_PER_MS
GTHREAD_PROCESSES, GTHREAD_THREADS = 4, 4
# A slice is short enough that the machine's mood is the same for all in it.
SLICE_NS = 10 * NS_PER_MS
# Floor and contender are measured in turn so many times; of each the median counts.
SPINS = 3
# So many times its lease a waiter is watched.
IDLE_LEASES = 1.1
# Keys come back, as they do where an order is paid in several steps.
KEYS_IN_TURN = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run measures."""

    rounds: int
    rare_rounds: int
    """For what takes long and varies little: queue and keys."""
    idle_rounds: int
    slices: int
    turns: int
    """Of each process in a crowd."""
    loop_s: float
    idle_lease_ms: int
    """Of what renews: who waits for it may ask again no more often than once in this time."""
    polling_s: float
    """How long those are watched who ask again and again."""
    spin_s: float
    threads: tuple[int, ...]


FULL = Plan(
    rounds=5,
    rare_rounds=2,
    idle_rounds=2,
    slices=60,
    turns=16,
    loop_s=2.0,
    idle_lease_ms=15_000,  # the shop's own
    polling_s=3.0,
    spin_s=0.1,
    threads=(1, 2, 4, 8, 16, 32, 64),
)
QUICK = Plan(
    rounds=2,
    rare_rounds=1,
    idle_rounds=1,
    slices=30,
    turns=6,
    loop_s=0.6,
    idle_lease_ms=3_000,
    polling_s=1.0,
    spin_s=0.07,
    threads=(1, 8, 64),
)


class Round:
    """One round of a run: the chosen measures on the chosen contenders."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        crew: Crew,
        addresses: dict[str, str],
        book: Book,
        say: Callable[[str], None],
    ) -> None:
        self._number = number
        self._plan = plan
        self._crew = crew
        self._addresses = addresses
        self._book = book
        self._say = say

    def measure(
        self, measure: str, contenders: list[Contender], clients: dict[str, Client]
    ) -> None:
        """Take one measure of all. A contender that fails is noted, and the run goes on."""
        order = random.sample(contenders, len(contenders))
        if measure == CYCLE:
            self._say(f"round {self._number}: {measure}")
            self._cycle(order, clients)
        elif measure == QUEUE:
            self._say(f"round {self._number}: {measure}")
            delays, failures = measure_queue(self._crew, order, self._addresses)
            for contender, figure, delay_ns in delays:
                self._note(QUEUE, contender, figure, delay_ns / NS_PER_MS)
            self._book.failures += failures
        else:
            self._one_by_one(measure, order)

    def _one_by_one(self, measure: str, order: list[Contender]) -> None:
        ways = {CROWD: self._crowd, GTHREAD: self._gthread, KEYS: self._keys, IDLE: self._idle}
        for contender in order:
            self._say(f"round {self._number}: {measure}, {contender.title}")
            try:
                ways[measure](contender)
            except (WorkerFailed, TwoHolders) as error:
                self._book.failures.append(f"{measure}, {contender.title}: {error}")

    def _cycle(self, order: list[Contender], clients: dict[str, Client]) -> None:
        """Slices of all in turn; of each the mean time of a cycle; of a round's slices the median.

        A slice in which the machine was busy elsewhere so costs nobody his figure.
        """
        wall: dict[str, list[float]] = {contender.name: [] for contender in order}
        cpu: dict[str, list[float]] = {contender.name: [] for contender in order}
        for _ in range(self._plan.slices):
            for contender in random.sample(order, len(order)):
                name = contender.name
                times = _slice(clients[name].take, name)
                wall[name].append(times[0])
                cpu[name].append(times[1])
        wall_ns = {name: statistics.median(times) for name, times in wall.items()}
        cpu_ns = {name: statistics.median(times) for name, times in cpu.items()}
        for contender in order:
            floor, name = floor_of(contender.service), contender.name
            self._note(CYCLE, contender, "us", wall_ns[name] / 1_000)
            self._note(CYCLE, contender, "of_floor", wall_ns[floor] / wall_ns[name])
            self._note(CYCLE, contender, "cpu_of_floor", cpu_ns[name] / cpu_ns[floor])

    def _crowd(self, contender: Contender) -> None:
        with self._crew.at(contender, self._addresses[contender.service], LEASE_MS) as gang:
            key = f"{contender.name}-{CROWD}"
            for count in (1, self._plan.turns):  # the first makes the connections
                turns = gang.work(key, threads=1, hold_s=HOLD_S, start_ns=_soon(), count=count)
            self._note(CROWD, contender, "drain", crowd(_flat(turns)).drain)
            start_ns = _soon()
            until_ns = start_ns + int(self._plan.loop_s * NS_PER_S)
            turns = gang.work(key, threads=1, hold_s=HOLD_S, start_ns=start_ns, until_ns=until_ns)
        loop = crowd(_flat(turns))
        shares = [sum(1 for turn in each if turn.held_ns < until_ns) for each in turns]
        # Hundreds a second, and few of them while all make their first requests at once.
        self._note_handover(CROWD, contender, loop)
        self._note(CROWD, contender, "jain", jain(shares))
        self._note(CROWD, contender, "longest_wait_ms", loop.longest_wait_ns / NS_PER_MS)

    def _gthread(self, contender: Contender) -> None:
        address = self._addresses[contender.service]
        with self._crew.at(contender, address, LEASE_MS, GTHREAD_PROCESSES) as gang:
            for count in (1, self._plan.turns):  # the first makes the connections
                turns = gang.work(
                    f"{contender.name}-{GTHREAD}",
                    threads=GTHREAD_THREADS,
                    hold_s=HOLD_S,
                    start_ns=_soon(),
                    count=count,
                )
        found = crowd(_flat(turns))
        self._note(GTHREAD, contender, "drain", found.drain)
        self._note_handover(GTHREAD, contender, found)

    def _keys(self, contender: Contender) -> None:
        """Beside each number of threads, in turn with it: the floor with one thread."""
        address, floor = self._addresses[contender.service], CONTENDERS[floor_of(contender.service)]
        with (
            self._crew.at(floor, address, LEASE_MS, 1) as base,
            self._crew.at(contender, address, LEASE_MS, 1, first=1) as gang,
        ):
            for threads in self._plan.threads:
                names = [f"{contender.name}-{KEYS}-{number}" for number in range(threads)]
                rates = [
                    (self._rate(base, names[:1]), self._rate(gang, names)) for _ in range(SPINS)
                ]
                for figure, values in zip(("base", "rate"), zip(*rates, strict=True), strict=True):
                    self._note(KEYS, contender, f"{figure}_{threads}", statistics.median(values))

    def _rate(self, gang: Gang, keys: list[str]) -> float:
        """Cycles per second of one worker with a thread for each key."""
        answer = gang.workers[0].ask("spin", keys=keys, for_s=self._plan.spin_s)
        return float(answer["cycles"] * NS_PER_S / answer["took_ns"])

    def _idle(self, contender: Contender) -> None:
        # What renews is watched for longer than its lease, so that no waiter's question is missed.
        lease_ms, for_s = LEASE_MS, self._plan.polling_s
        if contender.renews:
            lease_ms = self._plan.idle_lease_ms
            for_s = IDLE_LEASES * lease_ms / MS_PER_S
        with self._crew.at(contender, self._addresses[contender.service], lease_ms) as gang:
            idle = measure_idle(gang, f"{contender.name}-{IDLE}", for_s)
        self._note(IDLE, contender, "percent_of_core", idle.share * 100)
        self._note(IDLE, contender, "switches_per_s", idle.switches / for_s)
        self._note(IDLE, contender, "lease_s", lease_ms / MS_PER_S)

    def _note_handover(self, measure: str, contender: Contender, found: Crowd) -> None:
        if found.handover is not None:
            self._note(measure, contender, "handover", found.handover)

    def _note(self, measure: str, contender: Contender, figure: str, value: float) -> None:
        self._book.entries.append(Entry(measure, contender.name, figure, self._number, value))


def warm_up(clients: dict[str, Client]) -> None:
    """Take every key of `cycle` once, so that nothing is made for the first time in a slice."""
    for name, client in clients.items():
        for key in _cycle_keys(name):
            client.take(key)()


def measures_of_round(plan: Plan, number: int, chosen: list[str]) -> list[str]:
    """What is measured in round `number`, counted from 1."""
    left_out = {QUEUE, KEYS} if number > plan.rare_rounds else set()
    if number > plan.idle_rounds:
        left_out.add(IDLE)
    return [measure for measure in MEASURES if measure in chosen and measure not in left_out]


def _slice(take: Callable[[str], Callable[[], object]], name: str) -> tuple[float, float]:
    """Mean wall and CPU time of a cycle, in ns, over one slice."""
    keys = _cycle_keys(name)
    cycles = 0
    take(keys[0])()  # wakes what fell asleep while the others had their turn
    cpu_ns, start_ns = time.process_time_ns(), time.perf_counter_ns()
    end_ns = start_ns + SLICE_NS
    while (now_ns := time.perf_counter_ns()) < end_ns:
        take(keys[cycles % KEYS_IN_TURN])()
        cycles += 1
    return (now_ns - start_ns) / cycles, (time.process_time_ns() - cpu_ns) / cycles


def _cycle_keys(name: str) -> list[str]:
    return [f"{name}-{CYCLE}-{number}" for number in range(KEYS_IN_TURN)]


def _flat(turns: list[list[Turn]]) -> list[Turn]:
    return [turn for each in turns for turn in each]


def _soon() -> int:
    return time.monotonic_ns() + START_NS
