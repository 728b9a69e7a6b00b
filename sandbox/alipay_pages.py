"""Alipay's page and WAP pay: a signed address or form that the browser itself brings here.

There is no server answer: the browser is led to the cashier, where the trade comes to be, and after
paying to the merchant's `return_url`. What is wrong is told to the reader by a page.
"""

import sqlite3
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from flask import Response, render_template

from sandbox import alipay_sign, clock, trades
from sandbox.alipay_certs import Signer
from sandbox.alipay_checks import AlipayError, Product
from sandbox.core import Sandbox
from sandbox.keys import Identity
from sandbox.money import yuan
from sandbox.trades import ALIPAY, NewTrade, Trade

PAGES = {
    "alipay.trade.page.pay": Product(name="page", codes=frozenset({"FAST_INSTANT_TRADE_PAY"})),
    "alipay.trade.wap.pay": Product(name="wap", codes=frozenset({"QUICK_WAP_WAY"})),
}
_METHODS = {product.name: method for method, product in PAGES.items()}


def open_cashier(tx: sqlite3.Connection, box: Sandbox, new: NewTrade, now: int) -> str:
    """The cashier's address. The same request again, as after a reload, finds the same page.

    Raises trades.Refusal.
    """
    known = trades.find(tx, ALIPAY, new.merchant, new.out_trade_no, now)
    token = _living(tx, known, new, now) if known is not None else None
    if token is None:
        token = trades.open_trade(tx, new, code_lifetime_s=box.config.code_lifetime_s, now=now)
    return f"{box.config.base_url}/cashier/alipay/{token}"


def _living(tx: sqlite3.Connection, known: Trade, new: NewTrade, now: int) -> str | None:
    asked = (new.product, new.digest, new.return_url, new.notify_url)
    same = asked == (known.product, known.digest, known.return_url, known.notify_url)
    if not same or known.state not in {"unscanned", "open"}:
        return None
    row = tx.execute(
        "SELECT token FROM codes WHERE trade_id = ? AND replaced = 0 AND expires_at_ms > ?",
        (known.id, now),
    ).fetchone()
    return None if row is None else str(row["token"])


def error_page(error: AlipayError) -> Response:
    """What a person reads who came with a request that is refused."""
    page = render_template("alipay_error.html", error=error)
    return Response(page, content_type="text/html; charset=utf-8")


def return_address(trade: Trade, identity: Identity, signer: Signer, now: int) -> str:
    """Where the browser goes after paying: the merchant's address with signed parameters (it proves
    nothing, and the merchant's own parameters are not signed). "" where there is none."""
    method = _METHODS.get(trade.product)
    if method is None or not trade.return_url or trade.transaction_id is None:
        return ""
    fields = {
        "app_id": identity.alipay_app_id,
        "auth_app_id": identity.alipay_app_id,
        "charset": "utf-8",
        "method": f"{method}.return",
        "out_trade_no": trade.out_trade_no,
        "seller_id": identity.alipay_seller_id,
        "timestamp": clock.plain(now),
        "total_amount": yuan(trade.amount_fen),
        "trade_no": trade.transaction_id,
        "version": "1.0",
    }
    parts = urlsplit(trade.return_url)
    own = parse_qsl(parts.query, keep_blank_values=True)
    signed = alipay_sign.sign_notice(signer.key, fields, signer.cert_sn)
    return urlunsplit(parts._replace(query=urlencode([*own, *signed.items()]), fragment=""))
