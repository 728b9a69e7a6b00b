"""Fixtures of the fault tests: one sandbox for the run, and a shop of its own for each test.

A shop stands on one database and one lock service; `STACKS` names the pairs that the shop is
promised to run on.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.third_party import third_party
from tests.services import DatabaseServer
from tests.shopkit import Sandbox, ShopKit

__all__ = ["third_party"]

STACKS = ("sqlite-files", "postgresql-redis", "postgresql-zookeeper", "mariadb-redis")

KitMaker = Callable[..., ShopKit]


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[Sandbox]:
    """The run's sandbox: every test has orders of its own, so that one serves them all."""
    with Sandbox() as sandbox:
        yield sandbox


@contextmanager
def shop_on(
    stack: str,
    *,
    sandbox: Sandbox,
    folder: Path,
    request: pytest.FixtureRequest,
    env: dict[str, str] | None = None,
) -> Iterator[ShopKit]:
    """A migrated shop on `postgresql-redis` and the like, whose processes end with the block."""
    database, _, lock = stack.partition("-")
    with ExitStack() as made:
        if database == "sqlite":
            database_url = f"sqlite:///{folder / 'shop.db'}"
        else:
            fixture = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}[database]
            server: DatabaseServer = request.getfixturevalue(fixture)
            database_url = made.enter_context(server.fresh_database())
        files = f"file://{folder / 'locks'}"
        kit = ShopKit(
            database_url=database_url,
            lock_url=files if lock == "files" else request.getfixturevalue(f"{lock}_url"),
            sandbox=sandbox,
            folder=folder,
            extra_env=env or {},
        )
        made.callback(kit.stop)
        yield kit.migrate()


@pytest.fixture
def make_kit(
    sandbox_server: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[KitMaker]:
    """Call it for a migrated shop: `make_kit("postgresql-redis", LOCK_WAIT_MS="500")`.

    Its processes end with the test.
    """
    numbers = iter(range(1_000))
    with ExitStack() as made:

        def make(stack: str = "sqlite-files", **env: str) -> ShopKit:
            folder = tmp_path / f"shop-{next(numbers)}"
            folder.mkdir()
            return made.enter_context(
                shop_on(stack, sandbox=sandbox_server, folder=folder, request=request, env=env)
            )

        yield make
