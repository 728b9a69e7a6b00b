"""A lease as its holder sees it, and the thread that renews it."""

import contextlib
import pickle
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from locks import LeaseLost, LockConfigError, LockError, LockTimeout, LockUnavailable
from locks.clock import NS_PER_MS, now_ns, safe_end_ns
from locks.held import Grant, HeldLease, LossEvent
from locks.observe import GuardedObserver, LockObserver
from locks.renewal import Chore, Renewer
from tests.processes import wait_until

PATIENCE_S = 30


def _lease(lease_ms: int, *, age_ms: int = 0, doubt: str = "", ttl_ms: int = 0) -> HeldLease:
    sent_ns = now_ns() - age_ms * NS_PER_MS
    grant = Grant("key", "token", 7, lease_ms, sent_ns, ttl_ms=ttl_ms)
    return HeldLease(grant, lambda lease: None, lambda: doubt)


def test_time_is_counted_from_before_the_request_was_sent() -> None:
    assert 4_000 < _lease(10_000, age_ms=5_000).remaining_ms() <= 5_000


def test_a_lease_ends_by_the_clock_alone_before_its_time_is_out_at_the_service() -> None:
    lease = _lease(1_000, age_ms=995)
    assert lease.lost.is_set()
    assert lease.remaining_ms() == 0
    with pytest.raises(LeaseLost, match="ran out"):
        lease.ensure_held()


def test_whoever_waits_for_the_loss_is_woken_by_the_clock_alone() -> None:
    assert not _lease(60_000).lost.wait(0.01)
    assert _lease(150).lost.wait(PATIENCE_S)
    assert _lease(150).lost.wait()


def test_whoever_waits_for_the_loss_sees_that_the_lease_was_renewed() -> None:
    lease = _lease(300)
    lease.extend(now_ns() + 60_000 * NS_PER_MS)
    assert not lease.lost.wait(0.6)


def test_a_lease_that_was_seen_lost_is_never_held_again() -> None:
    lease = _lease(1_000, age_ms=2_000)
    assert lease.lost.is_set()
    lease.extend(now_ns())
    assert lease.lost.is_set()
    assert lease.remaining_ms() == 0


def test_an_older_answer_does_not_shorten_a_lease() -> None:
    event = LossEvent(safe_end_ns(now_ns(), 60_000))
    left = event.left_ns()
    assert event.put_off(now_ns() + 1)
    assert event.left_ns() > left - 5_000 * NS_PER_MS


def test_the_service_s_own_time_bounds_the_lease() -> None:
    assert _lease(60_000, ttl_ms=2_000).remaining_ms() < 2_000


def test_a_lease_granted_in_part_asks_for_the_rest_when_more_is_needed_than_is_left() -> None:
    asked: list[HeldLease] = []

    def complete(lease: HeldLease) -> None:
        asked.append(lease)
        lease.extend(now_ns(), lease.lease_ms)

    grant = Grant("key", "token", 7, 60_000, now_ns(), ttl_ms=2_000, is_partial=True)
    lease = HeldLease(grant, lambda lease: None, lambda: "", complete)
    lease.ensure_held(need_ms=1_000)
    assert asked == []
    lease.ensure_held(need_ms=30_000)
    assert asked == [lease]
    assert lease.remaining_ms() > 50_000
    with pytest.raises(LeaseLost, match="are needed"):
        lease.ensure_held(need_ms=60_000)
    assert asked == [lease]


def test_a_lease_granted_in_part_ends_as_its_part_does_if_the_rest_cannot_be_had() -> None:
    grant = Grant("key", "token", 7, 60_000, now_ns(), ttl_ms=2_000, is_partial=True)
    lease = HeldLease(grant, lambda lease: None, lambda: "", lambda lease: None)
    with pytest.raises(LeaseLost, match="are needed"):
        lease.ensure_held(need_ms=30_000)
    assert not lease.lost.is_set()
    assert lease.remaining_ms() < 2_000


def test_a_lease_in_doubt_is_not_relied_on_but_not_lost() -> None:
    lease = _lease(60_000, doubt="The session is suspended.")
    with pytest.raises(LeaseLost, match="suspended"):
        lease.ensure_held()
    assert not lease.lost.is_set()


def test_the_loss_says_why() -> None:
    lease = _lease(60_000)
    assert lease.mark_lost("Somebody wiped it.")
    assert not lease.mark_lost("Again.")
    with pytest.raises(LeaseLost, match="Somebody wiped it"):
        lease.ensure_held()


