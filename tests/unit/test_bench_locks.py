"""The benchmark of the locks: its figures are right, and a wrong wish is refused with a reason."""

import math
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.locks.__main__ import main, report
from benchmarks.locks.book import Book, Entry, NoBook
from benchmarks.locks.contenders import CONTENDERS, CROWD, CYCLE, KEYS, floor_of
from benchmarks.locks.crew import Crew, WorkerFailed
from benchmarks.locks.figures import Turn, TwoHolders, crowd, jain, spread
from benchmarks.locks.measures import FULL, QUICK, Round, measures_of_round
from benchmarks.locks.plot import draw
from benchmarks.locks.report import BEGIN, END, NoMarkers, as_text, keys_of_floor, write_into
from benchmarks.locks.targets import TARGETS, verdicts
from tests.processes import free_port

MS = 1_000_000


def make_book(*entries: Entry) -> Book:
    return Book({"date": "2026-11-25"}, list(entries))


def redis_alone(*values: float) -> Book:
    return make_book(
        *(
            Entry(CYCLE, "ours-redis", "of_floor", number, value)
            for number, value in enumerate(values, 1)
        )
    )


def words_of(picture: str) -> list[str]:
    """All texts of an SVG; raises ParseError if it is not well formed."""
    return [node.text for node in ET.fromstring(picture).iter() if node.text]  # noqa: S314 - ours


@pytest.mark.parametrize(
    ("shares", "index"),
    [
        ([5, 5, 5, 5], 1.0),
        ([8, 0, 0, 0], 1 / 4),
        ([1, 1, 0, 0], 1 / 2),
        ([1, 2, 3], 36 / 42),
        ([7], 1.0),
    ],
)
def test_jain_s_index_is_one_for_equals_and_one_nth_for_a_single_winner(
    shares: list[int], index: float
) -> None:
    assert math.isclose(jain(shares), index)


def test_fairness_does_not_depend_on_the_unit() -> None:
    assert math.isclose(jain([1, 2, 3]), jain([1_000, 2_000, 3_000]))


@pytest.mark.parametrize("shares", [[], [0, 0]])
def test_where_nothing_was_shared_there_is_no_fairness(shares: list[int]) -> None:
    with pytest.raises(ValueError, match="nothing was shared"):
        jain(shares)


def test_a_spread_is_the_median_with_the_extremes() -> None:
    found = spread([3.0, 1.0, 10.0, 2.0])
    assert (found.median, found.low, found.high, found.rounds) == (2.5, 1.0, 10.0, 4)
    with pytest.raises(ValueError, match="median"):
        spread([])


def test_drain_and_hand_over_are_those_of_a_line_drawn_by_hand() -> None:
    """Three holds of 2 ms between 2 and 10 ms, hand-overs of 0.5 and 1.5 ms; all asked at 0."""
    turns = [
        Turn(1, 0, int(4.5 * MS), int(6.5 * MS), 7 * MS),
        Turn(2, 0, 2 * MS, 4 * MS, 5 * MS),
        Turn(3, 0, 8 * MS, 10 * MS, 11 * MS),
    ]
    found = crowd(turns)
    assert math.isclose(found.drain, 10 / 6)
    assert found.handover == pytest.approx(((0.5 + 1.5) / 2) / 2)
    assert found.longest_wait_ns == 8 * MS
    assert found.turns == 3


def test_two_holders_at_once_spoil_the_run() -> None:
    with pytest.raises(TwoHolders):
        crowd([Turn(1, 0, 1 * MS, 3 * MS, 4 * MS), Turn(2, 0, 2 * MS, 5 * MS, 6 * MS)])


def test_a_single_turn_has_no_hand_over() -> None:
    with pytest.raises(ValueError, match="no hand-over"):
        crowd([Turn(1, 0, 1, 2, 3)])


