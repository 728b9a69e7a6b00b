"""`flask --app wsgi locks …`: what an operator sees of the leases, ends and adopts, for real."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from locks import HeldKey, from_url
from shop.commands.locks import _table
from tests.faults.conftest import shop_on
from tests.faults.frozen import Pair, pair_of
from tests.integration.locks_support import Process, holder
from tests.processes import free_port, wait_until
from tests.shopkit import Sandbox, ShopKit, make_member, make_order, make_product

BACKENDS = ("files", "redis", "zookeeper")
# What does not depend on the lock service is looked at with one of them.
with_files = pytest.mark.parametrize("operator", ["files"], indirect=True)
LONG_LEASE_MS, PATIENCE_MS = 600_000, 60_000


class Operator:
    """Someone at the command line of a shop."""

    def __init__(self, kit: ShopKit, app: Flask) -> None:
        self.kit = kit
        self.app = app

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        """Run `flask locks …` with this application."""
        return self.app.test_cli_runner().invoke(args=["locks", *arguments], input=answer)

    def held(self) -> list[dict[str, Any]]:
        """What `show --json` lists."""
        shown = self.run("show", "--json")
        assert shown.exit_code == 0, shown.output
        found: list[dict[str, Any]] = json.loads(shown.output)["held"]
        return found

    def has_waiters(self, code: str, number: int) -> bool:
        """Whether so many wait for this order."""
        return [len(held["waiters"]) for held in self.held() if held["key"] == code] == [number]

    def order(self) -> str:
        """A new order's code."""
        parts = self.app.extensions["payonce"]
        return make_order(parts, make_member(parts), make_product(parts))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@contextmanager
def operator_of(kit: ShopKit) -> Iterator[Operator]:
    with kit.app() as app:
        yield Operator(kit, app)


@pytest.fixture(scope="module", params=BACKENDS)
def operator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("shop")
    stack = f"sqlite-{request.param}"
    with shop_on(stack, sandbox=sandbox, folder=folder, request=request) as kit:
        if request.param == "redis":
            kit.lock_url = kit.lock_url.removesuffix("/0") + "/9"  # nobody else's leases are there
        with operator_of(kit) as made:
            yield made


@pytest.fixture
def hold(operator: Operator) -> Iterator[Callable[[str], Process]]:
    """Call it for a process that holds an order's lease, or waits for it."""
    started: list[Process] = []
    with ExitStack() as made:

        def start(code: str) -> Process:
            process = made.enter_context(
                holder(operator.kit.lock_url, code, lease_ms=LONG_LEASE_MS, wait_ms=PATIENCE_MS)
            )
            assert process.listen() == "started"
            started.append(process)
            return process

        yield start
        for process in started:  # in this order, so that those who wait are served and end, too
            process.end()


def test_nothing_held_is_said_so(operator: Operator) -> None:
    shown = operator.run("show")
    assert (shown.exit_code, shown.output) == (0, "No lease is held.\n")
    assert operator.held() == []


def test_holders_and_waiters_are_shown_in_their_order(
    operator: Operator, hold: Callable[[str], Process]
) -> None:
    busy, quiet = sorted([operator.order(), operator.order()])
    first = hold(busy)
    fence = int(first.listen().split()[1])
    hold(quiet).listen()
    waiting = []
    for number in (1, 2):
        waiting.append(hold(busy))
        wait_until(partial(operator.has_waiters, busy, number), "it waits in line")

    held = {each["key"]: each for each in operator.held()}
    assert list(held) == [busy, quiet]
    assert held[busy]["fence"] == fence
    assert held[quiet]["waiters"] == []
    assert len(held[busy]["waiters"]) == len(waiting)
    left = held[busy]["remaining_ms"]
    assert left is None or 0 < left <= LONG_LEASE_MS

    lines = operator.run("show").output.splitlines()
    assert lines[0].split() == ["ORDER", "HOLDER", "FENCE", "LEFT", "WAITING"]
    assert [line.split()[0] for line in lines if line.startswith((busy, quiet))] == [busy, quiet]
    column = lines[0].index("WAITING")
    names = held[busy]["waiters"]
    assert [line[column:] for line in lines if line[column:]] == ["WAITING", *names, "-"]
    # The first in the list is the first to be served.
    assert first.ask("release") == "released"
    assert waiting[0].listen().startswith("held")
    assert operator.held()[0]["holder"] == names[0]


