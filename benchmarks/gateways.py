"""`make bench-gateways`: what a gateway that hangs costs those who do not use it.

One gunicorn of two workers with eight threads, on PostgreSQL and Redis, with the guard as it is set
by default but for shorter times (`ENV`). In each round some clients load the shop's front page and
one pays by Alipay. In every other round `TRYING` more clients try to pay by WeChat Pay, which takes
the connection and never answers. The rounds are interleaved, so that what else the machine does
falls on both alike. Shown are requests a second, their median and 99th percentile, and the ratio of
the medians of the rounds. Writes benchmarks/out/gateways.json as well.
"""

import json
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

ROUNDS = 3
ROUND_S = 5.0
READING, TRYING = 4, 20
# Who was turned away looks at the page before another try.
PAUSE_S = 0.5
ORDERS_PER_ROUND = 400
ENV = {
    "LOG_LEVEL": "ERROR",
    "GATEWAY_CONCURRENCY": "3",
    "GATEWAY_READ_TIMEOUT_MS": "3000",
    "GATEWAY_REST_MS": "2000",
}
OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One kind of request in one round."""

    per_s: float
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
    _round(storm, payer, None)  # warms up
    return [
        {"without": _round(storm, payer, None), "with": _round(storm, payer, trying)}
        for _ in range(ROUNDS)
    ]


def _round(storm: Storm, payer: Member, trying: Member | None) -> dict[str, Measured]:
    """One round; with `trying`, beside a gateway that hangs."""
    to_pay = iter(_orders(storm, payer, ORDERS_PER_ROUND))
    stop, home = threading.Event(), f"{storm.kit.url}/"
    tries: list[Future[None]] = []

    def read() -> None:
        answer = Call(url=home, method="GET").send()
        _require_done(answer)

    def pay() -> None:
        key = uuid.uuid4().hex
        answer = payer.client.pay(next(to_pay), "alipay", key=key).send()
        _require_done(answer)

    with ThreadPoolExecutor(READING + 1 + TRYING) as threads:
        if trying is not None:
            _hang(storm.kit.sandbox)
            orders = _orders(storm, trying, TRYING)
            tries = [threads.submit(_keep_trying, trying, code, stop) for code in orders]
            time.sleep(PAUSE_S)
        readers = [threads.submit(_repeat, read) for _ in range(READING)]
        paying = threads.submit(_repeat, pay)
        loaded = [one.result() for one in readers]
        paid = paying.result()
        stop.set()
        if trying is not None:
            for one in tries:
                one.result()
            _clear(storm.kit.sandbox)
    # Nothing of this round is left in the next: calls that hang have ended, and so has the rest.
    if trying is not None:
        time.sleep(float(ENV["GATEWAY_REST_MS"]) / 1_000)
    pages = [took for times in loaded for took in times]
    return {"pages": _measured(pages), "pay by Alipay": _measured(paid)}


def _orders(storm: Storm, member: Member, count: int) -> list[str]:
    with storm.parts() as parts:
        return [make_order(parts, member.id, member.product_id) for _ in range(count)]


def _require_done(answer: Answer) -> None:
    if answer.status != 200:
        raise SystemExit(f"a request that has to do with no hanging gateway failed: {answer}")


def _repeat(work: Callable[[], None]) -> list[float]:
    """Do it again and again for a round; how long each took, in seconds."""
    took: list[float] = []
    end = time.monotonic() + ROUND_S
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            work()
        except StopIteration:
            raise SystemExit(f"more than {ORDERS_PER_ROUND} payments in a round") from None
        took.append(time.monotonic() - began)
    return took


def _keep_trying(member: Member, order_code: str, stop: threading.Event) -> None:
    while not stop.is_set():
        member.client.pay(order_code, "wechatpay", key=uuid.uuid4().hex).send()
        stop.wait(PAUSE_S)


def _measured(took: list[float]) -> Measured:
    cuts = statistics.quantiles(took, n=100)
    return Measured(per_s=len(took) / ROUND_S, median_ms=cuts[49] * 1_000, p99_ms=cuts[98] * 1_000)


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
    print("| what | measure | without | with a hanging gateway | with : without |")
    print("|---|---|---|---|---|")
    for what in ("pages", "pay by Alipay"):
        for measure in ("per_s", "median_ms", "p99_ms"):
            without, beside = (
                statistics.median(getattr(one[which][what], measure) for one in rounds)
                for which in ("without", "with")
            )
            ratio = beside / without
            shown = {"without": without, "with": beside, "ratio": ratio}
            found.setdefault(what, {})[measure] = shown
            print(f"| {what} | {measure} | {without:.1f} | {beside:.1f} | {ratio:.2f} |")
    OUT.mkdir(exist_ok=True)
    (OUT / "gateways.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