def test_who_takes_the_key_again_himself_hands_nothing_over() -> None:
    again = [Turn(1, 0, 0, 1 * MS, 1 * MS), Turn(1, 1 * MS, 2 * MS, 3 * MS, 3 * MS)]
    assert crowd(again).handover is None
    other = Turn(2, 0, 7 * MS, 8 * MS, 8 * MS)
    assert crowd([*again, other]).handover == 4.0


def test_ratios_are_taken_within_a_round_and_only_where_both_were_measured() -> None:
    book = make_book(
        Entry(CROWD, "kazoo", "drain", 1, 6.0),
        Entry(CROWD, "kazoo", "drain", 2, 9.0),
        Entry(CROWD, "ours-zookeeper", "drain", 1, 2.0),
        Entry(CROWD, "ours-zookeeper", "drain", 3, 1.0),
    )
    assert book.ratios(CROWD, ("kazoo", "drain"), ("ours-zookeeper", "drain")) == [3.0]


def test_a_rate_with_many_threads_is_measured_in_floors_with_one() -> None:
    book = make_book(
        Entry(KEYS, "ours-redis", "base_1", 1, 2_000.0),
        Entry(KEYS, "ours-redis", "rate_1", 1, 2_000.0),
        Entry(KEYS, "ours-redis", "base_8", 1, 1_000.0),
        Entry(KEYS, "ours-redis", "rate_8", 1, 3_000.0),
    )
    found = keys_of_floor(book, "ours-redis", 8)
    assert found is not None
    assert found.median == 3.0
    assert keys_of_floor(book, "ours-redis", 64) is None


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.85,), "met"),
        ((0.849,), "NOT met"),
        ((), "not measured"),
        ((0.1, 0.9, 0.9), "met"),
        ((0.9, 0.8, 0.8), "NOT met"),
    ],
)
def test_a_target_from_below_is_judged_by_the_median(values: tuple[float, ...], word: str) -> None:
    assert verdicts(redis_alone(*values))[0].word == word


def test_a_target_from_above_is_met_at_its_bound_and_not_beyond() -> None:
    at, beyond = (make_book(Entry(CROWD, "ours-redis", "drain", 1, value)) for value in (1.3, 1.31))
    assert verdicts(at)[1].word == "met"
    assert verdicts(beyond)[1].word == "NOT met"


def test_beside_a_target_stands_what_the_floor_of_the_same_run_came_to() -> None:
    ours, floor = (
        Entry(CROWD, name, "drain", 1, value)
        for name, value in (("ours-redis", 1.42), ("floor-redis-queue", 1.37))
    )
    line = next(
        row for row in as_text(make_book(ours, floor)).splitlines() if "crowd: drain ÷ ideal" in row
    )
    assert line.split()[-4:] == ["1.37", "1.42", "NOT", "met"]


def test_every_target_finds_its_figure_in_a_run_that_has_all() -> None:
    figures = {
        CYCLE: ("of_floor",),
        CROWD: ("drain", "handover", "jain"),
        "idle": ("percent_of_core",),
        "queue": ("killed", "frozen"),
    }
    book = make_book(
        *(
            Entry(measure, contender, figure, 1, 1.0)
            for measure, names in figures.items()
            for figure in names
            for contender in CONTENDERS
        )
    )
    assert [verdict.figure for verdict in verdicts(book)] == [1.0] * len(TARGETS)


def test_every_contender_has_a_floor_that_is_measured_wherever_it_is_compared_with_it() -> None:
    for contender in CONTENDERS.values():
        floor = CONTENDERS[floor_of(contender.service)]
        assert contender.measures & {CYCLE, KEYS} <= floor.measures


def test_what_takes_long_is_measured_in_the_first_rounds_only() -> None:
    first = measures_of_round(FULL, 1, ["cycle", "idle"])
    last = measures_of_round(FULL, FULL.rounds, ["cycle", "idle"])
    assert (first, last) == (["cycle", "idle"], ["cycle"])


def test_a_book_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = redis_alone(0.9, 0.8)
    book.failures.append("crowd, kazoo Lock: it ended")
    book.write(tmp_path / "out" / "locks.json")
    assert Book.read(tmp_path / "out" / "locks.json") == book


