"""The checker of lock histories finds what is wrong in planted ones, and nothing in a good one."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults.history.checker import (
    DELAY_S,
    OVERTAKEN_MOST,
    SETTLING_S,
    undisturbed,
    violations,
)
from tests.faults.history.intervals import Intervals
from tests.faults.history.records import (
    FREEZE,
    KILL,
    Attempt,
    Fault,
    FaultLog,
    History,
    Journal,
    Story,
    last_kind,
)
from tests.faults.history.resource import Resource, all_attempts, make_resources

MS, S = 1_000_000, 1_000_000_000


def lease(number: int, **changes: Any) -> Story:
    """The holder of a turn of 100 ms, the next turn after the last; fences 10, 20, 30…"""
    start = number * 100 * MS
    story = Story(
        name=f"s{number}",
        process=f"w{number % 3}",
        thread="t0",
        key="k",
        asked_ns=start,
        wait_ms=1_000,
        outcome="granted",
        ended_ns=start + 10 * MS,
        fence=number * 10,
        believed_ns=start + 50 * MS,
        writing_ns=start + 50 * MS,
    )
    return replace(story, **changes)


def write(story: Story, *, highest: int, accepted: bool = True, at_ms: int = 10) -> Attempt:
    """The story's write, so long after its look at the lease."""
    at_ns = story.writing_ns + at_ms * MS
    return Attempt(story.key, story.fence, story.name, at_ns, accepted, highest)


def turns(count: int = 5) -> list[Story]:
    """Holders in good order."""
    return [lease(number) for number in range(1, count + 1)]


def told(stories: Sequence[Story], faults: Sequence[Fault] = ()) -> History:
    """A history in which everybody wrote when its turn was, and the resource took it."""
    attempts, highest = [], 0
    for story in stories:
        if story.writing_ns:
            attempts.append(write(story, highest=highest))
            highest = max(highest, story.fence)
    ends: dict[str, dict[str, list[str]]] = {story.process: {} for story in stories}
    return History(list(stories), attempts, list(faults), ends)


def broken(history: History) -> set[str]:
    """The names of the rules that it breaks."""
    return {line.partition(":")[0] for line in violations(history)}


def test_a_good_history_is_found_good() -> None:
    assert violations(told(turns())) == []


def test_equal_fences_are_found() -> None:
    stories = turns()
    stories[3] = replace(stories[3], fence=stories[2].fence, writing_ns=0)
    assert broken(told(stories)) == {"equal_fences", "fences_out_of_order"}


def test_equal_fences_of_two_keys_are_no_fault() -> None:
    stories = turns()
    assert violations(told([*stories, replace(stories[0], name="other", key="l")])) == []


def test_a_fence_below_that_of_an_earlier_holder_is_found_even_if_neither_writes() -> None:
    stories = [replace(story, writing_ns=0) for story in turns()]
    stories[3] = replace(stories[3], fence=11)
    assert broken(told(stories)) == {"fences_out_of_order"}


def test_fences_of_two_who_asked_at_once_may_come_in_any_order() -> None:
    first, second = lease(1, writing_ns=0), lease(2, asked_ns=105 * MS, fence=9)
    assert violations(told([first, second])) == []


def test_a_lower_fence_is_excused_only_if_the_service_forgot_in_between() -> None:
    stories = [replace(story, writing_ns=0) for story in turns()]
    stories[3] = replace(stories[3], fence=11)
    stories[4] = replace(stories[4], fence=12)
    restart = Fault("restart", 360 * MS, 370 * MS, forgets=True)
    assert violations(told(stories, [restart])) == []
    early = replace(restart, from_ns=60 * MS, to_ns=70 * MS)
    assert broken(told(stories, [early])) == {"fences_out_of_order"}
    remembering = replace(restart, forgets=False)
    assert broken(told(stories, [remembering])) == {"fences_out_of_order"}


def test_a_fence_not_above_the_floor_is_found() -> None:
    stories = turns()
    stories[4] = replace(stories[4], floor=50)
    assert broken(told(stories)) == {"fences_under_their_floor"}


@pytest.mark.parametrize("fence", [10, 5])
def test_a_stale_write_that_was_accepted_is_found(fence: int) -> None:
    late = lease(3, fence=fence, asked_ns=1, ended_ns=2, believed_ns=3, writing_ns=3)
    history = told([lease(1, fence=10), lease(2, fence=12)])
    history.stories.append(late)
    history.attempts.append(write(late, highest=12, at_ms=1_000))
    assert "stale_acceptances" in broken(history)


