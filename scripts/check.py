"""`python -m scripts.check [settings]`: whether the shop can be started with this environment.

Reads every setting and key as the shop does, then asks the database and the lock service whether
they are there (not with the argument `settings`). Says one sentence and gives an exit status:
0 all is well, 1 a service does not answer, 2 a setting is wrong.

A process of its own, so that `make run` can be ended by Ctrl-C at any time and stays small.
"""

import logging
import sys
import time

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from config.settings import SettingsError, load_settings, load_web_settings
from locks import LeaseLock, LockConfigError, LockUnavailable
from shop.db import engine_options
from shop.engines import prepare_engine
from shop.wiring import build_parts

# A service that is just starting, or slow once, is asked again for so long.
PATIENCE_S = 3.0
PAUSE_S = 0.2


class Unreachable(Exception):
    """A service does not answer; the message says which one, and why."""


def main(arguments: list[str]) -> int:
    """Check, and say what is wrong; gives the exit status."""
    # ZooKeeper's client would report each of its tries.
    logging.disable(logging.CRITICAL)
    try:
        load_web_settings()
        parts = build_parts(load_settings())
        try:
            if arguments != ["settings"]:
                ask_database(parts.settings.database_url)
                ask_lock(parts.lock)
        finally:
            parts.close()
    except (SettingsError, LockConfigError) as problem:
        print(problem)
        return 2
    except Unreachable as problem:
        print(problem)
        return 1
    return 0


def ask_database(url: str) -> None:
    """Open one connection. Raises Unreachable after the shop's own connection time-out."""
    where = make_url(url)
    engine = create_engine(where, **engine_options(url))
    prepare_engine(engine)
    try:
        engine.connect().close()
    except (SQLAlchemyError, TypeError, ValueError) as error:  # the latter two of odd ?options
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise Unreachable(
            f"The database at {where.render_as_string(hide_password=True)} cannot be used "
            f"({reason}); start it, or mend DATABASE_URL."
        ) from None
    finally:
        engine.dispose()


def ask_lock(lock: LeaseLock) -> None:
    """Ask the lock service. Raises Unreachable when it has not answered for PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return lock.ping()
        except LockUnavailable as error:
            if time.monotonic() > until:
                reason = (error.detail or str(error)).rstrip(".")
                raise Unreachable(
                    f"The {lock.backend} lock service cannot be used ({reason}); start it, or "
                    "mend LOCK_URL."
                ) from None
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
