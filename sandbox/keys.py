"""Keys and numbers of the merchants: made once, kept in the data folder.

The merchant `default` has `<data>/merchant/`, which holds what a shop gets, and the settings
`merchant.env` (public-key mode at both gateways) and `merchant.certs.env` (certificate mode at
both) beside it; another merchant has `<data>/merchants/<name>/`, `<name>.env` and
`<name>.certs.env` there. `<data>/gateway/` holds what the gateways keep to themselves. Everything
is readable by its owner only. What an older data folder lacks is made; what it has is kept.
"""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sandbox import certificates, chance, clock, files
from sandbox.certificates import Authorities, Certificate

DEFAULT_MERCHANT = "default"
APIV3_KEY_CHARS = 32  # WeChat Pay, APIv3 key: 32 bytes, used raw as the AES-256 key
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)
WECHATPAY_NAME, ALIPAY_NAME = "Sandbox WeChat Pay", "Sandbox Alipay"
Rotation = Callable[[Path, str, int, int], None]


class BadName(ValueError):
    """A merchant cannot be called so."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"merchant {name!r}: give 1 to 32 of a-z 0-9 - _, beginning with a letter or a digit"
        )


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A merchant's numbers at both gateways."""

    merchant: str
    mchid: str
    appid: str
    cert_serial: str
    public_key_id: str
    alipay_app_id: str
    alipay_seller_id: str


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What the gateways need to check one merchant and to sign for it.

    WeChat Pay signs with `wechatpay_private` (public-key mode) or with the newest valid of
    `wechatpay_certificates`; Alipay with `alipay_private` or the newest valid of
    `alipay_certificates`.
    """

    identity: Identity
    apiv3_key: bytes
    app_secret: str
    wechatpay_private: rsa.RSAPrivateKey
    wechatpay_merchant: rsa.RSAPublicKey
    wechatpay_certificates: tuple[Certificate, ...]
    alipay_private: rsa.RSAPrivateKey
    alipay_merchant: rsa.RSAPublicKey
    alipay_certificates: tuple[Certificate, ...]
    alipay_app_cert_pem: str
    alipay_intermediate_pem: str
    alipay_roots_pem: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where one merchant's files are."""

    data: Path
    name: str

    @property
    def merchant(self) -> Path:
        """What the shop gets."""
        default = self.name == DEFAULT_MERCHANT
        return self.data / "merchant" if default else self.data / "merchants" / self.name

    @property
    def gateway(self) -> Path:
        """What the gateways keep."""
        top = self.data / "gateway"
        return top if self.name == DEFAULT_MERCHANT else top / "merchants" / self.name

    @property
    def env(self) -> Path:
        """The shop's settings, public-key mode."""
        return self.merchant.with_name(f"{self.merchant.name}.env")

    @property
    def certs_env(self) -> Path:
        """The shop's settings, certificate mode."""
        return self.merchant.with_name(f"{self.merchant.name}.certs.env")


def ensure_keys(data: Path, base_url: str) -> Keys:
    """`ensure_merchant` for every merchant there is; gives those of `default`."""
    for name in names(data):
        ensure_merchant(data, base_url, name)
    return ensure_merchant(data, base_url, DEFAULT_MERCHANT)


def names(data: Path) -> list[str]:
    """The merchants that were made, `default` apart."""
    found = (data / "gateway" / "merchants").glob("*/identity.json")
    return sorted(path.parent.name for path in found)


def ensure_merchant(data: Path, base_url: str, name: str) -> Keys:
    """Make what is missing, write the settings for this base URL, and load. Safe to repeat.

    Several processes may start at once: a file lock lets one of them make the keys. Raises BadName.
    """
    if not _NAME.fullmatch(name):
        raise BadName(name)
    data.mkdir(parents=True, exist_ok=True)
    places = Places(data=data, name=name)
    with files.locked(data / "keys.lock"):
        authorities = certificates.ensure_authorities(data / "gateway" / "authorities")
        if not (places.gateway / "identity.json").exists():
            _make(places)
        _complete(places, authorities)
        keys = load(data, name)
        values = settings(places, base_url, keys.identity)
        files.write(places.env, _env(values))
        files.write(places.certs_env, _env(_by_certificates(places, values)))
    return keys


def rotate_wechatpay(data: Path, name: str, start_ms: int, life_s: int) -> None:
    """Make the next platform certificate: listed at once, signed with from `start_ms` on."""
    _rotate(data, name, "wechatpay_certificates", WECHATPAY_NAME, start_ms, life_s)


