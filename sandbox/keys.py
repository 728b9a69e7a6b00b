"""Keys and numbers of the one demo merchant: made once, kept in the data folder.

`<data>/merchant/` holds what the shop gets, `<data>/gateway/` what the gateways keep to
themselves, `<data>/merchant.env` the shop's settings. Everything is readable by its owner only.
"""

import fcntl
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
APIV3_KEY_CHARS = 32  # WeChat Pay, APIv3 key: 32 bytes, used raw as the AES-256 key


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The merchant's numbers at both gateways."""

    mchid: str
    appid: str
    cert_serial: str
    public_key_id: str
    alipay_app_id: str
    alipay_seller_id: str


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What the gateways need to check the merchant and to sign."""

    identity: Identity
    apiv3_key: bytes
    wechatpay_private: rsa.RSAPrivateKey
    wechatpay_merchant: rsa.RSAPublicKey
    alipay_private: rsa.RSAPrivateKey
    alipay_merchant: rsa.RSAPublicKey


def ensure_keys(data: Path, base_url: str) -> Keys:
    """Make what is missing, write merchant.env for this base URL, and load. Safe to repeat.

    Several processes may start at once: a file lock lets one of them make the keys.
    """
    data.mkdir(parents=True, exist_ok=True)
    with _locked(data / "keys.lock"):
        if not (data / "gateway" / "identity.json").exists():
            _make(data)
        keys = _load(data)
        _write(data / "merchant.env", merchant_env(data, base_url, keys.identity).encode())
    return keys


def merchant_env(data: Path, base_url: str, identity: Identity) -> str:
    """The shop's settings as NAME=value lines (shell and dotenv read them alike)."""
    folder = data.resolve() / "merchant"
    values = {
        "WECHATPAY_BASE_URL": base_url,
        "WECHATPAY_MCHID": identity.mchid,
        "WECHATPAY_APPID": identity.appid,
        "WECHATPAY_CERT_SERIAL": identity.cert_serial,
        "WECHATPAY_PRIVATE_KEY_FILE": str(folder / "wechatpay_private_key.pem"),
        "WECHATPAY_APIV3_KEY_FILE": str(folder / "wechatpay_apiv3_key.txt"),
        "WECHATPAY_PUBLIC_KEY_ID": identity.public_key_id,
        "WECHATPAY_PUBLIC_KEY_FILE": str(folder / "wechatpay_public_key.pem"),
        "ALIPAY_BASE_URL": f"{base_url}/gateway.do",
        "ALIPAY_APP_ID": identity.alipay_app_id,
        "ALIPAY_SELLER_ID": identity.alipay_seller_id,
        "ALIPAY_PRIVATE_KEY_FILE": str(folder / "alipay_private_key.pem"),
        "ALIPAY_PUBLIC_KEY_FILE": str(folder / "alipay_public_key.pem"),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(handle, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digits(count: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(count))


def _make(data: Path) -> None:
    merchant, gateway = data / "merchant", data / "gateway"
    for folder in (merchant, gateway):
        folder.mkdir(mode=0o700, exist_ok=True)
    pairs = {
        # file stem: (who signs with it, who checks with it)
        "wechatpay_private_key": (merchant, gateway / "wechatpay_merchant_public_key.pem"),
        "alipay_private_key": (merchant, gateway / "alipay_merchant_public_key.pem"),
        "wechatpay_platform_key": (gateway, merchant / "wechatpay_public_key.pem"),
        "alipay_platform_key": (gateway, merchant / "alipay_public_key.pem"),
    }
    for stem, (owner, public_path) in pairs.items():
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        _write(owner / f"{stem}.pem", _private_pem(key))
        _write(public_path, _public_pem(key.public_key()))
    apiv3 = "".join(secrets.choice(_ALPHABET) for _ in range(APIV3_KEY_CHARS)).encode()
    _write(merchant / "wechatpay_apiv3_key.txt", apiv3)
    _write(gateway / "wechatpay_apiv3_key.txt", apiv3)
    identity = Identity(
        mchid="16" + _digits(8),
        appid="wx" + secrets.token_hex(8),
        cert_serial=secrets.token_hex(20).upper(),
        public_key_id="PUB_KEY_ID_01" + _digits(30),
        alipay_app_id="9021" + _digits(12),
        alipay_seller_id="2088" + _digits(12),
    )
    # Last: its presence says that everything else is there.
    _write(gateway / "identity.json", json.dumps(asdict(identity), indent=1).encode())


def _load(data: Path) -> Keys:
    gateway = data / "gateway"
    return Keys(
        identity=Identity(**json.loads((gateway / "identity.json").read_bytes())),
        apiv3_key=(gateway / "wechatpay_apiv3_key.txt").read_bytes(),
        wechatpay_private=_private(gateway / "wechatpay_platform_key.pem"),
        wechatpay_merchant=_public(gateway / "wechatpay_merchant_public_key.pem"),
        alipay_private=_private(gateway / "alipay_platform_key.pem"),
        alipay_merchant=_public(gateway / "alipay_merchant_public_key.pem"),
    )


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for an instant."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    draft.replace(path)


def _private_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _private(path: Path) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError(f"{path} is not an RSA key.")
    return key


def _public(path: Path) -> rsa.RSAPublicKey:
    key = serialization.load_pem_public_key(path.read_bytes())
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError(f"{path} is not an RSA key.")
    return key
