"""How a waiter tells, by one answer of Redis, when it was handed the key."""

from locks.clock import NS_PER_MS, now_ns
from locks.on_redis.waiter import NS_PER_US, Asked

SERVER_US = 1_800_000_000_000_000


def _asked(ago_ms: int) -> Asked:
    sent_ns = now_ns() - ago_ms * NS_PER_MS
    return Asked(sent_ns, sent_ns + 2 * NS_PER_MS, SERVER_US)


def test_the_hand_over_is_dated_by_the_server_and_counted_from_before_the_question() -> None:
    asked = _asked(60_000)
    after_us = 1_500_000
    assert asked.earliest_ns(SERVER_US + after_us) == asked.sent_ns + after_us * NS_PER_US
    likely_ns = asked.likely_ns(SERVER_US + after_us)
    assert likely_ns == asked.sent_ns + NS_PER_MS + after_us * NS_PER_US


def test_a_clock_that_steps_dates_it_neither_before_the_question_nor_in_the_future() -> None:
    asked = _asked(1_000)
    hour_us = 3_600_000_000
    assert asked.earliest_ns(SERVER_US - hour_us) == asked.sent_ns
    before = now_ns()
    assert before - NS_PER_MS <= asked.earliest_ns(SERVER_US + hour_us) <= now_ns()
