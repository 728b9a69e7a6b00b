"""`flask --app wsgi seed`: the demo shop. Run again, it adds only what is missing."""

from datetime import datetime
from functools import partial

import click
from flask.cli import with_appcontext
from sqlalchemy import insert, select, update
from werkzeug.security import generate_password_hash

from shop.catalog.models import Product, StockAdjustment
from shop.commands.seed_data import DEMO_MEMBERS, DEMO_PASSWORD, DEMO_PRODUCTS, DemoMember
from shop.db import changed_rows, db, inserted_id, transaction
from shop.members.models import Member
from shop.points.service import grant
from shop.wiring import parts


@click.command("seed")
@with_appcontext
def seed() -> None:
    """Add the demo members, their points and the demo goods where they are missing."""
    now = parts().clock.now()
    members = [member for member in DEMO_MEMBERS if transaction(partial(_member, member, now))]
    products = [
        values
        for position, values in enumerate(DEMO_PRODUCTS)
        if transaction(partial(_product, {**values, "position": position}, now))
    ]
    click.echo(f"seeded {len(members)} members and {len(products)} products")


def _member(demo: DemoMember, now: datetime) -> bool:
    """One member with points; answers whether anything was missing."""
    member_id = db.session.scalar(select(Member.id).where(Member.login == demo.login))
    made = member_id is None
    if member_id is None:
        member_id = inserted_id(
            insert(Member).values(
                login=demo.login,
                display_name=demo.display_name,
                password_hash=generate_password_hash(DEMO_PASSWORD),
                created_at=now,
            )
        )
    granted = grant(member_id, demo.points, f"seed:points:{demo.login}", now=now)
    return made or granted


def _product(values: dict[str, str | int], now: datetime) -> bool:
    """One product with its stock; answers whether anything was missing."""
    fields = {name: value for name, value in values.items() if name != "stock"}
    sku, stock = str(values["sku"]), int(values["stock"])
    product_id = db.session.scalar(select(Product.id).where(Product.sku == sku))
    made = product_id is None
    if product_id is None:
        product_id = inserted_id(insert(Product).values(**fields))
    cause = f"seed:stock:{sku}"
    if db.session.scalar(select(StockAdjustment.id).where(StockAdjustment.cause == cause)):
        return made
    db.session.execute(
        insert(StockAdjustment).values(
            product_id=product_id, delta=stock, cause=cause, created_at=now
        )
    )
    changed_rows(
        update(Product)
        .where(Product.id == product_id)
        .values(stock_on_hand=Product.stock_on_hand + stock)
    )
    return True
