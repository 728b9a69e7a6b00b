"""What is done to an engine, once, before the shop speaks to a database through it."""

from sqlalchemy import Engine

from shop.db import prepare_sqlite
from shop.postgresql import bound_answers


def prepare_engine(engine: Engine) -> None:
    """What `engine_options` cannot say: transactions of SQLite, silence of PostgreSQL."""
    if engine.dialect.name == "sqlite":
        prepare_sqlite(engine)
    elif engine.dialect.driver == "psycopg":
        bound_answers(engine)
