"""A bare HTTP server that answers as a test tells it, and keeps every request it got.

For what the sandbox rightly never does: wrong signatures, other people's data, nonsense, silence.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.integration.keys import AlipayKeys, WeChatPayKeys


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer to give."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Script = Callable[[Seen], Reply]


class GatewayServer:
    """Answers each request by `script`; `requests` and `connections` tell what came."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.connections = 0
        self.script: Script = lambda _seen: Reply(status=500)
        self.drip_s = 0.0
        self.stopping = Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def reset(self) -> None:
        """Forget the script and the requests of the last test."""
        self.requests.clear()
        self.script = lambda _seen: Reply(status=500)
        self.drip_s = 0.0

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End, hung requests included."""
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out separately: else the one waits for the other's acknowledgement.
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                server.connections += 1

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                seen = Seen(
                    method=self.command,
                    target=self.path,
                    headers=dict(self.headers.items()),
                    body=self.rfile.read(length),
                )
                server.requests.append(seen)
                self.write(server.script(seen))

            do_POST = do_GET

            def write(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if not server.drip_s:
                    self.wfile.write(reply.body)
                    return
                for octet in reply.body:
                    if server.stopping.wait(server.drip_s):
                        return
                    self.wfile.write(bytes([octet]))

            def log_message(self, format: str, *args: object) -> None:
                """Stay silent."""

        return Handler


@contextmanager
def gateway_server() -> Iterator[GatewayServer]:
    """A running server, stopped at the end."""
    server = GatewayServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@cache
def _loaded(private_pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(private_pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def sign(private_pem: str, content: str) -> str:
    """SHA256withRSA in base64, straight from `cryptography`."""
    signature = _loaded(private_pem).sign(content.encode(), PKCS1v15(), SHA256())
    return base64.b64encode(signature).decode()


def wechatpay_envelope(
    keys: WeChatPayKeys,
    body: bytes,
    *,
    age_s: int = 0,
    serial: str | None = None,
    private_pem: str | None = None,
) -> dict[str, str]:
    """The five headers by which WeChat Pay signs an answer or a notice."""
    timestamp, nonce = str(int(time.time()) - age_s), secrets.token_hex(16)
    content = f"{timestamp}\n{nonce}\n{body.decode()}\n"
    return {
        "Wechatpay-Serial": serial or keys.public_key_id,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
        "Wechatpay-Signature": sign(private_pem or keys.platform.private_pem, content),
    }


def wechatpay_reply(keys: WeChatPayKeys, value: Any = None, *, status: int = 200) -> Reply:
    """A signed answer: JSON, or nothing with 204."""
    body = b"" if value is None else json.dumps(value, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", **wechatpay_envelope(keys, body)}
    return Reply(status=status, headers=headers, body=body)


def wechatpay_error(status: int, code: str, message: str = "说明") -> Reply:
    """An error answer, which WeChat Pay does not sign."""
    body = json.dumps({"code": code, "message": message}).encode()
    return Reply(status=status, headers={"Content-Type": "application/json"}, body=body)


def alipay_reply(keys: AlipayKeys, method: str, fields: Mapping[str, Any]) -> Reply:
    """A signed answer to `method` (`alipay.trade.query` …)."""
    content = json.dumps(fields, ensure_ascii=False)
    signature = sign(keys.alipay.private_pem, content)
    name = method.replace(".", "_") + "_response"
    return Reply(body=f'{{"{name}":{content},"sign":"{signature}"}}'.encode())
