"""WeChat Pay APIv3: the trade bill of a day, and the address from which it is downloaded.

Columns and their meaning are those of the merchant documentation, "trade bill, format": payments on
the day they were paid, refunds on the day they were accepted. A bill is written when it is asked
for; what is downloaded is exactly what was hashed.
"""

import gzip
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable

from flask import Blueprint, Response, request

from sandbox import chance, clock, openids
from sandbox import wechatpay_checks as checks
from sandbox.core import sandbox
from sandbox.keys import Identity
from sandbox.money import yuan
from sandbox.trades import WECHATPAY
from sandbox.wechatpay_checks import ApiError
from sandbox.wechatpay_door import Answer, caller, merchant, run, run_file
from sandbox.wechatpay_objects import TRADE_TYPES

blueprint = Blueprint("wechatpay_bill", __name__, url_prefix="/v3")

BILL_TYPES = ("ALL", "SUCCESS", "REFUND")
LINK_LIFE_MS = 300_000
DAY_MS = 86_400_000
# Ten in the morning of the next day, in Beijing.
READY_AFTER_MS = DAY_MS + 10 * 3_600_000
FEE_RATE = "0.60%"
# Fees are written with five decimals of a yuan: a fen of turnover is six units.
FEE_UNITS_PER_FEN = 6
BOM = "\ufeff"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

_HEAD = (
    *("交易时间", "公众账号ID", "商户号", "特约商户号", "设备号", "微信订单号", "商户订单号"),
    *("用户标识", "交易类型", "交易状态", "付款银行", "货币种类", "应结订单金额", "代金券金额"),
)
_DATES = ("退款申请时间", "退款成功时间")
_REFUND = (*("微信退款单号", "商户退款单号", "退款金额", "充值券退款金额", "退款类型", "退款状态"),)
_FOOT = ("商品名称", "商户数据包", "手续费", "费率", "订单金额")
_ASKED, _REMARK = ("申请退款金额",), ("费率备注",)
COLUMNS: dict[str, tuple[str, ...]] = {
    "ALL": (*_HEAD, *_REFUND, *_FOOT, *_ASKED, *_REMARK),
    "SUCCESS": (*_HEAD, *_FOOT, *_REMARK),
    "REFUND": (*_HEAD, *_DATES, *_REFUND, *_FOOT, *_ASKED, *_REMARK),
}
_BACK = ("退款总金额", "充值券退款总金额")
SUMMARY: dict[str, tuple[str, ...]] = {
    "ALL": (
        *("总交易单数", "应结订单总金额", *_BACK, "手续费总金额", "订单总金额"),
        "申请退款总金额",
    ),
    "SUCCESS": ("总交易单数", "应结订单总金额", "手续费总金额", "订单总金额"),
}
SUMMARY["REFUND"] = SUMMARY["ALL"]

Row = dict[str, str]


@blueprint.get("/bill/tradebill")
def trade_bill() -> Response:
    """Where the bill of a day can be downloaded for five minutes, and its SHA-1."""
    return run("bill", _trade_bill)


def _trade_bill() -> Answer:
    box, now = sandbox(), clock.now_ms()
    kind = request.args.get("bill_type", "ALL")
    if kind not in BILL_TYPES:
        checks.bad("bill_type", f"one of {', '.join(BILL_TYPES)}", kind, "query")
    packed = request.args.get("tar_type")
    if packed not in {None, "GZIP"}:
        checks.bad("tar_type", "GZIP, or nothing", packed, "query")
    start_ms = _start_of(request.args.get("bill_date", ""))
    check_ready(start_ms, now, at_once=box.config.bills_at_once)
    token = chance.token()
    with box.store.write() as tx:
        content = bill(tx, caller().identity, kind, start_ms)
        if content is None:
            raise ApiError(400, "NO_STATEMENT_EXIST", "账单不存在")
        tx.execute("DELETE FROM bill_links WHERE expires_at_ms <= ?", (now,))
        kept = json.dumps({"content": content, "packed": packed is not None})
        tx.execute(
            "INSERT INTO bill_links (token, channel, merchant, request, expires_at_ms)"
            " VALUES (?, ?, ?, ?, ?)",
            (token, WECHATPAY, merchant(), kept, now + LINK_LIFE_MS),
        )
    return 200, {
        "hash_type": "SHA1",
        # Of what is in it, not of what it is packed into.
        "hash_value": hashlib.sha1(content.encode()).hexdigest(),  # noqa: S324 - so documented
        "download_url": f"{box.config.base_url}/v3/billdownload/file?token={token}",
    }


