"""WeChat Pay's trade bill of one day (APIv3, "申请交易账单", "下载账单").

The address comes in a signed answer, lives five minutes and wants a signed GET. The file itself is
not signed: its SHA1 stands in the signed answer, over the content after unpacking (so the gateway's
own Java client checks it; the pages do not say). It is unpacked as it comes, held to a size, and
nothing is held in memory but pieces.
"""

import hashlib
import zlib
from datetime import date, datetime, timedelta
from typing import IO, Final

from shop.gateways import outcomes
from shop.gateways.base import BillResult, Outcome
from shop.gateways.reading import CHINA, BadField, identifier
from shop.gateways.replies import Reply, bad_answer, looked_up, unanswered
from shop.gateways.transport import TransportFault
from shop.gateways.wechatpay_answers import ask, refusal
from shop.gateways.wechatpay_wire import Client, Wire

MAX_ADDRESS: Final = 2048
MAX_PACKED_BYTES: Final = 256 * 1024**2
MAX_BILL_BYTES: Final = 1024**3
"""Some three million payments."""

MAX_RATIO: Final = 200
"""How often larger than packed; the lines of a bill are alike and shrink to a tenth or less."""

FREE_BYTES: Final = 1024**2
"""Below this the ratio is not looked at."""

DOWNLOAD_S: Final = 120.0
_PIECE_BYTES: Final = 64 * 1024
_GZIP: Final = 31

MADE_AFTER: Final = timedelta(days=1, hours=10)
"""From a day's beginning: bills are there from ten the next morning. A bill that is missing before
may still come."""


def download_bill(
    client: Client, wire: Wire, *, day: date, into: IO[bytes], now: datetime
) -> BillResult:
    """Write a day's bill to `into`, as it is (UTF-8). Raises only what `into` raises."""
    reply = ask(lambda: client.trade_bill(bill_date=day.isoformat()))
    if reply.fault is not None:
        return _refused(reply, day, now)
    try:
        address, expected = _read(reply)
        unpacked = _Unpacked(into)
        answer = wire.download(
            address, sink=unpacked.take, max_bytes=MAX_PACKED_BYTES, total_timeout_s=DOWNLOAD_S
        )
        if answer.status != 200:
            told = refusal(answer.status, answer.body)
            return BillResult(outcome=Outcome.UNKNOWN, fault=told.fault)
        if unpacked.end() != expected:
            raise BadField("the file is not the one that hash_value tells of")
    except BadField as error:
        return BillResult(outcome=Outcome.UNKNOWN, fault=bad_answer(error))
    except TransportFault as error:
        return BillResult(outcome=Outcome.UNKNOWN, fault=unanswered(error).fault)
    return BillResult(outcome=Outcome.SUCCEEDED)


def _read(reply: Reply) -> tuple[str, str]:
    """The address and the SHA1. Raises BadField."""
    address = reply.fields.get("download_url")
    if not isinstance(address, str) or not address.isascii() or len(address) > MAX_ADDRESS:
        raise BadField("download_url is missing or malformed")
    if any(not "!" <= sign <= "~" for sign in address):
        raise BadField("download_url is no address")
    if identifier(reply.fields, "hash_type") != "SHA1":
        raise BadField("hash_type is not SHA1")
    return address, identifier(reply.fields, "hash_value").lower()


def _refused(reply: Reply, day: date, now: datetime) -> BillResult:
    outcome = looked_up(outcomes.WECHATPAY_BILL, reply)
    begun = datetime(day.year, day.month, day.day, tzinfo=CHINA)
    if outcome is Outcome.FAILED and now < begun + MADE_AFTER:
        outcome = Outcome.PENDING
    return BillResult(outcome=outcome, fault=reply.fault)


class _Unpacked:
    """Unpacks gzip piece by piece into a file, and counts and hashes what it writes."""

    def __init__(self, into: IO[bytes]) -> None:
        self._into = into
        self._unpacker = zlib.decompressobj(wbits=_GZIP)
        # Not for secrecy: the gateway chose it, and the answer that names it is signed.
        self._hash = hashlib.sha1(usedforsecurity=False)
        self._packed = self._written = 0

    def take(self, piece: bytes) -> None:
        """The next piece. Raises BadField."""
        self._packed += len(piece)
        plain = None
        # A full piece of output may leave more within, though no input is left.
        while piece or (plain is not None and len(plain) == _PIECE_BYTES):
            if self._unpacker.eof:
                if not piece:
                    break
                raise BadField("something follows after the file's end")
            try:
                plain = self._unpacker.decompress(piece, _PIECE_BYTES)
            except zlib.error as error:
                raise BadField(f"not gzip: {error}") from None
            self._write(plain)
            piece = self._unpacker.unconsumed_tail or self._unpacker.unused_data

    def end(self) -> str:
        """The SHA1 of all that was written. Raises BadField."""
        if not self._unpacker.eof:
            raise BadField("the file is cut short")
        return self._hash.hexdigest()

    def _write(self, plain: bytes) -> None:
        self._written += len(plain)
        if self._written > MAX_BILL_BYTES:
            raise BadField(f"longer than {MAX_BILL_BYTES} bytes")
        if self._written > FREE_BYTES and self._written > self._packed * MAX_RATIO:
            raise BadField(f"more than {MAX_RATIO} times as long as it came")
        self._hash.update(plain)
        self._into.write(plain)
