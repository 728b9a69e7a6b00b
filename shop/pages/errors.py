"""Errors as pages that a person understands, and as Problem Details (RFC 9457) for programs."""

import json
from dataclasses import dataclass

import structlog
from flask import Flask, Response, g, make_response, redirect, render_template, request, url_for
from flask_babel import get_locale, gettext, lazy_gettext
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from shop.db import db
from shop.errors import DatabaseUnavailable, ShopError
from shop.members.errors import SignInNeeded
from shop.pages.filters import number
from shop.pages.wants import PROBLEM_JSON, wants_json
from shop.pages.words import channel_name, order_state_name

log = structlog.get_logger("payonce.pages")

_WORDS: dict[int, tuple[str, str]] = {
    400: (
        lazy_gettext("This request could not be read"),
        lazy_gettext("Go back, load the page again and try once more."),
    ),
    404: (
        lazy_gettext("There is nothing at this address"),
        lazy_gettext("Perhaps a letter is missing. Everything we have is in the shop."),
    ),
    405: (
        lazy_gettext("This address cannot be opened like that"),
        lazy_gettext("Go to the shop or to your orders and start from there."),
    ),
    413: (
        lazy_gettext("That was too much at once"),
        lazy_gettext("Nothing was changed. Go back and send less."),
    ),
    429: (
        lazy_gettext("That was too often in a short time"),
        lazy_gettext("Nothing was charged. Wait a little and try again."),
    ),
    500: (
        lazy_gettext("Something went wrong on our side"),
        lazy_gettext(
            "A payment under way is not lost: look at your orders before you pay again. If you"
            " tell us about this, give us the number below."
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One error, for people (translated) and for programs (English, stable)."""

    status: int
    code: str
    title: str
    detail: str
    heading: str
    advice: str
    retry_after_s: int | None = None
    order_code: str | None = None


def init_errors(app: Flask) -> None:
    """Render every error that leaves a view."""
    app.register_error_handler(ShopError, on_shop_error)
    app.register_error_handler(SignInNeeded, on_visitor)
    app.register_error_handler(CSRFError, on_csrf_error)
    app.register_error_handler(HTTPException, on_http_error)
    app.register_error_handler(Exception, on_surprise)
    for away in (OperationalError, InterfaceError, PoolTimeoutError):
        app.register_error_handler(away, on_database_away)
    app.register_error_handler(DBAPIError, on_database_error)


def on_shop_error(error: ShopError) -> Response:
    """An error of our own family says itself what it is."""
    return answer(shop_problem(error))


def on_visitor(error: SignInNeeded) -> Response:
    """Send a person to the sign-in page, and back to this page afterwards; tell a program 401."""
    if wants_json():
        return answer(shop_problem(error))
    # A form cannot be sent again on the member's behalf; the page that held it can be shown.
    back = request.full_path.rstrip("?") if request.method == "GET" else _referring_page()
    return make_response(redirect(url_for("members.sign_in", next=back), 303))


def on_csrf_error(error: CSRFError) -> Response:
    """The form's token is missing or of a session that is over."""
    return answer(
        Problem(
            status=400,
            code="form-expired",
            title="This form has expired.",
            detail=str(error.description),
            heading=gettext("This page was open for too long"),
            advice=gettext(
                "For your safety, forms stop working when your session ends or after you sign in"
                " again. Nothing was charged. Go back, load the page anew and send it once more."
            ),
        )
    )


def on_http_error(error: HTTPException) -> Response:
    """What Flask and Werkzeug say by themselves."""
    if error.response is not None:
        return make_response(error.response)
    status = error.code or 500
    heading, advice = _WORDS.get(status, _WORDS[500 if status >= 500 else 400])
    response = answer(
        Problem(
            status=status,
            code=error.name.lower().replace(" ", "-"),
            title=error.name,
            detail=error.description or error.name,
            heading=str(heading),
            advice=str(advice),
        )
    )
    allow = dict(error.get_headers()).get("Allow")
    if allow:
        response.headers["Allow"] = allow
    return response


def on_surprise(error: Exception) -> Response:
    """A fault of ours: logged whole, shown without its inside."""
    log.exception("unexpected_error", path=request.path)
    db.session.rollback()
    heading, advice = _WORDS[500]
    return answer(
        Problem(
            status=500,
            code="internal-error",
            title="Something went wrong.",
            detail="The error was recorded under this request's id.",
            heading=str(heading),
            advice=str(advice),
        )
    )


def on_database_error(error: DBAPIError) -> Response:
    """A connection that the database ended is the database being away, whatever it is called."""
    return on_database_away(error) if error.connection_invalidated else on_surprise(error)


def on_database_away(error: Exception) -> Response:
    """The books cannot be reached."""
    log.error("database_unavailable", error=type(error).__name__)
    db.session.rollback()
    return answer(shop_problem(DatabaseUnavailable()))


def shop_problem(error: ShopError) -> Problem:
    """The error with its sentence and its hint, in the page's language for the page."""
    words = _fields_in_words(error)
    return Problem(
        status=error.status,
        code=error.code,
        title=error.detail,
        detail=error.hint.format(**error.fields) or error.detail,
        heading=gettext(error.title).format(**words),
        advice=gettext(error.hint).format(**words) if error.hint else "",
        retry_after_s=error.retry_after_s,
        order_code=_order_code(error),
    )


def answer(problem: Problem) -> Response:
    """The problem in the form that the client asked for."""
    response = _as_json(problem) if wants_json() else _as_page(problem)
    response.status_code = problem.status
    if problem.retry_after_s is not None:
        response.headers["Retry-After"] = str(problem.retry_after_s)
    return response


def _as_json(problem: Problem) -> Response:
    members: dict[str, object] = {
        "type": f"urn:payonce:error:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"urn:payonce:request:{g.get('request_id', '')}",
        "code": problem.code,
    }
    if problem.order_code is not None:
        members["order_code"] = problem.order_code
    return Response(json.dumps(members, ensure_ascii=False), mimetype=PROBLEM_JSON)


def _as_page(problem: Problem) -> Response:
    """The error's page; without the head of the page where that cannot be had, and as plain words
    where no page can be made at all."""
    # With the database away or a fault of ours the page must ask nothing of anyone.
    bare = problem.status >= 500 and problem.order_code is None
    for without_head in [True] if bare else [False, True]:
        try:
            return _page(problem, bare=without_head)
        except Exception:
            log.exception("error_page_failed", bare=without_head)
            db.session.rollback()
    words = f"{problem.heading}\n\n{problem.advice}\n\n{g.get('request_id', '')}\n"
    return Response(words, mimetype="text/plain")


def _page(problem: Problem, *, bare: bool) -> Response:
    return make_response(
        render_template(
            "error.html", problem=problem, bare=bare, request_id=g.get("request_id", "")
        )
    )


def _referring_page() -> str:
    """The path of the page of ours that the form was on."""
    referrer = request.referrer or ""
    if not referrer.startswith(request.host_url):
        return url_for("catalog.shop_front")
    return "/" + referrer.removeprefix(request.host_url)


def _order_code(error: ShopError) -> str | None:
    """The order to lead on to: as the error, the address or the view's work named it."""
    if error.code == "order-not-found":
        return None
    named = error.fields.get("order_code") or (request.view_args or {}).get("order_code")
    code = named or g.get("order_code")
    return str(code) if code else None


def _fields_in_words(error: ShopError) -> dict[str, object]:
    words = {
        name: number(value) if isinstance(value, int) else value
        for name, value in error.fields.items()
    }
    if "state" in words:
        words["state"] = order_state_name(str(words["state"]))
    if "channel" in words:
        words["channel"] = channel_name(str(words["channel"]))
    if "choices" in words:
        names = (channel_name(one) for one in str(words["choices"]).split(", "))
        words["choices"] = gettext(", ").join(names)
    if str(get_locale()).startswith("zh"):
        for name in [one for one in words if one.endswith("_zh")]:
            words[name.removesuffix("_zh")] = words[name]
    return words