def test_a_stale_write_that_was_refused_is_as_it_should_be() -> None:
    frozen, later = lease(1), lease(2)
    history = told([frozen, later])
    history.attempts = [
        write(later, highest=0),
        write(frozen, highest=later.fence, accepted=False, at_ms=2_000),
    ]
    assert violations(history) == []


def test_two_who_believe_to_hold_the_key_at_once_are_found() -> None:
    first = lease(1, believed_ns=215 * MS)
    assert broken(told([first, lease(2)])) == {"two_believers"}


def test_who_believed_up_to_the_next_grant_is_no_fault() -> None:
    assert violations(told([lease(1, believed_ns=209 * MS), lease(2)])) == []


def test_two_believers_are_excused_only_if_the_service_dropped_the_lease_of_the_first() -> None:
    stories = [lease(1, believed_ns=215 * MS), lease(2)]
    wipe = Fault("restart", 150 * MS, 160 * MS, ends_leases=True)
    assert violations(told(stories, [wipe])) == []
    assert broken(told(stories, [replace(wipe, ends_leases=False)])) == {"two_believers"}
    assert violations(told(stories, [replace(wipe, key="k")])) == []
    assert broken(told(stories, [replace(wipe, key="l")])) == {"two_believers"}
    later = replace(wipe, from_ns=300 * MS, to_ns=310 * MS)
    assert broken(told(stories, [later])) == {"two_believers"}
    early = replace(wipe, from_ns=50 * MS, to_ns=60 * MS)
    assert broken(told(stories, [early])) == {"two_believers"}
    # The second asked before the wipe, and hears after it of what was given to it before.
    stories[1] = replace(stories[1], asked_ns=40 * MS)
    assert violations(told(stories, [early])) == []


def test_a_write_without_a_lease_is_found() -> None:
    history = told(turns())
    history.attempts.append(Attempt("k", 99, "s9", S, True, 50))
    assert broken(history) == {"writes_after_loss"}


def test_a_write_without_a_look_at_the_lease_is_found() -> None:
    history = told(turns())
    history.stories[4].writing_ns = 0
    assert broken(history) == {"writes_after_loss"}


def test_a_write_after_the_loss_was_told_is_found() -> None:
    history = told(turns())
    history.stories[4].lost_ns = history.stories[4].writing_ns + 5 * MS
    assert broken(history) == {"writes_after_loss"}


def test_a_holder_that_was_refused_though_nobody_came_after_it_is_found() -> None:
    first, second = lease(1, fence=30), lease(2, fence=20)
    history = told([first, second])
    history.attempts[1] = write(second, highest=30, accepted=False)
    assert broken(history) == {"fences_out_of_order", "unexplained_refusals"}


def test_a_refusal_by_a_fence_that_nobody_wrote_is_found() -> None:
    history = told([lease(1)])
    history.attempts[0] = write(lease(1), highest=11, accepted=False)
    assert broken(history) == {"unexplained_refusals"}


def test_an_answer_that_comes_too_late_is_found_but_not_if_its_process_was_frozen() -> None:
    waited = (DELAY_S + 2) * S
    late = lease(1, ended_ns=waited, outcome="timeout", believed_ns=0, writing_ns=0)
    assert broken(told([late])) == {"overdue_answers"}
    frozen = Fault(FREEZE, S, 2 * S, process=late.process)
    assert violations(told([late], [frozen])) == []
    assert broken(told([late], [replace(frozen, process="w9")])) == {"overdue_answers"}


def test_a_waiter_that_gave_up_too_soon_is_found() -> None:
    hasty = lease(1, ended_ns=S, outcome="timeout", believed_ns=0, writing_ns=0)
    assert broken(told([hasty])) == {"hasty_timeouts"}
    assert violations(told([replace(hasty, wait_ms=900)])) == []


def test_a_waiter_that_never_had_an_answer_is_found_but_not_if_its_process_was_killed() -> None:
    waiting = lease(1, outcome="", ended_ns=0, believed_ns=0, writing_ns=0)
    history = told([waiting])
    assert broken(history) == {"hung_waiters"}
    history.ends.clear()
    assert violations(history) == []


def starving() -> list[Story]:
    """A waiter that asks before all of turns() and gives up after them, and its first success."""
    first = lease(1, name="first", key="l", asked_ns=-S, ended_ns=-S + 1, process="w9")
    last = dict(outcome="timeout", ended_ns=60 * S, wait_ms=60_000, writing_ns=0, believed_ns=0)
    return [first, lease(0, process="w9", **last)]


