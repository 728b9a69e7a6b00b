"""`make bench`: the price of one points-only payment, as ratios to a hand-written floor.

Three ways pay orders of the same kind on the same PostgreSQL and Redis, interleaved in one run:
the floor (`floor.py`), the service layer in this process, and the whole shop over HTTP (sign-in
session, CSRF check, dedup table). The shop runs with LOG_LEVEL=WARNING, so that neither of its
two ways logs anything per payment. What counts is payments per CPU-second of the process that
does the work (the servers' own CPU is left out: it is much the same for all three); of the rounds
the median is shown, with the lowest and the highest. Writes benchmarks/out/pay.json as well.
"""

import json
import os
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from flask import Flask
from sqlalchemy import select

from benchmarks.floor import Floor
from shop.commands.seed_data import DEMO_MEMBERS, DEMO_PASSWORD
from shop.db import db, transaction
from shop.members.models import Member
from shop.payments.contract import PayCommand
from shop.points.service import grant
from shop.wiring import Parts
from tests.invariants import broken
from tests.processes import make_folder, remove_folder
from tests.services import PostgresServer, RedisServer
from tests.shopclient import MemberClient
from tests.shopkit import Sandbox, ShopKit, make_order, make_product

ROUNDS = 7
PAYMENTS_PER_ROUND = 150
WARM_UP = 30
OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One round of one way: CPU and wall seconds for `PAYMENTS_PER_ROUND` payments."""

    cpu_s: float
    wall_s: float

    @property
    def per_cpu_s(self) -> float:
        """Payments per CPU-second."""
        return PAYMENTS_PER_ROUND / self.cpu_s


def main() -> None:
    """Run it and print the table."""
    folder = make_folder("bench")
    with PostgresServer() as postgres, RedisServer() as redis_server, Sandbox() as sandbox:
        url = postgres.create_database()
        kit = ShopKit(
            database_url=url,
            lock_url=redis_server.url,
            sandbox=sandbox,
            folder=folder,
            extra_env={"LOG_LEVEL": "WARNING"},
        ).migrate()
        try:
            with kit.app() as app:
                samples = _run(kit, app, redis_server.url)
        finally:
            kit.stop()
        wrong = broken(url)
    remove_folder(folder)
    if wrong:
        raise SystemExit("the books do not balance after the run:\n" + "\n".join(wrong))
    _report(samples)


def _run(kit: ShopKit, app: Flask, redis_url: str) -> dict[str, list[Sample]]:
    parts: Parts = app.extensions["payonce"]
    kit.run("-m", "flask", "--app", "wsgi", "seed")
    login = DEMO_MEMBERS[0].login
    member_id = db.session.scalars(select(Member.id).where(Member.login == login)).one()
    now = parts.clock.now()
    transaction(lambda: grant(member_id, 10**9, "benchmark", now=now))
    product_id = make_product(parts, stock=10**6)

    def orders(count: int) -> list[str]:
        return [
            make_order(parts, member_id, product_id, points=10, amount_fen=0) for _ in range(count)
        ]

    web = kit.web(threads=4)
    browser = MemberClient(kit.url, login, DEMO_PASSWORD)
    floor = Floor(kit.database_url.replace("+psycopg", ""), redis_url)
    ways: dict[str, tuple[Callable[[str], object], Callable[[], float]]] = {
        "floor": (lambda code: floor.pay(member_id, code), time.process_time),
        "service": (
            lambda code: parts.payments.pay(
                PayCommand(member_id=member_id, order_code=code, channel="points")
            ),
            time.process_time,
        ),
        "http": (lambda code: _pay_over_http(browser, code), lambda: _cpu_of_group(web.pid)),
    }
    # The first booking opens the ledger accounts that the floor takes for granted.
    for name in ("service", "floor", "http"):
        for code in orders(WARM_UP):
            ways[name][0](code)
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (pay, cpu) in ways.items():
            samples[name].append(_round(orders(PAYMENTS_PER_ROUND), pay, cpu))
    floor.close()
    return samples


def _pay_over_http(browser: MemberClient, code: str) -> None:
    answer = browser.pay(code, "points", key=uuid.uuid4().hex).send()
    if answer.status != 200 or answer.json["order_state"] != "paid":
        raise RuntimeError(f"not paid: {answer}")


def _round(codes: list[str], pay: Callable[[str], object], cpu: Callable[[], float]) -> Sample:
    cpu_before, wall_before = cpu(), time.perf_counter()
    for code in codes:
        pay(code)
    return Sample(cpu_s=cpu() - cpu_before, wall_s=time.perf_counter() - wall_before)


def _cpu_of_group(leader: int) -> float:
    """CPU seconds of all living processes of a process group (proc(5), fields 5, 14, 15)."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == leader:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _report(samples: dict[str, list[Sample]]) -> None:
    floor = statistics.median(sample.per_cpu_s for sample in samples["floor"])
    floor_wall = statistics.median(sample.wall_s for sample in samples["floor"])
    print("one points-only payment; PostgreSQL + Redis; ratios to the floor of this run\n")
    print("way      payments per CPU-second ÷ floor      latency ÷ floor")
    for name, rows in samples.items():
        ratios = sorted(row.per_cpu_s / floor for row in rows)
        wall = statistics.median(row.wall_s for row in rows) / floor_wall
        middle = statistics.median(ratios)
        print(f"{name:8} {middle:5.3f}  ({ratios[0]:.3f} to {ratios[-1]:.3f})         {wall:12.2f}")
    OUT.mkdir(exist_ok=True)
    path = OUT / "pay.json"
    path.write_text(
        json.dumps(
            {name: [asdict(row) for row in rows] for name, rows in samples.items()}, indent=1
        )
    )
    print(f"\nraw figures: {path.relative_to(Path.cwd())}")


if __name__ == "__main__":
    main()
