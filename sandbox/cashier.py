"""The member's phone: one page per payment code, and an index of what happened.

Plain forms, no script. The token in the address is the only secret, as in a real code.
"""

import sqlite3
from dataclasses import dataclass

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from sandbox import clock, events, listing, notices, texts, trades
from sandbox.core import sandbox
from sandbox.money import yuan
from sandbox.notices import Delivery, Notice, Wish
from sandbox.trades import CHANNELS, Refusal, Trade, Why
from sandbox.way_back import way_back

blueprint = Blueprint("cashier", __name__)

# What `pay-late` offers, and its bounds.
LATE_CHOICES_S = (5, 15, 30, 60, 120, 300)
MAX_LATE_S = 3_600
# `repeat-notice` on an unpaid order: the notice comes three times.
REPEATS = 2
INDEX_ROWS = 50


@dataclass(frozen=True, kw_only=True)
class NoticeLine:
    """One notice as the pages show it."""

    notice: Notice
    number: str
    deliveries: list[Delivery]


def page(template: str, status: int = 200, **context: object) -> Response:
    """A page in the reader's language."""
    lang = texts.language()
    body = render_template(
        template,
        lang=lang,
        other="en" if lang == "zh" else "zh",
        t=texts.translator(lang),
        yuan=yuan,
        plain=clock.plain,
        **context,
    )
    return make_response(body, status)


def shown_state(trade: Trade, works: bool, now: int) -> str:
    """What the page says of it."""
    if trade.state == "paid":
        if trade.fully_refunded:
            return "refunded"
        return "part_refunded" if trade.refunded_fen else "paid"
    if trade.state == "closed":
        return "closed"
    if now >= trade.expires_at_ms:
        return "expired"
    return "open" if works else "dead"


@blueprint.get("/cashier/<channel>/<token>")
def show(channel: str, token: str) -> AnyResponse:
    """Opening the page is scanning the code: an Alipay trade comes to be here."""
    box, now = sandbox(), clock.now_ms()
    try:
        with box.store.write() as tx:
            trade, works = trades.by_code(tx, channel, token, now)
            if works:
                trade = trades.scan(tx, trade, now)
            lines = notice_lines(tx, notices.of_trade(tx, trade.id))
            late_ms = events.late_payment_due_ms(tx, trade)
    except Refusal:
        shown = channel if channel in CHANNELS else "wechatpay"
        return page("unknown.html", 404, channel=shown, state="unknown")
    if trade.product == "h5" and not request.headers.get("Referer"):
        # As WeChat Pay does where an H5 address was not opened by a page of the merchant's, or by
        # one that does not say where it leads from (H5 payment, common errors).
        return page("unknown.html", 403, channel=channel, state="no_referer")
    state = shown_state(trade, works, now)
    redirect_url = request.values.get("redirect_url", "")
    back = way_back(box, trade, redirect_url, now)
    said = _said()
    waiting = late_ms is not None or any(line.notice.state == "waiting" for line in lines)
    return page(
        "cashier.html",
        trade=trade,
        channel=channel,
        token=token,
        state=state,
        lines=lines,
        late_ms=late_ms,
        said=said,
        refresh_s=2 if waiting else None,
        back=back,
        # As the gateways do, once the member has seen that it worked.
        leads_back=back if said == "paid" and trade.state == "paid" else "",
        redirect_url=redirect_url if back else "",
        merchant=box.config.merchant_name,
        choices=LATE_CHOICES_S,
    )


def _said() -> str | None:
    said = request.args.get("said", "")
    known = {"refused", "paid", "dropped", "repeated", "late", "too_late"}
    return said if said in known else None


@blueprint.post("/cashier/<channel>/<token>")
def act(channel: str, token: str) -> AnyResponse:
    """What the member did; the page then says what came of it."""
    try:
        said = _act(channel, token, request.form.get("act", ""))
    except Refusal as refusal:
        if refusal.why is Why.NOT_FOUND:
            return show(channel, token)
        said = "too_late"
    sandbox().notifier.wake()
    redirect_url = request.form.get("redirect_url") or None
    target = url_for(
        "cashier.show",
        channel=channel,
        token=token,
        lang=texts.language(),
        said=said,
        redirect_url=redirect_url,
    )
    return redirect(target, 303)


def _act(channel: str, token: str, wished: str) -> str:
    box, now = sandbox(), clock.now_ms()
    with box.store.write() as tx:
        trade, works = trades.by_code(tx, channel, token, now)
        if wished == "repeat-notice" and trade.state == "paid":
            notices.send_again(tx, trade.id, now)
            return "repeated"
        if not works and trade.state in {"open", "unscanned"}:
            raise Refusal(Why.CODE_DEAD)
        if wished == "refuse":
            trades.refuse(tx, trade, now)
            return "refused"
        if wished == "pay-late":
            events.member_pays_later(tx, trade, now + _late_s() * 1_000)
            return "late"
        wishes = {
            "pay": ("paid", Wish()),
            "repeat-notice": ("repeated", Wish(repeats=REPEATS)),
            "drop-notice": ("dropped", Wish(send=False)),
        }
        if wished not in wishes:
            return ""
        said, wish = wishes[wished]
        events.member_pays(tx, box.merchants, trade, wish, now)
        return said


def _late_s() -> int:
    text = request.form.get("seconds", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    return min(max(seconds, 1), MAX_LATE_S)


def notice_lines(tx: sqlite3.Connection, found: list[Notice]) -> list[NoticeLine]:
    """Notices with their trade's number and what became of each sending."""
    lines = []
    for notice in found:
        row = tx.execute("SELECT out_trade_no FROM trades WHERE id = ?", (notice.trade_id,))
        sent = notices.deliveries(tx, notice.id)
        lines.append(NoticeLine(notice=notice, number=row.fetchone()[0], deliveries=sent))
    return lines


@blueprint.get("/")
def index() -> Response:
    """What each gateway has seen, the last trades, and the last notices with their sendings."""
    now = clock.now_ms()
    with sandbox().store.read() as tx:
        rows = trades.newest(tx, INDEX_ROWS)
        links = {
            row["trade_id"]: row["token"]
            for row in tx.execute("SELECT trade_id, token FROM codes WHERE replaced = 0")
        }
        lines = notice_lines(tx, notices.newest(tx, INDEX_ROWS))
        counts = listing.counts(tx)
    shown = [(trade, shown_state(trade, True, now), links.get(trade.id)) for trade in rows]
    return page("index.html", trades=shown, lines=lines, counts=counts)


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """There is none."""
    return Response(status=204)
