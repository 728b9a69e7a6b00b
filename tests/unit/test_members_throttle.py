"""Passwords cannot be guessed at leisure."""

import threading

import pytest

from shop.members.errors import TooManySignIns
from shop.members.throttle import CHECKS_AT_ONCE, LOGINS_MAX, WRONG_MAX, SignInThrottle


def check(throttle: SignInThrottle, login: str) -> None:
    with throttle.one_check(login):
        pass


def test_after_too_many_wrong_passwords_a_login_is_refused_and_the_others_are_not() -> None:
    throttle = SignInThrottle()
    for _ in range(WRONG_MAX):
        check(throttle, "alice")
        throttle.wrong("alice")
    with pytest.raises(TooManySignIns):
        check(throttle, "alice")
    check(throttle, "bob")


def test_the_right_password_makes_the_wrong_ones_forgotten() -> None:
    throttle = SignInThrottle()
    for _ in range(WRONG_MAX - 1):
        throttle.wrong("alice")
    throttle.right("alice")
    for _ in range(WRONG_MAX - 1):
        throttle.wrong("alice")
    check(throttle, "alice")


def test_no_more_passwords_are_hashed_at_once_than_the_shop_can_bear() -> None:
    throttle = SignInThrottle()
    enough, go_on = threading.Barrier(CHECKS_AT_ONCE + 1), threading.Event()

    def hold(login: str) -> None:
        with throttle.one_check(login):
            enough.wait(30)
            go_on.wait(30)

    threads = [threading.Thread(target=hold, args=(str(n),)) for n in range(CHECKS_AT_ONCE)]
    for thread in threads:
        thread.start()
    enough.wait(30)
    with pytest.raises(TooManySignIns):
        check(throttle, "one more")
    go_on.set()
    for thread in threads:
        thread.join()
    check(throttle, "one more")


def test_guesses_at_countless_logins_do_not_fill_the_memory() -> None:
    throttle = SignInThrottle()
    for number in range(LOGINS_MAX + 100):
        throttle.wrong(str(number))
    assert len(throttle._wrong) == LOGINS_MAX
