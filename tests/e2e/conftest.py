"""The running shop for the browser tests: web server, sweeper and sandbox, as `make run` has it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shop.commands.seed_data import DEMO_PASSWORD
from tests.e2e.browser import Browser
from tests.processes import ManagedProcess
from tests.shopkit import ROOT, Sandbox, ShopKit, make_member

MakeBrowser = Callable[..., Browser]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopKit]:
    """A seeded shop with two web workers and a sweeper, on SQLite and file locks."""
    folder = tmp_path_factory.mktemp("shop")
    with Sandbox() as sandbox:
        kit = ShopKit(
            database_url=f"sqlite:///{folder / 'shop.db'}",
            lock_url=f"file://{folder / 'locks'}",
            sandbox=sandbox,
            folder=folder,
        ).migrate()
        kit.run("-m", "flask", "--app", "wsgi", "seed")
        try:
            kit.web(workers=2, threads=8)
            kit.processes.append(_sweeper(kit, folder))
            yield kit
        finally:
            kit.stop()


def _sweeper(kit: ShopKit, folder: Path) -> ManagedProcess:
    return ManagedProcess(
        "sweeper",
        [sys.executable, "-m", "flask", "--app", "wsgi", "sweep"],
        log=folder / "sweeper.log",
        env=kit.env,
        cwd=ROOT,
    ).start()


@pytest.fixture
def make_browser(shop: ShopKit) -> Iterator[MakeBrowser]:
    """Call it for a browser at the shop: `make_browser(size="phone", language="zh-CN")`."""
    with ExitStack() as made:
        yield lambda **options: made.enter_context(Browser(shop.url, **options))


@pytest.fixture
def member_browser(shop: ShopKit, make_browser: MakeBrowser) -> MakeBrowser:
    """The same, signed in as a member of its own with 50,000 points."""

    def make(**options: object) -> Browser:
        with shop.app() as app:
            parts = app.extensions["payonce"]
            login = f"member-{_next()}"
            make_member(parts, points=50_000, login=login, password=DEMO_PASSWORD)
        browser = make_browser(**options)
        browser.sign_in(login, DEMO_PASSWORD)
        return browser

    return make


_numbers = iter(range(1_000_000))


def _next() -> int:
    return next(_numbers)
