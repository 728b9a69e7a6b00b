"""Making the Flask application."""

from flask import Flask
from flask_migrate import Migrate

from config.settings import Settings, load_settings
from shop import health, requestlog
from shop.cart.views import blueprint as cart
from shop.catalog.views import blueprint as catalog
from shop.commands import register_commands
from shop.db import db, engine_options
from shop.engines import prepare_engine
from shop.locking import header
from shop.members.views import blueprint as members
from shop.metrics.views import init_metrics
from shop.orders.views import blueprint as orders
from shop.pages import init_pages
from shop.payments.payer_views import blueprint as payer
from shop.payments.views import blueprint as payments
from shop.proxies import ForwardedFor
from shop.webhooks.views import blueprint as webhooks
from shop.wiring import Parts, build_parts

# Forms of ours are of a few hundred bytes; a notice is bounded by its own view.
REQUEST_BYTES_MAX = 256 * 1024


def create_app(settings: Settings | None = None, parts: Parts | None = None) -> Flask:
    """The whole shop. Raises SettingsError where the configuration is wrong.

    With `parts` given, those are used (and their settings); otherwise `wiring` chooses.
    """
    if parts is None:
        parts = build_parts(settings or load_settings())
    app = Flask(__name__)
    _configure(app, parts.settings)
    requestlog.init_app(app, parts.settings)
    header.init_app(app)
    db.init_app(app)
    Migrate(app, db, directory="migrations", render_as_batch=True)
    with app.app_context():
        prepare_engine(db.engine)
    app.extensions["payonce"] = parts
    init_pages(app)
    for blueprint in (health.blueprint, webhooks, members, catalog, cart, orders, payments, payer):
        app.register_blueprint(blueprint)
    app.extensions["csrf"].exempt(webhooks)
    init_metrics(app, parts.settings)
    register_commands(app)
    app.wsgi_app = ForwardedFor(app.wsgi_app, parts.settings.forwarded_allow_ips)  # type: ignore[method-assign]
    return app


def _configure(app: Flask, settings: Settings) -> None:
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=engine_options(settings.database_url),
        SESSION_COOKIE_NAME="__Host-payonce" if settings.secure_cookies else "payonce",
        SESSION_COOKIE_SECURE=settings.secure_cookies,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        MAX_CONTENT_LENGTH=REQUEST_BYTES_MAX,
    )
