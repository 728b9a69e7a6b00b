"""A sandbox served over real HTTP, its merchant, and a receiver for its notices.

Signatures and ciphertexts are made and checked here with `cryptography` directly, by the rules as
written down, not with the sandbox's code.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import requests
from alipay import AliPay
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from dotenv import dotenv_values
from flask import Flask
from wechatpayv3 import WeChatPay, WeChatPayType
from werkzeug.serving import make_server

from sandbox import SandboxConfig, create_app, sandbox_of
from tests.processes import free_port

BEIJING = timezone(timedelta(hours=8))
SCHEME = "WECHATPAY2-SHA256-RSA2048"


def beijing(moment: datetime | None = None) -> str:
    """yyyy-MM-dd HH:mm:ss in Beijing."""
    return (moment or datetime.now(UTC)).astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class Running:
    """A sandbox that answers at `url`."""

    app: Flask
    url: str
    data: Path

    def get(self, path: str) -> Any:
        """JSON of the admin API."""
        answer = requests.get(f"{self.url}{path}", timeout=20)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: object = None) -> Any:
        """The same, for its levers."""
        answer = requests.post(f"{self.url}{path}", json=body, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def trade(self, number: str) -> Any:
        """Everything of one trade."""
        return self.get(f"/admin/trades/{number}")

    def fault(self, channel: str, op: str, kind: str, *, times: int = 1, delay_ms: int = 0) -> None:
        """Order a fault."""
        order = {"channel": channel, "op": op, "kind": kind, "times": times, "delay_ms": delay_ms}
        self.post("/admin/faults", order)


@contextmanager
def running(data: Path, **config: Any) -> Iterator[Running]:
    """Serve a sandbox on a free port until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    app = create_app(SandboxConfig(**{"data": data, "public_url": url, **config}))
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Running(app, url, data)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        sandbox_of(app).close()


def number() -> str:
    """A fresh out_trade_no."""
    return f"T{secrets.token_hex(10)}"


class Merchant:
    """The shop's side, from its settings alone."""

    def __init__(self, data: Path, env: str = "merchant.env") -> None:
        self.env = {k: v or "" for k, v in dotenv_values(data / env).items()}
        private = load_pem_private_key(self.read("WECHATPAY_PRIVATE_KEY_FILE").encode(), None)
        assert isinstance(private, RSAPrivateKey)
        self.private_key = private
        app_key = load_pem_private_key(self.read("ALIPAY_PRIVATE_KEY_FILE").encode(), None)
        assert isinstance(app_key, RSAPrivateKey)
        self.app_key = app_key

    def read(self, name: str) -> str:
        """The content of the file that a setting names."""
        return Path(self.env[name]).read_text()

    def public_key(self, name: str) -> RSAPublicKey:
        """The gateway's key that a setting names."""
        key = load_pem_public_key(self.read(name).encode())
        assert isinstance(key, RSAPublicKey)
        return key

    def wechatpay(self, notify_url: str = "http://127.0.0.1:9/notify") -> WeChatPay:
        """The library's client, in public-key mode."""
        client = WeChatPay(
            wechatpay_type=WeChatPayType.NATIVE,
            mchid=self.env["WECHATPAY_MCHID"],
            private_key=self.read("WECHATPAY_PRIVATE_KEY_FILE"),
            cert_serial_no=self.env["WECHATPAY_CERT_SERIAL"],
            appid=self.env["WECHATPAY_APPID"],
            apiv3_key=self.read("WECHATPAY_APIV3_KEY_FILE"),
            notify_url=notify_url,
            public_key=self.read("WECHATPAY_PUBLIC_KEY_FILE"),
            public_key_id=self.env["WECHATPAY_PUBLIC_KEY_ID"],
            timeout=(5, 20),
        )
        client._core._gate_way = self.env["WECHATPAY_BASE_URL"]
        return client

    def alipay(self) -> Any:
        """The library's client, with its timestamps in Beijing whatever our zone."""

        class Client(AliPay):  # type: ignore[misc]
            def build_body(self, *args: Any, **kwargs: Any) -> Any:
                return {**super().build_body(*args, **kwargs), "timestamp": beijing()}

        client = Client(
            self.env["ALIPAY_APP_ID"],
            None,
            self.read("ALIPAY_PRIVATE_KEY_FILE"),
            self.read("ALIPAY_PUBLIC_KEY_FILE"),
        )
        client._gateway = self.env["ALIPAY_BASE_URL"]
        return client

    def native(self, out_trade_no: str, total: int, notify_url: str, **more: Any) -> dict[str, Any]:
        """The body of a Native prepay."""
        return {
            "appid": self.env["WECHATPAY_APPID"],
            "mchid": self.env["WECHATPAY_MCHID"],
            "description": "测试商品",
            "out_trade_no": out_trade_no,
            "notify_url": notify_url,
            "amount": {"total": total, "currency": "CNY"},
            **more,
        }

    def wechatpay_request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        sent_body: bytes | None = None,
        sent_target: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        **fields: str,
    ) -> requests.Response:
        """Sign one request by the rule and send it, altered after signing where asked. A header
        that is None is left out."""
        timestamp = fields.pop("timestamp", str(int(time.time())))
        nonce = fields.pop("nonce_str", secrets.token_hex(16))
        message = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(self.private_key.sign(message, PKCS1v15(), SHA256()))
        said = {
            "mchid": self.env["WECHATPAY_MCHID"],
            "nonce_str": nonce,
            "signature": signature.decode(),
            "timestamp": timestamp,
            "serial_no": self.env["WECHATPAY_CERT_SERIAL"],
            **fields,
        }
        parts = ",".join(f'{name}="{value}"' for name, value in said.items())
        return requests.request(
            method,
            self.env["WECHATPAY_BASE_URL"] + (sent_target or target),
            data=body if sent_body is None else sent_body,
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": "test",
                "Wechatpay-Serial": self.env["WECHATPAY_PUBLIC_KEY_ID"],
                "Authorization": f"{SCHEME} {parts}",
                **(headers or {}),
            },
            timeout=20,
        )

    def alipay_params(self, method: str, biz: object, **more: str) -> dict[str, str]:
        """Signed parameters of one call, by the rule."""
        params = {
            "app_id": self.env["ALIPAY_APP_ID"],
            "method": method,
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": beijing(),
            "version": "1.0",
            "biz_content": json.dumps(biz, ensure_ascii=False),
            **more,
        }
        text = "&".join(f"{name}={params[name]}" for name in sorted(params) if params[name])
        signature = self.app_key.sign(text.encode(), PKCS1v15(), SHA256())
        return {**params, "sign": base64.b64encode(signature).decode()}


