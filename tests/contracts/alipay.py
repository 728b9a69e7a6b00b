"""Alipay's recordings: how a gateway is built for them, and what is recorded."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dotenv import dotenv_values

from config.gateways import AlipaySettings, load_alipay
from shop.clock import Clock
from shop.gateways.alipay import Alipay
from shop.gateways.alipay_chain import cert_sn
from shop.gateways.alipay_wire import member_text
from shop.gateways.reading import CHINA
from tests.contracts.recorder import Recorder, recording, write_json
from tests.contracts.replay import FOLDER
from tests.integration.gateway_server import Reply, sign
from tests.integration.sandbox_kit import Receiver, number, receiving

CHANNEL = "alipay"
# By mode: the file of the shop's settings that the sandbox writes.
MODES = {"public_key": "merchant.env", "certificates": "merchant.certs.env"}
KEYS = ("public_key_pem", "app_cert_pem", "alipay_cert_pem", "root_cert_pem")
PATIENCE_S = 30


def build(
    fields: Mapping[str, Any], base_url: str, clock: Clock, nonce: Callable[[], str]
) -> Alipay:
    """See `replay.Build`. Alipay's requests have no nonce."""
    settings = AlipaySettings(base_url=f"{base_url}/gateway.do", **fields)
    return Alipay(settings, connect_timeout_ms=5_000, read_timeout_ms=30_000, clock=clock)


def resign(account: Mapping[str, Any], answer: Reply) -> Reply:
    """See `replay.Resign`."""
    body = answer.body.decode()
    told = json.loads(body)
    name = next(one for one in told if one.endswith("_response"))
    key = account["platform_private_pem"][told.get("alipay_cert_sn", "")]
    old = member_text(body, "sign")
    new = json.dumps(sign(key, member_text(body, name)))
    return replace(answer, body=body.replace(old, new).encode())


def record(data: Path) -> None:
    """Make all recordings anew, with a sandbox in `data`."""
    with (
        recording(CHANNEL, data, build, time_scale=0.001, bills_at_once=True) as recorder,
        receiving() as receiver,
    ):
        common, modes = _settings(recorder)
        for mode, fields in modes.items():
            _Scenes(recorder, receiver, mode, {**common, **fields}).record()
        _renewed_certificate(recorder, {**common, **modes["certificates"]})
        # Last: by now every key has been used.
        _write_account(recorder, common, modes)


def _settings(recorder: Recorder) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The account's fields, and those in which the modes differ."""
    loaded = {}
    for mode, file in MODES.items():
        merchant = dotenv_values(recorder.sandbox.data / file)
        loaded[mode] = asdict(load_alipay({name: v or "" for name, v in merchant.items()}))
    common = {
        name: value
        for name, value in loaded["public_key"].items()
        if name not in KEYS and name != "base_url"
    }
    return common, {mode: {key: all_[key] for key in KEYS} for mode, all_ in loaded.items()}


def _write_account(recorder: Recorder, common: Mapping[str, Any], modes: Mapping[str, Any]) -> None:
    keys = recorder.sandbox.app.extensions["sandbox"].merchants.of("default")
    signers = {"": keys.alipay_private}
    signers |= {cert_sn(one.certificate): one.private for one in keys.alipay_certificates}
    pems = {
        serial: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        for serial, key in signers.items()
    }
    account = {"common": common, "modes": modes, "platform_private_pem": pems}
    write_json(FOLDER / CHANNEL / "account.json", account)


def _renewed_certificate(recorder: Recorder, fields: Mapping[str, Any]) -> None:
    """An answer under a certificate that the shop must fetch first."""
    recorder.sandbox.app.extensions["sandbox"].merchants.rotate_alipay("default")
    recorder.record(
        "certificates",
        "query_under_a_renewed_certificate",
        fields,
        "query",
        {"out_trade_no": number()},
    )


