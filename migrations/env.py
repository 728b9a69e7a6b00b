"""Alembic's environment: the application's own engine and models, whatever the database."""

from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.autogenerate.api import AutogenContext
from flask import current_app

config = context.config
if config.config_file_name is not None and not current_app.config.get("PAYONCE_QUIET_MIGRATIONS"):
    fileConfig(config.config_file_name, disable_existing_loggers=False)

migrate = current_app.extensions["migrate"]


def render_item(kind: str, value: Any, autogen: AutogenContext) -> str | bool:
    """Write our own column types by name, so that a migration reads as the models do."""
    if kind == "type" and type(value).__name__ == "UtcDateTime":
        autogen.imports.add("import shop.db")
        return "shop.db.UtcDateTime()"
    if kind == "type" and type(value).__name__ == "BigInteger":
        autogen.imports.add("import shop.db")
        return "shop.db.BigInt"
    return False


def run_migrations() -> None:
    """Run on a connection of the application's engine."""
    with migrate.db.engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=migrate.db.metadata,
            render_item=render_item,
            render_as_batch=True,
            compare_type=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


if context.is_offline_mode():
    raise SystemExit("Migrations run against a database; for SQL alone use a scratch one.")
run_migrations()
