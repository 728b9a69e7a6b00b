"""Who writes what: each number that matters is changed in one file.

Read off the syntax: `update(X)…values(…)` and `session.commit`.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, where, within

# (model, column) and the one module that may update it.
WRITERS = {
    ("Order", "state"): "shop.orders.moves",
    ("Order", "version"): "shop.orders.moves",
    ("Order", "lock_epoch"): "shop.orders.moves",
    ("Order", "lock_fence"): "shop.orders.moves",
    ("PaymentAttempt", "state"): "shop.orders.moves",
    ("PaymentAttempt", "version"): "shop.orders.moves",
    ("LedgerAccount", "balance"): "shop.points.ledger",
}
# (model) and the modules that may change its rows at all.
ROW_WRITERS = {
    "LedgerAccount": {"shop.points.ledger"},
    # The seed renews names and prices of the demo goods.
    "Product": {"shop.catalog.stock", "shop.commands.seed"},
    "StoredNotice": {"shop.webhooks.inbox"},
    "PaymentRequest": {"shop.idempotency.dedup"},
    "LedgerEntry": set[str](),
    "LedgerTransaction": set[str](),
    "Transition": set[str](),
}


def changes(module: Module) -> Iterator[tuple[ast.Call, str, str]]:
    """Every `update(Model)` or `delete(Model)`, and which of the two."""
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"update", "delete"}
            and node.args
            and isinstance(node.args[0], ast.Name)
        ):
            yield node, node.func.id, node.args[0].id


def updated_columns(module: Module) -> Iterator[tuple[str, str, ast.Call]]:
    """(model, column, where) of every `update(Model)…values(column=…)`."""
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr != "values":
            continue
        inner = ast.Module(body=[ast.Expr(node.func.value)], type_ignores=[])
        below = Module(name=module.name, path=module.path, text="", tree=inner)
        for _, verb, model in changes(below):
            if verb == "update":
                for keyword in node.keywords:
                    yield model, keyword.arg or "**", node


@pytest.mark.parametrize(("model", "column"), WRITERS)
def test_what_matters_is_written_in_one_file(model: str, column: str) -> None:
    writers = {
        module.name
        for module in within("shop")
        for found, name, _ in updated_columns(module)
        if (found, name) == (model, column)
    }
    assert writers == {WRITERS[model, column]}


@pytest.mark.parametrize("model", ROW_WRITERS)
def test_rows_are_changed_only_by_their_keeper(model: str) -> None:
    writers = {
        module.name
        for module in within("shop")
        for _, _, found in changes(module)
        if found == model
    }
    assert writers == ROW_WRITERS[model]


def test_an_update_with_columns_that_cannot_be_read_off_is_made_by_the_moves_alone() -> None:
    hidden = {
        (module.name, model)
        for module in within("shop")
        for model, column, _ in updated_columns(module)
        if column == "**" and model in {"Order", "PaymentAttempt", "LedgerAccount"}
    }
    assert hidden == {
        ("shop.orders.moves", "Order"),
        ("shop.orders.moves", "PaymentAttempt"),
    }


def test_only_one_place_commits() -> None:
    found = [
        (module.name, ast.unparse(node.func))
        for module in within("shop")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"commit", "flush", "merge", "bulk_save_objects"}
    ]
    commits = {(module, call) for module, call in found if call.endswith("session.commit")}
    assert commits == {("shop.db", "db.session.commit")}
    others = {call for _, call in found if not call.endswith("session.commit")}
    # A savepoint's end, and the id of a row that was just added: neither ends a transaction. Files
    # are no sessions.
    assert others <= {"savepoint.commit", "db.session.flush", "file.flush"}


def test_no_transaction_is_open_across_a_gateway_call() -> None:
    """Each call of a gateway stands right below the line that ends every read and looks at the
    lease."""
    calls = []
    for module in within("shop.payments"):
        for body in _bodies(module.tree):
            for before, statement in zip([None, *body], body, strict=False):
                if _calls_gateway(statement):
                    ready = before is not None and "before_gateway_call" in ast.unparse(before)
                    calls.append((where(module, statement), ready))
    assert len(calls) >= 4  # prepay; query, close and query again
    assert [place for place, ready in calls if not ready] == []


def _bodies(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                yield body


def _calls_gateway(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Assign | ast.Expr | ast.Return | ast.AnnAssign):
        return False
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"prepay", "query", "close", "refund", "query_refund"}
        and "gateway" in ast.unparse(node.func.value)
        for node in ast.walk(statement)
    )
