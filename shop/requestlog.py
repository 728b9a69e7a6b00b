"""Structured logs (JSON lines on stderr) that carry the request id and the order code.

No secrets: bodies, cookies, keys and tokens are never logged, and the libraries that would print
them at DEBUG are kept at WARNING.
"""

import logging
import re
import secrets
import sys
import time

import structlog
from flask import Flask, Response, g, request

from config.settings import Settings

_REQUEST_ID = re.compile(r"[0-9A-Za-z._-]{8,64}")
# These print decrypted notices, URLs with signatures, or every heartbeat at DEBUG.
_QUIET = ("wechatpayv3", "alipay", "urllib3", "kazoo", "werkzeug")
# Polled many times a minute by pages and by load balancers.
_UNLOGGED = {"health.healthz", "health.readyz", "metrics.show", "payments.status", "static"}

log = structlog.get_logger("payonce.http")


def configure_logging(level: str) -> None:
    """Send our own and the libraries' records to stderr as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without the frames' variables: passwords, keys and whole notices are among them.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def init_app(app: Flask, settings: Settings) -> None:
    """Give every request an id, log its end, and send the id back as `X-Request-Id`."""
    configure_logging(settings.log_level)

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.began = time.monotonic()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)
        order_code = (request.view_args or {}).get("order_code")
        if order_code:
            structlog.contextvars.bind_contextvars(order_code=order_code)

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        if request.endpoint not in _UNLOGGED:
            log.info(
                "request",
                method=request.method,
                path=request.path,
                status=response.status_code,
                took_ms=round((time.monotonic() - g.get("began", time.monotonic())) * 1000, 1),
            )
        return response
