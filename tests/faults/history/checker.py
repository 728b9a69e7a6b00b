"""Judges a history: each function below is one promise, and gives in words where it was broken.

Two times of different processes are compared only where the order is certain: what was noted after
the one event and before the other. So nothing here depends on how fast the machine is, but for two
generous bounds: DELAY_S for what takes longer than it may, SETTLING_S for when the service's last
fault is over for its waiters.
"""

import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator

from tests.faults.history.intervals import Intervals
from tests.faults.history.records import (
    FREEZES,
    Attempt,
    Fault,
    History,
    Story,
)

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000
# An acquire may take its wait, two seconds more if the service does not answer, and whatever a
# machine under load makes of it.
DELAY_S = 15
# What two clocks and their timers may differ by.
GRAIN_MS = 5
# A waiter of Redis that is far from its turn looks each ten seconds if it is still in the queue.
SETTLING_S = 12
# So often may those who asked later be granted the key before a waiter, once for each thread of a
# run: asking and standing in the queue are not the same moment.
OVERTAKEN_MOST = 12


def violations(history: History) -> list[str]:
    """Every broken promise; an empty list for a good history."""
    return [f"{rule.__name__}: {line}" for rule in RULES for line in rule(history)]


def equal_fences(history: History) -> Iterator[str]:
    """No two leases of a key ever have the same fence."""
    for key, stories in _by_key(history.granted()).items():
        first: dict[int, Story] = {}
        for story in stories:
            other = first.setdefault(story.fence, story)
            if other is not story:
                yield f"{story.name} and {other.name} hold {key} with fence {story.fence}"


def fences_out_of_order(history: History) -> Iterator[str]:
    """Whoever asks after another was granted the key gets a higher fence.

    A service that came back empty under a clock that was set back does not remember; there, the
    floor and the resource stand in (see fences_under_their_floor and stale_acceptances).
    """
    for key, stories in _by_key(history.granted()).items():
        memories = _spans(history, key, lambda fault: fault.forgets)
        by_memory: dict[int, list[Story]] = defaultdict(list)
        for story in stories:
            memory = memories.between(story.asked_ns, story.ended_ns)
            if memory is not None:
                by_memory[memory].append(story)
        for remembered in by_memory.values():
            yield from _out_of_order(key, remembered)


def _out_of_order(key: str, stories: list[Story]) -> Iterator[str]:
    granted = sorted(stories, key=lambda story: story.ended_ns)
    highest: Story | None = None
    place = 0
    for story in sorted(stories, key=lambda story: story.asked_ns):
        while granted[place].ended_ns < story.asked_ns:
            if highest is None or granted[place].fence > highest.fence:
                highest = granted[place]
            place += 1
        if highest is not None and story.fence <= highest.fence:
            yield (
                f"{story.name} asked for {key} after {highest.name} was granted it, "
                f"but its fence is {story.fence}, not above {highest.fence}"
            )


def fences_under_their_floor(history: History) -> Iterator[str]:
    """A lease's fence is above the floor that was asked for."""
    for story in history.granted():
        if story.fence <= story.floor:
            yield f"{story.name} got {story.fence} with the floor {story.floor}"


def stale_acceptances(history: History) -> Iterator[str]:
    """The fences that the resource accepted grow strictly, in its own order."""
    highest: dict[str, Attempt] = {}
    for attempt in history.attempts:
        before = highest.get(attempt.key)
        if not attempt.accepted:
            continue
        if before is not None and attempt.fence <= before.fence:
            yield (
                f"{attempt.key} took {attempt.fence} of {attempt.story} "
                f"after {before.fence} of {before.story}"
            )
        else:
            highest[attempt.key] = attempt


def two_believers(history: History) -> Iterator[str]:
    """Nobody is told that the lease stands after another was granted the key.

    But for a service that forgot its leases, or whose clock ran ahead of them: their holders learn
    of it late, and the resource must refuse them. It may have forgotten the lease of the first,
    or that of the second while the word of it was under way.
    """
    for key, stories in _by_key(history.granted()).items():
        amnesia = _spans(history, key, lambda fault: fault.ends_leases)
        stories.sort(key=lambda story: story.ended_ns)
        for place, story in enumerate(stories):
            for later in stories[place + 1 :]:
                if later.ended_ns >= story.believed_ns:
                    break
                spans = (story.asked_ns, story.believed_ns), (later.asked_ns, later.ended_ns)
                if not any(amnesia.touch(*span) for span in spans):
                    yield f"{story.name} believed to hold {key} after {later.name} was granted it"


def writes_after_loss(history: History) -> Iterator[str]:
    """Only a story whose last look at its lease said that it stands has written, and once."""
    stories = {story.name: story for story in history.stories}
    seen: set[str] = set()
    for attempt in history.attempts:
        story = stories.get(attempt.story)
        if story is None or story.fence != attempt.fence or story.key != attempt.key:
            yield f"{attempt.story} wrote to {attempt.key} with {attempt.fence}, never granted"
        elif not story.writing_ns or story.writing_ns > attempt.at_ns:
            yield f"{story.name} wrote to {story.key} without a look at its lease"
        elif story.lost_ns and story.lost_ns < attempt.at_ns:
            yield f"{story.name} wrote to {story.key} though it knew that its lease was lost"
        elif story.name in seen:
            yield f"{story.name} wrote to {story.key} twice"
        seen.add(attempt.story)


