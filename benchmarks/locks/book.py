"""The figures of one run, kept as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.locks.figures import Spread, spread


class NoBook(RuntimeError):
    """There is no file of figures to read, or it is of another kind."""


@dataclass(frozen=True)
class Entry:
    """One figure of one contender in one round."""

    measure: str
    contender: str
    figure: str
    round: int
    value: float


@dataclass
class Book:
    """All entries, what went wrong, and on what machine it was."""

    about: dict[str, str]
    """What a reader needs to judge the figures: date, versions, rounds."""
    entries: list[Entry] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def values(self, measure: str, contender: str, figure: str) -> list[float]:
        """A figure's values, one per round."""
        return list(self._by_round(measure, contender, figure).values())

    def spread(self, measure: str, contender: str, figure: str) -> Spread | None:
        """None if it was not measured."""
        values = self.values(measure, contender, figure)
        return spread(values) if values else None

    def ratios(self, measure: str, above: tuple[str, str], below: tuple[str, str]) -> list[float]:
        """One (contender, figure) over another, in the rounds in which both were measured."""
        upper, lower = self._by_round(measure, *above), self._by_round(measure, *below)
        return [upper[number] / lower[number] for number in sorted(upper.keys() & lower.keys())]

    def _by_round(self, measure: str, contender: str, figure: str) -> dict[int, float]:
        return {
            entry.round: entry.value
            for entry in self.entries
            if (entry.measure, entry.contender, entry.figure) == (measure, contender, figure)
        }

    def write(self, path: Path) -> None:
        """Write it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises NoBook."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(raw["about"], [Entry(**entry) for entry in raw["entries"]], raw["failures"])
        except FileNotFoundError:
            raise NoBook(f"There is no {path}: run `make bench-locks` first.") from None
        except (ValueError, KeyError, TypeError):
            raise NoBook(f"{path} holds no figures of this benchmark.") from None
