"""Alipay's trade bill: the day's or month's payments and refunds as a ZIP of two GBK tables.

The layout follows bills as merchants kept them: lines that begin with # at head and foot, columns
by name, a tab behind what a spreadsheet would mistake for a number, refunds negative, and names
inside the ZIP in GBK without the flag that says UTF-8. No official page shows all of it.
"""

import csv
import io
import json
import re
import sqlite3
import zipfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn
from urllib.parse import urlencode

from sandbox import alipay_objects, chance, clock
from sandbox.alipay_checks import AlipayError, Call, text
from sandbox.keys import Identity
from sandbox.merchants import Merchants
from sandbox.money import yuan
from sandbox.trades import ALIPAY

DETAIL_COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,"
    "对方账户,订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,"
    "商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,卡消费金额（元）,"
    "退款批次号/请求号,服务费（元）,分润（元）,备注"
)
SUMMARY_COLUMNS = (
    "门店编号,门店名称,交易订单总笔数,退款订单总笔数,订单金额（元）,商家实收（元）,"
    "支付宝优惠（元）,商家优惠（元）,卡消费金额（元）,服务费（元）,分润（元）,实收净额（元）"
)
# A day's bill is made until 9 o'clock of the next one, a month's until the third of the next
# (alipay.data.dataservice.bill.downloadurl.query, bill_date).
DAY_READY = timedelta(hours=9)
MONTH_READY = timedelta(days=2)
LINK_LIFE_MS = 30_000
# A row is one line, whatever a subject holds.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
FIRST_YEAR = 2016


@dataclass(frozen=True, kw_only=True)
class Period:
    """A calendar day or month in Beijing: `label` as in file names, `start` until before `end`."""

    label: str
    start: datetime
    end: datetime
    ready: datetime

    @property
    def bounds_ms(self) -> tuple[int, int]:
        """Milliseconds since the epoch."""
        return round(self.start.timestamp() * 1_000), round(self.end.timestamp() * 1_000)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One payment, or one refund with a negative amount."""

    trade_no: str
    out_trade_no: str
    subject: str
    created_at_ms: int
    at_ms: int
    amount_fen: int
    out_request_no: str


def period(bill_date: str) -> Period | None:
    """Of yyyy-MM-dd or yyyy-MM, from 2016 on; None for anything else."""
    label = bill_date.replace("-", "")
    try:
        if _DAY.fullmatch(bill_date):
            start = datetime.strptime(bill_date, "%Y-%m-%d").replace(tzinfo=clock.BEIJING)
            end, late = start + timedelta(days=1), DAY_READY
        elif _MONTH.fullmatch(bill_date):
            start = datetime.strptime(bill_date, "%Y-%m").replace(tzinfo=clock.BEIJING)
            end, late = (start + timedelta(days=31)).replace(day=1), MONTH_READY
        else:
            return None
        if start.year < FIRST_YEAR:
            return None
        return Period(label=label, start=start, end=end, ready=end + late)
    except (ValueError, OverflowError):
        return None


def offer(tx: sqlite3.Connection, call: Call, base_url: str, *, at_once: bool) -> str:
    """The address of the bill that `call` asks for, good for 30 s. Raises AlipayError."""
    wanted = _wanted(call, at_once=at_once)
    identity = call.keys.identity
    if not rows(tx, identity.merchant, wanted):
        _missing()
    token, account = chance.token(), _account(identity)
    tx.execute("DELETE FROM bill_links WHERE expires_at_ms <= ?", (call.now,))
    tx.execute(
        "INSERT INTO bill_links (token, channel, merchant, request, expires_at_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        (
            *(token, ALIPAY, identity.merchant),
            *(json.dumps({"bill_date": call.biz["bill_date"]}), call.now + LINK_LIFE_MS),
        ),
    )
    query = {
        "bizType": "trade",
        "userId": account,
        "fileType": "csv.zip",
        "bizDates": wanted.label,
        "downloadFileName": f"{account}_{wanted.label}.csv.zip",
        "fileId": f"/trade/{account}/{wanted.label}.csv.zip",
        "timestamp": str(call.now // 1_000),
        "token": token,
    }
    return f"{base_url}/downloadBillFile.resource?{urlencode(query)}"


def _wanted(call: Call, *, at_once: bool) -> Period:
    kind, bill_date = text(call.biz, "bill_type", 20), text(call.biz, "bill_date", 15)
    wanted = period(bill_date)
    if kind != "trade":
        _invalid("bill_type：沙箱只有 trade")
    if wanted is None:
        _invalid("bill_date：yyyy-MM-dd 或 yyyy-MM")
    now = datetime.fromtimestamp(call.now / 1_000, clock.BEIJING)
    if now < (wanted.start if at_once else wanted.end):
        _invalid("bill_date：账单期间尚未结束")
    if not at_once and now < wanted.ready:
        _missing()
    return wanted


def _invalid(message: str) -> NoReturn:
    raise AlipayError("40004", "isv.invalid_arguments", f"入参不合法：{message}")


def _missing() -> NoReturn:
    raise AlipayError("40004", "isp.bill_not_exist", "账单不存在")


def fetch(tx: sqlite3.Connection, merchants: Merchants, token: str, now: int) -> bytes | None:
    """The ZIP behind an address's token; None where it is too old, or none of ours."""
    row = tx.execute(
        "SELECT merchant, request FROM bill_links"
        " WHERE token = ? AND channel = ? AND expires_at_ms > ?",
        (token, ALIPAY, now),
    ).fetchone()
    wanted = None if row is None else period(json.loads(row["request"])["bill_date"])
    if wanted is None:
        return None
    identity = merchants.of(row["merchant"]).identity
    return archive(identity, wanted, rows(tx, identity.merchant, wanted), now)


