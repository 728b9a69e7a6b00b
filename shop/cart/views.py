"""The cart's page."""

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from shop.cart import service
from shop.cart.models import QUANTITY_MAX
from shop.members.session import require_member, sign_in_required
from shop.orders.pricing import Quote
from shop.orders.service import goods_by_seller, quote, short_of_stock
from shop.pages.inputs import whole_number

blueprint = Blueprint("cart", __name__)


@blueprint.get("/cart")
@sign_in_required
def show() -> str:
    """What is in the cart, and what it would cost."""
    lines = service.contents(require_member().id)
    priced: Quote | None = None
    short: list[str] = []
    apart: dict[str, str] = {}
    if lines:
        priced = quote([(line.product.id, line.quantity) for line in lines])
        short = short_of_stock(priced)
        apart = goods_by_seller(priced)
    return render_template(
        "cart/cart.html", quote=priced, short=short, apart=apart, quantity_max=QUANTITY_MAX
    )


@blueprint.post("/cart/items/<int(max=999999999999):product_id>")
@sign_in_required
def change(product_id: int) -> Response:
    """Change a quantity, or take something out."""
    member = require_member()
    quantity = whole_number(request.form.get("quantity"))
    if request.form.get("then") == "remove" or quantity == 0:
        service.remove(member.id, product_id)
    else:
        service.set_quantity(member.id, product_id, quantity or 0)
    return redirect(url_for("cart.show"), 303)
