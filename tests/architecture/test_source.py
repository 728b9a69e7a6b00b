"""Rules that every file keeps: no float near money, nothing longer than a person reads."""

import ast
import re

import pytest

from tests.architecture.source import ROOT, Module, modules, where, within

LINES_MAX = 350
FUNCTION_LINES_MAX = 70
# A longer module says why near its top: "Long because …".
REASON = re.compile(r"\bLong because\b")
REASON_WITHIN_LINES = 20

MONEY_PATHS = (
    "shop.money",
    "shop.points",
    "shop.payments",
    "shop.orders",
    "shop.cart",
    "shop.webhooks",
    "shop.catalog.models",
    "shop.catalog.stock",
    "shop.catalog.service",
    "shop.gateways.reading",
    "shop.gateways.outcomes",
    "shop.gateways.wechatpay",
    "shop.gateways.alipay",
    "sandbox.money",
    "sandbox.trades",
    "sandbox.refunds",
    "statemachine",
)
INEXACT_TYPES = {"Float", "Double", "Numeric", "REAL", "DOUBLE", "FLOAT", "NUMERIC", "DECIMAL"}


def inexact(module: Module) -> list[str]:
    """Where it makes, names or computes with a float."""
    found = []
    for node in ast.walk(module.tree):
        named = isinstance(node, ast.Name) and node.id in {"float", "complex"}
        constant = isinstance(node, ast.Constant) and isinstance(node.value, float)
        divides = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        rounds = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "round"
        )
        if named or constant or divides or rounds:
            found.append(f"{where(module, node)}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("place", MONEY_PATHS)
def test_no_float_comes_near_money(place: str) -> None:
    assert [line for module in within(place) for line in inexact(module)] == []


def test_no_column_is_inexact() -> None:
    named = {
        f"{module.name}: {node.id}"
        for module in within("shop")
        if module.name.endswith((".models", ".db"))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id in INEXACT_TYPES
    }
    assert named == set()
    for file in (ROOT / "migrations" / "versions").glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        types = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert types & INEXACT_TYPES == set(), file.name


def test_no_module_is_too_long_to_read_unless_it_says_why() -> None:
    too_long = [
        f"{module.name}: {len(lines)} lines"
        for module in modules()
        if len(lines := module.text.splitlines()) > LINES_MAX
        and not REASON.search("\n".join(lines[:REASON_WITHIN_LINES]))
    ]
    assert too_long == []


def test_no_function_is_too_long_to_read() -> None:
    too_long = [
        f"{where(module, node)} {node.name}: {length} lines"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        module.name
        for module in modules()
        if module.text.strip() and ast.get_docstring(module.tree) is None
    ]
    assert silent == []


def test_no_error_is_swallowed_whole() -> None:
    """A bare `except:`, or a broad one whose body does nothing at all."""
    found = []
    for module in modules():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            if node.type is None or (broad and all(isinstance(one, ast.Pass) for one in node.body)):
                found.append(where(module, node))
    assert found == []


def test_no_file_holds_an_unfinished_thought() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [
        f"{module.path.relative_to(ROOT)}:{number}"
        for module in modules()
        for number, line in enumerate(module.text.splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []
