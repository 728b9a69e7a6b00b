"""Who is about to pay: asked silently where the browser is WeChat's own and JSAPI needs to know.

The page is loaded twice: `learn_payer` leads the first load to the gateway's login, whose answer
comes back to `come_back`; that stores the openid in the member's session and leads on to the page.
It leads by a page and not by a redirect: our policy lets no form end at another host.
What goes wrong there keeps nobody from paying: without an openid it is by QR code.
"""

import secrets
from hmac import compare_digest

import structlog
from flask import Blueprint, redirect, render_template, request, session, url_for
from werkzeug.wrappers import Response

from shop.db import end_read
from shop.gateways.base import LoginRefused, PayerLogin, Product
from shop.members.session import sign_in_required
from shop.merchants.errors import MerchantUnusable
from shop.pages.device import current_device
from shop.pages.local_urls import local_path
from shop.payments.products import Device
from shop.wiring import parts

log = structlog.get_logger("payonce.payments")

blueprint = Blueprint("payer", __name__)

CHANNEL = "wechatpay"
OPENIDS_KEY, ASKED_KEY = "openids", "openid_asked"

# A login that failed is tried again by the next page after this, and goes not round and round.
ASK_AGAIN_AFTER_S = 60


def known_openid(merchant: str) -> str:
    """The payer's openid in this merchant's application, if the session knows it."""
    login = _login(merchant) if current_device() is Device.WECHAT else None
    return "" if login is None else str(session.get(OPENIDS_KEY, {}).get(login.appid, ""))


def can_learn_payer(merchant: str) -> bool:
    """Whether the payer should be asked for before a payment begins.

    A login that failed a moment ago is not tried again.
    """
    if current_device() is not Device.WECHAT or known_openid(merchant):
        return False
    login = _login(merchant)
    if login is None:
        return False
    asked = session.get(ASKED_KEY, {})
    waited_s = parts().clock.now().timestamp() - asked.get("at", 0)
    return asked.get("appid") != login.appid or not 0 <= waited_s < ASK_AGAIN_AFTER_S


def learn_payer(merchant: str) -> str | None:
    """The page that leads to the login first, or None where there is nothing to learn."""
    login = _login(merchant)
    if login is None or not can_learn_payer(merchant):
        return None
    state = secrets.token_hex(16)
    session[ASKED_KEY] = {
        "appid": login.appid,
        "at": int(parts().clock.now().timestamp()),
        "merchant": merchant,
        "state": state,
        "next": request.full_path.removesuffix("?"),
    }
    back = f"{parts().settings.public_url}{url_for('payer.come_back')}"
    return render_template("payments/payer.html", address=login.authorize_url(back, state))


@blueprint.get("/pay/wechat/openid")
@sign_in_required
def come_back() -> Response:
    """The gateway's login leads here with a code, or without one where it was refused."""
    asked = session.get(ASKED_KEY, {})
    onward = local_path(asked.get("next"), url_for("orders.index"))
    if not asked.get("state") or not compare_digest(
        request.args.get("state", "").encode(), asked["state"].encode()
    ):
        log.warning("openid_state_unknown")
        return redirect(onward, 303)
    # The state works once; that it was asked for is remembered.
    session[ASKED_KEY] = {"appid": asked["appid"], "at": asked.get("at", 0)}
    login = _login(asked["merchant"])
    code = request.args.get("code", "")
    if login is not None and login.appid == asked["appid"] and 0 < len(code) <= 256:
        # No transaction is open across a gateway call.
        end_read()
        try:
            openid = login.openid_of(code)
        except LoginRefused as error:
            log.warning("openid_refused", code=error.code)
        else:
            session[OPENIDS_KEY] = {**session.get(OPENIDS_KEY, {}), login.appid: openid}
    return redirect(onward, 303)


def _login(merchant: str) -> PayerLogin | None:
    try:
        gateway = parts().desk.gateways.of(merchant).get(CHANNEL)
    except MerchantUnusable:
        return None
    if gateway is None or Product.JSAPI not in gateway.products:
        return None
    return gateway.payer_login