@blueprint.get("/billdownload/file")
def download() -> Response:
    """The file. The request is signed like any other; the answer is not."""
    return run_file("bill", _download)


def _download() -> bytes:
    with sandbox().store.read() as tx:
        row = tx.execute(
            "SELECT request FROM bill_links WHERE token = ? AND channel = ? AND merchant = ?"
            " AND expires_at_ms > ?",
            (request.args.get("token", ""), WECHATPAY, merchant(), clock.now_ms()),
        ).fetchone()
    if row is None:
        raise ApiError(400, "INVALID_REQUEST", "账单下载链接无效或已过期")
    kept = json.loads(row["request"])
    content: bytes = kept["content"].encode()
    return gzip.compress(content, mtime=0) if kept["packed"] else content


def _start_of(date: str) -> int:
    start_ms = clock.parse_plain(f"{date} 00:00:00") if _DATE.fullmatch(date) else None
    if start_ms is None:
        checks.bad("bill_date", "a day is needed, as 2026-11-23", date, "query")
    return start_ms


def check_ready(start_ms: int, now: int, *, at_once: bool) -> None:
    """A day that has not begun has no bill; one that is not over, or just is, none so far."""
    if now < start_ms:
        raise ApiError(400, "INVALID_REQUEST", "账单日期不能晚于当日")
    if at_once:
        return
    if now < start_ms + DAY_MS:
        raise ApiError(400, "INVALID_REQUEST", "不能下载当日账单")
    if now < start_ms + READY_AFTER_MS:
        raise ApiError(400, "STATEMENT_CREATING", "账单生成中，请在10点后再试")


def bill(tx: sqlite3.Connection, identity: Identity, kind: str, start_ms: int) -> str | None:
    """The whole file, or None where nothing happened on the day that begins at `start_ms`."""
    rows: list[tuple[int, Row]] = []
    span = (WECHATPAY, identity.merchant, start_ms, start_ms + DAY_MS)
    if kind != "REFUND":
        rows += _rows(tx, _PAID, span, identity, _payment)
    if kind != "SUCCESS":
        rows += _rows(tx, _REFUNDED, span, identity, _refund)
    if not rows:
        return None
    rows.sort(key=lambda one: one[0])
    columns = COLUMNS[kind]
    lines = [",".join(columns)]
    lines += [_line(row[name] for name in columns) for _, row in rows]
    totals = _totals([row for _, row in rows])
    lines += [",".join(SUMMARY[kind]), _line(totals[name] for name in SUMMARY[kind])]
    return BOM + "\r\n".join(lines) + "\r\n"


_PAID = (
    "SELECT * FROM trades WHERE channel = ? AND merchant = ? AND paid_at_ms >= ?"
    " AND paid_at_ms < ? ORDER BY paid_at_ms, id"
)
_REFUNDED = (
    "SELECT t.*, r.refund_id, r.out_refund_no, r.amount_fen AS refund_fen, r.outcome,"
    " r.created_at_ms AS accepted_at_ms, r.settled_at_ms"
    " FROM refunds r JOIN trades t ON t.id = r.trade_id WHERE r.channel = ? AND r.merchant = ?"
    " AND r.created_at_ms >= ? AND r.created_at_ms < ? ORDER BY r.created_at_ms, r.id"
)


