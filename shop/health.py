"""`GET /healthz`: this process answers. `GET /readyz`: it can also take payments."""

from flask import Blueprint, Response, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from locks import LockError
from shop.db import db
from shop.wiring import parts

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 as long as the process can answer at all; looks at nothing else."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 when the database and the lock service answer; 503 says which one is down."""
    checks = {"database": _database(), "lock": _lock()}
    ready = all(found == "ok" for found in checks.values())
    return jsonify(status="ok" if ready else "down", **checks), 200 if ready else 503


def _database() -> str:
    try:
        db.session.execute(text("SELECT 1 FROM orders WHERE 1 = 0"))
        db.session.rollback()
    except SQLAlchemyError as error:
        db.session.rollback()
        return f"down: {type(error).__name__}"
    return "ok"


def _lock() -> str:
    try:
        parts().lock.ping()
    except LockError as error:
        return f"down: {type(error).__name__}"
    return "ok"
