"""What all pages share: language, headers, forms' protection, errors, words."""

from datetime import timedelta

import structlog
from flask import Flask, request
from flask_babel import Babel, get_locale
from flask_wtf.csrf import CSRFProtect

from shop.cart import service as cart
from shop.members.session import current_member
from shop.pages.errors import init_errors
from shop.pages.filters import init_filters
from shop.pages.language import LANGUAGES, TIMEZONE, blueprint, choose_language
from shop.pages.security import init_security
from shop.pages.translations import compile_translations
from shop.pages.words import init_words
from shop.points import service as points_service

log = structlog.get_logger("payonce.pages")

SESSION_LIFETIME = timedelta(days=7)


def init_pages(app: Flask) -> None:
    """Set up all that the pages need; the blueprints are registered by the application."""
    app.config.update(
        PERMANENT_SESSION_LIFETIME=SESSION_LIFETIME,
        # A token lives as long as the session that it is bound to.
        WTF_CSRF_TIME_LIMIT=None,
    )
    try:
        compile_translations()
    except OSError as error:
        # A read-only installation brings its .mo files along, or speaks English.
        log.warning("translations_not_compiled", error=str(error))
    Babel(
        app,
        default_locale="en",
        default_timezone=TIMEZONE,
        locale_selector=choose_language,
    )
    CSRFProtect(app)
    init_security(app)
    init_errors(app)
    init_filters(app)
    init_words(app)
    app.register_blueprint(blueprint)
    app.add_template_global(lambda: LANGUAGES, "languages")
    app.add_template_global(current_member, "current_member")
    app.add_template_global(lambda: str(get_locale() or "en"), "language")
    app.add_template_global(_balance, "points_balance")
    app.add_template_global(_cart_count, "cart_count")
    app.add_template_global(_here, "here")


def _balance() -> int:
    """The points that the member can spend now."""
    member = current_member()
    return 0 if member is None else points_service.available(member.id)


def _cart_count() -> int:
    member = current_member()
    return 0 if member is None else cart.count(member.id)


def _here() -> str:
    """Where to come back to after switching the language: this page, if it can be got again."""
    if request.method == "GET" and request.url_rule is not None:
        return request.full_path.rstrip("?")
    return "/"
