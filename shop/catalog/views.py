"""The shop front and the page of one product."""

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from shop.cart import service as cart
from shop.cart.models import QUANTITY_MAX
from shop.catalog import service
from shop.members.session import require_member
from shop.pages.filters import fresh_uuid
from shop.pages.inputs import submit_token, whole_number

blueprint = Blueprint("catalog", __name__)


@blueprint.get("/")
def shop_front() -> str:
    """All goods for sale."""
    return render_template("catalog/shop_front.html", products=service.shelf())


@blueprint.get("/goods/<sku>")
def product(sku: str) -> str:
    """One product."""
    found = service.find(sku)
    return render_template(
        "catalog/product.html",
        product=found,
        quantity_max=min(QUANTITY_MAX, max(found.stock_on_hand, 1)),
    )


@blueprint.post("/goods/<sku>")
def choose(sku: str) -> Response:
    """Put the product into the cart, or go to the checkout with it alone ("buy now").

    A visitor goes to the checkout too: its address, which holds all that was chosen, is where the
    sign-in leads back to.
    """
    buys_now = request.form.get("then") == "checkout"
    member = None if buys_now else require_member()
    found = service.find(sku)
    quantity = whole_number(request.form.get("quantity")) or 0
    if member is None:
        token = submit_token(request.form.get("submit_token")) or fresh_uuid()
        checkout = url_for("orders.checkout", product=found.id, quantity=quantity, token=token)
        return redirect(checkout, 303)
    cart.add(member.id, found.id, quantity)
    return redirect(url_for("cart.show"), 303)
