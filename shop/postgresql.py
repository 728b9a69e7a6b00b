"""PostgreSQL's connections: no wait for an answer is without end.

libpq waits for ever on a server that is frozen while its host is alive: keepalives are answered by
the host's kernel. psycopg waits for the answer itself, and so can give up.
"""

from typing import Any

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

from shop.db import SILENCE_TIMEOUT_S


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed, with OperationalError, when one answer takes too long.

    What was asked may have been done. For a commit that is as after any broken connection: all of
    it or nothing, and who reads again knows.
    """

    longest_s = float(SILENCE_TIMEOUT_S)

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """As of psycopg, but with a bound where its caller set none."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.longest_s)
        except psycopg.errors._WaitTimeout as error:
            # Whatever else would be said on it, a rollback for one, would wait as long again.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"PostgreSQL did not answer in {self.longest_s:g} s; the connection is given up."
            ) from error


def bound_answers(engine: Engine) -> None:
    """Let all connections of this engine be bounded ones."""

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> BoundedConnection:
        return BoundedConnection.connect(*args, **options)
