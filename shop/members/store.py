"""Reading members."""

from sqlalchemy import select

from shop.db import db
from shop.members.models import Member


def member_by_login(login: str) -> Member | None:
    """The member who signs in under this name."""
    return db.session.scalars(select(Member).where(Member.login == login)).one_or_none()


def member_by_id(member_id: int) -> Member | None:
    """The member with this id."""
    return db.session.get(Member, member_id)
