"""The admin interface's levers that are no trade's: faults, the time scale, merchants, keys.

As in `admin`, errors are {"error": "…"}, here with 400 or 404.
"""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify, request

from sandbox import fault_orders, keys, settings
from sandbox.config import ConfigError
from sandbox.core import sandbox
from sandbox.fault_orders import BadOrder
from sandbox.keys import DEFAULT_MERCHANT, BadName, Keys
from sandbox.merchants import UnknownMerchant
from sandbox.settings import BadSetting
from sandbox.trades import CHANNELS, WECHATPAY

blueprint = Blueprint("levers", __name__, url_prefix="/admin")

MAX_ROTATION_S = 86_400


@blueprint.errorhandler(BadOrder)
@blueprint.errorhandler(BadName)
@blueprint.errorhandler(BadSetting)
@blueprint.errorhandler(ConfigError)
def _bad(error: ValueError) -> Response:
    answer = jsonify(error=str(error))
    answer.status_code = 400
    return answer


@blueprint.errorhandler(UnknownMerchant)
def _unknown(error: UnknownMerchant) -> Response:
    answer = jsonify(error=str(error))
    answer.status_code = 404
    return answer


def _body(*names: str) -> dict[str, Any]:
    """The request's JSON object with no other fields than these. Raises BadOrder."""
    body = request.get_json(silent=True)
    if not isinstance(body, dict) or not set(body) <= set(names):
        raise BadOrder(f"give a JSON object with nothing else than {', '.join(names)}")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise BadOrder(f"{name} must be a string")
    return value


def order(body: object) -> None:
    """Queue a fault. Raises BadOrder."""
    box = sandbox()
    fault = fault_orders.fault_of(body, [one.identity.merchant for one in box.merchants.all()])
    with box.store.write() as tx:
        fault_orders.order(tx, fault)


@blueprint.post("/faults")
def order_fault() -> Response:
    """See `fault_orders.Fault`. Answers with what waits."""
    order(request.get_json(silent=True))
    return waiting_faults()


@blueprint.get("/faults")
def waiting_faults() -> Response:
    """The faults still to come, and what can be ordered."""
    with sandbox().store.read() as tx:
        return jsonify(faults=[asdict(fault) for fault in fault_orders.waiting(tx)])


@blueprint.delete("/faults")
def clear_faults() -> Response:
    """Forget the faults still to come."""
    with sandbox().store.write() as tx:
        fault_orders.clear(tx)
    return waiting_faults()


def _dials() -> Response:
    config = sandbox().config
    return jsonify(time_scale=config.time_scale, bills_at_once=config.bills_at_once)


@blueprint.get("/dials")
def dials() -> Response:
    """What can be turned while it runs."""
    return _dials()


@blueprint.post("/dials")
def turn_dials() -> Response:
    """{"time_scale": number, "bills_at_once": true or false}, or one of them, until a restart."""
    body = _body("time_scale", "bills_at_once")
    scale, bills = body.get("time_scale"), body.get("bills_at_once")
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not (scale is None or number) or not (bills is None or isinstance(bills, bool)):
        raise BadOrder("time_scale must be a number, bills_at_once true or false")
    sandbox().dials.turn(time_scale=scale, bills_at_once=bills)
    return _dials()


def _shown(merchant: Keys) -> dict[str, Any]:
    box = sandbox()
    name = merchant.identity.merchant
    places = keys.Places(data=box.config.data, name=name)
    with box.store.read() as tx:
        chosen = settings.of(tx, name)
    return {
        **asdict(merchant.identity),
        "settings": chosen,
        "env": str(places.env.resolve()),
        "certs_env": str(places.certs_env.resolve()),
        "wechatpay_certificates": [one.serial for one in merchant.wechatpay_certificates],
        "alipay_certificates": [one.serial for one in merchant.alipay_certificates],
    }


@blueprint.get("/merchants")
def merchants() -> Response:
    """Numbers, settings and files of every merchant; no secrets."""
    return jsonify(merchants=[_shown(one) for one in sandbox().merchants.all()])


@blueprint.post("/merchants")
def add_merchant() -> Response:
    """{"name"}: make it, or give it where it is known."""
    name = _text(_body("name"), "name")
    return jsonify(_shown(sandbox().merchants.add(name)))


@blueprint.post("/merchants/<name>/settings")
def choose_settings(name: str) -> Response:
    """{setting: choice, …}: see `settings`. All of them, or none."""
    body = _body(*settings.CHOICES)
    found = sandbox().merchants.of(name)
    with sandbox().store.write() as tx:
        for setting in body:
            settings.put(tx, name, setting, _text(body, setting))
    return jsonify(_shown(found))


@blueprint.post("/merchants/<name>/certificates")
def rotate(name: str) -> Response:
    """{"channel", "effective_in_s", "life_s"}: the gateway's next certificate for this merchant,
    known at once and signed with after `effective_in_s` (0)."""
    body = _body("channel", "effective_in_s", "life_s")
    if body.get("channel") not in CHANNELS:
        raise BadOrder(f"channel must be one of {', '.join(CHANNELS)}")
    chosen = {}
    for field, low, high in (("effective_in_s", 0, MAX_ROTATION_S), ("life_s", 1, 10**9)):
        value = body.get(field)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and low <= value <= high):
            raise BadOrder(f"{field} must be a whole number from {low} to {high}")
        if value is not None:
            chosen[field] = value
    known = sandbox().merchants
    turn = known.rotate_wechatpay if body["channel"] == WECHATPAY else known.rotate_alipay
    return jsonify(_shown(turn(name, **chosen)))


@blueprint.post("/balance")
def set_balance() -> Response:
    """{"channel", "merchant", "available_fen": n or null}: refunds beyond it are refused; null: no
    bound."""
    body = _body("channel", "merchant", "available_fen")
    channel, value = body.get("channel"), body.get("available_fen")
    merchant = _text(body, "merchant") or DEFAULT_MERCHANT
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    if channel not in CHANNELS or not (value is None or whole):
        raise BadOrder("give channel, and available_fen as a whole number or null")
    sandbox().merchants.of(merchant)
    with sandbox().store.write() as tx:
        row = (channel, merchant)
        tx.execute("DELETE FROM balances WHERE channel = ? AND merchant = ?", row)
        if value is not None:
            tx.execute("INSERT INTO balances VALUES (?, ?, ?)", (*row, value))
    return jsonify(channel=channel, merchant=merchant, available_fen=value)
