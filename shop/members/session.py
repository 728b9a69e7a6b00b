"""Who is behind this request, kept in Flask's signed session cookie."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import g, session

from shop.members import service
from shop.members.errors import SignInNeeded
from shop.members.service import SignedIn

P = ParamSpec("P")
R = TypeVar("R")

MEMBER_KEY = "member_id"
# What of a visitor's session is kept when it becomes a member's.
KEPT_KEYS = ("language",)


def current_member() -> SignedIn | None:
    """The signed-in member, or None for a visitor. Read once per request."""
    if "member" not in g:
        member_id = session.get(MEMBER_KEY)
        g.member = service.find(member_id) if isinstance(member_id, int) else None
    member: SignedIn | None = g.member
    return member


def require_member() -> SignedIn:
    """The signed-in member. Raises SignInNeeded for a visitor."""
    member = current_member()
    if member is None:
        raise SignInNeeded()
    return member


def begin_session(member: SignedIn) -> None:
    """Make this session the member's. Everything of the visitor's goes, the CSRF secret too, so
    that a session planted before the sign-in is worth nothing afterwards."""
    _empty_session()
    session[MEMBER_KEY] = member.id
    session.permanent = True
    g.member = member


def end_session() -> None:
    """Sign out."""
    _empty_session()
    g.member = None


def sign_in_required(view: Callable[P, R]) -> Callable[P, R]:
    """Let only members in. Raises SignInNeeded, which sends people to the sign-in page."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        require_member()
        return view(*args, **kwargs)

    return guarded


def _empty_session() -> None:
    kept = {key: session[key] for key in KEPT_KEYS if key in session}
    session.clear()
    session.update(kept)
