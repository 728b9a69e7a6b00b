"""Imports go one way: web and CLI → services → domain; what is below knows nothing of the above.

`locks/` and `sandbox/` could each be taken out and used elsewhere; `statemachine/` does no I/O; one
place alone chooses implementations.
"""

import pytest

from tests.architecture.source import (
    Module,
    importers,
    imports,
    imports_of,
    lies_in,
    modules,
    within,
)

# What computes, and neither reads nor writes anything.
PURE = {"__future__", "collections", "dataclasses", "enum", "functools", "pkgutil", "typing"}

# (who, may not import): each a promise of ARCHITECTURE.md or of the design.
FORBIDDEN: dict[str, tuple[list[str], list[str]]] = {
    "the lock library knows nothing of the shop": (
        ["locks"],
        ["shop", "config", "statemachine", "sandbox", "flask", "sqlalchemy"],
    ),
    "the sandbox shares no code with what it tests": (
        ["sandbox"],
        ["shop", "locks", "statemachine", "config", "wechatpayv3", "alipay"],
    ),
    "settings are read by all and read nobody": (
        ["config"],
        ["shop", "locks", "statemachine", "sandbox", "flask"],
    ),
    "the shop knows of no stand-in, no test and no script": (
        ["shop", "locks", "config", "statemachine", "wsgi"],
        ["sandbox", "tests", "scripts", "benchmarks"],
    ),
    "models know neither the web nor those who work with them": (
        ["shop.*.models"],
        ["flask", "shop.*.views", "shop.*.service", "shop.*.store", "shop.wiring", "shop.pages"],
    ),
    "the gateways know neither the books nor the web": (
        ["shop.gateways"],
        ["flask", "sqlalchemy", "shop.db", "shop.orders", "shop.payments", "shop.points"],
    ),
    "money is moved without knowing of requests": (
        [
            "shop.payments.start",
            "shop.payments.opening",
            "shop.payments.settle",
            "shop.payments.resolve",
            "shop.payments.service",
            "shop.payments.sweep",
            "shop.payments.store",
            "shop.payments.desk",
            "shop.payments.contract",
            "shop.orders.moves",
            "shop.points",
            "shop.catalog.stock",
            "shop.idempotency",
            "shop.webhooks.inbox",
            "shop.webhooks.content",
        ],
        ["flask", "werkzeug", "shop.pages", "shop.*.views", "shop.wiring", "shop.members"],
    ),
    "services and stores do not know who chose them": (
        ["shop.*.service", "shop.*.store"],
        ["shop.wiring", "shop.app", "shop.*.views"],
    ),
    "views translate and write nothing themselves": (
        ["shop.*.views"],
        [
            "shop.orders.moves",
            "shop.payments.start",
            "shop.payments.opening",
            "shop.payments.settle",
            "shop.payments.resolve",
            "shop.payments.store",
            "shop.points.ledger",
            "shop.catalog.stock",
            "shop.db",
            "statemachine",
            "locks",
        ],
    ),
    "points and stock know nothing of payments": (
        ["shop.points", "shop.catalog.stock", "shop.catalog.models"],
        ["shop.payments", "shop.webhooks", "shop.gateways", "locks", "statemachine"],
    ),
    "a way to make requests idempotent knows nothing of payments": (
        ["shop.idempotency"],
        ["shop.payments", "shop.orders", "shop.points", "shop.gateways", "shop.webhooks"],
    ),
}


@pytest.mark.parametrize("promise", FORBIDDEN)
def test_imports_go_one_way(promise: str) -> None:
    who, forbidden = FORBIDDEN[promise]
    assert imports_of(who, forbidden) == [], promise


def test_the_charts_import_nothing_that_does_io() -> None:
    found = {
        name.split(".")[0] for module in within("statemachine") for name in imports(module)
    } - {"statemachine"}
    assert found <= PURE


def test_only_the_wiring_chooses_gateways() -> None:
    concrete = ("shop.gateways.wechatpay", "shop.gateways.alipay")
    outside = {name for name in importers(*concrete) if not lies_in(name, "shop.gateways")}
    assert outside == {"shop.wiring"}


def test_only_the_wiring_chooses_the_lock() -> None:
    back_ends = ("locks.on_redis.lock", "locks.on_zookeeper.lock", "locks.on_files.lock")
    assert {name for name in importers(*back_ends) if not lies_in(name, "locks")} == set()
    of_the_shop = {name for name in importers("locks.from_url") if lies_in(name, "shop")}
    assert of_the_shop == {"shop.wiring"}


def test_the_gateways_libraries_are_known_in_one_folder_each() -> None:
    assert all(lies_in(name, "shop.gateways") for name in importers("wechatpayv3", "alipay"))
    drivers = importers("redis", "kazoo")
    assert {name for name in drivers if not lies_in(name, "locks", "benchmarks")} == set()


def test_the_charts_are_asked_in_one_place_only() -> None:
    assert importers("statemachine.strict.allowed_move") == {"shop.orders.moves"}


def test_the_charts_library_is_known_only_to_the_charts() -> None:
    ours = {module.name for module in within("statemachine")} | {"statemachine"}
    library = {
        name
        for module in modules()
        for name in imports(module)
        if lies_in(name, "statemachine") and not _is_ours(name, ours)
    }
    outside = {
        name for name in importers(*library) if library and not lies_in(name, "statemachine")
    }
    assert outside == set()


def _is_ours(name: str, ours: set[str]) -> bool:
    return name in ours or name.rpartition(".")[0] in ours - {"statemachine"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {module.name: module for module in modules()}
    below = {name: _imported(module, known) for name, module in known.items()}
    circles: list[list[str]] = []
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circles.append([*path[path.index(name) :], name])
            return
        if name not in done:
            for other in sorted(below[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in sorted(known):
        visit(name, [])
    assert circles == []


def _imported(module: Module, known: dict[str, Module]) -> set[str]:
    """The modules of ours that it needs first; the packages that it lies in are no need."""
    return {name for name in imports(module) if name in known and name != module.name} - {
        name for name in known if module.name.startswith(f"{name}.")
    }
