"""The bridge of WeChat's own browser, for a page in a test browser.

`/bridge.js` defines `WeixinJSBridge`, whose `getBrandWCPayRequest` brings the parameters of a JSAPI
payment here. They are checked as WeChat checks them, the cashier page opens, and the script asks
here what the member did there.
"""

from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox import clock, signing, trades
from sandbox.core import sandbox
from sandbox.trades import WECHATPAY, Refusal, Trade

blueprint = Blueprint("wechat_bridge", __name__)

# As for signatures of requests.
CLOCK_WINDOW_S = 300
FIELDS = ("appId", "timeStamp", "nonceStr", "package", "signType", "paySign")


class Refused(Exception):
    """The parameters do not hold: the page is told `fail` and why."""


@blueprint.errorhandler(Refused)
def _refused(error: Refused) -> Response:
    answer = jsonify(error=str(error))
    answer.status_code = 400
    return answer


@blueprint.after_request
def _any_page(answer: Response) -> Response:
    """The bridge is called by pages of any shop."""
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer


@blueprint.get("/bridge.js")
def script() -> Response:
    """The script that defines `WeixinJSBridge`."""
    content = render_template("bridge.js", base=sandbox().config.base_url)
    return Response(content, content_type="text/javascript; charset=utf-8")


@blueprint.post("/bridge/pay")
def pay() -> Response:
    """Check the parameters: {"prepay_id", "cashier_url", "since_ms"}, or 400 {"error"}."""
    prepay_id = _checked(request.form.to_dict())
    return jsonify(
        prepay_id=prepay_id,
        cashier_url=f"{sandbox().config.base_url}/cashier/wechatpay/{prepay_id}",
        since_ms=clock.now_ms(),
    )


@blueprint.get("/bridge/pay")
def pay_here() -> AnyResponse:
    """The same in the page's own window: on to the cashier, which leads back to `back`."""
    asked = request.args.to_dict()
    back = asked.pop("back", "")
    if urlsplit(back).scheme not in {"http", "https"}:
        raise Refused("back: a full http(s) address is needed")
    target = f"/cashier/wechatpay/{_checked(asked)}"
    return redirect(f"{target}?{urlencode({'redirect_url': back})}", 302)


@blueprint.get("/bridge/result/<prepay_id>")
def result(prepay_id: str) -> Response:
    """{"result": "waiting" | "ok" | "cancel" | "fail"}; `?since_ms=` is when the bridge was
    called."""
    since = request.args.get("since_ms", "0")
    if not (since.isascii() and since.isdigit()):
        raise Refused("since_ms: a whole number of milliseconds is needed")
    trade, works = _trade(prepay_id)
    if trade.state == "paid":
        said = "ok"
    elif trade.refused_at_ms is not None and trade.refused_at_ms >= int(since):
        said = "cancel"
    else:
        said = "waiting" if works and trade.state == "open" else "fail"
    return jsonify(result=said)


def _trade(prepay_id: str) -> tuple[Trade, bool]:
    """The JSAPI trade of a prepay_id, and whether that can still be paid with."""
    now = clock.now_ms()
    try:
        with sandbox().store.write() as tx:
            trade, works = trades.by_code(tx, WECHATPAY, prepay_id, now)
    except Refusal:
        trade = None
    if trade is None or trade.product != "jsapi":
        raise Refused("package: the prepay_id is unknown")
    return trade, works


def _checked(given: dict[str, str]) -> str:
    """The prepay_id of parameters that hold."""
    for name in FIELDS:
        if not given.get(name):
            raise Refused(f"{name}: is missing")
    keys = sandbox().merchants.by_appid(given["appId"])
    if keys is None:
        raise Refused("appId: unknown")
    if given["signType"] != "RSA":
        raise Refused("signType: must be RSA")
    stamp = given["timeStamp"]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise Refused("timeStamp: seconds are needed, as text")
    if abs(clock.now_ms() // 1_000 - int(stamp)) > CLOCK_WINDOW_S:
        raise Refused("timeStamp: the clock is off by more than 5 minutes")
    lines = (given["appId"], stamp, given["nonceStr"], given["package"])
    message = "".join(f"{line}\n" for line in lines).encode()
    if not signing.verify(keys.wechatpay_merchant, message, given["paySign"]):
        raise Refused("paySign: the signature does not hold")
    name, _, prepay_id = given["package"].partition("=")
    if name != "prepay_id":
        raise Refused("package: must be prepay_id=…")
    trade, works = _trade(prepay_id)
    if trade.merchant != keys.identity.merchant:
        raise Refused("package: the prepay_id is another application's")
    if not works or trade.state != "open":
        raise Refused(f"package: this prepay_id can no longer be paid with ({trade.state})")
    return prepay_id
