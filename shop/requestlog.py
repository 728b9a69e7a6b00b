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


class _Stderr(logging.Handler):
    """Where the libraries' records go (kazoo, redis, sqlalchemy …)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's own way: who logs must not fail of it
            self.handleError(record)


def configure_logging(level: str) -> None:
    """Send our own and the libraries' records to stderr as JSON lines."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the frames' variables: passwords, keys and whole notices are among them.
    written: list[structlog.types.Processor] = [
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        ),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]
    structlog.configure(
        processors=[*shared, *written],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
        )
    )
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if not isinstance(one, _Stderr)] + [handler]


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