def test_a_released_lease_is_not_lost_afterwards_by_the_clock() -> None:
    lease = _lease(150)
    lease.release()
    assert not lease.lost.wait(0.3)
    assert not lease.mark_lost("late news")


def test_an_error_s_docstring_is_its_message_and_it_can_be_pickled() -> None:
    for error in (LockUnavailable("Why."), LockTimeout("key", 5), LockConfigError("Mend it.")):
        assert isinstance(error, LockError)
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert str(again) == str(error)
        assert str(error).startswith(str(type(error).__doc__))
    assert isinstance(LockConfigError(), ValueError)
    assert str(LockUnavailable()) == LockUnavailable.__doc__


def test_the_renewer_survives_whatever_a_renewal_raises() -> None:
    calls: list[int] = []
    enough = threading.Event()

    def renew(leases: list[HeldLease]) -> None:
        calls.append(len(leases))
        if len(calls) == 1:
            raise LockUnavailable("no answer")
        if len(calls) == 2:
            raise ZeroDivisionError
        for lease in leases:
            lease.extend(now_ns())
        enough.set()

    renewer = Renewer("renewer-test", renew)
    lease = _lease(1_500)
    renewer.add(lease)
    assert enough.wait(PATIENCE_S)
    assert not lease.lost.is_set()
    renewer.stop()
    assert "renewer-test" not in [thread.name for thread in threading.enumerate()]


def test_a_lease_that_cannot_be_renewed_is_dropped_when_it_is_lost() -> None:
    def renew(leases: list[HeldLease]) -> None:
        raise LockUnavailable("no answer")

    renewer = Renewer("renewer-test", renew)
    lease = _lease(400)
    renewer.add(lease)
    assert lease.lost.wait(PATIENCE_S)
    dropped = threading.Event()
    for _ in range(PATIENCE_S * 100):
        if not renewer.leases():
            break
        dropped.wait(0.01)
    assert renewer.leases() == []
    renewer.stop()


def test_what_could_not_be_cleaned_up_is_tried_until_it_is_done() -> None:
    tries: list[int] = []
    done = threading.Event()

    def clean() -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise LockUnavailable("no answer")
        done.set()
        return True

    renewer = Renewer("renewer-test", lambda leases: None)
    renewer.add_chore(Chore(clean, every_ns=NS_PER_MS, until_ns=now_ns() + 60_000 * NS_PER_MS))
    assert done.wait(PATIENCE_S)
    renewer.stop()
    assert len(tries) == 3
    assert not renewer.owes()


def test_what_can_no_longer_matter_is_not_tried_again() -> None:
    tries: list[int] = []

    def clean() -> bool:
        tries.append(1)
        return False

    renewer = Renewer("renewer-test", lambda leases: None)
    renewer.add_chore(Chore(clean, every_ns=NS_PER_MS, until_ns=now_ns()))
    for _ in range(PATIENCE_S * 100):
        if tries and not renewer.owes():
            break
        threading.Event().wait(0.01)
    renewer.stop()
    assert len(tries) == 1


def test_a_renewer_that_was_interrupted_while_it_was_told_of_a_lease_renews_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(Exception):
        """As a signal's handler may raise, anywhere."""

    def interrupt() -> None:
        raise Interrupted

    renewed = threading.Event()

    def renew(leases: list[HeldLease]) -> None:
        for lease in leases:
            lease.extend(now_ns())
        renewed.set()

    renewer = Renewer("renewer-test", renew)
    renewer.add(_lease(60_000))  # the thread is there, and sleeps for long
    with monkeypatch.context() as interrupted:
        interrupted.setattr(renewer._changed, "notify", interrupt)
        with pytest.raises(Interrupted):
            renewer.add(_lease(600))
    lease = _lease(900)
    renewer.add(lease)
    assert renewed.wait(PATIENCE_S)
    assert not lease.lost.is_set()
    renewer.stop()


def test_an_exception_of_a_signal_at_any_step_leaves_the_renewer_to_other_threads() -> None:
    class Interrupted(Exception):
        """As a signal's handler may raise, before and after any step of Python code."""

    def steps(work: Callable[[], None], last: int) -> int:
        """Do the work, and raise at its step `last` within threading; gives the steps done."""
        done = 0

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal done
            if frame.f_code.co_filename != threading.__file__:
                return None
            done += 1
            if done == last:
                sys.settrace(None)
                raise Interrupted
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            work()
        except Interrupted:
            pass
        finally:
            sys.settrace(before)
        return done

    def add_and_discard() -> None:
        lease = _lease(50_000)
        renewer.add(lease)
        renewer.discard(lease)

    renewer = Renewer("renewer-test", lambda leases: None)
    renewer.add(_lease(60_000))  # the thread is there, and sleeps for long
    for last in range(1, 1_000):
        was_interrupted = steps(add_and_discard, last) == last
        others = threading.Thread(target=renewer.leases, daemon=True)
        others.start()
        others.join(PATIENCE_S)
        assert not others.is_alive(), f"taken for ever by step {last}"
        if not was_interrupted:
            break
    renewer.stop()


