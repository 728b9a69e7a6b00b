"""One merchant's accounts at the gateways: read from the environment, or a file of the same form.

Key material is read from the files that the variables name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from config.values import SettingsError, choice, file_text, required, url

WECHATPAY_PRODUCTS = ("native", "jsapi", "h5")
ALIPAY_PRODUCTS = ("precreate", "page", "wap")
# Which of the two a merchant has is a matter of its contract with Alipay.
PRECREATE_PRODUCT_CODES = ("QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT")
FETCH = "fetch"


@dataclass(frozen=True, kw_only=True)
class WeChatPaySettings:
    """One WeChat Pay merchant (APIv3).

    The gateway's signatures are verified by its public key, by platform certificates, or (during
    the migration from certificates to the key) by either. `platform_certs_pem` are certificates
    known beforehand; with `fetch_certs` the current ones are asked for. `app_secret` is the
    application's, which only JSAPI needs: for the payer's openid.
    """

    base_url: str
    mchid: str
    appid: str
    cert_serial: str
    private_key_pem: str = field(repr=False)
    apiv3_key: str = field(repr=False)
    public_key_id: str = ""
    public_key_pem: str = field(default="", repr=False)
    platform_certs_pem: str = field(default="", repr=False)
    fetch_certs: bool = False
    products: tuple[str, ...] = ("native",)
    app_secret: str = field(default="", repr=False)
    authorize_url: str = "https://open.weixin.qq.com/connect/oauth2/authorize"
    openid_url: str = "https://api.weixin.qq.com/sns/oauth2/access_token"

    @property
    def account(self) -> str:
        """Which account this is, whatever its keys: the merchant's number and the application's."""
        return f"{self.mchid}/{self.appid}"


@dataclass(frozen=True, kw_only=True)
class AlipaySettings:
    """One Alipay application (RSA2), in public-key mode (`public_key_pem`) or in certificate mode
    (the three certificates)."""

    base_url: str
    app_id: str
    seller_id: str
    private_key_pem: str = field(repr=False)
    public_key_pem: str = field(default="", repr=False)
    app_cert_pem: str = field(default="", repr=False)
    alipay_cert_pem: str = field(default="", repr=False)
    root_cert_pem: str = field(default="", repr=False)
    products: tuple[str, ...] = ("precreate",)
    precreate_product_code: str = PRECREATE_PRODUCT_CODES[0]

    @property
    def account(self) -> str:
        """Which account this is, whatever its keys: the application's number and the seller's."""
        return f"{self.app_id}/{self.seller_id}"


def load_wechatpay(values: Mapping[str, str]) -> WeChatPaySettings:
    """The WECHATPAY_ variables. Raises SettingsError."""
    public_key_id = values.get("WECHATPAY_PUBLIC_KEY_ID", "").strip()
    certs = values.get("WECHATPAY_PLATFORM_CERTS", "").strip()
    if not public_key_id and not certs:
        raise SettingsError(
            "WECHATPAY_PUBLIC_KEY_ID is not set: give PUB_KEY_ID_…, or, for a merchant without a "
            "public key, WECHATPAY_PLATFORM_CERTS=fetch."
        )
    products = _products(values, "WECHATPAY_PRODUCTS", WECHATPAY_PRODUCTS)
    return WeChatPaySettings(
        base_url=url(values, "WECHATPAY_BASE_URL", "https://api.mch.weixin.qq.com"),
        mchid=_identifier(values, "WECHATPAY_MCHID", "the merchant number"),
        appid=_identifier(values, "WECHATPAY_APPID", "the application bound to the merchant"),
        cert_serial=required(
            values, "WECHATPAY_CERT_SERIAL", "the merchant certificate's serial number"
        ),
        private_key_pem=file_text(values, "WECHATPAY_PRIVATE_KEY_FILE"),
        apiv3_key=file_text(values, "WECHATPAY_APIV3_KEY_FILE").strip(),
        public_key_id=public_key_id,
        public_key_pem=file_text(values, "WECHATPAY_PUBLIC_KEY_FILE") if public_key_id else "",
        platform_certs_pem=(
            file_text(values, "WECHATPAY_PLATFORM_CERTS") if certs not in {"", FETCH} else ""
        ),
        fetch_certs=certs == FETCH,
        products=products,
        app_secret=(
            file_text(values, "WECHATPAY_APP_SECRET_FILE").strip() if "jsapi" in products else ""
        ),
        authorize_url=url(values, "WECHATPAY_AUTHORIZE_URL", WeChatPaySettings.authorize_url),
        openid_url=url(values, "WECHATPAY_OPENID_URL", WeChatPaySettings.openid_url),
    )


def load_alipay(values: Mapping[str, str]) -> AlipaySettings:
    """The ALIPAY_ variables. Raises SettingsError."""
    by_key = bool(values.get("ALIPAY_PUBLIC_KEY_FILE", "").strip())
    by_certs = bool(values.get("ALIPAY_CERT_FILE", "").strip())
    if not by_key and not by_certs:
        raise SettingsError(
            "ALIPAY_PUBLIC_KEY_FILE is not set: give the path of Alipay's public key, or, in "
            "certificate mode, ALIPAY_APP_CERT_FILE, ALIPAY_CERT_FILE and ALIPAY_ROOT_CERT_FILE."
        )
    if by_key and by_certs:
        raise SettingsError(
            "ALIPAY_PUBLIC_KEY_FILE and ALIPAY_CERT_FILE are both set: an application is either in "
            "public-key mode or in certificate mode; leave one of them out."
        )
    return AlipaySettings(
        base_url=url(values, "ALIPAY_BASE_URL", "https://openapi.alipay.com/gateway.do"),
        app_id=_identifier(values, "ALIPAY_APP_ID", "the application's number"),
        seller_id=_identifier(values, "ALIPAY_SELLER_ID", "the seller's account, 2088…"),
        private_key_pem=file_text(values, "ALIPAY_PRIVATE_KEY_FILE"),
        public_key_pem=file_text(values, "ALIPAY_PUBLIC_KEY_FILE") if by_key else "",
        app_cert_pem=file_text(values, "ALIPAY_APP_CERT_FILE") if by_certs else "",
        alipay_cert_pem=file_text(values, "ALIPAY_CERT_FILE") if by_certs else "",
        root_cert_pem=file_text(values, "ALIPAY_ROOT_CERT_FILE") if by_certs else "",
        products=_products(values, "ALIPAY_PRODUCTS", ALIPAY_PRODUCTS),
        precreate_product_code=choice(
            values, "ALIPAY_PRECREATE_PRODUCT_CODE", PRECREATE_PRODUCT_CODES
        ),
    )


def _identifier(values: Mapping[str, str], name: str, hint: str) -> str:
    """A number that a gateway gave: of at most 32 characters at both (WeChat Pay, `mchid` and
    `appid`; Alipay, `app_id` and `seller_id`). What is longer is not quoted: it may be a key."""
    value = required(values, name, hint)
    if len(value) > 32:
        raise SettingsError(f"{name} has more than 32 characters: give {hint}.")
    return value


def _products(values: Mapping[str, str], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The products that the merchant has contracts for; the QR code alone where none is named."""
    wanted = [one.strip().lower() for one in values.get(name, "").split(",") if one.strip()]
    strange = [one for one in wanted if one not in known]
    if strange:
        raise SettingsError(
            f"{name}: {strange[0]!r} is none; give one or more of {', '.join(known)}, with commas "
            "between them."
        )
    return tuple(one for one in known if one in wanted) or known[:1]
