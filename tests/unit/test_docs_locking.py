"""docs/locking.md: every test that it names is there, and every place that it points to."""

import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "locking.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r'make test ARGS="([^"]*)"', TEXT)))
LINKS = sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT)))


def names_in(place: Path) -> set[str]:
    """What pytest's -k looks at: the files' names and the tests' names."""
    files = sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
    return {file.stem for file in files} | {
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def unselected(command: str) -> list[str]:
    """What the command names and is not there: a path, or a word of its -k that matches nothing."""
    words = shlex.split(command)
    chosen: list[str] = []
    if "-k" in words:
        at = words.index("-k")
        chosen = words.pop(at + 1).split(" or ")
        words.pop(at)
    missing = [word for word in words if not (ROOT / word).exists()]
    names = {name for word in words if word not in missing for name in names_in(ROOT / word)}
    return missing + [part for part in chosen if not any(part in name for name in names)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_missing_test_would_be_found() -> None:
    here = "tests/unit/test_docs_locking.py"
    assert unselected(f"{here} -k 'missing_test or anchors'") == ["anchors"]
    assert unselected("tests/unit/test_no_such.py") == ["tests/unit/test_no_such.py"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_selects_tests(command: str) -> None:
    assert unselected(command) == []


@pytest.mark.parametrize("link", LINKS)
def test_every_link_of_the_page_leads_somewhere(link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (PAGE.parent / name).resolve() if name else PAGE
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


def test_the_page_names_commands_and_links() -> None:
    """Lest the two tests above run over nothing."""
    assert len(COMMANDS) > 10
    assert len(LINKS) > 5