def rotate_alipay(data: Path, name: str, start_ms: int, life_s: int) -> None:
    """Make the next Alipay certificate, signed with from `start_ms` on."""
    _rotate(data, name, "alipay_certificates", ALIPAY_NAME, start_ms, life_s)


def _rotate(data: Path, name: str, kind: str, owner: str, start_ms: int, life_s: int) -> None:
    folder = Places(data=data, name=name).gateway / kind
    with files.locked(data / "keys.lock"):
        authorities = certificates.ensure_authorities(data / "gateway" / "authorities")
        authority = authorities.wechatpay if owner == WECHATPAY_NAME else authorities.alipay
        certificates.add(folder, authority, owner, owner, start=start_ms, life_s=life_s)


def settings(places: Places, base_url: str, identity: Identity) -> dict[str, str]:
    """The shop's settings, public-key mode at both gateways."""
    folder = places.merchant.resolve()
    return {
        "WECHATPAY_BASE_URL": base_url,
        "WECHATPAY_MCHID": identity.mchid,
        "WECHATPAY_APPID": identity.appid,
        "WECHATPAY_CERT_SERIAL": identity.cert_serial,
        "WECHATPAY_PRIVATE_KEY_FILE": str(folder / "wechatpay_private_key.pem"),
        "WECHATPAY_APIV3_KEY_FILE": str(folder / "wechatpay_apiv3_key.txt"),
        "WECHATPAY_PUBLIC_KEY_ID": identity.public_key_id,
        "WECHATPAY_PUBLIC_KEY_FILE": str(folder / "wechatpay_public_key.pem"),
        "WECHATPAY_PRODUCTS": "native,jsapi,h5",
        "WECHATPAY_APP_SECRET_FILE": str(folder / "wechatpay_app_secret.txt"),
        "WECHATPAY_AUTHORIZE_URL": f"{base_url}/connect/oauth2/authorize",
        "WECHATPAY_OPENID_URL": f"{base_url}/sns/oauth2/access_token",
        "ALIPAY_BASE_URL": f"{base_url}/gateway.do",
        "ALIPAY_APP_ID": identity.alipay_app_id,
        "ALIPAY_SELLER_ID": identity.alipay_seller_id,
        "ALIPAY_PRIVATE_KEY_FILE": str(folder / "alipay_private_key.pem"),
        "ALIPAY_PUBLIC_KEY_FILE": str(folder / "alipay_public_key.pem"),
        "ALIPAY_PRODUCTS": "precreate,page,wap",
    }


def _by_certificates(places: Places, values: dict[str, str]) -> dict[str, str]:
    """The same merchant in certificate mode at both gateways."""
    folder = places.merchant.resolve()
    keys = ("WECHATPAY_PUBLIC_KEY_ID", "WECHATPAY_PUBLIC_KEY_FILE", "ALIPAY_PUBLIC_KEY_FILE")
    return {name: value for name, value in values.items() if name not in keys} | {
        "WECHATPAY_PLATFORM_CERTS": "fetch",
        "ALIPAY_APP_CERT_FILE": str(folder / "alipay_app.crt"),
        "ALIPAY_CERT_FILE": str(folder / "alipay.crt"),
        "ALIPAY_ROOT_CERT_FILE": str(folder / "alipay_root.crt"),
    }


