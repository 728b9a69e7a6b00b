"""The source as the architecture tests read it: parsed, never imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "statemachine", "locks", "shop", "sandbox", "scripts", "benchmarks")


@dataclass(frozen=True, kw_only=True)
class Module:
    """One file of ours."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def within(self, *places: str) -> bool:
        """Whether it is one of these modules or lies in one of these packages."""
        return lies_in(self.name, *places)


def lies_in(name: str, *places: str) -> bool:
    """Whether a dotted name is one of these places or lies within one; `*` stands for one part."""
    return any(_matches(name.split("."), place.split(".")) for place in places)


def _matches(parts: list[str], place: list[str]) -> bool:
    return len(parts) >= len(place) and all(
        wanted in {"*", part} for part, wanted in zip(parts, place, strict=False)
    )


@cache
def modules() -> tuple[Module, ...]:
    """All modules of the packages, and wsgi."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return tuple(_read(file) for file in [*files, ROOT / "wsgi.py"])


def within(*places: str) -> list[Module]:
    """The modules in these places; a place with nothing in it is a mistake of the test."""
    for place in places:
        assert any(module.within(place) for module in modules()), f"there is no {place}"
    return [module for module in modules() if module.within(*places)]


def _read(file: Path) -> Module:
    parts = list(file.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    text = file.read_text(encoding="utf-8")
    return Module(name=".".join(parts), path=file, text=text, tree=ast.parse(text))


def imports(module: Module) -> Iterator[str]:
    """Dotted names that it imports, wherever in the file: `from a import b` gives a and a.b."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} imports relatively"
            source = node.module or ""
            yield source
            yield from (f"{source}.{name.name}" for name in node.names)


def imports_of(places: list[str], forbidden: list[str], but: tuple[str, ...] = ()) -> list[str]:
    """Every import from these places of what is forbidden to them, in words."""
    return [
        f"{module.name} imports {name}"
        for module in within(*places)
        for name in imports(module)
        if lies_in(name, *forbidden) and not module.within(*but)
    ]


def importers(*names: str) -> set[str]:
    """The modules that import any of these."""
    return {
        module.name for module in modules() for found in imports(module) if lies_in(found, *names)
    }


def where(module: Module, node: ast.AST) -> str:
    """file:line"""
    return f"{module.path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
