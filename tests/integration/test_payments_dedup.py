"""The dedup table: one effect and one answer per (client, idempotency key), on every database."""

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from flask import Flask, current_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from shop.db import db
from shop.errors import (
    GatewayUnsure,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    OrderAlreadyPaid,
    PaymentInProgress,
)
from shop.idempotency.dedup import TAKEOVER_AFTER_S, Answer, answered_once, fingerprint
from shop.idempotency.models import PaymentRequest
from tests.integration.payments_support import DATABASES, Shop, shop_inside
from tests.processes import remove_folder
from tests.shopkit import Sandbox

THREADS = 8


class WorkerDied(BaseException):
    """What a killed process leaves behind: a claim, and nobody at work."""


@pytest.fixture(scope="module", params=DATABASES)
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    sandbox = Sandbox()  # for its keys; no gateway is asked
    with shop_inside(request.param, tmp_path_factory.mktemp("dedup"), request, sandbox) as made:
        yield made
        assert made.broken() == []
    remove_folder(sandbox.folder)


def key() -> str:
    return uuid.uuid4().hex


def ask(
    shop: Shop, request_no: str, work: Callable[[], bytes], *, body: str = "a", client: str = "c"
) -> Answer:
    return answered_once(
        shop.clock,
        client=client,
        request_no=request_no,
        fingerprint=fingerprint("pay", body),
        work=lambda: Answer(status=200, body=work()),
    )


def rows(request_no: str) -> int:
    db.session.rollback()
    count = db.session.scalar(select(func.count()).where(PaymentRequest.request_no == request_no))
    return count or 0


def must_not_run() -> bytes:
    raise AssertionError("the work was done a second time")


def test_the_first_answer_comes_again_byte_for_byte_and_is_marked(shop: Shop) -> None:
    one = key()
    first = ask(shop, one, lambda: b"\x00 the answer \xff")
    again = ask(shop, one, must_not_run)
    assert (first.body, first.replayed) == (b"\x00 the answer \xff", False)
    assert (again.body, again.status, again.replayed) == (first.body, first.status, True)


def test_the_same_key_with_another_request_is_refused_before_and_after_the_answer(
    shop: Shop,
) -> None:
    one = key()

    def work() -> bytes:
        with pytest.raises(IdempotencyKeyReused):
            ask(shop, one, must_not_run, body="b")
        return b"done"

    ask(shop, one, work)
    with pytest.raises(IdempotencyKeyReused):
        ask(shop, one, must_not_run, body="b")


def test_two_clients_may_use_the_same_key(shop: Shop) -> None:
    one = key()
    assert ask(shop, one, lambda: b"mine", client="c1").body == b"mine"
    assert ask(shop, one, lambda: b"yours", client="c2").body == b"yours"


def test_while_the_first_is_at_work_the_others_are_told_so(shop: Shop) -> None:
    one = key()

    def work() -> bytes:
        with pytest.raises(PaymentInProgress):
            ask(shop, one, must_not_run)
        return b"done"

    assert ask(shop, one, work).body == b"done"


@pytest.mark.parametrize("error", [GatewayUnsure, PaymentInProgress, OrderAlreadyPaid])
def test_an_error_is_not_stored_and_frees_the_key(
    shop: Shop, error: type[GatewayUnsure] | type[PaymentInProgress] | type[OrderAlreadyPaid]
) -> None:
    one = key()

    def work() -> bytes:
        raise error(order_code="X")

    with pytest.raises(error):
        ask(shop, one, work)
    with pytest.raises(IdempotencyKeyReused):
        ask(shop, one, must_not_run, body="b")
    assert ask(shop, one, lambda: b"now").body == b"now"


def die() -> bytes:
    raise WorkerDied


def test_the_claim_of_a_dead_worker_is_taken_over_after_its_time_and_not_before(
    shop: Shop,
) -> None:
    one = key()
    with pytest.raises(WorkerDied):
        ask(shop, one, die)
    with pytest.raises(PaymentInProgress):
        ask(shop, one, must_not_run)
    with shop.clock.later(TAKEOVER_AFTER_S - 5), pytest.raises(PaymentInProgress):
        ask(shop, one, must_not_run)
    with shop.clock.later(TAKEOVER_AFTER_S + 1):
        assert ask(shop, one, lambda: b"second try").body == b"second try"
    again = ask(shop, one, must_not_run)
    assert (again.body, again.replayed) == (b"second try", True)
    assert rows(one) == 1


