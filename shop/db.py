"""The database: one declarative base, one way to run a transaction.

Portable over SQLite, PostgreSQL and MariaDB/MySQL. Every write of the shop goes through
`transaction`, which keeps transactions short, refuses to nest them round a gateway call, and tries
again where the database says that trying again is right (deadlock, serialization, busy).
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    BigInteger,
    CursorResult,
    DateTime,
    Delete,
    Dialect,
    Engine,
    Insert,
    Integer,
    LargeBinary,
    MetaData,
    Update,
    event,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")

# Conflicts between short transactions clear within milliseconds; eight tries with growing, jittered
# pauses (about two seconds in all) outlast any that is not a real fault.
TRANSACTION_TRIES = 8
FIRST_PAUSE_MS = 5
LONGEST_PAUSE_MS = 500

_JITTER = random.SystemRandom()

# So long a statement waits for a row that somebody else has written and not committed. Our
# transactions take milliseconds; a notice must be answered within 5 s (WeChat Pay).
ROW_WAIT_S = 3
# A session that says nothing for so long within a transaction is ended by the server: a process
# that froze there (T4) would keep its rows locked for as long as it is frozen.
IDLE_IN_TRANSACTION_S = 10

# A server that does not answer at all (its host froze, the network is cut) is given up after this.
CONNECT_TIMEOUT_S = 5
SILENCE_TIMEOUT_S = 10

# A writer of SQLite waits this long for the one before it.
SQLITE_BUSY_TIMEOUT_MS = 5_000


class Base(DeclarativeBase):
    """The base of all models, with names for all constraints so that migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})

if TYPE_CHECKING:
    # db.Model is made at run time; to a type checker it is the declarative base.
    Model = Base
else:
    Model = db.Model

BigInt = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit whole number; SQLite's INTEGER is one, and only that name may autoincrement there."""

Blob = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
"""Bytes. MariaDB's and MySQL's plain BLOB ends one byte below 64 KiB."""


def mariadb_options(dialect: Dialect) -> dict[str, str]:
    """Options of every table on MariaDB and MySQL; other databases ignore them.

    Keys are compared byte for byte, as everywhere else. Their default collations ignore case, and
    `utf8mb4_bin` ignores spaces at the end (MariaDB and MySQL manuals, "NO PAD collations").
    """
    is_mariadb = bool(getattr(dialect, "is_mariadb", False))
    return {
        "mysql_engine": "InnoDB",
        "mysql_default_charset": "utf8mb4",
        "mysql_collate": "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin",
    }


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC moment, stored without zone and with microseconds everywhere."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """MariaDB and MySQL drop fractions of a second unless told otherwise."""
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: nobody could tell what they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What is stored is UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


def engine_options(database_url: str) -> dict[str, Any]:
    """Engine settings for this kind of database.

    READ COMMITTED is asked for explicitly: our safety rests on conditional updates, which see the
    newest committed row there on PostgreSQL and MariaDB alike. Waiting is bounded on all of them
    (MySQL alone cannot end an idle transaction; it reads MariaDB's part as a comment).
    """
    if database_url.startswith("sqlite"):
        return {"connect_args": {"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000}}
    connect_args: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT_S}
    if database_url.startswith("postgresql"):
        connect_args["options"] = (
            f"-c lock_timeout={ROW_WAIT_S}s"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_S}s"
        )
    elif database_url.startswith(("mysql", "mariadb")):
        connect_args["init_command"] = (
            f"SET SESSION innodb_lock_wait_timeout = {ROW_WAIT_S}"
            f" /*M!100300 , SESSION idle_transaction_timeout = {IDLE_IN_TRANSACTION_S} */"
        )
        connect_args |= {"read_timeout": SILENCE_TIMEOUT_S, "write_timeout": SILENCE_TIMEOUT_S}
    return {
        "isolation_level": "READ COMMITTED",
        "pool_pre_ping": True,
        "pool_size": 10,
        "connect_args": connect_args,
    }


def prepare_sqlite(engine: Engine) -> None:
    """Make SQLite transactional as the others are: WAL, foreign keys, real BEGINs.

    A transaction that will write takes the write lock at once (BEGIN IMMEDIATE): upgrading later
    would fail at once with SQLITE_BUSY whenever someone else wrote in between (SQLite
    documentation, "Transactions", section 2.1).
    """

    @event.listens_for(engine, "connect")
    def on_connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        # FULL: a commit that was answered is on the disk, power cut or not. Money asks for it.
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("payonce_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def transaction(work: Callable[[], T]) -> T:
    """Run `work` in one database transaction and commit it; its answer is returned.

    `work` may run more than once (after a deadlock, a refused serialization, a busy SQLite), so it
    must only read and write the database. Any exception rolls everything back and is passed on.
    """
    for attempt in range(TRANSACTION_TRIES):
        end_read()
        try:
            db.session.connection(execution_options={"payonce_writes": True})
            answer = work()
            db.session.commit()
            return answer
        except DBAPIError as error:
            db.session.rollback()
            if attempt == TRANSACTION_TRIES - 1 or not _worth_retrying(error):
                raise
            _pause(attempt)
        except BaseException:
            db.session.rollback()
            raise
    raise AssertionError("unreachable")


def changed_rows(statement: Update | Delete) -> int:
    """Run one conditional write and say how many rows it changed."""
    result = db.session.execute(statement, execution_options={"synchronize_session": False})
    return cast("CursorResult[Any]", result).rowcount


def inserted_id(statement: Insert) -> int:
    """Run one insert and say which id the new row got."""
    result = cast("CursorResult[Any]", db.session.execute(statement))
    return int(cast("tuple[int]", result.inserted_primary_key)[0])


def end_read() -> None:
    """Give up the snapshot of earlier reads, so that what comes next sees what is committed now."""
    session = db.session()
    if session.new or session.dirty or session.deleted:
        raise RuntimeError("unsaved changes outside transaction()")
    session.rollback()


def _pause(attempt: int) -> None:
    longest = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2**attempt)
    time.sleep(_JITTER.uniform(longest / 2, longest) / 1000)


def _worth_retrying(error: DBAPIError) -> bool:
    """Whether the database asked for another try and certainly did nothing.

    PostgreSQL 40001 serialization_failure, 40P01 deadlock_detected, 25P03 the session was ended
    while idle (Appendix A of its manual); MariaDB/MySQL 1213 deadlock, 1020 record changed;
    SQLite's snapshot that grew old (SQLITE_BUSY_SNAPSHOT) or locked table. What was waited for
    already, a row (55P03, 1205) or SQLite's turn to write (SQLITE_BUSY), is not waited for again.
    """
    original: Any = error.orig
    if getattr(original, "sqlstate", None) in {"40001", "40P01", "25P03"}:
        return True
    args = getattr(original, "args", ())
    if args and args[0] in {1213, 1020}:
        return True
    return getattr(original, "sqlite_errorname", "").startswith(("SQLITE_BUSY_", "SQLITE_LOCKED"))
