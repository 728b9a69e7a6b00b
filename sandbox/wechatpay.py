"""WeChat Pay APIv3: prepay (Native, JSAPI, H5), query, close, platform certificates."""

from flask import Blueprint, Response, request

from sandbox import chance, clock, openids, settings, trades, wechatpay_objects, wechatpay_sign
from sandbox import wechatpay_checks as checks
from sandbox.core import sandbox
from sandbox.trades import WECHATPAY, Refusal, Trade, Why
from sandbox.wechatpay_checks import ApiError
from sandbox.wechatpay_door import Answer, caller, check_mchid, merchant, run

blueprint = Blueprint("wechatpay", __name__, url_prefix="/v3")

# The address of an H5 payment can be opened for so long; codes and prepay_ids live longer.
H5_URL_LIFE_S = 300
_PREPAY_REFUSALS = {
    Why.PAID: (403, "OUT_TRADE_NO_USED"),
    Why.CLOSED: (400, "ORDER_CLOSED"),
    Why.DIFFERENT: (403, "OUT_TRADE_NO_USED"),
    Why.EXPIRED: (400, "INVALID_REQUEST"),
}


@blueprint.post("/pay/transactions/native")
def native() -> Response:
    """Open a payment; the answer's code_url leads to the cashier page."""
    return run("prepay", lambda: _prepay("native"))


@blueprint.post("/pay/transactions/jsapi")
def jsapi() -> Response:
    """Open a payment inside WeChat's own browser, for one member: the bridge takes prepay_id."""
    return run("prepay", lambda: _prepay("jsapi"))


@blueprint.post("/pay/transactions/h5")
def h5() -> Response:
    """Open a payment in another browser on a phone; `&redirect_url=` may be put behind h5_url."""
    return run("prepay", lambda: _prepay("h5"))


def _prepay(product: str) -> Answer:
    box, now, identity = sandbox(), clock.now_ms(), caller().identity
    body = checks.body_of(request.get_data())
    check_mchid(body.get("mchid"))
    if checks.text(body, "appid", 32) != identity.appid:
        raise ApiError(400, "APPID_MCHID_NOT_MATCH", "AppID和mch_id不匹配")
    new = checks.new_trade(merchant(), product, body, now)
    life_s = H5_URL_LIFE_S if product == "h5" else box.config.code_lifetime_s
    try:
        with box.store.write() as tx:
            if new.payer_openid and not openids.known(tx, identity.appid, new.payer_openid):
                raise ApiError(400, "INVALID_REQUEST", "无效的openid")
            token = trades.open_trade(tx, new, code_lifetime_s=life_s, now=now)
    except Refusal as refusal:
        status, code = _PREPAY_REFUSALS[refusal.why]
        raise ApiError(status, code, str(refusal)) from None
    if product == "jsapi":
        return 200, {"prepay_id": token}
    address = f"{box.config.base_url}/cashier/wechatpay/{token}"
    if product == "h5":
        # With a query of its own, as the real one has: merchants append with "&".
        return 200, {"h5_url": f"{address}?package={chance.digits(10)}"}
    return 200, {"code_url": address}


@blueprint.get("/pay/transactions/out-trade-no/<out_trade_no>")
def query_by_number(out_trade_no: str) -> Response:
    """The transaction, by the merchant's number."""
    return run("query", lambda: _query(out_trade_no, None))


@blueprint.get("/pay/transactions/id/<transaction_id>")
def query_by_transaction(transaction_id: str) -> Response:
    """The transaction, by the gateway's number."""
    return run("query", lambda: _query(None, transaction_id))


def _query(out_trade_no: str | None, transaction_id: str | None) -> Answer:
    check_mchid(request.args.get("mchid"))
    trade = find(out_trade_no, transaction_id)
    if trade is None:
        raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在")
    return 200, wechatpay_objects.transaction(trade, caller().identity)


def find(out_trade_no: str | None, transaction_id: str | None) -> Trade | None:
    """The caller's trade, by either number."""
    now = clock.now_ms()
    with sandbox().store.write() as tx:
        if transaction_id is not None:
            return trades.find_by_transaction(tx, WECHATPAY, merchant(), transaction_id, now)
        return trades.find(tx, WECHATPAY, merchant(), out_trade_no or "", now)


@blueprint.post("/pay/transactions/out-trade-no/<out_trade_no>/close")
def close(out_trade_no: str) -> Response:
    """No more payment under this number: 204, signed, empty. Safe to repeat."""
    return run("close", lambda: _close(out_trade_no))


def _close(out_trade_no: str) -> Answer:
    box, now = sandbox(), clock.now_ms()
    check_mchid(checks.body_of(request.get_data()).get("mchid"))
    with box.store.write() as tx:
        trade = trades.find(tx, WECHATPAY, merchant(), out_trade_no, now)
        if trade is None:
            if box.config.wechatpay_close_unknown_as_204:
                return 204, None
            raise ApiError(404, "ORDER_NOT_EXIST", "订单不存在")
        try:
            trades.close(tx, trade, now)
        except Refusal:
            code = box.config.wechatpay_close_paid_code
            raise ApiError(400, code, "该订单已支付") from None
    return 204, None


@blueprint.get("/certificates")
def platform_certificates() -> Response:
    """The platform's certificates, each sealed with the APIv3 key; those to come are there too."""
    return run("certificates", _certificates)


def _certificates() -> Answer:
    box, keys, now = sandbox(), caller(), clock.now_ms()
    with box.store.read() as tx:
        if settings.get(tx, merchant(), "wechatpay_certificates") == "no":
            raise ApiError(404, "RESOURCE_NOT_EXISTS", "无可用的平台证书，请使用微信支付公钥")
    return 200, {
        "data": [
            {
                "serial_no": one.serial,
                "effective_time": clock.rfc3339(one.valid_from_ms),
                "expire_time": clock.rfc3339(one.valid_until_ms),
                "encrypt_certificate": wechatpay_sign.sealed(keys, one.pem.encode(), "certificate"),
            }
            for one in keys.wechatpay_certificates
            if now < one.valid_until_ms
        ]
    }