def test_who_takes_over_from_a_dead_worker_is_told_that_the_effect_may_be_there(shop: Shop) -> None:
    one = key()

    def take(work: Callable[[], bytes], resume: Callable[[], bytes]) -> Answer:
        return answered_once(
            shop.clock,
            client="c",
            request_no=one,
            fingerprint=fingerprint("pay"),
            work=lambda: Answer(status=200, body=work()),
            resume=lambda: Answer(status=200, body=resume()),
        )

    with pytest.raises(WorkerDied):
        take(die, must_not_run)
    with shop.clock.later(TAKEOVER_AFTER_S + 1):
        assert take(must_not_run, lambda: b"what the dead one did").body == b"what the dead one did"
    assert take(must_not_run, must_not_run).replayed


def test_another_request_does_not_take_the_claim_of_a_dead_worker_over(shop: Shop) -> None:
    one = key()
    with pytest.raises(WorkerDied):
        ask(shop, one, die)
    with shop.clock.later(TAKEOVER_AFTER_S + 1), pytest.raises(IdempotencyKeyReused):
        ask(shop, one, must_not_run, body="b")


def test_a_worker_that_was_taken_over_gives_the_answer_of_the_one_who_took_over(
    shop: Shop,
) -> None:
    one = key()

    def slow() -> bytes:
        with shop.clock.later(TAKEOVER_AFTER_S + 1):
            assert ask(shop, one, lambda: b"theirs").body == b"theirs"
        return b"mine, too late"

    late = ask(shop, one, slow)
    assert (late.body, late.replayed) == (b"theirs", True)


def race(shop: Shop, one: str) -> tuple[list[str], list[bytes]]:
    """Many threads ask with one key until each has an answer: who worked, and the answers."""
    workers: list[str] = []
    answers: list[bytes] = []
    gate = threading.Barrier(THREADS)
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]

    def work() -> bytes:
        workers.append(threading.current_thread().name)
        return workers[-1].encode()

    def racer() -> None:
        with app.app_context():
            gate.wait()
            while True:
                with suppress(PaymentInProgress):
                    answers.append(ask(shop, one, work).body)
                    return

    threads = [threading.Thread(target=racer) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return workers, answers


def test_of_many_at_once_one_does_the_work_and_all_hear_its_answer(shop: Shop) -> None:
    for _ in range(5):
        one = key()
        workers, answers = race(shop, one)
        assert len(workers) == 1
        assert answers == [workers[0].encode()] * THREADS
        assert rows(one) == 1


@pytest.mark.parametrize("other", ["Key", "key ", " key", "kéy", "key\u200b"])
def test_keys_are_compared_byte_for_byte(shop: Shop, other: str) -> None:
    client = key()
    assert ask(shop, "key", lambda: b"one", client=client).body == b"one"
    if not other.isascii():
        with pytest.raises(IdempotencyKeyMissing):
            ask(shop, other, must_not_run, client=client)
        return
    assert ask(shop, other, lambda: b"other", client=client).body == b"other"
    assert ask(shop, "key", must_not_run, client=client).body == b"one"


@pytest.mark.parametrize(
    "request_no", ["", "x" * 129, "two\nlines", "schlüssel", "\x00", "tab\tbed", "\x7f"]
)
def test_a_key_that_is_none_is_refused_and_nothing_is_done(shop: Shop, request_no: str) -> None:
    with pytest.raises(IdempotencyKeyMissing):
        ask(shop, request_no, must_not_run)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    request_no=st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=128
    ),
    body=st.binary(max_size=2_000),
)
def test_any_printable_key_keeps_any_answer(shop: Shop, request_no: str, body: bytes) -> None:
    client = key()
    assert ask(shop, request_no, lambda: body, client=client).body == body
    again = ask(shop, request_no, must_not_run, client=client)
    assert (again.body, again.replayed) == (body, True)
    # Another key, be it only by a space or a capital, is another request.
    for other in (request_no + " ", request_no.swapcase()):
        if other != request_no and len(other) <= 128:
            assert ask(shop, other, lambda: b"other", client=client).body == b"other"


def test_a_fingerprint_tells_where_one_part_ends() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("a", "") != fingerprint("a")
    assert fingerprint("a", "b") == fingerprint("a", "b")
