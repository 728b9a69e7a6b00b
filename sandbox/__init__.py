"""The gateways' stand-in: WeChat Pay APIv3 and Alipay OpenAPI for any number of merchants.

A WSGI application of its own that imports nothing from the shop. It verifies every request's
signature, signs its answers, sends signed notices on the documented schedules, and shows a cashier
page that plays the member's phone.
"""

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from sandbox import (
    admin,
    alipay,
    cashier,
    chance,
    fault_pages,
    levers,
    portal,
    wechat_bridge,
    wechat_oauth,
    wechatpay,
    wechatpay_bill,
    wechatpay_door,
    wechatpay_refunds,
)
from sandbox.config import SandboxConfig, config_from_env
from sandbox.core import EXTENSION, Sandbox, sandbox
from sandbox.dials import Dials
from sandbox.merchants import Merchants
from sandbox.notifier import Notifier
from sandbox.store import Store
from sandbox.wechatpay_checks import ApiError

__all__ = ["Sandbox", "SandboxConfig", "create_app", "sandbox_of"]

# No request of either protocol comes near this.
MAX_BODY_BYTES = 64 * 1024
_CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def create_app(config: SandboxConfig | None = None) -> Flask:
    """Build the application; without a configuration, from the environment.

    Makes the keys and the books in the data folder if they are not there. Starts no thread: the
    first request does.
    """
    chosen = config_from_env() if config is None else config
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    chosen.data.mkdir(parents=True, exist_ok=True)
    store = Store(chosen.data / "sandbox.sqlite3")
    # A restart goes on drawing, rather than from the beginning: numbers are never drawn twice.
    chance.sow(chosen.seed and f"{chosen.seed}:{store.starts()}")
    dials = Dials(chosen)
    merchants = Merchants(chosen.data, chosen.base_url)
    app.extensions[EXTENSION] = Sandbox(
        dials=dials,
        merchants=merchants,
        store=store,
        notifier=Notifier(dials, merchants, store),
    )
    for module in (
        wechatpay,
        alipay,
        cashier,
        admin,
        levers,
        fault_pages,
        portal,
        wechatpay_refunds,
        wechatpay_bill,
        wechat_oauth,
        wechat_bridge,
    ):
        app.register_blueprint(module.blueprint)
    app.add_url_rule("/healthz", view_func=_healthz)
    app.before_request(_start_notifier)
    app.after_request(_guard_pages)
    app.register_error_handler(HTTPException, _http_error)
    return app


def sandbox_of(app: Flask) -> Sandbox:
    """The sandbox inside an application: its books, keys and notifier."""
    found: Sandbox = app.extensions[EXTENSION]
    return found


def _healthz() -> Response:
    return Response("ok\n", content_type="text/plain")


def _start_notifier() -> None:
    sandbox().notifier.ensure_started()


def _guard_pages(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = _CSP
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _http_error(error: HTTPException) -> Response:
    """Unknown paths and the like; under /v3 in WeChat Pay's form."""
    status = error.code or 500
    if request.path.startswith("/v3/"):
        code = "RESOURCE_NOT_EXISTS" if status == 404 else "INVALID_REQUEST"
        return wechatpay_door.error_answer(ApiError(status, code, error.name))
    return Response(f"{status} {error.name}\n", status=status, content_type="text/plain")
