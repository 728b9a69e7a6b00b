"""`GET /healthz`: this process answers. `GET /readyz`: it can also take payments."""

from flask import Blueprint, Response, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from locks import LockError
from shop.db import db
from shop.locking.store import current_epoch
from shop.wiring import parts

blueprint = Blueprint("health", __name__)

_READY = ("ok", "away")
_NOT_BELIEVED = "another lock service took over, run `flask --app wsgi locks adopt`"


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 as long as the process can answer at all; looks at nothing else."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 when payments can be taken; 503 says what is missing.

    That is the database and the lock service, unless LOCK_UNAVAILABLE lets the shop go on without.
    """
    database = _database()
    # Whose fences count is asked of the database: of one that is down it is not asked again.
    checks = {"database": database, "lock": _lock(ask_books=database == "ok")}
    ready = all(found.startswith(_READY) for found in checks.values())
    return jsonify(status="ok" if ready else "down", **checks), 200 if ready else 503


def _database() -> str:
    try:
        db.session.execute(text("SELECT lock_epoch FROM orders WHERE 1 = 0"))
        db.session.rollback()
    except SQLAlchemyError as error:
        db.session.rollback()
        return f"down: {type(error).__name__}"
    return "ok"


def _lock(*, ask_books: bool) -> str:
    chosen = parts()
    try:
        chosen.lock.ping()
        realm = chosen.lock.realm()
    except LockError as error:
        if chosen.settings.lock_unavailable == "database":
            return f"away: {type(error).__name__}, orders are claimed by the database"
        return f"down: {type(error).__name__}"
    return _NOT_BELIEVED if ask_books and not _is_believed(realm) else "ok"


def _is_believed(realm: str) -> bool:
    """Whether the books believe fences of this realm; before the first epoch they believe any."""
    try:
        epoch = current_epoch()
    except SQLAlchemyError:
        return True  # the next look will say that the database is down
    finally:
        db.session.rollback()
    return epoch is None or epoch.realm == realm
