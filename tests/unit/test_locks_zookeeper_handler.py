"""The answers and waits that stand in for kazoo's own."""

import logging
import socket
import threading

import pytest
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.interfaces import IAsyncResult, IHandler

from locks.on_zookeeper.handler import Answer, DirectHandler


def _ignore(_: int) -> None:
    """Nobody minds that there is no answer."""


def test_an_answer_wakes_every_thread_that_waits_for_it() -> None:
    answer = Answer(_ignore)
    got: list[object] = []
    threads = [threading.Thread(target=lambda: got.append(answer.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    answer.set("this")
    for thread in threads:
        thread.join()
    assert got == ["this"] * 3
    assert answer.ready()
    assert answer.successful()
    assert answer.get_nowait() == "this"


def test_an_exception_is_raised_where_it_is_waited_for() -> None:
    answer = Answer(_ignore)
    answer.set_exception(ZeroDivisionError("here"))
    with pytest.raises(ZeroDivisionError, match="here"):
        answer.get(timeout=1)
    assert answer.ready()
    assert not answer.successful()
    assert isinstance(answer.exception, ZeroDivisionError)


def test_an_answer_that_does_not_come_is_a_time_out_and_may_come_later() -> None:
    answer = Answer(_ignore)
    with pytest.raises(KazooTimeoutError):
        answer.get(timeout=0.01)
    with pytest.raises(KazooTimeoutError):
        answer.get_nowait()
    assert not answer.wait(0)
    answer.set(1)
    assert answer.get(timeout=0.01) == 1


def test_the_first_answer_stands() -> None:
    answer = Answer(_ignore)
    answer.set(1)
    answer.set(2)
    answer.set_exception(ZeroDivisionError())
    assert answer.get() == 1


def test_a_callback_is_called_once_whether_it_comes_before_the_answer_or_after() -> None:
    answer = Answer(_ignore)
    called: list[str] = []
    answer.rawlink(lambda _: called.append("before"))
    answer.rawlink(dropped := lambda _: called.append("dropped"))
    answer.unlink(dropped)
    answer.set(1)
    answer.rawlink(lambda _: called.append("after"))
    assert called == ["before", "after"]


def test_a_callback_that_fails_is_logged_and_hurts_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = Answer(_ignore)
    called: list[int] = []
    answer.rawlink(lambda _: called.append(1 // 0))
    answer.rawlink(lambda _: called.append(2))
    with caplog.at_level(logging.ERROR):
        answer.set(1)
    assert called == [2]
    assert "ZeroDivisionError" in caplog.text
    assert answer.get() == 1


def test_select_tells_who_can_be_read_and_who_written() -> None:
    handler = DirectHandler()
    left, right = socket.socketpair()
    with left, right:
        assert handler.select([left], [], [], 0) == ([], [], [])
        assert handler.select([], [left], [], 0.5) == ([], [left], [])
        right.send(b"x")
        assert handler.select([left, right], [], [], 0.5) == ([left], [], [])
        left.recv(1)
        right.close()
        # An end that was closed is read too: that is how its end is seen.
        assert handler.select([left], [], [], None) == ([left], [], [])


def test_what_kazoo_asks_of_a_handler_is_there() -> None:
    wanted = {name for name in vars(IHandler) if not name.startswith("_")}
    assert {name for name in wanted if not hasattr(DirectHandler, name)} == set()
    wanted = {name for name in vars(IAsyncResult) if not name.startswith("_")}
    assert {name for name in wanted if not hasattr(Answer, name)} == set()


def test_what_kazoo_would_wait_for_in_vain_is_told() -> None:
    waits: list[int] = []
    answer = Answer(waits.append)
    assert not answer.wait(0.01)
    answer.set(1)
    assert answer.wait(0.01)
    assert waits == [10_000_000]
