"""`GET /metrics` for Prometheus, with a bearer token; and the timing of every request."""

import hmac
import time
from pathlib import Path

from flask import Blueprint, Flask, Response, abort, g, request
from prometheus_client import CONTENT_TYPE_LATEST

from config.settings import Settings, SettingsError
from shop.current import settings
from shop.metrics import folder, tell

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def show() -> Response:
    """All metrics of this host's processes; 404 unless METRICS_TOKEN is set, 401 without it."""
    chosen = settings()
    if not chosen.metrics_token:
        abort(404)
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {chosen.metrics_token}".encode()):
        return Response(
            "Send METRICS_TOKEN as a bearer token.\n",
            status=401,
            mimetype="text/plain",
            headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
    place = Path(chosen.metrics_folder) if chosen.metrics_folder else None
    return Response(folder.exposition(place), content_type=CONTENT_TYPE_LATEST)


def init_metrics(app: Flask, chosen: Settings) -> None:
    """Count and time requests. Raises SettingsError where the folder cannot be used."""
    if chosen.metrics_folder:
        try:
            folder.prepare(Path(chosen.metrics_folder))
            folder.take_room(Path(chosen.metrics_folder))
        except OSError as error:
            raise SettingsError(
                f"{folder.ENV}={chosen.metrics_folder}: cannot be made or written in "
                f"({error.strerror}); give a folder of yours."
            ) from None
    app.register_blueprint(blueprint)

    @app.before_request
    def begin() -> None:
        g.metrics_began_ns = time.monotonic_ns()

    @app.after_request
    def end(response: Response) -> Response:
        began_ns = g.get("metrics_began_ns")
        if began_ns is not None:
            took_s = (time.monotonic_ns() - began_ns) / 1_000_000_000
            rule = request.url_rule.rule if request.url_rule else None
            tell.request_answered(request.method, rule, response.status_code, took_s)
        return response
