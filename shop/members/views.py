"""Signing in and out."""

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from shop.members import service
from shop.members.session import begin_session, current_member, end_session
from shop.pages.local_urls import local_path

blueprint = Blueprint("members", __name__)


@blueprint.get("/sign-in")
def sign_in() -> str | Response:
    """The sign-in page; who is signed in already goes on."""
    if current_member() is not None:
        return redirect(_onwards(request.args.get("next")), 303)
    return render_template("members/sign_in.html", next=request.args.get("next", ""), login="")


@blueprint.post("/sign-in")
def check_in() -> tuple[str, int] | Response:
    """Sign in and go on to `next`, which must be a page of ours."""
    login = request.form.get("login", "")
    member = service.sign_in(login, request.form.get("password", ""))
    if member is None:
        page = render_template(
            "members/sign_in.html",
            next=request.form.get("next", ""),
            login=login[: service.LOGIN_MAX],
            wrong=True,
        )
        return page, 422
    begin_session(member)
    return redirect(_onwards(request.form.get("next")), 303)


@blueprint.post("/sign-out")
def sign_out() -> Response:
    """Sign out and go to the shop."""
    end_session()
    return redirect(url_for("catalog.shop_front"), 303)


def _onwards(target: str | None) -> str:
    return local_path(target, url_for("catalog.shop_front"))