@with_files
def test_a_list_that_was_cut_short_says_so(
    operator: Operator, hold: Callable[[str], Process]
) -> None:
    for _ in range(2):
        hold(operator.order()).listen()
    shown = operator.run("show", "--limit", "1")
    assert shown.output.endswith("These are 1; there may be more: --limit.\n")
    assert len(shown.output.splitlines()) == 3


def test_a_released_lease_goes_to_the_next_and_its_holder_learns_of_it(
    operator: Operator, hold: Callable[[str], Process]
) -> None:
    code = operator.order()
    first = hold(code)
    fence = int(first.listen().split()[1])
    second = hold(code)
    done = operator.run("release", code, "--yes")
    assert done.exit_code == 0, done.output
    assert f"(fence {fence}) is ended." in done.output
    later = second.listen().split()
    assert later[0] == "held"
    assert int(later[1]) > fence
    # Whether it is told at once or by its next renewal, what it gives back is not the other's.
    assert first.ask("release") == "released"
    assert second.ask("check") == "held"


def test_with_nobody_waiting_the_order_itself_shuts_the_holder_out(
    operator: Operator, hold: Callable[[str], Process]
) -> None:
    code = operator.order()
    fence = int(hold(code).listen().split()[1])
    done = operator.run("release", code, "--yes")
    assert done.exit_code == 0, done.output
    assert "What it still writes is refused from now on" in done.output
    parts = operator.app.extensions["payonce"]
    with parts.desk.claim(code, actor="member") as claim:
        assert claim.fence > fence
    assert operator.held() == []


@with_files
def test_an_operator_is_asked_first_and_told_what_it_means(
    operator: Operator, hold: Callable[[str], Process]
) -> None:
    code = operator.order()
    process = hold(code)
    process.listen()
    for answer in ("n\n", "\n", ""):
        asked = operator.run("release", code, answer=answer)
        assert asked.exit_code == 1
        assert "Aborted!" in asked.output
        assert "a call it has under way at a gateway is not undone" in asked.output
        assert str(operator.held()[0]["fence"]) in asked.output
    assert process.ask("check") == "held"
    assert operator.run("release", code, answer="y\n").exit_code == 0
    assert operator.held() == []


@with_files
def test_what_cannot_be_released_is_said_in_one_sentence(operator: Operator) -> None:
    code = operator.order()
    for yes in ((), ("--yes",)):
        nobody = operator.run("release", code, *yes)
        assert nobody.exit_code == 1
        said = f"Error: Nobody holds a lease on order {code}; nothing was done.\n"
        assert nobody.output == said
        for wrong in ("NO-SUCH-ORDER", "no order", "../../etc", "密"):
            unknown = operator.run("release", wrong, *yes)
            assert unknown.exit_code == 2
            assert f"There is no order {wrong!r}." in unknown.output
    assert operator.run("release").exit_code == 2


@with_files
def test_the_command_line_says_the_same(operator: Operator) -> None:
    """Through the door that an operator takes, a process of its own."""
    log = operator.kit.folder / "commands.log"
    operator.kit.run("-m", "flask", "--app", "wsgi", "locks", "show")
    assert log.read_text().endswith("No lease is held.\n")


def test_what_stands_in_the_lock_service_cannot_steer_the_terminal() -> None:
    held = HeldKey("A", "host\x1b[2J 1", 7, None, ("two\nlines 2", "主机 3"))
    shown = _table([held])
    assert "\x1b" not in shown
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["A", "host?[2J", "1", "7", "its", "session", "two?lines", "2"],
        ["主机", "3"],
    ]


# Adopting


def test_a_lock_service_is_adopted_once(operator: Operator) -> None:
    with closing(from_url(operator.kit.lock_url)) as lock:
        realm = lock.realm()
    operator.run("adopt")
    again = operator.run("adopt")
    assert again.exit_code == 0
    assert f"({realm}) is the one that is believed" in again.output
    assert again.output.endswith("nothing was changed.\n")
    anew = operator.run("adopt", "--anew")
    assert anew.exit_code == 0
    assert f"begins: {realm} is believed after {realm} in epoch" in anew.output


# Services that are away


