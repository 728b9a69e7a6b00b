"""The merchants' portals: trades of one gateway with search and pages, one trade's whole life."""

import sqlite3

from flask import Blueprint, Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from sandbox import (
    alipay_bill,
    clock,
    events,
    listing,
    notices,
    refunds,
    texts,
    trades,
    wechatpay_bill,
)
from sandbox.cashier import notice_lines, page, shown_state
from sandbox.core import sandbox
from sandbox.listing import Wanted
from sandbox.money import parse_yuan
from sandbox.notices import Wish
from sandbox.refunds import RefundRefused, Terms
from sandbox.trades import CHANNELS, WECHATPAY, Refusal, Trade

blueprint = Blueprint("portal", __name__, url_prefix="/portal")

MAX_NUMBER = 64


@blueprint.before_request
def _own_pages_only() -> None:
    """A page of another site may not press these buttons; unknown channels have no portal."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        abort(403)
    if (request.view_args or {}).get("channel") not in CHANNELS:
        abort(404)


@blueprint.get("/<channel>")
def trades_of(channel: str) -> Response:
    """?q= part of a number, ?state=, ?merchant=, ?page=."""
    box, now = sandbox(), clock.now_ms()
    text = request.args.get("page", "1")
    wanted = Wanted(
        channel=channel,
        number=request.args.get("q", "").strip()[:MAX_NUMBER],
        state=request.args.get("state", ""),
        merchant=request.args.get("merchant", ""),
        page=int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1,
    )
    with box.store.write() as tx:
        found = listing.find(tx, wanted, now)
    return page(
        "portal.html",
        channel=channel,
        wanted=wanted,
        page=min(max(wanted.page, 1), found.pages),
        found=found,
        rows=[(trade, shown_state(trade, True, now)) for trade in found.trades],
        states=listing.STATES,
        merchants=[one.identity.merchant for one in box.merchants.all()],
        today=clock.plain(now)[:10],
    )


def _trade(tx: sqlite3.Connection, channel: str, trade_id: int, now: int) -> Trade:
    try:
        trade = trades.find_by_id(tx, trade_id, now)
    except Refusal:
        abort(404)
    if trade.channel != channel:
        abort(404)
    return trade


@blueprint.get("/<channel>/trades/<int:trade_id>")
def one_trade(channel: str, trade_id: int) -> Response:
    """Its life, refunds, notices and every sending."""
    return _one(channel, trade_id, "", 200)


def _one(channel: str, trade_id: int, error: str, status: int) -> Response:
    now = clock.now_ms()
    with sandbox().store.write() as tx:
        trade = _trade(tx, channel, trade_id, now)
        back = refunds.of_trade(tx, trade.id)
        lines = notice_lines(tx, notices.of_trade(tx, trade.id))
    life = (
        ("made", trade.created_at_ms),
        ("refused_at", trade.refused_at_ms),
        ("paid_at", trade.paid_at_ms),
        ("closed_at", trade.closed_at_ms),
    )
    return page(
        "portal_trade.html",
        status,
        channel=channel,
        trade=trade,
        state=shown_state(trade, True, now),
        life=[(name, at_ms) for name, at_ms in life if at_ms is not None],
        refunds=back,
        lines=lines,
        left_fen=trade.amount_fen - trade.refunded_fen if trade.state == "paid" else 0,
        error=error,
    )


@blueprint.post("/<channel>/trades/<int:trade_id>")
def act(channel: str, trade_id: int) -> AnyResponse:
    """pay, refund (amount in yuan) or resend; what stands in the way is said on the page."""
    box, now = sandbox(), clock.now_ms()
    try:
        with box.store.write() as tx:
            trade = _trade(tx, channel, trade_id, now)
            wished = request.form.get("act")
            if wished == "pay":
                trade = trades.scan(tx, trade, now)
                events.member_pays(tx, box.merchants, trade, Wish(), now)
            elif wished == "resend":
                notices.send_again(tx, trade.id, now)
            elif wished == "refund":
                _refund(tx, trade, now)
    except (Refusal, RefundRefused, ValueError) as error:
        return _one(channel, trade_id, str(error), 409)
    box.notifier.wake()
    target = url_for("portal.one_trade", channel=channel, trade_id=trade_id, lang=texts.language())
    return redirect(target, 303)


def _refund(tx: sqlite3.Connection, trade: Trade, now: int) -> None:
    """As at the real portals: a number of the gateway's, told to the payment's address."""
    box = sandbox()
    amount_fen = parse_yuan(request.form.get("amount", "").strip())
    if amount_fen is None:
        raise ValueError("amount: give yuan, as 8.88")
    delay_ms = box.config.scaled_ms(box.config.refund_delay_s)
    terms = Terms(interval_ms=0, delay_ms=max(1, delay_ms) if trade.channel == WECHATPAY else 0)
    refund, new = refunds.accept(
        tx,
        trade,
        out_refund_no=f"portal{trade.id}n{len(refunds.of_trade(tx, trade.id)) + 1}",
        amount_fen=amount_fen,
        notify_url=trade.notify_url,
        terms=terms,
        now=now,
    )
    if new and refund.settled_at_ms is not None:
        events.refund_settled(tx, box.merchants, refund, now)


@blueprint.get("/<channel>/bill")
def bill(channel: str) -> Response:
    """?date= and ?merchant=: the day's bill as a file; 404 where nothing happened."""
    box, now = sandbox(), clock.now_ms()
    date, merchant = request.args.get("date", ""), request.args.get("merchant") or "default"
    known = {one.identity.merchant: one.identity for one in box.merchants.all()}
    start_ms = clock.parse_plain(f"{date} 00:00:00")
    if merchant not in known or start_ms is None:
        return Response(
            "give date=2026-11-23 and a merchant that is known\n", 400, content_type="text/plain"
        )
    identity, content = known[merchant], b""
    with box.store.read() as tx:
        if channel == WECHATPAY:
            content = (wechatpay_bill.bill(tx, identity, "ALL", start_ms) or "").encode()
        elif (wanted := alipay_bill.period(date)) is not None:
            rows = alipay_bill.rows(tx, merchant, wanted)
            content = alipay_bill.archive(identity, wanted, rows, now) if rows else b""
    if not content:
        return Response(f"{date}: no bill\n", 404, content_type="text/plain")
    kind, ending = ("text/csv", "csv") if channel == WECHATPAY else ("application/zip", "csv.zip")
    name = f"{channel}-{merchant}-{date}.{ending}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, content_type=kind, headers=headers)
