"""Metrics: listed in the docs, added up over processes, and never in the way of what they count."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from config.settings import load_settings
from locks import LockObserver
from scripts.place import Place, prepare_folder
from scripts.run import environment
from shop.errors import OrderClosed
from shop.gateways.guard_observe import GatewayObserver
from shop.metrics import folder, instruments, tell
from shop.metrics.gateways import GatewayMetrics
from shop.metrics.locks import LockMetrics
from tests.architecture.source import importers, imports_of, lies_in
from tests.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \|", flags=re.MULTILINE)

# Counts as a process of the shop does, waits to be told, and ends.
COUNTING = """
import sys
from shop.metrics import instruments, tell

for _ in range(int(sys.argv[1])):
    tell.payment_outcome("alipay", "settled")
    instruments.LOCK_WAIT.labels("redis", "granted").observe(0.02)
print("counted", flush=True)
sys.stdin.read()
"""


def counting(place: Path, times: int, code: str = COUNTING) -> "subprocess.Popen[str]":
    """A process that has counted so many times and lives until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(times)],
        cwd=ROOT,
        env={**os.environ, folder.ENV: str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def count(place: Path, times: int) -> None:
    """A process counts so many times and ends."""
    counting(place, times).communicate()


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def sums(place: Path) -> tuple[float, float, float]:
    """As Prometheus is told: payments, waits up to 25 ms, and seconds of waiting."""
    text = folder.exposition(place).decode()
    found = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return (
        found["payonce_payments_total", None],
        found["payonce_lock_wait_seconds_bucket", "0.025"],
        round(found["payonce_lock_wait_seconds_sum", None], 6),
    )


def files(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {"lock"}


FOLDED = {"counter_0.db", "histogram_0.db"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "metrics"
    folder.prepare(made)
    return made


# The list


def listed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name, kind and labels of each metric in the docs."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in rows
        if name != "metric"
    }


def declared() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The same of the code."""
    found = {}
    for metric in vars(instruments).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            described = next(iter(metric.describe()))
            name = described.name + ("_total" if isinstance(metric, Counter) else "")
            found[name] = (described.type, tuple(metric._labelnames))
    return found


def test_every_metric_is_listed_in_the_docs_with_its_kind_and_labels_and_nothing_else() -> None:
    assert len(declared()) > 10
    assert listed() == declared()


def test_the_docs_name_no_metric_that_is_not_there() -> None:
    words = set(re.findall(r"payonce_\w+", PAGE.read_text(encoding="utf-8")))
    samples = {name + end for name in declared() for end in ("", "_count", "_sum", "_bucket")}
    assert words - samples == set()


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, (kind, labels) in declared().items():
        assert name.startswith("payonce_"), name
        assert name.endswith("_total") is (kind == "counter"), name
        assert kind != "histogram" or name.endswith(("_seconds", "_length")), name
        assert labels, "without a label its file is made at import"


def test_the_metrics_library_is_known_to_the_metrics_alone() -> None:
    found = importers("prometheus_client")
    assert found
    assert {name for name in found if not lies_in(name, "shop.metrics")} == set()


def test_the_metrics_know_neither_the_books_nor_who_is_served() -> None:
    above = ["shop.*.views", "shop.*.service", "shop.*.store", "shop.*.models", "shop.wiring"]
    assert imports_of(["shop.metrics"], [*above, "shop.db"], but=("shop.metrics.views",)) == []
    assert imports_of(["shop.metrics.views"], ["shop.*.service", "shop.db", "shop.wiring"]) == []


# What is said


def value(name: str, **labels: str) -> float:
    """A metric of this process."""
    return instruments.REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_pay_request_is_counted_by_what_came_of_it() -> None:
    def counted(outcome: str) -> float:
        return value("payonce_pay_requests_total", channel="alipay", outcome=outcome)

    before = {outcome: counted(outcome) for outcome in ("accepted", "order-closed", "error")}
    with tell.pay_request("alipay"):
        pass
    with pytest.raises(OrderClosed), tell.pay_request("alipay"):
        raise OrderClosed(order_code="X")
    with pytest.raises(KeyError), tell.pay_request("alipay"):
        raise KeyError
    assert {outcome: counted(outcome) - was for outcome, was in before.items()} == {
        "accepted": 1,
        "order-closed": 1,
        "error": 1,
    }


BACKEND = {"backend": "test"}


@pytest.mark.parametrize(
    ("hook", "numbers", "metric", "labels", "more"),
    [
        ("granted", (2_000_000, 3), "lock_wait_seconds_sum", {"outcome": "granted"}, 0.002),
        ("granted", (2_000_000, 3), "lock_queue_length_sum", {}, 3),
        ("handed_over", (500_000,), "lock_handover_seconds_sum", {}, 0.0005),
        ("timed_out", (3_000_000_000,), "lock_wait_seconds_sum", {"outcome": "timed_out"}, 3),
        ("unavailable", (10**9,), "lock_wait_seconds_sum", {"outcome": "unavailable"}, 1),
        ("released", (40_000_000,), "lock_hold_seconds_sum", {}, 0.04),
        ("renewed", (5,), "lock_renewals_total", {"outcome": "renewed"}, 5),
        ("renewal_failed", (2,), "lock_renewals_total", {"outcome": "failed"}, 2),
        ("lost", (), "lock_leases_lost_total", {}, 1),
    ],
)
def test_what_a_lock_tells_becomes_seconds_and_counts(
    hook: str, numbers: tuple[int, ...], metric: str, labels: dict[str, str], more: float
) -> None:
    before = value(f"payonce_{metric}", **BACKEND, **labels)
    getattr(LockMetrics(), hook)("test", *numbers)
    after = value(f"payonce_{metric}", **BACKEND, **labels)
    assert after - before == pytest.approx(more)


CALL = {"channel": "wechatpay", "call": "test"}


@pytest.mark.parametrize(
    ("hook", "told", "metric", "labels", "more"),
    [
        ("answered", ("test", "unknown", 0), "calls_total", {**CALL, "outcome": "unknown"}, 1),
        ("answered", ("test", "failed", 2 * 10**9), "call_seconds_sum", CALL, 2),
        ("repeated", ("test",), "calls_repeated_total", CALL, 1),
        ("turned_away", ("test", "b"), "calls_turned_away_total", {**CALL, "why": "b"}, 1),
        ("rests", (True,), "resting", {"channel": "wechatpay"}, 1),
        ("rests", (False,), "resting", {"channel": "wechatpay"}, -1),
    ],
)
def test_what_a_gateways_guard_tells_becomes_seconds_and_counts(
    hook: str, told: tuple[object, ...], metric: str, labels: dict[str, str], more: float
) -> None:
    before = value(f"payonce_gateway_{metric}", **labels)
    getattr(GatewayMetrics(), hook)("wechatpay", *told)
    assert value(f"payonce_gateway_{metric}", **labels) - before == more


@pytest.mark.parametrize(
    ("told", "counting"), [(LockObserver, LockMetrics), (GatewayObserver, GatewayMetrics)]
)
def test_the_observers_take_in_all_that_can_be_told(told: type, counting: type) -> None:
    hooks = {name for name in vars(told) if not name.startswith("_")}
    assert hooks == {name for name in vars(counting) if not name.startswith("_")}


def test_what_a_client_sends_becomes_no_label() -> None:
    tell.payment_outcome("x" * 1_000, "settled")
    tell.notice("../etc", "applied")
    tell.request_answered("BREW", None, 405, 0.001)
    text = folder.exposition(None).decode()
    assert "xxx" not in text
    assert "etc" not in text
    assert "BREW" not in text
    assert value("payonce_payments_total", channel="other", outcome="settled") == 1
    labels = {"method": "other", "route": "none", "status": "405"}
    assert value("payonce_http_request_duration_seconds_count", **labels) == 1


def test_what_cannot_be_counted_is_logged_once_and_raises_nothing(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", COUNTING.partition("    instruments")[0], "3"],
        cwd=ROOT,
        env={**os.environ, folder.ENV: str(tmp_path / "gone")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (said.stdout + said.stderr).count("metric_not_counted") == 1


# Where it is on


@pytest.mark.parametrize("token", [None, "t" * 32])
def test_make_run_names_the_folder_where_somebody_can_ask(
    token: str | None, tmp_path: Path
) -> None:
    outside = {**os.environ, "DATA_DIR": str(tmp_path), "PORT": str(free_port(2))}
    outside |= {} if token is None else {"METRICS_TOKEN": token}
    place = Place.from_environment(outside)
    prepare_folder(place)
    found = environment(place, outside)
    assert found.get(folder.ENV) == (None if token is None else str(tmp_path / "metrics"))
    settings = load_settings(found)
    assert settings.metrics_token == (token or "")


# Processes that add up


def test_living_and_ended_processes_add_up(place: Path) -> None:
    count(place, 3)
    living = counting(place, 4)
    assert sums(place) == (7, 7, 0.14)
    kill(living)
    assert sums(place) == (7, 7, 0.14)
    count(place, 1)
    assert sums(place) == (8, 8, 0.16)


def test_the_files_of_ended_processes_are_folded_into_one(place: Path) -> None:
    living = counting(place, 1)
    for _ in range(3):
        count(place, 1)
    of_the_living = {f"{kind}_{living.pid}.db" for kind in ("counter", "histogram")}
    folder.prepare(place)
    assert files(place) == FOLDED | of_the_living
    kill(living)
    assert sums(place) == (4, 4, 0.08)
    assert files(place) == FOLDED


RESTING = """
import sys
from shop.metrics.gateways import GatewayMetrics

GatewayMetrics().rests("alipay", True)
print("counted", flush=True)
sys.stdin.read()
"""


def test_how_things_stood_with_a_process_is_over_when_it_ends(place: Path) -> None:
    def resting() -> bool:
        return b'payonce_gateway_resting{channel="alipay"} 1.0' in folder.exposition(place)

    living = counting(place, 0, RESTING)
    assert resting()
    kill(living)
    assert not resting()
    assert files(place) == set()


def test_folding_by_many_at_once_counts_nothing_twice_and_loses_nothing(place: Path) -> None:
    def work(_number: int) -> float:
        count(place, 2)
        return sums(place)[0]

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(work, range(8)))
    assert max(seen) == 16
    assert sums(place) == (16, 16, 0.32)
    assert files(place) == FOLDED


def test_a_file_that_was_cut_off_in_the_making_hides_no_other(place: Path) -> None:
    count(place, 2)
    process = counting(place, 1)
    kill(process)
    (place / f"counter_{process.pid}.db").write_bytes(b"")
    (place / f"histogram_{process.pid}.db").write_bytes(b"\x01")
    (place / "counter_0.draft").write_bytes(b"left by a killed process")
    assert sums(place) == (2, 2, 0.04)
    assert files(place) == FOLDED


def test_a_process_has_the_room_of_its_files_before_it_counts(place: Path) -> None:
    """A mapped page that the disk has no room for would kill it."""
    folder.take_room(place)
    mine = [place / f"{kind}_{os.getpid()}.db" for kind in folder.KINDS]
    for path in mine:
        assert path.stat().st_blocks * 512 >= path.stat().st_size == folder.ROOM_BYTES
    assert folder.exposition(place) == b""
    code = COUNTING.replace(
        "for _",
        "from pathlib import Path\nfrom shop.metrics import folder\n"
        f"folder.take_room(Path({str(place)!r}))\nfor _",
        1,
    )
    living = counting(place, 2, code)
    assert sums(place) == (2, 2, 0.04)
    theirs = place / f"histogram_{living.pid}.db"
    assert theirs.stat().st_size == folder.ROOM_BYTES
    folder.take_room(place)
    kill(living)
    assert sums(place) == (2, 2, 0.04)


def test_no_room_at_all_is_an_error_at_the_start_and_none_later(place: Path) -> None:
    """/dev/full has no room; what cannot be folded is counted all the same."""
    count(place, 2)
    (place / "histogram_0.draft").symlink_to("/dev/full")
    (place / "counter_0.draft").symlink_to("/dev/full")
    assert sums(place) == (2, 2, 0.04)
    assert not files(place) & FOLDED
    (place / f"counter_{os.getpid()}.db").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        folder.take_room(place)
