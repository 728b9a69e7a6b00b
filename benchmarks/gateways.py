"""`make bench-gateways`: what a gateway that hangs costs those who do not use it.

One gunicorn of two workers with eight threads, on PostgreSQL and Redis, with the guard as it is set
by default but for shorter times (`ENV`). In each round some clients load pages of the shop and one
pays by Alipay, each at its own steady pace, so that an answer's time is what a person waits and not
what the processor can bear. There are three kinds of round, interleaved, so that what else the
machine does falls on all alike: `alone`; `healthy`, where `TRYING` more clients pay order after
order by a WeChat Pay that works; `hanging`, where the same clients try the same with a WeChat Pay
that takes the connection and never answers. Shown are the median and the 99th percentile of the
answers' times, from when they were due, and the ratios of the rounds' medians: hanging to healthy
is what the fault costs, and healthy to alone what the customers cost. Writes
benchmarks/out/gateways.json as well.
"""

import itertools
import json
import math
import random
import re
import statistics
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.storm import Member, Storm
from tests.processes import make_folder, remove_folder
from tests.services import PostgresServer, RedisServer
from tests.shopclient import Answer, Call
from tests.shopkit import Sandbox, ShopKit, make_order

ROUNDS = 5
ROUND_S = 5.0
READING, READ_EVERY_S = 4, 0.05
PAY_EVERY_S = 0.25
# The next of these customers comes so long after the last one had an answer.
TRYING, PAUSE_S = 20, 1.5
ALONE, HEALTHY, HANGING = "alone", "healthy", "hanging"
ENV = {
    "LOG_LEVEL": "ERROR",
    "GATEWAY_CONCURRENCY": "3",
    "GATEWAY_READ_TIMEOUT_MS": "3000",
    "GATEWAY_REST_MS": "2000",
}
ALIPAY = "pay by Alipay"
OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One kind of request in one round."""

    median_ms: float
    p99_ms: float


def main() -> None:
    """Run it and print the table."""
    folder = make_folder("bench-gateways")
    with PostgresServer() as postgres, RedisServer() as redis_server, Sandbox() as sandbox:
        kit = ShopKit(
            database_url=postgres.create_database(),
            lock_url=redis_server.url,
            sandbox=sandbox,
            folder=folder,
            extra_env=ENV,
        ).migrate()
        try:
            kit.web(workers=2, threads=8)
            storm = Storm(kit=kit, urls=[kit.url])
            rounds = _rounds(storm)
            wrong = kit.broken()
        finally:
            kit.stop()
    remove_folder(folder)
    if wrong:
        raise SystemExit("the books do not balance after the run:\n" + "\n".join(wrong))
    _report(rounds)


def _rounds(storm: Storm) -> list[dict[str, dict[str, Measured]]]:
    payer, trying = storm.member(), storm.member()
    _round(storm, payer, trying, HEALTHY)  # warms up
    return [
        {kind: _round(storm, payer, trying, kind) for kind in (ALONE, HEALTHY, HANGING)}
        for _ in range(ROUNDS)
    ]


def _round(storm: Storm, payer: Member, trying: Member, kind: str) -> dict[str, Measured]:
    to_pay = iter(_orders(storm, payer, round(ROUND_S / PAY_EVERY_S)))
    to_try = [_orders(storm, trying, math.ceil(ROUND_S / PAUSE_S)) for _ in range(TRYING)]
    stop = threading.Event()
    pages = itertools.cycle((f"{storm.kit.url}/", _goods_page(storm)))

    def read() -> None:
        _require_done(Call(url=next(pages), method="GET").send())

    def pay() -> None:
        answer = payer.client.pay(next(to_pay), "alipay", key=uuid.uuid4().hex).send()
        _require_done(answer)

    tries: list[Future[None]] = []
    with ThreadPoolExecutor(READING + 1 + TRYING) as threads:
        if kind == HANGING:
            _hang(storm.kit.sandbox)
        if kind != ALONE:
            tries = [
                threads.submit(_keep_trying, trying, orders, stop, kind == HEALTHY)
                for orders in to_try
            ]
            time.sleep(PAUSE_S)
        readers = [threads.submit(_repeat, read, READ_EVERY_S) for _ in range(READING)]
        paying = threads.submit(_repeat, pay, PAY_EVERY_S)
        times = [one.result() for one in readers]
        paid = paying.result()
        stop.set()
        for one in tries:
            one.result()
    if kind == HANGING:
        _clear(storm.kit.sandbox)
        # Nothing of this round is left in the next: calls that hang have ended, and the rest has.
        time.sleep(float(ENV["GATEWAY_REST_MS"]) / 1_000)
    return {"pages": _measured([took for each in times for took in each]), ALIPAY: _measured(paid)}


def _goods_page(storm: Storm) -> str:
    """The page of the first goods in the shop's window."""
    front = Call(url=f"{storm.kit.url}/", method="GET").send()
    found = re.search(r'href="(/goods/[^"]+)"', front.body.decode())
    if found is None:
        raise SystemExit(f"no goods on the front page: {front}")
    return storm.kit.url + found[1]