class _Scenes:
    """What is recorded in one mode."""

    def __init__(
        self, recorder: Recorder, receiver: Receiver, mode: str, fields: Mapping[str, Any]
    ) -> None:
        self._recorder = recorder
        self._receiver = receiver
        self._mode = mode
        self._fields = fields

    def record(self) -> None:
        """All of it."""
        self._openings()
        self._pages()
        paid = self._payment()
        self._refunds(paid)
        self._cancellations()
        self._bills()
        self._notices()

    def _call(self, name: str, call: str, **arguments: Any) -> Any:
        return self._recorder.record(self._mode, name, self._fields, call, arguments)

    def _prepay(self, name: str, product: str = "precreate", **changes: Any) -> Any:
        request = {
            "out_trade_no": number(),
            "amount_fen": 8_888,
            "subject": "保温杯 & 茶叶 {100%}",
            "expires_at": (datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
            "notify_url": self._receiver.url,
            "product": product,
            **changes,
        }
        return request, self._call(name, "prepay", **request)

    def _scanned(self, name: str) -> str:
        """A number whose QR code was scanned: only then there is a trade."""
        request, opened = self._prepay(name)
        requests.get(opened["ticket"], timeout=30).raise_for_status()
        return str(request["out_trade_no"])

    def _openings(self) -> None:
        unscanned, _ = self._prepay("prepay_precreate")
        self._call("query_unscanned", "query", out_trade_no=unscanned["out_trade_no"])
        self._call("close_unscanned", "close", out_trade_no=unscanned["out_trade_no"])
        self._prepay("prepay_of_nothing", amount_fen=0)
        opened = self._scanned("prepay_to_be_scanned")
        self._prepay("prepay_number_used", out_trade_no=opened, amount_fen=1)
        self._call("query_unpaid", "query", out_trade_no=opened)
        self._call("close", "close", out_trade_no=opened)
        self._call("query_closed", "query", out_trade_no=opened)
        self._call(
            "hand_over_precreate",
            "hand_over",
            product="precreate",
            ticket="https://qr.alipay.com/bax03431ljhokirwl38f00a7",
            return_url="",
        )

    def _pages(self) -> None:
        back = "https://shop.example/orders/1?from=pay"
        for product in ("page", "wap"):
            _, opened = self._prepay(f"prepay_{product}", product, return_url=back)
            self._call(
                f"hand_over_{product}",
                "hand_over",
                product=product,
                ticket=opened["ticket"],
                return_url="",
            )

    def _payment(self) -> str:
        paid = self._scanned("prepay_to_be_paid")
        trade = self._recorder.sandbox.post(f"/admin/trades/{paid}/pay")
        self._call("query_paid", "query", out_trade_no=paid)
        self._call(
            "query_by_transaction", "query_transaction", transaction_id=trade["transaction_id"]
        )
        self._call("close_paid", "close", out_trade_no=paid)
        return paid

    def _refunds(self, paid: str) -> None:
        refund = {
            "out_trade_no": paid,
            "out_refund_no": number(),
            "refund_fen": 888,
            "total_fen": 8_888,
            "reason": "多付的款",
            "notify_url": self._receiver.url,
        }
        asked = {name: refund[name] for name in ("out_trade_no", "out_refund_no")}
        self._call("refund", "refund", **refund)
        self._call("refund_again", "refund", **refund)
        self._call("refund_of_another_amount", "refund", **{**refund, "refund_fen": 1})
        self._call("query_refund", "query_refund", **asked)
        self._call("query_refund_unknown", "query_refund", **{**asked, "out_refund_no": number()})
        self._call("query_refunded", "query", out_trade_no=paid)

    def _cancellations(self) -> None:
        self._call("cancel_unpaid", "cancel", out_trade_no=self._scanned("prepay_to_be_cancelled"))
        paid = self._scanned("prepay_to_be_cancelled_when_paid")
        self._recorder.sandbox.post(f"/admin/trades/{paid}/pay")
        self._call("cancel_paid", "cancel", out_trade_no=paid)
        self._call("cancel_unknown", "cancel", out_trade_no=number())

    def _bills(self) -> None:
        today = datetime.now(CHINA).date()
        self._call("bill", "download_bill", day=today.isoformat())
        self._call("bill_of_nothing", "download_bill", day=(today - timedelta(days=9)).isoformat())
        tomorrow = today + timedelta(days=1)
        self._call("bill_of_tomorrow", "download_bill", day=tomorrow.isoformat())

    def _notices(self) -> None:
        """The first payment's and its refund's, as they came in; altered too."""
        seen: dict[str, tuple[Mapping[str, str], bytes]] = {}

        def both() -> bool:
            for headers, body in self._receiver.got:
                seen.setdefault("refund" if b"out_biz_no" in body else "payment", (headers, body))
            return len(seen) == 2

        self._wait(both)
        self._receiver.got.clear()
        for name, (headers, body) in seen.items():
            self._recorder.record_notice(self._mode, f"notice_{name}", self._fields, headers, body)
        headers, body = seen["payment"]
        altered = body.replace(b"88.88", b"88.89")
        self._recorder.record_notice(self._mode, "notice_altered", self._fields, headers, altered)

    @staticmethod
    def _wait(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError("the sandbox took too long")
            time.sleep(0.05)