def _env(values: dict[str, str]) -> bytes:
    """NAME=value lines, which the shell and dotenv read alike."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()


def _make(places: Places) -> None:
    """The key pairs and numbers."""
    merchant, gateway = places.merchant, places.gateway
    for folder in (merchant, gateway):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pairs = {
        # file stem: (who signs with it, who checks with it)
        "wechatpay_private_key": (merchant, gateway / "wechatpay_merchant_public_key.pem"),
        "alipay_private_key": (merchant, gateway / "alipay_merchant_public_key.pem"),
        "wechatpay_platform_key": (gateway, merchant / "wechatpay_public_key.pem"),
        "alipay_platform_key": (gateway, merchant / "alipay_public_key.pem"),
    }
    for stem, (owner, public_path) in pairs.items():
        key = files.new_key()
        files.write(owner / f"{stem}.pem", files.private_pem(key))
        files.write(public_path, files.public_pem(key.public_key()))
    apiv3 = chance.text(APIV3_KEY_CHARS).encode()
    files.write(merchant / "wechatpay_apiv3_key.txt", apiv3)
    files.write(gateway / "wechatpay_apiv3_key.txt", apiv3)
    identity = Identity(
        merchant=places.name,
        mchid="16" + chance.digits(8),
        appid="wx" + chance.hexadecimal(16),
        cert_serial=certificates.new_serial(),
        public_key_id="PUB_KEY_ID_01" + chance.digits(30),
        alipay_app_id="9021" + chance.digits(12),
        alipay_seller_id="2088" + chance.digits(12),
    )
    _write_identity(places, identity)


def _write_identity(places: Places, identity: Identity) -> None:
    # Written last: its presence says that the keys are there.
    content = json.dumps(asdict(identity), indent=1).encode()
    files.write(places.gateway / "identity.json", content)


def _read_identity(places: Places) -> Identity:
    content = json.loads((places.gateway / "identity.json").read_bytes())
    return Identity(**{"merchant": places.name, **content})


def _complete(places: Places, authorities: Authorities) -> None:
    """Certificates and the application's secret, which folders of earlier versions do not have."""
    merchant, gateway, start = places.merchant, places.gateway, clock.now_ms()
    start -= certificates.LEEWAY_MS
    if not (gateway / "wechatpay_app_secret.txt").exists():
        secret = chance.hexadecimal(32).encode()
        files.write(merchant / "wechatpay_app_secret.txt", secret)
        files.write(gateway / "wechatpay_app_secret.txt", secret)
    if not (merchant / "wechatpay_merchant.crt").exists():
        _certify_merchant(places, authorities.wechatpay, start)
    for kind, authority, owner in (
        ("wechatpay_certificates", authorities.wechatpay, WECHATPAY_NAME),
        ("alipay_certificates", authorities.alipay, ALIPAY_NAME),
    ):
        if not list((gateway / kind).glob("*.crt")):
            life_s = certificates.LIFE_S
            certificates.add(gateway / kind, authority, owner, owner, start=start, life_s=life_s)
    if not (merchant / "alipay_root.crt").exists():
        public = files.read_public(gateway / "alipay_merchant_public_key.pem")
        number = _read_identity(places).alipay_app_id
        app = certificates.issue(
            authorities.alipay, public, f"Merchant {places.name}", number, valid_from_ms=start
        )
        (alipay, *_) = certificates.read_all(gateway / "alipay_certificates")
        files.write(merchant / "alipay_app.crt", app.public_bytes(Encoding.PEM))
        files.write(merchant / "alipay.crt", (alipay.pem + authorities.alipay.pem).encode())
        files.write(merchant / "alipay_root.crt", authorities.alipay_roots_pem.encode())


def _certify_merchant(places: Places, authority: Certificate, start: int) -> None:
    """The merchant's certificate, with the serial number that its signatures name."""
    identity = _read_identity(places)
    serial = identity.cert_serial
    # Earlier versions drew 160 bits; a certificate's number has 159, and no zeros before it.
    if int(serial, 16).bit_length() > 159 or f"{int(serial, 16):X}" != serial:
        identity = Identity(**{**asdict(identity), "cert_serial": certificates.new_serial()})
        _write_identity(places, identity)
    made = certificates.issue(
        authority,
        files.read_public(places.gateway / "wechatpay_merchant_public_key.pem"),
        f"Merchant {places.name}",
        identity.mchid,
        serial=identity.cert_serial,
        valid_from_ms=start,
    )
    files.write(places.merchant / "wechatpay_merchant.crt", made.public_bytes(Encoding.PEM))


def load(data: Path, name: str) -> Keys:
    """Read what `ensure_merchant` made."""
    places = Places(data=data, name=name)
    gateway = places.gateway
    authorities = certificates.ensure_authorities(data / "gateway" / "authorities")
    return Keys(
        identity=_read_identity(places),
        apiv3_key=(gateway / "wechatpay_apiv3_key.txt").read_bytes(),
        app_secret=(gateway / "wechatpay_app_secret.txt").read_text(),
        wechatpay_private=files.read_private(gateway / "wechatpay_platform_key.pem"),
        wechatpay_merchant=files.read_public(gateway / "wechatpay_merchant_public_key.pem"),
        wechatpay_certificates=certificates.read_all(gateway / "wechatpay_certificates"),
        alipay_private=files.read_private(gateway / "alipay_platform_key.pem"),
        alipay_merchant=files.read_public(gateway / "alipay_merchant_public_key.pem"),
        alipay_certificates=certificates.read_all(gateway / "alipay_certificates"),
        alipay_app_cert_pem=(places.merchant / "alipay_app.crt").read_text(),
        alipay_intermediate_pem=authorities.alipay.pem,
        alipay_roots_pem=authorities.alipay_roots_pem,
    )