def _orders(storm: Storm, member: Member, count: int) -> list[str]:
    with storm.parts() as parts:
        return [make_order(parts, member.id, member.product_id) for _ in range(count)]


def _require_done(answer: Answer) -> None:
    if answer.status != 200:
        raise SystemExit(f"a request that has to do with no hanging gateway failed: {answer}")


def _repeat(work: Callable[[], None], every_s: float) -> list[float]:
    """Do it at this pace for a round; how long after it was due each was done, in seconds."""
    took: list[float] = []
    start = time.monotonic()
    for number in range(round(ROUND_S / every_s)):
        due = start + number * every_s
        time.sleep(max(0.0, due - time.monotonic()))
        work()
        took.append(time.monotonic() - due)
    return took


def _keep_trying(
    member: Member, orders: list[str], stop: threading.Event, must_succeed: bool
) -> None:
    stop.wait(PAUSE_S * random.random())  # so that they do not come all at once
    for order_code in orders:
        if stop.is_set():
            return
        answer = member.client.pay(order_code, "wechatpay", key=uuid.uuid4().hex).send()
        if must_succeed:
            _require_done(answer)
        stop.wait(PAUSE_S)


def _measured(took: list[float]) -> Measured:
    cuts = statistics.quantiles(took, n=100)
    return Measured(median_ms=cuts[49] * 1_000, p99_ms=cuts[98] * 1_000)


def _hang(sandbox: Sandbox) -> None:
    for op in ("prepay", "query", "close"):
        fault = {"channel": "wechatpay", "op": op, "kind": "hang", "times": 1_000_000}
        sandbox.post("/admin/faults", fault)


def _clear(sandbox: Sandbox) -> None:
    request = urllib.request.Request(f"{sandbox.url}/admin/faults", method="DELETE")  # noqa: S310
    with urllib.request.urlopen(request, timeout=20):  # noqa: S310 - an address of our own
        pass


def _report(rounds: list[dict[str, dict[str, Measured]]]) -> None:
    found: dict[str, dict[str, dict[str, float]]] = {}
    print("| what | measure | alone | healthy | hanging | healthy : alone | hanging : healthy |")
    print("|---|---|---|---|---|---|---|")
    for what in ("pages", ALIPAY):
        for measure, name in (("median_ms", "median, ms"), ("p99_ms", "99th percentile, ms")):
            alone, healthy, hanging = (
                statistics.median(getattr(one[kind][what], measure) for one in rounds)
                for kind in (ALONE, HEALTHY, HANGING)
            )
            ratios = {"healthy_to_alone": healthy / alone, "hanging_to_healthy": hanging / healthy}
            found.setdefault(what, {})[measure] = {
                ALONE: alone,
                HEALTHY: healthy,
                HANGING: hanging,
                **ratios,
            }
            figures = f"{alone:.1f} | {healthy:.1f} | {hanging:.1f}"
            shown = " | ".join(f"{ratio:.2f}" for ratio in ratios.values())
            print(f"| {what} | {name} | {figures} | {shown} |")
    OUT.mkdir(exist_ok=True)
    (OUT / "gateways.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