def test_a_file_that_is_no_book_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoBook, match="make bench-locks"):
        Book.read(tmp_path / "locks.json")
    (tmp_path / "locks.json").write_text("[]")
    with pytest.raises(NoBook, match="no figures"):
        Book.read(tmp_path / "locks.json")


def test_the_tables_show_median_spread_verdict_and_failures() -> None:
    book = redis_alone(0.84, 0.9, 0.86)
    book.failures.append("crowd, kazoo Lock: it ended")
    text = as_text(book)
    assert "0.86 (0.84 to 0.90)" in text
    assert "FAILED crowd, kazoo Lock: it ended" in text
    alone = next(line for line in text.splitlines() if "Redis, alone" in line)
    assert alone.split()[-2:] == ["0.86", "met"]


def test_a_large_figure_is_shown_without_powers_of_ten() -> None:
    text = as_text(make_book(Entry("queue", "ours-redis", "frozen", 1, 2_012.3)))
    assert next(line for line in text.splitlines() if "frozen: ms" in line).split()[-3:] == [
        "2500",
        "2012",
        "met",
    ]


def test_only_what_is_between_the_markers_is_replaced_however_often(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n", encoding="utf-8")
    write_into(page, redis_alone(0.5), "![picture](p.svg)")
    once = page.read_text(encoding="utf-8")
    assert once.startswith(f"before\n\n{BEGIN}\n")
    assert once.endswith(f"![picture](p.svg)\n\n{END}\n\nafter\n")
    assert "| ours, Redis | 0.50 |" in once
    assert "old" not in once
    write_into(page, redis_alone(0.5), "![picture](p.svg)")
    assert page.read_text(encoding="utf-8") == once


@pytest.mark.parametrize("text", ["", f"{BEGIN}", f"{END} {BEGIN}", f"{BEGIN} {END} {END}"])
def test_a_page_without_its_markers_is_left_alone(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(NoMarkers):
        write_into(page, redis_alone(0.5), "")
    assert page.read_text(encoding="utf-8") == text


def test_the_picture_is_drawn_of_a_full_run_and_of_an_empty_one() -> None:
    entries = [
        Entry(measure, contender, figure, 1, 0.5 + place)
        for measure, figure in ((CYCLE, "of_floor"), (CROWD, "drain"), (CROWD, "handover"))
        for place, contender in enumerate(CONTENDERS)
    ]
    rates = [
        Entry(KEYS, contender, f"{kind}_{threads}", 1, 100.0 * threads)
        for kind in ("base", "rate")
        for contender in CONTENDERS
        for threads in (1, 8)
    ]
    words = words_of(draw(make_book(*entries, *rates)))
    assert {contender.title for contender in CONTENDERS.values()} <= set(words)
    assert words_of(draw(make_book())).count("not measured") == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "rediss"], "no such measure or contender"),
        (["--only", "cycle", "--only", ""], "no such measure or contender"),
        (["--fast"], "unrecognized arguments: --fast"),
        (["--only"], "expected one argument"),
        (["cycle"], "unrecognized arguments: cycle"),
    ],
)
def test_a_wrong_wish_ends_with_2_and_says_what_there_is(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr()
    assert status == 2
    assert complaint in said.err
    assert said.out == ""


def test_without_a_run_there_is_nothing_to_write_into_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--write-docs", "--out", str(tmp_path)]) == 2
    assert "make bench-locks" in capsys.readouterr().err


def test_a_place_that_cannot_take_the_figures_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--quick", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew(size=2) as crew:
        yield crew


def test_the_cpu_of_a_process_is_read_from_outside_even_while_it_is_frozen(
    crew: Crew, tmp_path: Path
) -> None:
    worker = crew.workers[0]
    at_rest_ns = worker.cpu_ns()
    worker.ask("open", contender="floor-file", address=f"file://{tmp_path}", lease_ms=1_000)
    assert worker.ask("spin", keys=["a", "b"], for_s=0.05)["cycles"] > 0
    worker.freeze()
    frozen_ns = worker.cpu_ns()
    assert frozen_ns > at_rest_ns
    assert worker.cpu_ns() == frozen_ns


def test_a_worker_whose_lock_fails_says_why_and_is_replaced(crew: Crew, tmp_path: Path) -> None:
    first = list(crew.workers)
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(WorkerFailed, match="refused"):
        crew.at(CONTENDERS["floor-redis"], nobody, 1_000).__enter__()
    assert set(first).isdisjoint(crew.workers)
    with crew.at(CONTENDERS["ours-file"], f"file://{tmp_path}", 1_000) as gang:
        turns = gang.work("key", threads=2, hold_s=0.0, start_ns=0, count=3)
    assert [len(each) for each in turns] == [3, 3, 3, 3]
    assert crowd([turn for each in turns for turn in each]).turns == 12


def test_a_contender_that_fails_is_noted_and_the_others_are_measured(
    crew: Crew, tmp_path: Path
) -> None:
    addresses = {"redis": f"redis://127.0.0.1:{free_port()}/0", "file": f"file://{tmp_path}"}
    book = make_book()
    one = Round(1, QUICK, crew, addresses, book, lambda what: None)
    one.measure("gthread", [CONTENDERS["floor-redis-queue"], CONTENDERS["ours-file"]], {})
    assert {entry.contender for entry in book.entries} == {"ours-file"}
    assert [failure.partition(": ")[0] for failure in book.failures] == ["gthread, floor, Redis"]


def test_a_run_in_which_something_failed_ends_with_1_and_keeps_its_figures(tmp_path: Path) -> None:
    book = redis_alone(0.9)
    assert report(book, tmp_path) == 0
    book.failures.append("crowd, kazoo Lock: it ended")
    assert report(book, tmp_path) == 1
    assert Book.read(tmp_path / "locks.json") == book


def test_each_number_of_threads_is_measured_beside_the_floor(crew: Crew, tmp_path: Path) -> None:
    book = make_book()
    one = Round(1, QUICK, crew, {"file": f"file://{tmp_path}"}, book, lambda what: None)
    one.measure(KEYS, [CONTENDERS["ours-file"]], {})
    assert book.failures == []
    for threads in QUICK.threads:
        (base,) = book.values(KEYS, "ours-file", f"base_{threads}")
        (rate,) = book.values(KEYS, "ours-file", f"rate_{threads}")
        found = keys_of_floor(book, "ours-file", threads)
        assert found is not None
        assert found.median == pytest.approx(rate / base)


def test_a_worker_that_was_killed_is_not_waited_for(crew: Crew) -> None:
    worker = crew.workers[1]
    worker.kill()
    with pytest.raises(WorkerFailed, match="has ended"):
        worker.ask("hello")


def test_a_real_run_fills_the_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sixteen processes and file locks: no server needed, and all the rest is the same."""
    chosen = ["--only", "cycle", "--only", "crowd", "--only", "ours-file"]
    assert main(["--quick", "--out", str(tmp_path), *chosen]) == 0
    book = Book.read(tmp_path / "locks.json")
    assert {(entry.measure, entry.contender) for entry in book.entries} == {
        (CYCLE, "floor-file"),
        (CYCLE, "ours-file"),
        (CROWD, "floor-file-queue"),
        (CROWD, "ours-file"),
    }
    assert book.values(CYCLE, "floor-file", "of_floor") == [1.0, 1.0]
    floor_us, ours_us = (book.values(CYCLE, name, "us") for name in ("floor-file", "ours-file"))
    assert book.values(CYCLE, "ours-file", "of_floor") == pytest.approx(
        [floor / ours for floor, ours in zip(floor_us, ours_us, strict=True)]
    )
    drains = book.values(CROWD, "ours-file", "drain")
    assert len(drains) == 2
    assert all(drain > 1 for drain in drains)
    assert "ours, files" in capsys.readouterr().out
    assert "ours, files" in words_of((tmp_path / "locks.svg").read_text(encoding="utf-8"))