def unexplained_refusals(history: History) -> Iterator[str]:
    """A write is refused only if another was granted the key after the writer's look at its lease.

    A rightful holder is never refused: its fence is above all that were granted before.
    """
    stories = {story.name: story for story in history.granted()}
    writer_of: dict[tuple[str, int], Story] = {}
    amnesia = {
        key: _spans(history, key, lambda fault: fault.ends_leases)
        for key in {attempt.key for attempt in history.attempts}
    }
    for attempt in history.attempts:
        story = stories.get(attempt.story)
        if story is None:
            continue
        if attempt.accepted:
            writer_of.setdefault((attempt.key, attempt.fence), story)
            continue
        other = writer_of.get((attempt.key, attempt.highest))
        since = min(story.asked_ns, other.asked_ns) if other else story.asked_ns
        if other is None:
            yield f"{story.name} was refused by {attempt.highest}, which nobody wrote"
        elif other.ended_ns < story.writing_ns and not amnesia[attempt.key].touch(
            since, attempt.at_ns
        ):
            yield (
                f"{story.name} held {story.key} with {story.fence} and was refused, though "
                f"{other.name} with {other.fence} had come before it"
            )


def overdue_answers(history: History) -> Iterator[str]:
    """An acquire gives its answer in time, the time that its process was frozen not counted."""
    frozen = _frozen(history)
    for story in history.stories:
        if not story.outcome:
            continue
        took = story.ended_ns - story.asked_ns
        awake = took - frozen[story.process].covered(story.asked_ns, story.ended_ns)
        if awake > story.wait_ms * NS_PER_MS + DELAY_S * NS_PER_S:
            yield f"{story.name} waited {awake // NS_PER_MS} ms, asked to wait {story.wait_ms}"


def hasty_timeouts(history: History) -> Iterator[str]:
    """LockTimeout does not come before the time that was asked for is over."""
    for story in history.stories:
        took = story.ended_ns - story.asked_ns
        if story.outcome == "timeout" and took < (story.wait_ms - GRAIN_MS) * NS_PER_MS:
            yield f"{story.name} gave up after {took // NS_PER_MS} ms, not {story.wait_ms}"


def hung_waiters(history: History) -> Iterator[str]:
    """Whoever lived to its end got an answer to everything it asked."""
    for story in history.stories:
        if story.process in history.ends and not story.outcome:
            yield f"{story.name} never had an answer about {story.key}"


def starved_waiters(history: History) -> Iterator[str]:
    """While a waiter waits undisturbed, those who ask after it are not served before it for long.

    Counted in grants, not in time. Left out are waiters whose process was frozen or not connected
    yet, and those of a service that was disturbed while they waited or shortly before.
    """
    for story, overtaken in undisturbed(history):
        if overtaken > OVERTAKEN_MOST:
            yield f"{story.name} waited for {story.key}; {overtaken} who asked later were served"


def undisturbed(history: History) -> Iterator[tuple[Story, int]]:
    """The waiters that starved_waiters judges, and how many overtook each."""
    service = Intervals(
        (fault.from_ns, fault.to_ns + SETTLING_S * NS_PER_S)
        for fault in history.faults
        if not fault.process
    )
    frozen = _frozen(history)
    connected: dict[str, int] = {}
    for story in history.stories:
        if story.outcome:
            first = connected.setdefault(story.process, story.ended_ns)
            connected[story.process] = min(first, story.ended_ns)
    for stories in _by_key(history.stories).values():
        granted = [each for each in stories if each.outcome == "granted"]
        granted.sort(key=lambda story: story.ended_ns)
        for story, overtaken in _overtaken(stories, granted):
            wait = story.asked_ns, story.ended_ns
            is_connected = story.asked_ns > connected[story.process]
            if is_connected and not service.touch(*wait) and not frozen[story.process].touch(*wait):
                yield story, overtaken


def _overtaken(stories: list[Story], granted: list[Story]) -> Iterator[tuple[Story, int]]:
    """Each answered story, and how many that asked after it were served before its end."""
    ends = [story.ended_ns for story in granted]
    for story in stories:
        if story.outcome not in ("granted", "timeout"):
            continue
        served = _within(granted, ends, story.asked_ns, story.ended_ns)
        yield story, sum(1 for each in served if each.asked_ns > story.asked_ns)


def _within(granted: list[Story], ends: list[int], start: int, end: int) -> list[Story]:
    return granted[bisect.bisect_right(ends, start) : bisect.bisect_left(ends, end)]


def left_overs(history: History) -> Iterator[str]:
    """A process that closed its lock has no thread and no file more than before."""
    for process, left in history.ends.items():
        for what, names in left.items():
            if names:
                yield f"{process} leaves {what}: {', '.join(names)}"


RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    equal_fences,
    fences_out_of_order,
    fences_under_their_floor,
    stale_acceptances,
    two_believers,
    writes_after_loss,
    unexplained_refusals,
    overdue_answers,
    hasty_timeouts,
    hung_waiters,
    starved_waiters,
    left_overs,
)


def _by_key(stories: list[Story]) -> dict[str, list[Story]]:
    found: dict[str, list[Story]] = defaultdict(list)
    for story in stories:
        found[story.key].append(story)
    return found


def _spans(history: History, key: str, which: Callable[[Fault], bool]) -> Intervals:
    """When such faults struck this key."""
    return Intervals(
        (fault.from_ns, fault.to_ns)
        for fault in history.faults
        if fault.key in ("", key) and which(fault)
    )


def _frozen(history: History) -> dict[str, Intervals]:
    parts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for fault in history.faults:
        if fault.kind in FREEZES:
            parts[fault.process].append((fault.from_ns, fault.to_ns))
    return defaultdict(lambda: Intervals([]), {who: Intervals(each) for who, each in parts.items()})
