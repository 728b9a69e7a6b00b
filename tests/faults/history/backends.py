"""The back ends of the history test, by name."""

import random
from collections.abc import Sequence
from pathlib import Path

from tests.faults.history.backend import Backend
from tests.faults.history.file_backend import FileBackend
from tests.faults.history.records import FaultLog
from tests.faults.history.redis_backend import RedisBackend, WeakRedisBackend
from tests.faults.history.zookeeper_backend import ZooKeeperBackend


def make_backend(
    name: str, log: FaultLog, chance: random.Random, keys: Sequence[str], folder: Path
) -> Backend:
    """The back end of that name, not started yet."""
    if name == FileBackend.name:
        return FileBackend(log, chance, keys, folder)
    served: dict[str, type[RedisBackend] | type[ZooKeeperBackend]] = {
        each.name: each for each in (RedisBackend, WeakRedisBackend, ZooKeeperBackend)
    }
    return served[name](log, chance, keys)