def test_a_lease_that_was_dropped_without_a_release_is_given_back_and_not_renewed() -> None:
    renewed: list[str] = []
    given_back: list[tuple[str, str, str, int]] = []
    done = threading.Event()

    def renew(leases: list[HeldLease]) -> None:
        for lease in leases:
            renewed.append(lease.key)
            lease.extend(now_ns())

    def free_later(*what: Any) -> None:
        given_back.append(what)
        done.set()

    renewer = Renewer("renewer-test", renew, free_later=free_later)
    renewer.add(_lease(600))  # nobody else has it
    assert done.wait(PATIENCE_S)
    renewer.stop()
    assert given_back == [("key", "token", "", 600)]
    assert renewed == []
    assert renewer.leases() == []


def test_a_thread_whose_start_was_interrupted_stays_the_only_one_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(Exception):
        """As a signal's handler may raise while start() waits for the thread."""

    start = threading.Thread.start

    def start_interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise Interrupted

    renewer = Renewer("renewer-test-started", lambda leases: None)
    for _ in range(3):
        with monkeypatch.context() as interrupted:
            interrupted.setattr(threading.Thread, "start", start_interrupted)
            with contextlib.suppress(Interrupted):
                renewer.add(_lease(60_000))
    lease = _lease(60_000)
    renewer.add(lease)

    def running() -> int:
        return [each.name for each in threading.enumerate()].count("renewer-test-started")

    wait_until(lambda: running() == 1, "one thread renews")
    renewer.stop()
    assert running() == 0


def test_a_lease_that_is_lost_as_it_is_released_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Telling(LockObserver):
        """Counts the losses."""

        losses = 0

        def lost(self, backend: str) -> None:
            self.losses += 1

    telling = Telling()
    renewer = Renewer("renewer-test", lambda leases: None, GuardedObserver(telling, "test"))
    grant = Grant("key", "token", 7, 60_000, now_ns())
    lease = HeldLease(grant, renewer.discard, lambda: "")
    renewer.add(lease)
    is_losing, go_on = threading.Event(), threading.Event()
    set_now = LossEvent.set

    def set_slowly(event: LossEvent) -> None:
        is_losing.set()
        go_on.wait(PATIENCE_S)
        set_now(event)

    monkeypatch.setattr(LossEvent, "set", set_slowly)
    loser = threading.Thread(target=renewer.lose, args=(lease, "Somebody wiped it."))
    loser.start()
    assert is_losing.wait(PATIENCE_S)
    releaser = threading.Thread(target=lease.release)
    releaser.start()
    releaser.join(0.2)  # it is over, or waits for what is told of the lease
    go_on.set()
    for thread in (loser, releaser):
        thread.join(PATIENCE_S)
    renewer.stop()
    assert telling.losses == int(lease.lost.is_set())


def test_a_lease_is_renewed_between_two_chores_that_take_long() -> None:
    order: list[str] = []
    is_due, done = threading.Event(), threading.Event()

    def renew(leases: list[HeldLease]) -> None:
        order.append("renewal")
        for lease in leases:
            lease.extend(now_ns())

    def begin() -> bool:
        """Until the lease is due."""
        is_due.wait(PATIENCE_S)
        lease.renew_at_ns = now_ns()
        order.append("chore")
        return True

    def end() -> bool:
        order.append("chore")
        done.set()
        return True

    renewer = Renewer("renewer-test", renew)
    lease = _lease(60_000)
    renewer.add(lease)
    soon_ns = now_ns() + 200 * NS_PER_MS
    renewer.add_chore(Chore(begin, NS_PER_MS, until_ns=soon_ns, next_ns=soon_ns))
    renewer.add_chore(Chore(end, NS_PER_MS, until_ns=soon_ns, next_ns=soon_ns))
    is_due.set()
    assert done.wait(PATIENCE_S)
    renewer.stop()
    assert order == ["chore", "renewal", "chore"]
