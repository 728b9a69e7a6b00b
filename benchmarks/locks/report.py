"""The tables of a run, for the terminal and, the same ones, in Markdown for docs/locking.md."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.locks.book import Book
from benchmarks.locks.contenders import (
    CONTENDERS,
    CROWD,
    CYCLE,
    GTHREAD,
    IDLE,
    KEYS,
    QUEUE,
)
from benchmarks.locks.figures import Spread, spread
from benchmarks.locks.targets import verdicts

BEGIN, END = "<!-- bench-locks -->", "<!-- /bench-locks -->"
NONE = "–"


class NoMarkers(RuntimeError):
    """The page has no place for the tables."""


@dataclass(frozen=True)
class Table:
    """A heading, the names of the columns, and rows of texts."""

    heading: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def plain(self) -> str:
        """Aligned, for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        shown = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        ]
        return "\n".join([self.heading, *("  " + line.rstrip() for line in shown)])

    def markdown(self) -> str:
        """The same for a page."""
        rule = ["---"] * len(self.columns)
        lines = ["| " + " | ".join(line) + " |" for line in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.heading}**", "", *lines])


@dataclass(frozen=True)
class _Column:
    head: str
    figure: str
    digits: int


_TABLES: tuple[tuple[str, str, tuple[_Column, ...]], ...] = (
    (
        CYCLE,
        "One process, a key that nobody else wants",
        (
            _Column("rate ÷ floor", "of_floor", 2),
            _Column("CPU ÷ floor", "cpu_of_floor", 2),
            _Column("µs per cycle", "us", 0),
        ),
    ),
    (
        CROWD,
        "16 processes, one key, holds of 1 ms",
        (
            _Column("drain ÷ ideal", "drain", 2),
            _Column("hand-over ÷ hold", "handover", 2),
            _Column("Jain's fairness", "jain", 3),
            _Column("longest wait, ms", "longest_wait_ms", 0),
        ),
    ),
    (
        GTHREAD,
        "4 processes of 4 threads, one key, holds of 1 ms",
        (_Column("drain ÷ ideal", "drain", 2), _Column("hand-over ÷ hold", "handover", 2)),
    ),
    (
        IDLE,
        "15 processes blocked behind one holder",
        (
            _Column("CPU of all 15, % of one core", "percent_of_core", 3),
            _Column("a waiter is given a core, times a second", "switches_per_s", 2),
            _Column("lease or session, s", "lease_s", 0),
        ),
    ),
    (
        QUEUE,
        "The first of two waiters is lost, lease and session 4 s: delay to the second, ms",
        (_Column("kill -9", "killed", 1), _Column("SIGSTOP", "frozen", 0)),
    ),
)


def tables(book: Book) -> list[Table]:
    """All that was measured, and the targets."""
    made = [_table(book, *layout) for layout in _TABLES]
    return [table for table in (*made, _keys(book), _targets(book)) if table.rows]


def _table(book: Book, measure: str, heading: str, columns: tuple[_Column, ...]) -> Table:
    table = Table(heading, ["", *(column.head for column in columns)])
    for contender in CONTENDERS.values():
        figures = [book.spread(measure, contender.name, column.figure) for column in columns]
        if any(figures):
            shown = [
                _shown(figure, column.digits)
                for figure, column in zip(figures, columns, strict=True)
            ]
            table.rows.append([contender.title, *shown])
    return table


def _keys(book: Book) -> Table:
    """The medians alone: with their spreads the table would be too wide to read."""
    threads = keys_threads(book)
    heads = [f"{count} thread{'s' * (count > 1)}" for count in threads]
    table = Table("A key for each thread: rate of all ÷ the floor's with one thread", ["", *heads])
    for contender in CONTENDERS.values():
        figures = [keys_of_floor(book, contender.name, count) for count in threads]
        if any(figures):
            shown = [NONE if figure is None else f"{figure.median:.2f}" for figure in figures]
            table.rows.append([contender.title, *shown])
    return table


def keys_of_floor(book: Book, name: str, threads: int) -> Spread | None:
    """A contender's rate with so many threads, in units of its floor with one, beside it."""
    values = book.ratios(KEYS, (name, f"rate_{threads}"), (name, f"base_{threads}"))
    return spread(values) if values else None


def keys_threads(book: Book) -> list[int]:
    """The numbers of threads that were tried."""
    figures = {entry.figure for entry in book.entries if entry.measure == KEYS}
    return sorted(int(figure[5:]) for figure in figures if figure.startswith("rate_"))


def _targets(book: Book) -> Table:
    table = Table("Targets", ["", "wanted", "its floor", "measured", ""])
    for verdict in verdicts(book):
        target = verdict.target
        sign = "≥" if target.at_least else "≤"
        floor = "" if target.floor is None else _short(verdict.floor)
        wanted, figure = f"{sign} {target.bound:g}", _short(verdict.figure)
        table.rows.append([target.text, wanted, floor, figure, verdict.word])
    return table


def _short(value: float | None) -> str:
    """Three figures, and no powers of ten."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _shown(figure: Spread | None, digits: int) -> str:
    if figure is None:
        return NONE
    middle = f"{figure.median:.{digits}f}"
    if figure.rounds == 1:
        return middle
    return f"{middle} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def as_text(book: Book) -> str:
    """For the terminal."""
    about = "\n".join(f"{name}: {value}" for name, value in book.about.items())
    failed = [f"FAILED {failure}" for failure in book.failures]
    return "\n\n".join([about, *(table.plain() for table in tables(book)), *failed])


def write_into(page: Path, book: Book, picture: str) -> None:
    """Put the tables between the page's markers. Raises NoMarkers."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise NoMarkers(f"{page} needs one {BEGIN} and, after it, one {END}.")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    about = ["| the run | |", "|---|---|", *(f"| {n} | {v} |" for n, v in book.about.items())]
    failed = [f"Failed: {failure}." for failure in book.failures]
    parts = ["\n".join(about), *(table.markdown() for table in tables(book)), *failed, picture]
    filled = "\n\n".join([BEGIN, *parts, END])
    page.write_text(before + filled + after, encoding="utf-8")
