"""`make bench-locks`: measure our locks beside the known ones, on private servers, in one run.

    python -m benchmarks.locks                     about ten minutes: five rounds
    python -m benchmarks.locks --quick             one to two minutes: two rounds, rough figures
    python -m benchmarks.locks --only crowd --only ours-redis --only kazoo
    python -m benchmarks.locks --write-docs        put the last run's tables into docs/locking.md

Shows tables and writes locks.json and locks.svg into benchmarks/out/.
"""

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import redis

from benchmarks.locks.book import Book, NoBook
from benchmarks.locks.contenders import (
    CONTENDERS,
    CYCLE,
    KEYS,
    MEASURES,
    Client,
    Contender,
)
from benchmarks.locks.crew import Crew
from benchmarks.locks.measures import FULL, LEASE_MS, QUICK, Plan, Round, measures_of_round, warm_up
from benchmarks.locks.plot import draw
from benchmarks.locks.report import NoMarkers, as_text, write_into
from tests.processes import MissingProgram, ProcessFailed, make_folder, remove_folder
from tests.services import RedisServer, ZooKeeperServer

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benchmarks" / "out"
PAGE, PICTURE = ROOT / "docs" / "locking.md", ROOT / "docs" / "pictures" / "bench-locks.svg"
LIBRARIES = ("redis", "python-redis-lock", "pottery", "sherlock", "kazoo")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Gives its exit status: 1 if anything failed, 2 for a bad argument."""
    options = _options(arguments)
    try:
        if options.write_docs:
            return _write_docs(options.out)
        chosen = _chosen(options.only)
        options.out.mkdir(parents=True, exist_ok=True)  # now, and not when all is measured
    except (NoBook, NoMarkers, _BadChoice, OSError) as error:
        print(f"bench-locks: {error}", file=sys.stderr)
        return 2
    plan = QUICK if options.quick else FULL
    try:
        book = _run(plan, *chosen, is_quick=options.quick)
    except (MissingProgram, ProcessFailed) as error:
        print(f"bench-locks: {error}", file=sys.stderr)
        return 1
    return report(book, options.out)


def report(book: Book, out: Path) -> int:
    """Write and show what a run found. Gives the exit status: 1 if a contender failed."""
    book.write(out / "locks.json")
    (out / "locks.svg").write_text(draw(book), encoding="utf-8")
    print(as_text(book))
    print(f"\nfigures: {out / 'locks.json'}, picture: {out / 'locks.svg'}")
    return 1 if book.failures else 0


class _BadChoice(ValueError):
    """--only with a name that is nothing's."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench-locks", description="Our locks beside the known ones, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="one to two minutes, rough figures")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a measure or a contender; may be repeated. Measures: "
        f"{', '.join(MEASURES)}. Contenders: {', '.join(CONTENDERS)}.",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="no run: the last one's tables into the page"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the figures go")
    return parser.parse_args(arguments)


def _chosen(only: list[str]) -> tuple[list[str], list[Contender]]:
    """Measures and contenders by their names; none of a kind means all of it."""
    for name in only:
        if name not in MEASURES and name not in CONTENDERS:
            raise _BadChoice(
                f"--only {name}: there is no such measure or contender.\n"
                f"Measures: {', '.join(MEASURES)}.\nContenders: {', '.join(CONTENDERS)}."
            )
    measures = [name for name in MEASURES if name in only] or list(MEASURES)
    names = [name for name in CONTENDERS if name in only] or list(CONTENDERS)
    services = {CONTENDERS[name].service for name in names}
    return measures, [
        each
        for each in CONTENDERS.values()
        if each.name in names or (each.is_floor and each.service in services)
    ]


def _run(plan: Plan, measures: list[str], contenders: list[Contender], *, is_quick: bool) -> Book:
    say = _progress()
    services = {contender.service for contender in contenders}
    with ExitStack() as stack:
        say("starting servers and processes")
        addresses, servers = _addresses(services, stack)
        crew = stack.enter_context(Crew())
        book = Book(_about(plan, servers, is_quick=is_quick))
        clients: dict[str, Client] = {}
        if CYCLE in measures:
            for contender in contenders:
                if CYCLE in contender.measures:
                    client = contender.connect(addresses[contender.service], LEASE_MS)
                    stack.callback(client.close)
                    clients[contender.name] = client
            warm_up(clients)
        for number in range(1, plan.rounds + 1):
            one = Round(number, plan, crew, addresses, book, say)
            for measure in measures_of_round(plan, number, measures):
                among = [each for each in contenders if measure in each.measures]
                # A floor alone is no comparison.
                if any(not each.is_floor for each in among) or measure in {CYCLE, KEYS}:
                    one.measure(measure, among, clients)
        say("")
    return book


def _addresses(services: set[str], stack: ExitStack) -> tuple[dict[str, str], dict[str, str]]:
    """Private servers; gives where they are, and what they are."""
    addresses: dict[str, str] = {}
    servers: dict[str, str] = {}
    if "redis" in services:
        server = stack.enter_context(RedisServer())
        addresses["redis"] = server.url
        with redis.Redis.from_url(server.url) as client:
            servers["Redis"] = str(client.info("server")["redis_version"])
    if "zookeeper" in services:
        addresses["zookeeper"] = stack.enter_context(ZooKeeperServer()).hosts
        servers["ZooKeeper"] = "one server, not flushing to disk"
    if "file" in services:
        folder = make_folder("bench-locks")
        stack.callback(remove_folder, folder)
        addresses["file"] = f"file://{folder}"
    return addresses, servers


def _about(plan: Plan, servers: dict[str, str], *, is_quick: bool) -> dict[str, str]:
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "rounds": f"{plan.rounds}{', quick: rough figures' if is_quick else ''}; shown are "
        "medians over the rounds (lowest to highest)",
        "machine": f"{os.cpu_count()} cores, loopback, load {os.getloadavg()[0]:.1f} at the start",
        "software": f"Python {platform.python_version()}, {libraries}",
        **({"servers": ", ".join(f"{n} {v}" for n, v in servers.items())} if servers else {}),
    }


def _write_docs(out: Path) -> int:
    book = Book.read(out / "locks.json")
    write_into(PAGE, book, f"![the run as a picture](pictures/{PICTURE.name})")
    PICTURE.write_text(draw(book), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} have the run's figures.")
    return 0


def _progress() -> Callable[[str], None]:
    """Says where the run is: on one line that is written over, or on lines of a log."""
    is_terminal, start = sys.stderr.isatty(), time.monotonic()

    def say(what: str) -> None:
        if is_terminal:
            clock = f"{time.monotonic() - start:4.0f} s  " if what else ""
            print(f"\r\x1b[K{clock}{what}", end="", file=sys.stderr, flush=True)
        elif what:
            print(f"{time.monotonic() - start:4.0f} s  {what}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # libraries tell of every wait
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nbench-locks: broken off; nothing was written.")