def _rows(
    tx: sqlite3.Connection,
    statement: str,
    span: tuple[str, str, int, int],
    identity: Identity,
    write: Callable[[sqlite3.Row], tuple[int, Row]],
) -> list[tuple[int, Row]]:
    written = []
    for found in tx.execute(statement, span):
        at_ms, row = write(found)
        row |= {
            "交易时间": clock.plain(at_ms),
            "公众账号ID": identity.appid,
            "商户号": identity.mchid,
            "特约商户号": "0",
            "设备号": "",
            "微信订单号": found["transaction_id"],
            "商户订单号": found["out_trade_no"],
            "用户标识": found["payer_openid"] or openids.openid_of(identity.appid),
            "交易类型": TRADE_TYPES[found["product"]],
            "付款银行": "OTHERS",
            "货币种类": "CNY",
            "代金券金额": "0.00",
            "充值券退款金额": "0.00",
            "商品名称": _plain(found["subject"]),
            "商户数据包": _plain(found["attach"]),
            "费率": FEE_RATE,
            "费率备注": "",
        }
        written.append((at_ms, row))
    return written


def _payment(found: sqlite3.Row) -> tuple[int, Row]:
    amount = yuan(found["amount_fen"])
    return found["paid_at_ms"], {
        "交易状态": "SUCCESS",
        "应结订单金额": amount,
        "微信退款单号": "0",
        "商户退款单号": "0",
        "退款金额": "0.00",
        "退款类型": "",
        "退款状态": "",
        "手续费": fee(found["amount_fen"]),
        "订单金额": amount,
        "申请退款金额": "0.00",
    }


def _refund(found: sqlite3.Row) -> tuple[int, Row]:
    """Once in the bill its state is not brought up to date: what did not arrive is PROCESSING."""
    amount = yuan(found["refund_fen"])
    settled = found["settled_at_ms"] if found["outcome"] == "success" else None
    return found["accepted_at_ms"], {
        "交易状态": "REFUND",
        "应结订单金额": "0.00",
        "退款申请时间": clock.plain(found["accepted_at_ms"]),
        "退款成功时间": "" if settled is None else clock.plain(settled),
        "微信退款单号": found["refund_id"],
        "商户退款单号": found["out_refund_no"],
        "退款金额": amount,
        "退款类型": "ORIGINAL",
        "退款状态": "PROCESSING" if settled is None else "SUCCESS",
        "手续费": fee(-found["refund_fen"]),
        "订单金额": "0.00",
        "申请退款金额": amount,
    }


def _line(values: Iterable[str]) -> str:
    """Every value behind a backtick, so that no spreadsheet takes a number for one."""
    return ",".join(f"`{value}" for value in values)


def _totals(rows: list[Row]) -> Row:
    def of(name: str) -> str:
        return yuan(sum(int(row[name].replace(".", "")) for row in rows))

    units = sum(int(row["手续费"].replace(".", "")) for row in rows)
    return {
        "总交易单数": str(len(rows)),
        "应结订单总金额": of("应结订单金额"),
        "退款总金额": of("退款金额"),
        "充值券退款总金额": "0.00",
        "手续费总金额": _five_decimals(units),
        "订单总金额": of("订单金额"),
        "申请退款总金额": of("申请退款金额"),
    }


def fee(amount_fen: int) -> str:
    """Of so much turnover, in yuan; given back with a refund."""
    return _five_decimals(amount_fen * FEE_UNITS_PER_FEN)


def _five_decimals(units: int) -> str:
    sign = "-" if units < 0 else ""
    return f"{sign}{abs(units) // 100_000}.{abs(units) % 100_000:05d}"


def _plain(text: str) -> str:
    """Free text without what separates fields and lines: the format has no way to quote it."""
    return re.sub(r"[,`\r\n]", " ", text)
