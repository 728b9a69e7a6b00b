"""Paying: the forms that start it, the page with the QR code, and its watch on the order."""

import json

from flask import (
    Blueprint,
    Response,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as AnyResponse

from shop.errors import GatewayUnsure, OrderAlreadyPaid, OrderClosed, PaymentInProgress, Superseded
from shop.gateways.base import BY_BROWSER, HandOver, Product
from shop.idempotency.dedup import Answer, answered_once, fingerprint
from shop.members.session import require_member, sign_in_required
from shop.orders import service as orders
from shop.pages.device import current_device
from shop.pages.wants import wants_json
from shop.payments.contract import PayCommand, PaymentView
from shop.payments.payer_views import CHANNEL, can_learn_payer, known_openid, learn_payer
from shop.payments.products import Device
from shop.wiring import parts

blueprint = Blueprint("payments", __name__)

CASH_CHANNELS = ("wechatpay", "alipay")
UNPAID_STATES = ("created", "paying", "failed")
_PHONE_SCHEMES = ("https://", "http://", "weixin://", "alipays://")


@blueprint.post("/orders/<order_code>/pay")
@sign_in_required
def pay(order_code: str) -> AnyResponse:
    """Pay the order on a channel, once per idempotency key."""
    key = request.headers.get("Idempotency-Key") or request.form.get("idempotency_key", "")
    on_its_page = request.form.get("on") == "page"
    return pay_and_go_on(order_code, request.form.get("channel", ""), key, on_its_page=on_its_page)


def pay_and_go_on(
    order_code: str, channel: str, idempotency_key: str, *, on_its_page: bool = False
) -> AnyResponse:
    """Pay under this key; then JSON for a program, for a person the page where it goes on."""
    member_id = require_member().id
    # Whatever goes wrong from here on, its page leads to the order.
    g.order_code = order_code
    device = current_device()
    openid = ""
    if device is Device.WECHAT and channel == CHANNEL:
        merchant = parts().payments.view(member_id, order_code, with_hand_over=False).merchant
        if can_learn_payer(merchant) and not wants_json():
            # Its page asks who pays, and then for this payment again.
            return redirect(url_for("payments.show", order_code=order_code), 303)
        openid = known_openid(merchant)
    command = PayCommand(
        member_id=member_id,
        order_code=order_code,
        channel=channel,
        device=device,
        on_its_page=on_its_page,
        payer_openid=openid,
        client_ip=request.remote_addr or "",
    )

    def work() -> Answer:
        view = parts().payments.pay(command)
        return Answer(status=200, body=json.dumps(_facts(view)).encode())

    def resume() -> Answer:
        """As `work`, for the key of a worker that died: its payment, if that is what is there, is
        what this key asked for."""
        try:
            return work()
        except OrderAlreadyPaid:
            view = parts().payments.view(member_id, order_code)
            if view.channel != channel:
                raise
            return Answer(status=200, body=json.dumps(_facts(view)).encode())

    try:
        answer = answered_once(
            parts().clock,
            client=f"member:{member_id}",
            request_no=idempotency_key,
            fingerprint=fingerprint("pay", order_code, channel, *["page"] * on_its_page),
            work=work,
            resume=resume,
        )
    except (PaymentInProgress, GatewayUnsure, Superseded) as error:
        if wants_json():
            raise
        if isinstance(error, GatewayUnsure):
            flash(channel, "unsure")
        # The payment may be on its way: its page watches the order and says what can be done.
        return redirect(url_for("payments.show", order_code=order_code), 303)
    if not wants_json():
        return redirect(_next_page(order_code, answer), 303)
    response = Response(answer.body, status=answer.status, mimetype="application/json")
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@blueprint.get("/orders/<order_code>/pay")
@sign_in_required
def show(order_code: str) -> str | AnyResponse:
    """The page to pay by. It shows the truth however often it is loaded."""
    member_id = require_member().id
    view = parts().payments.view(member_id, order_code)
    device = current_device()
    here: dict[str, Product] = {}
    page_offered = False
    if view.amount_fen and view.order_state in UNPAID_STATES:
        elsewhere = learn_payer(view.merchant)
        if elsewhere is not None:
            return elsewhere
        here = _products_here(view.merchant)
        on_pages = _products_here(view.merchant, on_its_page=True)
        page_offered = device is Device.DESKTOP and Product.PAGE is on_pages.get(view.channel or "")
    return render_template(
        "payments/pay.html",
        view=view,
        device=device,
        channels=[one for one in CASH_CHANNELS if one in here],
        product_here=here.get(view.channel or ""),
        page_offered=page_offered,
        goes_by_shop=view.product in BY_BROWSER,
        goods=orders.order_of_member(member_id, order_code).lines,
        watch=_watched(view),
        seconds_left=_seconds_left(view),
        phone_link=_phone_link(view.hand_over),
        unsure=get_flashed_messages(category_filter=["unsure"]),
    )


@blueprint.get("/orders/<order_code>/pay/go")
@sign_in_required
def go(order_code: str) -> AnyResponse:
    """On to the gateway's own page, by an address signed now: one signed earlier grows old."""
    view = parts().payments.view(require_member().id, order_code)
    if view.order_state == "paying" and view.hand_over and view.hand_over.url:
        return redirect(view.hand_over.url, 303)
    return redirect(url_for("payments.show", order_code=order_code), 303)


@blueprint.get("/orders/<order_code>/status")
@sign_in_required
def status(order_code: str) -> Response:
    """How the payment stands, for the page's watch: a few short reads, nothing else."""
    view = parts().payments.view(require_member().id, order_code, with_hand_over=False)
    return jsonify(**_facts(view), watch=_watched(view), seconds_left=_seconds_left(view))


@blueprint.post("/orders/<order_code>/cancel")
@sign_in_required
def cancel(order_code: str) -> AnyResponse:
    """Give the order up. Cancelling it again is no error."""
    member_id = require_member().id
    try:
        view = parts().payments.cancel(member_id, order_code)
    except OrderClosed:
        view = parts().payments.view(member_id, order_code)
    if wants_json():
        return jsonify(**_facts(view))
    return redirect(url_for("orders.show", order_code=order_code), 303)


def surplus_of(order_code: str) -> int:
    """Fen that were taken for the order beyond what it owed."""
    return parts().payments.surplus_of(order_code)


def channels_here(merchant: str) -> list[str]:
    """The gateways by which this merchant can be paid on the device of this request."""
    here = _products_here(merchant, payer_known=can_learn_payer(merchant))
    return [one for one in CASH_CHANNELS if one in here]


def _products_here(
    merchant: str, *, payer_known: bool = False, on_its_page: bool = False
) -> dict[str, Product]:
    return parts().payments.products(
        merchant,
        current_device(),
        payer_known=payer_known or bool(known_openid(merchant)),
        on_its_page=on_its_page,
    )


def _facts(view: PaymentView) -> dict[str, str | None]:
    return {
        "order_code": view.order_code,
        "order_state": view.order_state,
        "channel": view.channel,
        "out_trade_no": view.out_trade_no,
        "attempt_state": view.attempt_state,
    }


def _watched(view: PaymentView) -> str:
    """Changes whenever the page would look different."""
    surplus = f"/{view.surplus_fen}" if view.surplus_fen else ""
    return f"{view.order_state}/{view.out_trade_no or ''}/{view.attempt_state or ''}{surplus}"


def _seconds_left(view: PaymentView) -> int:
    return max(0, int((view.expires_at - parts().clock.now()).total_seconds()))


def _next_page(order_code: str, answer: Answer) -> str:
    paid = json.loads(answer.body)["order_state"] == "paid"
    page = "orders.show" if paid else "payments.show"
    return url_for(page, order_code=order_code)


def _phone_link(hand_over: HandOver | None) -> str | None:
    """The code's text as a link, if it is one that a phone opens."""
    text = hand_over.qr_text if hand_over else None
    if text is None or not text.lower().startswith(_PHONE_SCHEMES):
        return None
    return text