@with_files
def test_a_lock_service_that_is_away_ends_each_command_with_one_sentence(
    operator: Operator, tmp_path: Path
) -> None:
    code = operator.order()
    kit = ShopKit(
        operator.kit.database_url,
        f"redis://127.0.0.1:{free_port()}/0",
        operator.kit.sandbox,
        tmp_path,
    )
    with operator_of(kit) as away:
        for arguments in (
            ["show"],
            ["show", "--json"],
            ["release", code, "--yes"],
            ["adopt"],
            ["adopt", "--anew"],
        ):
            said = away.run(*arguments)
            assert said.exit_code == 1
            assert said.output.startswith("Error: The lock service cannot be reached")
            assert len(said.output.splitlines()) == 1
    # Nobody's payments are refused for the sake of a service that is not there.
    assert operator.run("adopt").output.endswith("nothing was changed.\n")


@with_files
def test_a_database_that_is_away_ends_a_command_with_one_sentence(
    operator: Operator, tmp_path: Path
) -> None:
    kit = ShopKit(
        f"sqlite:///{tmp_path}/none.db", operator.kit.lock_url, operator.kit.sandbox, tmp_path
    )
    with operator_of(kit) as away:
        for arguments in (["release", "ANY", "--yes"], ["adopt"]):
            said = away.run(*arguments)
            assert said.exit_code == 1
            assert said.output.startswith("Error: The database cannot be used: ")


# A frozen holder


@pytest.fixture(scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox
) -> Iterator[Pair]:
    """Two processes of a shop whose leases outlast the test: only an operator ends one."""
    folder = tmp_path_factory.mktemp("frozen")
    # SQLite would not do: a frozen writer keeps every other writer out until it goes on.
    stack, env = "postgresql-redis", {"LOCK_LEASE_MS": "600000", "LOCK_WAIT_MS": "30000"}
    with shop_on(stack, sandbox=sandbox, folder=folder, request=request, env=env) as kit:
        yield pair_of(kit, folder)


def test_a_frozen_holder_that_nobody_waits_for_writes_nothing_after_its_lease_was_ended(
    pair: Pair,
) -> None:
    """The order stands as it read it: its state (L1) would let it in, its fence (L2) does not."""
    code = pair.member.order()
    with (
        operator_of(pair.storm.kit) as operator,
        pair.frozen_at("leased", lambda url: pair.pay(code, "wechatpay", url)) as late,
    ):
        done = operator.run("release", code, "--yes")
        assert done.exit_code == 0, done.output
        assert pair.member.state_of(code) == "created"
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert pair.storm.kit.broken() == []
    # And the order can be paid.
    assert pair.pay(code, "alipay").status == 200
    number = pair.member.pay_at_phone(code)
    pair.member.wait_until_order_is(code, "paid")
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


def test_ending_the_lease_of_a_frozen_holder_lets_the_next_waiter_in_and_its_write_is_refused(
    pair: Pair,
) -> None:
    code = pair.member.order()
    with (
        ThreadPoolExecutor(1) as thread,
        operator_of(pair.storm.kit) as operator,
        pair.frozen_at("begin", lambda url: pair.pay(code, "wechatpay", url)) as late,
    ):
        next_one = thread.submit(pair.pay, code, "alipay")
        wait_until(partial(operator.has_waiters, code, 1), "another waits for the lease")
        done = operator.run("release", code, "--yes")
        assert done.exit_code == 0, done.output
        assert next_one.result().status == 200
        number = pair.member.pay_at_phone(code)
        pair.member.wait_until_order_is(code, "paid")
        left = pair.books()
    assert late.result().code == "superseded", late.result()
    assert pair.books() == left
    assert [one["out_trade_no"] for one in pair.storm.kit.sandbox.charges(code)] == [number]
    assert pair.storm.kit.broken() == []


def test_a_holder_frozen_with_the_row_locked_is_shut_out_when_its_session_was_ended(
    pair: Pair,
) -> None:
    code = pair.member.order()
    with (
        operator_of(pair.storm.kit) as operator,
        pair.frozen_at("begun", lambda url: pair.pay(code, "wechatpay", url)) as late,
    ):
        done = operator.run("release", code, "--yes")
        assert done.exit_code == 0, done.output
        assert pair.member.state_of(code) == "created"
        left = pair.books()
    assert late.result().code in {"superseded", "database-unavailable"}, late.result()
    assert pair.books() == left
    assert pair.storm.kit.broken() == []