def rows(tx: sqlite3.Connection, merchant: str, wanted: Period) -> list[Row]:
    """What was paid and given back in that time, in its order."""
    found = tx.execute(
        "SELECT t.transaction_id AS trade_no, t.out_trade_no, t.subject, t.created_at_ms,"
        " c.at_ms AS at_ms, c.amount_fen AS amount_fen, '' AS out_request_no"
        " FROM charges c JOIN trades t ON t.id = c.trade_id"
        " WHERE t.channel = :channel AND t.merchant = :merchant"
        " AND c.at_ms >= :start AND c.at_ms < :end"
        " UNION ALL"
        " SELECT t.transaction_id, t.out_trade_no, t.subject, t.created_at_ms, r.settled_at_ms,"
        " -r.amount_fen, r.out_refund_no FROM refunds r JOIN trades t ON t.id = r.trade_id"
        " WHERE t.channel = :channel AND t.merchant = :merchant AND r.outcome = 'success'"
        " AND r.settled_at_ms >= :start AND r.settled_at_ms < :end"
        " ORDER BY at_ms, trade_no, amount_fen DESC",
        {
            "channel": ALIPAY,
            "merchant": merchant,
            "start": wanted.bounds_ms[0],
            "end": wanted.bounds_ms[1],
        },
    )
    return [Row(**dict(row)) for row in found.fetchall()]


def _account(identity: Identity) -> str:
    """How bills name the merchant's account."""
    return f"{identity.alipay_seller_id}0156"


def archive(identity: Identity, wanted: Period, found: list[Row], now: int) -> bytes:
    """The ZIP of both tables."""
    account = _account(identity)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archived:
        for title, table in (
            ("业务明细", _detail(account, wanted, found, now)),
            ("业务明细(汇总)", _summary(account, wanted, found, now)),
        ):
            entry = _GbkEntry(f"{account}_{wanted.label}_{title}.csv", _dos_time(now))
            entry.compress_type = zipfile.ZIP_DEFLATED
            # What GBK does not have, as some signs in a subject, becomes a question mark.
            archived.writestr(entry, table.encode("gbk", "replace"))
    return content.getvalue()


class _GbkEntry(zipfile.ZipInfo):
    """The library writes names in ASCII or UTF-8 only; this is where it decides."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("gbk"), self.flag_bits


def _dos_time(now: int) -> tuple[int, int, int, int, int, int]:
    moment = datetime.fromtimestamp(now / 1_000, clock.BEIJING)
    return moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second


def _detail(account: str, wanted: Period, found: list[Row], now: int) -> str:
    table = io.StringIO()
    table.write(f"#支付宝业务明细查询\n{_head(account, wanted)}")
    table.write(f"#{'-' * 41}业务明细列表{'-' * 40}\n{DETAIL_COLUMNS}\n")
    csv.writer(table, lineterminator="\n").writerows(_line(row) for row in found)
    table.write(f"#{'-' * 41}业务明细列表结束{'-' * 36}\n")
    paid = [row.amount_fen for row in found if not row.out_request_no]
    back = [row.amount_fen for row in found if row.out_request_no]
    table.write(f"#交易合计：{len(paid)}笔，商家实收共{_yuan(sum(paid))}元，商家优惠共0.00元\n")
    table.write(
        f"#退款合计：{len(back)}笔，商家实收退款共{_yuan(sum(back))}元，商家优惠退款共0.00元\n"
    )
    table.write(_foot(now))
    return table.getvalue()


def _line(row: Row) -> list[str]:
    amount = _yuan(row.amount_fen)
    kind = "退款" if row.out_request_no else "交易"
    subject = _CONTROL.sub(" ", row.subject)
    return [
        *(f"{row.trade_no}\t", f"{row.out_trade_no}\t", f"{kind}\t", subject),
        *(clock.plain(row.created_at_ms), clock.plain(row.at_ms), "\t", "\t", "\t", "\t"),
        *(f"*员({alipay_objects.BUYER_LOGON_ID})\t", amount, amount, "0.00", "0.00", "0.00"),
        *("0.00", "0.00", "", "0.00\t", "0.00", f"{row.out_request_no}\t", "0.00", "0.00", ""),
    ]


def _summary(account: str, wanted: Period, found: list[Row], now: int) -> str:
    paid = sum(1 for row in found if not row.out_request_no)
    total = _yuan(sum(row.amount_fen for row in found))
    sums = f"{paid},{len(found) - paid},{total},{total},0.00,0.00,0.00,0.00,0.00,{total}"
    return (
        f"#支付宝业务汇总查询\n{_head(account, wanted)}"
        f"#{'-' * 41}业务汇总列表{'-' * 40}\n{SUMMARY_COLUMNS}\n"
        f"\t,\t,{sums}\n合计,,{sums}\n"
        f"#{'-' * 40}业务汇总列表结束{'-' * 37}\n{_foot(now)}"
    )


def _head(account: str, wanted: Period) -> str:
    return (
        f"#账号：[{account}]\n#起始日期：[{_written(wanted.start)}]   "
        f"终止日期：[{_written(wanted.end)}]\n"
    )


def _foot(now: int) -> str:
    return f"#导出时间：[{_written(datetime.fromtimestamp(now / 1_000, clock.BEIJING))}]\n"


def _written(moment: datetime) -> str:
    return f"{moment:%Y}年{moment:%m}月{moment:%d}日 {moment:%H:%M:%S}"


def _yuan(fen: int) -> str:
    return f"-{yuan(-fen)}" if fen < 0 else yuan(fen)
