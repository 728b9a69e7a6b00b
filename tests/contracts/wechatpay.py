"""WeChat Pay's recordings: how a gateway is built for them, and what is recorded."""

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from dotenv import dotenv_values

from config.gateways import WeChatPaySettings, load_wechatpay
from shop.clock import Clock
from shop.gateways.reading import CHINA
from shop.gateways.wechatpay import WeChatPay
from tests.contracts.recorder import Recorder, recording, write_json
from tests.contracts.replay import FOLDER
from tests.integration.gateway_server import Reply
from tests.integration.sandbox_kit import Receiver, number, receiving

CHANNEL = "wechatpay"
# By mode: the shop's settings, and what signs the sandbox's notices.
MODES: dict[str, tuple[dict[str, Any], str]] = {
    "public_key": ({}, "public_key"),
    "certificates": (
        {"public_key_id": "", "public_key_pem": "", "fetch_certs": True},
        "certificate",
    ),
    "migration": ({"fetch_certs": True}, "certificate"),
}
# Where the gateway is: told by the base address.
PLACES = ("base_url", "authorize_url", "openid_url")
PATIENCE_S = 30


def build(
    fields: Mapping[str, Any], base_url: str, clock: Clock, nonce: Callable[[], str]
) -> WeChatPay:
    """See `replay.Build`."""
    settings = WeChatPaySettings(
        base_url=base_url,
        authorize_url=f"{base_url}/connect/oauth2/authorize",
        openid_url=f"{base_url}/sns/oauth2/access_token",
        **fields,
    )
    return WeChatPay(
        settings, connect_timeout_ms=5_000, read_timeout_ms=30_000, clock=clock, nonce=nonce
    )


def resign(account: Mapping[str, Any], answer: Reply) -> Reply:
    """See `replay.Resign`."""
    headers = dict(answer.headers)
    pem = account["platform_private_pem"][headers["Wechatpay-Serial"]]
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    told = (headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], answer.body.decode())
    content = "".join(f"{one}\n" for one in told)
    signature = key.sign(content.encode(), PKCS1v15(), SHA256())
    headers["Wechatpay-Signature"] = base64.b64encode(signature).decode()
    return replace(answer, headers=headers)


def record(data: Path) -> None:
    """Make all recordings anew, with a sandbox in `data`."""
    with recording(CHANNEL, data, build, time_scale=0.01) as recorder, receiving() as receiver:
        common = _write_account(recorder)
        for mode, (changes, signer) in MODES.items():
            recorder.sandbox.post(
                "/admin/merchants/default/settings", {"wechatpay_notices": signer}
            )
            _Scenes(recorder, receiver, mode, {**common, **changes}).record()


