"""`Payonce-Lock: database` on every answer that was made without the lock service."""

from flask import Flask, Response

from shop.locking import notes

HEADER, DATABASE = "Payonce-Lock", "database"


def init_app(app: Flask) -> None:
    """Mark the answers of this application."""
    app.before_request(notes.begin_answer)

    @app.after_request
    def mark(response: Response) -> Response:
        if notes.is_answer_degraded():
            response.headers[HEADER] = DATABASE
        return response
