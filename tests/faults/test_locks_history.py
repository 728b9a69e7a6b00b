"""Every promise of the locks, under a storm of faults, judged by what all processes wrote down.

Six processes of two threads take leases on three keys and write to a resource under their fences;
a driver kills and freezes them, cuts them off, and restarts and mis-sets the service. See
tests/faults/history/. A run's seed is printed; it gives the same faults in the same order, though
not at the same instants. To run one seed, or for longer than in `make test`:

    HISTORY_SEED=7 HISTORY_SECONDS=600 .venv/bin/python -m pytest -rP --timeout 0 \\
        tests/faults/test_locks_history.py -k redis
"""

import os
import random
from pathlib import Path

import pytest

from tests.faults.history.checker import violations
from tests.faults.history.driver import Driver, Run
from tests.faults.history.records import FREEZES, KILLS
from tests.faults.history.redis_backend import WeakRedisBackend

SECONDS = float(os.environ.get("HISTORY_SECONDS", "9"))
WEAK_SECONDS = 5.0
# What must have happened to each back end, beside what its workers suffer.
SERVER_FAULTS = {"break", "cut", "drop", "stall", "restart"}
FAULTS = {
    "redis": SERVER_FAULTS | {"wipe", "step ahead", "step back", "restart and step back"},
    "zookeeper": SERVER_FAULTS,
    "file": {"break", "delete a key", "delete a pipe"},
}

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def run(backend: str, folder: Path, seconds: float) -> Run:
    """One run, its seed and its figures printed."""
    seed = int(os.environ.get("HISTORY_SEED") or random.randrange(1_000_000))
    print(f"HISTORY_SEED={seed} ({backend}, in {folder})")
    done = Driver(backend, folder, seed).run(seconds)
    print(", ".join(f"{name} {count}" for name, count in done.counts().items()))
    return done


@pytest.mark.parametrize("backend", FAULTS)
def test_under_a_storm_of_faults_every_promise_is_kept(backend: str, tmp_path: Path) -> None:
    done = run(backend, tmp_path, SECONDS)
    found = violations(done.history)
    assert found == [], "\n".join(found)
    assert done.left_behind == []
    assert "Traceback" not in done.logs
    # A history in which nothing went wrong would prove nothing.
    happened = {name for name, count in done.counts().items() if count}
    wanted = {"granted", "timeout", "undisturbed", "written", "refused", "lost", *KILLS, *FREEZES}
    assert (wanted | FAULTS[backend]) - happened == set()


def test_the_same_storm_convicts_a_lock_whose_fences_start_again(tmp_path: Path) -> None:
    done = run(WeakRedisBackend.name, tmp_path, WEAK_SECONDS)
    broken = {line.partition(":")[0] for line in violations(done.history)}
    assert broken >= {"equal_fences", "fences_out_of_order", "two_believers"}
