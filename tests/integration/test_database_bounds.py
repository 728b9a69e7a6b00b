"""No wait at the database is without bound: not for a row, not for a session that fell silent."""

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from shop.db import CONNECT_TIMEOUT_S, IDLE_IN_TRANSACTION_S, ROW_WAIT_S, engine_options


def answers(database_url: str, question: str) -> list[object]:
    """What the server says to a session made with the shop's own options."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(database_url)
    database = SQLAlchemy(app)
    with app.app_context():
        try:
            return list(database.session.execute(text(question)).one())
        finally:
            database.session.remove()
            database.engine.dispose()


def test_postgresql_bounds_the_wait_for_a_row_and_an_idle_transaction(postgres_url: str) -> None:
    question = (
        "SELECT current_setting('lock_timeout'),"
        " current_setting('idle_in_transaction_session_timeout')"
    )
    assert answers(postgres_url, question) == [f"{ROW_WAIT_S}s", f"{IDLE_IN_TRANSACTION_S}s"]


def test_mariadb_bounds_the_wait_for_a_row_and_an_idle_transaction(mariadb_url: str) -> None:
    question = "SELECT @@SESSION.innodb_lock_wait_timeout, @@SESSION.idle_transaction_timeout"
    assert answers(mariadb_url, question) == [ROW_WAIT_S, IDLE_IN_TRANSACTION_S]


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "mysql", "mariadb+pymysql"])
def test_every_server_is_told_however_its_url_is_written(scheme: str) -> None:
    connect_args = engine_options(f"{scheme}://host/shop")["connect_args"]
    told = connect_args.get("options") or connect_args["init_command"]
    assert str(ROW_WAIT_S) in told
    assert str(IDLE_IN_TRANSACTION_S) in told
    assert connect_args["connect_timeout"] == CONNECT_TIMEOUT_S
