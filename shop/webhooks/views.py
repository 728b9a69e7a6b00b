"""`POST /webhooks/<channel>`, and `/webhooks/<channel>/<merchant>`: the gateways' callbacks.

Verify, store once, then apply; acknowledge when it is stored, as the sweeper works off what cannot
be applied at once. The raw body is read before anything parses it.
"""

from dataclasses import asdict, replace

from flask import Blueprint, Response, request
from sqlalchemy.exc import SQLAlchemyError

from shop.errors import ShopError
from shop.gateways.base import Acknowledgement, NoticeRefused
from shop.gateways.registry import DEFAULT_MERCHANT
from shop.merchants.errors import MerchantUnusable, UnknownMerchant
from shop.metrics import tell
from shop.payments.desk import Desk, log
from shop.webhooks import inbox
from shop.wiring import parts

NOTICE_BYTES_MAX = 65_536
"""Real notices are of 1 to 4 kB; what is larger is none."""

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")


@blueprint.post("/<any(wechatpay, alipay):channel>")
@blueprint.post("/<any(wechatpay, alipay):channel>/<merchant>")
def receive(channel: str, merchant: str = DEFAULT_MERCHANT) -> Response:
    """Take one callback in, at the address of one merchant: its keys alone are asked."""
    desk = parts().desk
    account = inbox.Account(channel=channel, merchant=merchant)
    try:
        gateway = desk.gateways.of(merchant).get(channel)
    except UnknownMerchant:
        gateway = None
    except MerchantUnusable as error:
        # It comes again, when the merchant's keys can be read.
        tell.notice(channel, "not_stored")
        log.error("notice_not_read", channel=channel, merchant=merchant, trouble=error.fields)
        return _answer(desk.gateways.of(DEFAULT_MERCHANT)[channel].reject("try again later"))
    if gateway is None:
        tell.notice(channel, "unknown_merchant")
        form = desk.gateways.of(DEFAULT_MERCHANT)[channel].reject("unknown merchant")
        return _answer(replace(form, status=404))
    if request.content_length is not None and request.content_length > NOTICE_BYTES_MAX:
        tell.notice(channel, "malformed")
        return _answer(gateway.reject("too large"))
    body = request.stream.read(NOTICE_BYTES_MAX + 1)
    headers = dict(request.headers.items())
    try:
        notice = replace(gateway.read_notice(headers, body), account=gateway.account)
    except NoticeRefused as refusal:
        tell.notice(channel, refusal.reason)
        _record_refusal(desk, account, refusal, headers, body)
        return _answer(gateway.reject(refusal.reason))
    try:
        row_id = inbox.store_verified(desk, account, notice, headers, body)
    except SQLAlchemyError:
        tell.notice(channel, "not_stored")
        log.exception("notice_not_stored", channel=channel, notice_id=notice.notice_id)
        return _answer(gateway.reject("not stored"))
    try:
        state = inbox.apply_stored(
            desk, row_id, actor="gateway", wait_ms=desk.settings.webhook_lock_wait_ms
        )
    except (ShopError, SQLAlchemyError) as error:
        log.warning("notice_left_to_sweeper", notice_row=row_id, error=str(error))
        state = "verified"
    # Still verified: left to the sweeper. Refused: it contradicts our books.
    tell.notice(channel, {"verified": "left", "refused": "contradicts"}.get(state, state))
    if state == "refused":
        return _answer(gateway.reject("contradicts our books"))
    return _answer(gateway.acknowledge())


def _record_refusal(
    desk: Desk,
    account: inbox.Account,
    refusal: NoticeRefused,
    headers: dict[str, str],
    body: bytes,
) -> None:
    try:
        inbox.store_refused(desk, account, refusal, headers, body)
    except SQLAlchemyError:
        log.exception("refused_notice_not_recorded", **asdict(account))


def _answer(ack: Acknowledgement) -> Response:
    return Response(ack.body, status=ack.status, content_type=ack.content_type)
