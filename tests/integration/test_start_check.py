"""`scripts.check`, which looks before `make run` starts: it ends, whatever the services do."""

import threading

import pytest
from sqlalchemy.engine import make_url

from scripts.check import Unreachable, ask_database
from shop.postgresql import BoundedConnection
from tests.proxy import Proxy

# Ends a wait that should end by itself, so that a defect shows as a failure and not as a hang.
PATIENCE_S = 20.0


def test_a_postgresql_that_falls_silent_after_the_log_in_is_told_as_unreachable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedConnection, "longest_s", 0.5)
    answers: list[str] = []

    def ask(url: str) -> None:
        try:
            ask_database(url)
            answers.append("it answered")
        except Unreachable as problem:
            answers.append(str(problem))

    where = make_url(postgres_url)
    with Proxy(where.port or 5432) as proxy:
        url = where.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        proxy.drop_replies(1, to=b"version()", silently=True)
        asking = threading.Thread(target=ask, args=(url,), daemon=True)
        asking.start()
        asking.join(PATIENCE_S)
        assert proxy.dropped == 1
        assert answers, "still waiting"
    assert "did not answer" in answers[0], answers
