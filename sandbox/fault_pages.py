"""The page for faults and the dials: the same levers as the admin interface's, as plain forms."""

from flask import Blueprint, Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from sandbox import fault_orders, levers, texts
from sandbox.cashier import page
from sandbox.config import ConfigError
from sandbox.core import sandbox
from sandbox.fault_orders import BadOrder
from sandbox.trades import CHANNELS

blueprint = Blueprint("fault_pages", __name__)

_WHOLE = ("times", "delay_ms", "offset_s", "repeats")
_NUMBERS = (*_WHOLE, "probability")


@blueprint.before_request
def _own_pages_only() -> None:
    """A page of another site may not press these buttons."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        abort(403)


@blueprint.get("/faults")
def show() -> Response:
    """What waits, a form for another, and the dials."""
    return _show("", 200)


def _show(error: str, status: int) -> Response:
    box = sandbox()
    with box.store.read() as tx:
        waiting = fault_orders.waiting(tx)
    return page(
        "faults.html",
        status,
        waiting=waiting,
        error=error,
        channels=CHANNELS,
        ops=fault_orders.OPS,
        call_kinds=[one for one in fault_orders.KINDS if one not in fault_orders.TELLINGS],
        notice_kinds=fault_orders.TELLINGS,
        merchants=[one.identity.merchant for one in box.merchants.all()],
        asked=request.form,
        config=box.config,
    )


def _again() -> AnyResponse:
    return redirect(url_for("fault_pages.show", lang=texts.language()), 303)


@blueprint.post("/faults")
def order() -> AnyResponse:
    """Order one; what is wrong with it is said above the form."""
    body: dict[str, object] = {}
    try:
        for name, text in request.form.items():
            if name in _NUMBERS and text.strip():
                body[name] = _number(name, text)
            elif name not in _NUMBERS and name != "lang":
                body[name] = text
        levers.order(body)
    except BadOrder as error:
        return _show(str(error), 400)
    return _again()


def _number(name: str, text: str) -> int | float:
    try:
        return int(text) if name in _WHOLE else float(text)
    except ValueError:
        raise BadOrder(f"{name} must be a number") from None


@blueprint.post("/faults/clear")
def clear() -> AnyResponse:
    """Forget one, or all."""
    chosen = request.form.get("id", "")
    only = int(chosen) if chosen.isascii() and chosen.isdigit() and len(chosen) < 18 else None
    with sandbox().store.write() as tx:
        fault_orders.clear(tx, only)
    return _again()


@blueprint.post("/dials")
def turn() -> AnyResponse:
    """The time scale, and whether bills can be had at once."""
    text = request.form.get("time_scale", "")
    try:
        scale = float(text)
    except ValueError:
        return _show(f"time_scale={text!r}: give a number", 400)
    try:
        bills = request.form.get("bills_at_once") == "yes"
        sandbox().dials.turn(time_scale=scale, bills_at_once=bills)
    except ConfigError as error:
        return _show(str(error), 400)
    return _again()