def holds(key: RSAPublicKey, message: bytes, signature: str) -> bool:
    """Whether a base64 SHA256withRSA signature is right."""
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def wechatpay_signed(merchant: Merchant, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether an answer or notice is signed by the platform key it names."""
    assert headers["Wechatpay-Serial"] == merchant.env["WECHATPAY_PUBLIC_KEY_ID"]
    assert headers["Wechatpay-Signature-Type"] == SCHEME
    assert abs(int(headers["Wechatpay-Timestamp"]) - time.time()) < 300
    head = f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n".encode()
    key = merchant.public_key("WECHATPAY_PUBLIC_KEY_FILE")
    return holds(key, head + body + b"\n", headers["Wechatpay-Signature"])


def decrypted(merchant: Merchant, notice: Mapping[str, Any]) -> dict[str, Any]:
    """The resource of a WeChat Pay notice."""
    resource = notice["resource"]
    assert resource["algorithm"] == "AEAD_AES_256_GCM"
    plain = AESGCM(merchant.read("WECHATPAY_APIV3_KEY_FILE").encode()).decrypt(
        resource["nonce"].encode(),
        base64.b64decode(resource["ciphertext"]),
        resource["associated_data"].encode(),
    )
    content: dict[str, Any] = json.loads(plain)
    return content


def alipay_form(merchant: Merchant, body: bytes) -> dict[str, str]:
    """The fields of an Alipay notice whose signature holds."""
    fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True))
    assert fields["sign_type"] == "RSA2"
    signed = {k: v for k, v in fields.items() if k not in {"sign", "sign_type"}}
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    key = merchant.public_key("ALIPAY_PUBLIC_KEY_FILE")
    assert holds(key, text.encode(), fields["sign"])
    return fields


@dataclass
class Receiver:
    """A shop's webhook: keeps what came, answers what it was told (the last answer for ever)."""

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, b"success")])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    redirect_to: str | None = None
    silent: threading.Event | None = None
    breaks_off: bool = False

    def bodies(self) -> list[bytes]:
        """The bodies received so far."""
        return [body for _, body in list(self.got)]


@contextmanager
def receiving(*answers: tuple[int, bytes]) -> Iterator[Receiver]:
    """A receiver on a free port until the block ends."""
    receiver = Receiver(answers=list(answers) or [(200, b"success")])
    guard = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            with guard:
                receiver.got.append((dict(self.headers.items()), body))
                many = len(receiver.answers) > 1
                status, text = receiver.answers.pop(0) if many else receiver.answers[0]
            if receiver.silent is not None:
                receiver.silent.wait(30)
                return
            self.send_response(status)
            if receiver.redirect_to is not None:
                self.send_header("Location", receiver.redirect_to)
            if status != 204:
                extra = 5 if receiver.breaks_off else 0
                self.send_header("Content-Length", str(len(text) + extra))
            self.end_headers()
            if status != 204:
                self.wfile.write(text)

        do_GET = do_POST  # a followed redirect may come as either

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/notify"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        if receiver.silent is not None:
            receiver.silent.set()
        server.shutdown()
        thread.join()
        server.server_close()
