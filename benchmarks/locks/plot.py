"""The run as one picture: three panels of bars and one of lines, in SVG, without any library."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.locks.book import Book
from benchmarks.locks.contenders import CONTENDERS, CROWD, CYCLE, Contender
from benchmarks.locks.figures import Spread
from benchmarks.locks.report import keys_of_floor, keys_threads

WIDTH, PANEL_HEIGHT, MARGIN = 960, 300, 16
PANEL_WIDTH = WIDTH // 2
LABELS, TITLE, ROW = 180, 34, 20
INK, FAINT, PAPER = "#222222", "#d0d0d0", "#ffffff"
OURS, FLOOR, LIBRARY = "#0b6e4f", "#bdbdbd", "#8a9bb4"
# Lines: a hue for each service; ours the darkest, the floor dashed.
OWN_HUES = {"redis": "#0b6e4f", "zookeeper": "#a63d00", "file": "#123a6d"}
FLOOR_HUES = {"redis": "#5fb49c", "zookeeper": "#e08e5a", "file": "#7f9fc9"}
LIBRARY_HUES = {"redis-py": "#9bc53d", "python-redis-lock": "#4f9d2f", "kazoo": "#f2b134"}


@dataclass(frozen=True)
class _Axis:
    """Where a figure stands between 0 (left) and 1 (right)."""

    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        if not self.is_log:
            return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        span = math.log(self.high / self.low)
        return min(1.0, max(0.0, math.log(max(value, self.low) / self.low) / span))


def draw(book: Book) -> str:
    """The whole picture."""
    panels = [
        _bars(book, "alone: rate ÷ its floor (wanted: 0.85)", CYCLE, "of_floor", mark=0.85),
        _bars(book, "16 on one key: drain ÷ ideal (wanted: 1.3; log)", CROWD, "drain", mark=1.3),
        _bars(book, "hand-over ÷ hold of 1 ms (log)", CROWD, "handover"),
        _lines(book, "a key per thread: rate ÷ floor with one thread"),
    ]
    parts = [
        f'<g transform="translate({PANEL_WIDTH * (at % 2)},{PANEL_HEIGHT * (at // 2)})">{panel}</g>'
        for at, panel in enumerate(panels)
    ]
    height = 2 * PANEL_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>{"".join(parts)}</svg>\n'
    )


def _bars(book: Book, title: str, measure: str, figure: str, *, mark: float | None = None) -> str:
    found = [
        (contender, value)
        for contender in CONTENDERS.values()
        if (value := book.spread(measure, contender.name, figure)) is not None
    ]
    parts = [_text(MARGIN, 20, title, weight="bold")]
    if not found:
        return "".join([*parts, _text(MARGIN, 50, "not measured")])
    highest = max(value.high for _, value in found)
    axis = _Axis(0.2, max(1.5, highest), True) if measure == CROWD else _Axis(0, highest, False)
    left, width = LABELS, PANEL_WIDTH - LABELS - 70
    if mark is not None:
        at, bottom = left + axis.place(mark) * width, TITLE + len(found) * ROW
        parts.append(_line(at, TITLE, at, bottom, INK, dash=True))
    for row, (contender, value) in enumerate(found):
        top = TITLE + row * ROW
        end = left + axis.place(value.median) * width
        parts += [
            _text(left - 6, top + 13, contender.title, anchor="end"),
            f'<rect x="{left}" y="{top + 3}" width="{max(1.0, end - left):.1f}" height="{ROW - 6}" '
            f'fill="{_colour(contender)}"/>',
            _whisker(value, axis, left, width, top + ROW / 2),
            _text(left + axis.place(value.high) * width + 6, top + 13, f"{value.median:.2f}"),
        ]
    return "".join(parts)


def _whisker(value: Spread, axis: _Axis, left: float, width: float, y: float) -> str:
    ends = (left + axis.place(value.low) * width, left + axis.place(value.high) * width)
    return _line(ends[0], y, ends[1], y, INK)


def _lines(book: Book, title: str) -> str:
    threads = keys_threads(book)
    series = {
        contender: [(n, found.median) for n in threads if (found := figure(n)) is not None]
        for contender, figure in (
            (each, _keys_figure(book, each.name)) for each in CONTENDERS.values()
        )
    }
    shown = {contender: points for contender, points in series.items() if points}
    parts = [_text(MARGIN, 20, title, weight="bold")]
    if not shown:
        return "".join([*parts, _text(MARGIN, 50, "not measured")])
    left, width, top, height = 50, PANEL_WIDTH - LABELS - 60, TITLE, PANEL_HEIGHT - TITLE - 40
    across = _Axis(1, max(2, threads[-1]), True)
    up = _Axis(0, max(y for points in shown.values() for _, y in points), False)

    def spot(x: float, y: float) -> tuple[float, float]:
        return left + across.place(x) * width, top + (1 - up.place(y)) * height

    parts.append(_line(left, top + height, left + width, top + height, FAINT))
    parts += [_text(spot(n, 0)[0], top + height + 15, f"{n}", anchor="middle") for n in threads]
    parts.append(_text(left + width, top + height + 30, "threads (log)", anchor="end"))
    step = 10 ** math.floor(math.log10(up.high)) / 2
    for tick in range(int(up.high / step) + 1):
        y = spot(1, tick * step)[1]
        parts += [
            _line(left, y, left + width, y, FAINT),
            _text(left - 6, y + 4, f"{tick * step:g}", anchor="end"),
        ]
    for row, (contender, points) in enumerate(shown.items()):
        colour = _hue(contender)
        parts += [
            _polyline([spot(*point) for point in points], colour, dash=contender.is_floor),
            _line(left + width + 8, top + 8 + row * ROW, left + width + 24, top + 8 + row * ROW,
                  colour, dash=contender.is_floor),
            _text(left + width + 28, top + 12 + row * ROW, contender.title),
        ]  # fmt: skip
    return "".join(parts)


def _keys_figure(book: Book, name: str) -> Callable[[int], Spread | None]:
    return lambda threads: keys_of_floor(book, name, threads)


def _colour(contender: Contender) -> str:
    if contender.is_ours:
        return OURS
    return FLOOR if contender.is_floor else LIBRARY


def _hue(contender: Contender) -> str:
    if contender.is_ours:
        return OWN_HUES[contender.service]
    if contender.is_floor:
        return FLOOR_HUES[contender.service]
    return LIBRARY_HUES.get(contender.name, LIBRARY)


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{INK}" paint-order="stroke" stroke="{PAPER}" stroke-width="3">'
        f"{escape(words)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: bool = False) -> str:
    return _polyline([(x1, y1), (x2, y2)], colour, dash=dash)


def _polyline(points: Sequence[tuple[float, float]], colour: str, *, dash: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="4 3"' if dash else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>'
