"""Alipay's three signing rules (OpenAPI, RSA2): requests, answers, notices."""

import json
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from sandbox import signing


def _joined(fields: Mapping[str, str]) -> bytes:
    """Not empty, sorted by name, k=v joined by &, not encoded."""
    return "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name]).encode()


def verify_request(key: rsa.RSAPublicKey, params: Mapping[str, str]) -> bool:
    """All parameters but `sign`; `sign_type` belongs to what is signed."""
    signed = {name: value for name, value in params.items() if name != "sign"}
    return signing.verify(key, _joined(signed), params.get("sign", ""))


def sign_notice(
    key: rsa.RSAPrivateKey, fields: Mapping[str, str], cert_sn: str = ""
) -> dict[str, str]:
    """The form's fields with `sign` and `sign_type`, both outside of what is signed.

    In certificate mode `alipay_cert_sn` is signed like any field: the official SDKs leave out only
    the two. (No source shows a notice that bears it.)
    """
    signed = {name: value for name, value in fields.items() if value}
    if cert_sn:
        signed["alipay_cert_sn"] = cert_sn
    return {**signed, "sign_type": "RSA2", "sign": signing.sign(key, _joined(signed))}


def signed_answer(
    key: rsa.RSAPrivateKey, name: str, content: Mapping[str, Any], cert_sn: str = ""
) -> str:
    """{"name":{…},"sign":"…"}, signed over exactly the characters of the inner object; between the
    two, in certificate mode, "alipay_cert_sn"."""
    inner = _text(content)
    sn = f'"alipay_cert_sn":{_text(cert_sn)},' if cert_sn else ""
    return f'{{"{name}":{inner},{sn}"sign":{_text(signing.sign(key, inner.encode()))}}}'


def unsigned_answer(name: str, content: Mapping[str, Any]) -> str:
    """Nothing to believe: a gateway-level error, or a certificate, which proves itself."""
    return f'{{"{name}":{_text(content)}}}'


def _text(value: object) -> str:
    """JSON with slashes escaped, as the gateway writes it: a client that parses and serialises
    again before it verifies will find the signature broken, as it would in production."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
