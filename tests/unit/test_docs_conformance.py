"""docs/conformance.md: what it names is there, and no code of the outcome tables is left out."""

import ast
import re
from pathlib import Path

import pytest

from shop.gateways.outcomes_table import CALLS, OF_EVERY_CALL, STATES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"
TEXT = PAGE.read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^- \[(\d+)\] `(tests/[^`]+)`$", TEXT, flags=re.MULTILINE))
# A cell of "shown by", or a sentence, may name several: [3, 17].
NAMED = {
    number
    for line in TEXT.splitlines()
    if not line.startswith("- [")
    for group in re.findall(r"\[(\d+(?:, \d+)*)\]", line)
    for number in group.split(", ")
}
PATHS = sorted(set(re.findall(r"`((?:shop|sandbox|tests)/[\w./]*)`", TEXT)))
LINKS = sorted(set(re.findall(r"\]\((?!https:)([^)]+)\)", TEXT)))
CODES = sorted(
    {code for calls in CALLS.values() for table in calls.values() for code in table}
    | {state for states in STATES.values() for table in states.values() for state in table}
    | set(OF_EVERY_CALL)
)
VERIFIED = ("documented", "SDK source", "third-party", "not verified")


def named_in(path: str) -> set[str]:
    """The tests of a file."""
    found = ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return {node.name for node in found if isinstance(node, ast.FunctionDef)}


def missing_tests(named: dict[str, str]) -> list[str]:
    """Those of `file::test` that are not there."""
    missing = []
    for test in named.values():
        path, _, name = test.partition("::")
        if not (ROOT / path).exists() or name not in named_in(path):
            missing.append(test)
    return missing


def words(text: str) -> set[str]:
    """Everything in a text that could be a code, whole."""
    return set(re.findall(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", text))


def rows() -> list[list[str]]:
    """The cells of every row of the five-column tables, heads left out."""
    lines = [line for line in TEXT.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) != 2 and row[-1] not in {"shown by", "---"}]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_test_that_the_page_lists_exists() -> None:
    assert len(LISTED) > 100
    assert missing_tests(LISTED) == []


def test_a_missing_test_would_be_found() -> None:
    here = "tests/unit/test_docs_conformance.py"
    gone = [f"{here}::test_that_is_not_there", "tests/unit/test_no_such.py::test_x"]
    named = {"1": f"{here}::test_a_missing_test_would_be_found", "2": gone[0], "3": gone[1]}
    assert missing_tests(named) == gone


def test_the_rows_and_the_lists_below_them_name_the_same_tests() -> None:
    assert set(LISTED) == NAMED


@pytest.mark.parametrize("path", PATHS)
def test_every_part_of_the_code_that_the_page_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("link", LINKS)
def test_every_link_of_the_page_leads_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")
    target = PAGE.parent / name if name else PAGE
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_every_row_has_five_cells_and_says_on_what_it_rests() -> None:
    assert len(rows()) > 100
    for row in rows():
        assert len(row) == 5, row
        assert row[3].startswith(VERIFIED), row


def test_every_code_of_the_tables_is_told_on_this_page_or_drawn_on_the_gateways() -> None:
    told = words(TEXT) | words((PAGE.parent / "gateways.md").read_text(encoding="utf-8"))
    assert [code for code in CODES if code not in told] == []
    assert "TRADE_NOT_EXIST" not in words("ACQ.TRADE_NOT_EXIST")
