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


def sign_notice(key: rsa.RSAPrivateKey, fields: Mapping[str, str]) -> dict[str, str]:
    """The form's fields with `sign` and `sign_type`, both outside of what is signed."""
    signed = {name: value for name, value in fields.items() if value}
    return {**signed, "sign_type": "RSA2", "sign": signing.sign(key, _joined(signed))}


def signed_answer(key: rsa.RSAPrivateKey, name: str, content: Mapping[str, Any]) -> str:
    """{"name":{…},"sign":"…"}, signed over exactly the characters of the inner object."""
    inner = _text(content)
    return f'{{"{name}":{inner},"sign":{_text(signing.sign(key, inner.encode()))}}}'


def unsigned_answer(name: str, content: Mapping[str, Any]) -> str:
    """A gateway-level error: nothing to believe."""
    return f'{{"{name}":{_text(content)}}}'


def _text(value: object) -> str:
    """JSON with slashes escaped, as the gateway writes it: a client that parses and serialises
    again before it verifies will find the signature broken, as it would in production."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
