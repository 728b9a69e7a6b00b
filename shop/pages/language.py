"""Which language a page is in: the visitor's choice, else the browser's."""

from flask import Blueprint, redirect, request, session, url_for
from werkzeug.wrappers import Response

from shop.pages.local_urls import local_path

LANGUAGES = {"zh": "中文", "en": "English"}
"""Our languages, each by its own name. The first is for browsers that want neither."""

TIMEZONE = "Asia/Shanghai"

blueprint = Blueprint("pages", __name__)


def choose_language() -> str:
    """The language of this request's answer."""
    chosen = session.get("language")
    if chosen in LANGUAGES:
        return str(chosen)
    return request.accept_languages.best_match(list(LANGUAGES)) or next(iter(LANGUAGES))


@blueprint.post("/language")
def switch_language() -> Response:
    """Remember the visitor's choice and go back to where it was made."""
    chosen = request.form.get("language")
    if chosen in LANGUAGES:
        session["language"] = chosen
        session.permanent = True
    return redirect(local_path(request.form.get("next"), url_for("catalog.shop_front")), 303)
