"""Members: who they are, and whether a password is theirs."""

import unicodedata
from dataclasses import dataclass
from functools import cache

from werkzeug.security import check_password_hash, generate_password_hash

from shop.members import store
from shop.members.models import Member
from shop.members.throttle import SignInThrottle

LOGIN_MAX = 64
# Hashing is slow on purpose; nobody gets to choose how slow by sending a novel.
PASSWORD_MAX = 256

_throttle = SignInThrottle()


@dataclass(frozen=True, kw_only=True)
class SignedIn:
    """The member behind a request."""

    id: int
    login: str
    display_name: str


def sign_in(login: str, password: str) -> SignedIn | None:
    """The member with this login, if the password is right; None tells nobody which was wrong.

    Takes as long for a login that does not exist: the time must not tell who is a member. Raises
    TooManySignIns after too many wrong passwords, whether or not there is such a member.
    """
    name = unicodedata.normalize("NFKC", login).strip().casefold()
    if len(name) > LOGIN_MAX or not name.isprintable() or len(password) > PASSWORD_MAX:
        return None
    with _throttle.one_check(name):
        member = store.member_by_login(name)
        right = check_password_hash(
            member.password_hash if member is not None else _nobodys_hash(), password
        )
    if member is None or not right:
        _throttle.wrong(name)
        return None
    _throttle.right(name)
    return _signed_in(member)


def find(member_id: int) -> SignedIn | None:
    """The member with this id."""
    member = store.member_by_id(member_id)
    return None if member is None else _signed_in(member)


@cache
def _nobodys_hash() -> str:
    """A hash that costs as much to check as a member's."""
    return generate_password_hash("nobody has this password")


def _signed_in(member: Member) -> SignedIn:
    return SignedIn(id=member.id, login=member.login, display_name=member.display_name)
