"""Signatures that do not hold: what `fault_orders.SENDINGS` makes of something rightly signed."""

from functools import cache
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import chance, clock, files, signing, wechatpay_sign
from sandbox.fault_orders import Fault
from sandbox.keys import Keys

_HEADERS = ("Serial", "Timestamp", "Nonce", "Signature", "Signature-Type")


class Headers(Protocol):
    """A dictionary, or a response's headers."""

    def __getitem__(self, name: str, /) -> str: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...
    def __delitem__(self, name: str, /) -> None: ...


@cache
def stranger() -> rsa.RSAPrivateKey:
    """A key that nobody was told of."""
    return files.new_key()


def wechatpay(headers: Headers, keys: Keys, body: bytes, serial: str, fault: Fault) -> None:
    """Change the Wechatpay-* headers of an answer or a notice, in place."""
    now = clock.now_ms()
    if fault.kind == "wrong_signature":
        _sign(headers, keys, body + b" ", now, serial)
    elif fault.kind == "clock_off":
        _sign(headers, keys, body, now + fault.offset_s * 1_000, serial)
    elif fault.kind == "no_signature":
        for name in _HEADERS:
            del headers[f"Wechatpay-{name}"]
    elif fault.kind == "signtest":
        # A probe: it must be refused, and gets no special pass.
        headers["Wechatpay-Signature"] = f"WECHATPAY/SIGNTEST/{headers['Wechatpay-Signature']}"
    elif fault.kind == "other_serial":
        by_key = serial.startswith("PUB_KEY_ID_")
        other = f"PUB_KEY_ID_01{chance.digits(30)}" if by_key else chance.hexadecimal(40).upper()
        headers["Wechatpay-Serial"] = other


def _sign(headers: Headers, keys: Keys, body: bytes, now: int, serial: str) -> None:
    for name, value in wechatpay_sign.signed_headers(keys, body, now, serial).items():
        headers[name] = value


def alipay(form: dict[str, str], fault: Fault) -> None:
    """Change the signed form of a notice, in place."""
    if fault.kind == "wrong_signature":
        form["sign"] = signing.sign(stranger(), b"")
    elif fault.kind == "no_signature":
        del form["sign"]
    elif fault.kind == "altered_body":
        form["total_amount"] = "0.01"
    elif fault.kind == "other_serial":
        # In public-key mode nothing says which key it was: it is one that nobody knows.
        if "alipay_cert_sn" in form:
            form["alipay_cert_sn"] = chance.hexadecimal(32)
        names = sorted(name for name in form if name not in {"sign", "sign_type"})
        text = "&".join(f"{name}={form[name]}" for name in names)
        form["sign"] = signing.sign(stranger(), text.encode())