def test_a_waiter_that_starves_is_found() -> None:
    fair = [*starving(), *turns(OVERTAKEN_MOST)]
    assert violations(told(fair)) == []
    assert broken(told([*starving(), *turns(OVERTAKEN_MOST + 1)])) == {"starved_waiters"}


def test_a_waiter_whose_process_was_not_connected_yet_is_not_judged() -> None:
    assert violations(told([starving()[1], *turns(OVERTAKEN_MOST + 1)])) == []


def test_those_who_asked_before_a_waiter_do_not_starve_it() -> None:
    stories = [replace(story, asked_ns=-1) for story in turns(OVERTAKEN_MOST + 1)]
    assert violations(told([*starving(), *stories])) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", S, 2 * S),
        Fault("stall", -2 * S, -S),
        Fault(FREEZE, S, 2 * S, process="w9"),
    ],
)
def test_a_waiter_that_was_disturbed_is_not_judged(fault: Fault) -> None:
    stories = [*starving(), *turns(OVERTAKEN_MOST + 1)]
    assert "s0" in {story.name for story, _ in undisturbed(told(stories))}
    assert violations(told(stories, [fault])) == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(KILL, S, 2 * S, process="w1"),
        Fault(FREEZE, S, 2 * S, process="w1"),
        Fault("stall", -(SETTLING_S + 2) * S, -(SETTLING_S + 1) * S),
    ],
)
def test_faults_of_others_and_those_long_past_do_not_excuse_starvation(fault: Fault) -> None:
    stories = [*starving(), *turns(OVERTAKEN_MOST + 1)]
    assert broken(told(stories, [fault])) == {"starved_waiters"}


def test_threads_and_files_that_are_left_are_found() -> None:
    history = told(turns())
    history.ends["w1"] = {"threads": ["lease-renewer-redis"], "files": []}
    assert violations(history) == ["left_overs: w1 leaves threads: lease-renewer-redis"]


def test_intervals_are_joined_and_measured() -> None:
    intervals = Intervals([(50, 60), (10, 20), (15, 30)])
    assert [intervals.touch(*at) for at in ((0, 9), (0, 10), (30, 31), (31, 49), (61, 99))] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert intervals.covered(0, 100) == 30
    assert intervals.covered(25, 55) == 10
    assert [intervals.between(*at) for at in ((0, 9), (31, 49), (61, 70), (25, 35))] == [
        0,
        1,
        2,
        None,
    ]


def test_the_resource_takes_a_higher_fence_and_refuses_an_equal_or_lower_one(
    tmp_path: Path,
) -> None:
    make_resources(tmp_path, ["k", "l"])
    with closing(Resource(tmp_path, "k")) as resource, closing(Resource(tmp_path, "k")) as other:
        assert [resource.write(5, "a"), other.write(5, "b"), other.write(4, "c")] == [
            True,
            False,
            False,
        ]
        assert (other.write(6, "d"), resource.highest()) == (True, 6)
    recorded = [(each.story, each.accepted, each.highest) for each in all_attempts(tmp_path, "kl")]
    assert recorded == [("a", True, 0), ("b", False, 5), ("c", False, 5), ("d", True, 5)]


def test_what_was_written_down_is_read_again(tmp_path: Path) -> None:
    journal, log = Journal(tmp_path, "w1"), FaultLog(tmp_path)
    assert last_kind(tmp_path / "none.jsonl") == ""
    journal.note("ask", 1, story="s", thread="t0", key="k", wait_ms=5, floor=3)
    journal.note("granted", 2, story="s", fence=7)
    journal.note("held", 3, story="s")
    journal.note("writing", 4, story="s")
    journal.note("held", 5, story="s")
    journal.note("lost", 6, story="s")
    assert last_kind(tmp_path / "w1.jsonl") == "lost"
    log.note(FREEZE, 1, process="w1")
    journal.note("end", left={"threads": []})
    with (tmp_path / "w1.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "ask"})[:9])  # torn off by a kill
    history = History.read(tmp_path, [])
    expected = Story("s", "w1", "t0", "k", 1, 5, 3, "granted", 2, 7, 5, 4, 6)
    assert (history.stories, history.ends) == ([expected], {"w1": {"threads": []}})
    assert [(each.kind, each.process, each.from_ns) for each in history.faults] == [
        (FREEZE, "w1", 1)
    ]