def _write_account(recorder: Recorder) -> dict[str, Any]:
    merchant = dotenv_values(recorder.sandbox.data / "merchant.env")
    common = asdict(load_wechatpay({k: v or "" for k, v in merchant.items()}))
    for place in PLACES:
        del common[place]
    keys = recorder.sandbox.app.extensions["sandbox"].merchants.of("default")
    signers = {keys.identity.public_key_id: keys.wechatpay_private}
    signers |= {one.serial: one.private for one in keys.wechatpay_certificates}
    write_json(
        FOLDER / CHANNEL / "account.json",
        {
            "common": common,
            "modes": {mode: changes for mode, (changes, _) in MODES.items()},
            "platform_private_pem": {
                serial: key.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                ).decode()
                for serial, key in signers.items()
            },
        },
    )
    return common


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
        paid = self._payment()
        self._refunds(paid)
        self._bills()
        self._notices()

    def _call(self, name: str, call: str, **arguments: Any) -> Any:
        return self._recorder.record(self._mode, name, self._fields, call, arguments)

    def _prepay(self, name: str, product: str, **changes: Any) -> Any:
        request = {
            "out_trade_no": number(),
            "amount_fen": 8_888,
            "subject": "保温杯 & 茶叶 {100%}",
            "expires_at": (datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
            "notify_url": self._receiver.url,
            "product": product,
            **changes,
        }
        self._call(name, "prepay", **request)
        return request

    def _openings(self) -> None:
        login = self._recorder.gateway(self._fields, self._recorder.clock).payer_login
        assert login is not None
        address = login.authorize_url("http://127.0.0.1:9/back", secrets.token_hex(8))
        sent_to = requests.get(address, allow_redirects=False, timeout=30).headers["Location"]
        code = parse_qs(urlsplit(sent_to).query)["code"][0]
        openid = self._call("openid", "openid_of", code=code)["openid"]
        opened = self._prepay("prepay_native", "native")
        self._prepay(
            "prepay_native_number_used",
            "native",
            out_trade_no=opened["out_trade_no"],
            amount_fen=8_889,
        )
        self._prepay("prepay_jsapi", "jsapi", payer_openid=openid)
        self._prepay("prepay_jsapi_strange_openid", "jsapi", payer_openid="o" * 28)
        self._prepay("prepay_h5", "h5", client_ip="203.0.113.7")
        for product, ticket in (
            ("native", "weixin://wxpay/bizpayurl?pr=1"),
            ("jsapi", "wx26112221580621e9b071c00d9e093b0000"),
            ("h5", "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx1"),
        ):
            self._call(
                f"hand_over_{product}",
                "hand_over",
                product=product,
                ticket=ticket,
                return_url="https://shop.example/orders/1?from=pay",
            )
        self._call("query_unpaid", "query", out_trade_no=opened["out_trade_no"])
        self._call("query_unknown", "query", out_trade_no=number())
        self._call("close", "close", out_trade_no=opened["out_trade_no"])
        self._call("query_closed", "query", out_trade_no=opened["out_trade_no"])

    def _payment(self) -> Any:
        paid = self._prepay("prepay_to_be_paid", "native")
        trade = self._recorder.sandbox.post(f"/admin/trades/{paid['out_trade_no']}/pay")
        self._call("query_paid", "query", out_trade_no=paid["out_trade_no"])
        self._call(
            "query_by_transaction", "query_transaction", transaction_id=trade["transaction_id"]
        )
        self._call("close_paid", "close", out_trade_no=paid["out_trade_no"])
        return paid

    def _refunds(self, paid: Mapping[str, Any]) -> None:
        refund = {
            "out_trade_no": paid["out_trade_no"],
            "out_refund_no": number(),
            "refund_fen": 888,
            "total_fen": paid["amount_fen"],
            "reason": "多付的款",
            "notify_url": self._receiver.url,
        }
        self._call("refund", "refund", **refund)
        self._call(
            "refund_too_much",
            "refund",
            **{**refund, "out_refund_no": number(), "refund_fen": 8_887},
        )
        asked = {name: refund[name] for name in ("out_trade_no", "out_refund_no")}
        gateway = self._recorder.gateway(self._fields, self._recorder.clock)
        self._wait(lambda: gateway.query_refund(**asked).status == "SUCCESS")
        self._call("query_refund", "query_refund", **asked)
        self._call("query_refund_unknown", "query_refund", **{**asked, "out_refund_no": number()})
        self._call("query_refunded", "query", out_trade_no=paid["out_trade_no"])

    def _bills(self) -> None:
        today = datetime.now(CHINA).date()
        self._call("bill", "download_bill", day=today.isoformat())
        self._call("bill_of_nothing", "download_bill", day=(today - timedelta(days=9)).isoformat())

    def _notices(self) -> None:
        """The payment's and the refund's, as they came in; the first of them altered too."""
        self._wait(lambda: len(self._receiver.got) >= 2)
        (headers, body), (refund_headers, refund_body) = self._receiver.got[:2]
        self._receiver.got.clear()
        for name, told, content in (
            ("notice_payment", headers, body),
            ("notice_refund", refund_headers, refund_body),
            ("notice_altered", headers, body.replace(b"TRANSACTION", b"TRANSACTIOM")),
        ):
            self._recorder.record_notice(self._mode, name, self._fields, told, content)

    @staticmethod
    def _wait(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError("the sandbox took too long")
            time.sleep(0.05)
