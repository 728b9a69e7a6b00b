"""Alipay's bill of one day: alipay.data.dataservice.bill.downloadurl.query, and the file it names.

The address lives 30 s and is fetched unsigned: what vouches for the file is that the address came
in a signed answer and that the way there is TLS. It names a ZIP of CSVs in GBK; of these the detail
(业务明细) is written, in UTF-8. No name in the ZIP is used: the detail is known by its heading.
Every size is bounded, and nothing is held in memory but pieces.
Source: OpenAPI, "查询对账单下载地址"; the columns from bills as third parties keep them (GATEWAYS
notes B; no official page of them was found).
"""

import codecs
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Final
from urllib.parse import urlsplit, urlunsplit

from shop.gateways import outcomes
from shop.gateways.alipay_answers import ask
from shop.gateways.alipay_wire import Wire
from shop.gateways.base import BillResult, Outcome
from shop.gateways.reading import CHINA, fault
from shop.gateways.replies import Reply, bad_answer, looked_up
from shop.gateways.transport import Transport, TransportFault

METHOD: Final = "alipay.data.dataservice.bill.downloadurl.query"

MAX_ADDRESS: Final = 2048
"""`bill_download_url`, as documented."""

MAX_ZIP_BYTES: Final = 256 * 1024**2
MAX_DETAIL_BYTES: Final = 1024**3
"""Some four million lines of a bill."""

MAX_RATIO: Final = 200
"""How often larger than in the ZIP; lines of a bill are alike and shrink to a tenth or less."""

FREE_BYTES: Final = 1024**2
"""Below this the ratio is not looked at."""

MAX_ENTRIES: Final = 32
"""There are two. (A merchant of many shops may have more details; it is not said.)"""

DOWNLOAD_S: Final = 120.0
MEMORY_BYTES: Final = 1024**2
_PIECE_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 16 * 1024
_HEADING: Final = ("支付宝交易号", "商户订单号")

MAKING: Final = timedelta(days=2)
"""From a day's beginning: a bill is there at nine the next morning, "later in special cases". Until
that next day is over, a bill that is missing may still come."""


def download_bill(
    wire: Wire, transport: Transport, *, base_url: str, now: datetime, day: date, into: IO[bytes]
) -> BillResult:
    """Write a day's detail to `into`, in UTF-8. Raises only what `into` and the disk raise."""
    content = {"bill_type": "trade", "bill_date": day.isoformat()}
    reply = ask(lambda: wire.ask(METHOD, content))
    if reply.fault is not None:
        return _refused(reply, day, now)
    address = address_of(reply.fields.get("bill_download_url"), base_url)
    if address is None:
        return _unknown("bill_download_url is missing or leads elsewhere")
    with SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        try:
            answer = transport.download(
                "GET",
                address,
                {"User-Agent": "payonce"},
                sink=lambda piece: _keep(file, piece),
                max_bytes=MAX_ZIP_BYTES,
                total_timeout_s=DOWNLOAD_S,
            )
        except TransportFault as error:
            return BillResult(outcome=Outcome.UNKNOWN, fault=fault(error.code, error.detail))
        if answer.status != 200:
            code = "server_error" if answer.status >= 500 else "bad_answer"
            return BillResult(
                outcome=Outcome.UNKNOWN, fault=fault(code, f"the file: HTTP {answer.status}")
            )
        try:
            for piece in detail_of(file):
                into.write(piece)
        except BadBill as error:
            return _unknown(error)
    return BillResult(outcome=Outcome.SUCCEEDED)


def _keep(file: IO[bytes], piece: bytes) -> None:
    file.write(piece)


class BadBill(ValueError):
    """The file is not a bill."""


def detail_of(file: IO[bytes]) -> Iterator[bytes]:
    """The detail in a bill's ZIP, in UTF-8, a piece at a time. Raises BadBill and nothing else.

    The last piece comes only after the entry's checksum was found right.
    """
    try:
        yield from _detail(file)
    except BadBill:
        raise
    except Exception as error:
        # Whatever a damaged file makes the library raise: there are a dozen kinds.
        raise BadBill(f"{type(error).__name__}: {error}") from error


def _detail(file: IO[bytes]) -> Iterator[bytes]:
    # The library reads the list of entries in one piece, whatever its length is said to be.
    with zipfile.ZipFile(_InPieces(file)) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise BadBill(f"more than {MAX_ENTRIES} files in the ZIP")
        details = [entry for entry in entries if _has_heading(archive, entry)]
        if len(details) != 1:
            raise BadBill(f"{len(details)} files in the ZIP have the heading of a detail")
        to_text = codecs.getincrementaldecoder("gb18030")(errors="strict")
        for piece in _unpacked(archive, details[0]):
            yield to_text.decode(piece).encode()
        to_text.decode(b"", final=True)


def _has_heading(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether a line at a file's head names the columns of a detail."""
    if entry.is_dir():
        return False
    _only_plain(entry)
    with archive.open(entry) as content:
        head = content.read(_HEAD_BYTES).decode("gb18030", errors="replace")
    return any(
        tuple(name.strip() for name in line.split(",")[:2]) == _HEADING
        for line in head.splitlines()
    )


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """An entry's bytes, counted as they come: what the ZIP says of its sizes is not believed."""
    limit = min(MAX_DETAIL_BYTES, max(FREE_BYTES, entry.compress_size * MAX_RATIO))
    with archive.open(entry) as content:
        while piece := content.read(_PIECE_BYTES):
            limit -= len(piece)
            if limit < 0:
                raise BadBill("the bill is larger than a bill can be")
            yield piece


def _only_plain(entry: zipfile.ZipInfo) -> None:
    """Raises BadBill for what no bill needs: encryption, and ways of packing other than deflate."""
    if entry.flag_bits & 0x1:
        raise BadBill("a file in the ZIP is encrypted")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise BadBill(f"a file in the ZIP is packed in way {entry.compress_type}")


class _InPieces:
    """A file of which no more is read at once than a list of thousands of entries would take."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        wanted = MEMORY_BYTES + 1 if size < 0 else min(size, MEMORY_BYTES + 1)
        piece = self._file.read(wanted)
        if len(piece) > MEMORY_BYTES:
            raise BadBill("the ZIP's list of files is too long")
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def address_of(given: object, base_url: str) -> str | None:
    """Where to get the file: over TLS, unless the gateway itself is configured without, and the
    file lies at its own host and port.

    Alipay's own example is an http address; such a one is asked for by https.
    """
    if not isinstance(given, str) or len(given) > MAX_ADDRESS or not given.isascii():
        return None
    try:
        parts, base = urlsplit(given), urlsplit(base_url)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return None
    if (base.scheme, base.netloc) != ("http", parts.netloc):
        parts = parts._replace(scheme="https")
    return urlunsplit(parts)


def _refused(reply: Reply, day: date, now: datetime) -> BillResult:
    outcome = looked_up(outcomes.ALIPAY_BILL, reply)
    begins = datetime.combine(day, datetime.min.time(), CHINA)
    over, made = begins + timedelta(days=1), begins + MAKING
    # A day that is not over yet is refused as a wrong parameter, which is as sure a word.
    if reply.conclusive and (now < over or (outcome is Outcome.FAILED and now < made)):
        outcome = Outcome.PENDING
    return BillResult(outcome=outcome, fault=reply.fault)


def _unknown(detail: object) -> BillResult:
    return BillResult(outcome=Outcome.UNKNOWN, fault=bad_answer(detail))
