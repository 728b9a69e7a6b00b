"""A process that found its lock service away does not ask it again at once."""

import pytest

from shop.locking.watch import NS_PER_MS, REST_MS, ServiceWatch

MS = NS_PER_MS


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        return self.now_ns

    def pass_ms(self, count: int) -> None:
        self.now_ns += count * MS


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def watch(time: Time) -> ServiceWatch:
    return ServiceWatch(time)


def test_a_service_that_always_answered_is_asked(watch: ServiceWatch) -> None:
    assert not watch.is_resting()
    watch.answered()
    assert not watch.is_resting()


def test_a_service_that_was_away_is_not_asked_for_a_while(watch: ServiceWatch, time: Time) -> None:
    watch.went_away()
    assert watch.is_resting()
    time.pass_ms(REST_MS - 1)
    assert watch.is_resting()


def test_after_the_rest_one_looks_and_the_others_still_do_not(
    watch: ServiceWatch, time: Time
) -> None:
    watch.went_away()
    time.pass_ms(REST_MS)
    assert [watch.is_resting() for _ in range(3)] == [False, True, True]


def test_one_that_looked_and_was_never_heard_of_again_is_followed_by_another(
    watch: ServiceWatch, time: Time
) -> None:
    watch.went_away()
    for _ in range(3):
        time.pass_ms(REST_MS)
        assert [watch.is_resting() for _ in range(2)] == [False, True]


def test_who_finds_it_away_again_lets_the_others_rest_on(watch: ServiceWatch, time: Time) -> None:
    watch.went_away()
    time.pass_ms(REST_MS)
    assert not watch.is_resting()
    time.pass_ms(REST_MS - 1)
    watch.went_away()
    time.pass_ms(REST_MS - 1)
    assert watch.is_resting()


def test_a_service_that_is_back_is_asked_by_all(watch: ServiceWatch, time: Time) -> None:
    watch.went_away()
    time.pass_ms(REST_MS)
    assert not watch.is_resting()
    watch.answered()
    assert [watch.is_resting() for _ in range(2)] == [False, False]
