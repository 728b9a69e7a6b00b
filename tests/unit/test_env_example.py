""".env.example lists every setting there is, with its true default."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from config.gateways import load_alipay, load_wechatpay
from config.settings import Settings, WebSettings, load_settings, load_web_settings
from sandbox.config import config_from_env

ROOT = Path(__file__).resolve().parents[2]
# Read by scripts/run.py alone.
OF_THE_RUN = {"DATA_DIR"}
# Files of other modes than the one that `complete` is in; what is shown are examples.
ALIPAY_CERTS = ("ALIPAY_APP_CERT_FILE", "ALIPAY_CERT_FILE", "ALIPAY_ROOT_CERT_FILE")
OTHER_FILES = {*ALIPAY_CERTS, "WECHATPAY_APP_SECRET_FILE"}


class Recording(Mapping[str, str]):
    """An environment that notes which names it is asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_ = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


@pytest.fixture
def listed() -> dict[str, str]:
    """The names in .env.example with what stands beside them."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, flags=re.MULTILINE))


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, str]:
    """The least with which the settings can be read: whatever has no default."""
    key = tmp_path / "key"
    key.write_text("k" * 32)
    values = {name: str(key) for name in _key_files()}
    values |= {name: "1900000000" for name in ("WECHATPAY_MCHID", "ALIPAY_APP_ID")}
    values |= {name: "wx0000000000000001" for name in ("WECHATPAY_APPID",)}
    values |= {"WECHATPAY_CERT_SERIAL": "A" * 40, "WECHATPAY_PUBLIC_KEY_ID": "PUB_KEY_ID_0"}
    values |= {"ALIPAY_SELLER_ID": "2088000000000000", "SECRET_KEY": "s" * 40}
    return values | {
        "DATABASE_URL": "sqlite:////tmp/x.db",
        "LOCK_URL": "file:///tmp/locks",
        "PUBLIC_URL": "http://127.0.0.1:8000",
    }


def _key_files() -> list[str]:
    return [
        *("WECHATPAY_PRIVATE_KEY_FILE", "WECHATPAY_APIV3_KEY_FILE", "WECHATPAY_PUBLIC_KEY_FILE"),
        *("ALIPAY_PRIVATE_KEY_FILE", "ALIPAY_PUBLIC_KEY_FILE"),
    ]


@pytest.fixture
def other(complete: dict[str, str]) -> dict[str, str]:
    """The same with every file of the other modes."""
    key = complete["ALIPAY_PUBLIC_KEY_FILE"]
    values = complete | dict.fromkeys(OTHER_FILES, key) | {"WECHATPAY_PRODUCTS": "jsapi"}
    del values["ALIPAY_PUBLIC_KEY_FILE"]
    return values


def test_every_setting_is_listed_and_nothing_else(
    listed: dict[str, str], complete: dict[str, str], other: dict[str, str]
) -> None:
    shop, also, web, sandbox = (Recording(values) for values in (complete, other, {}, {}))
    load_web_settings(web)
    load_settings(shop)
    load_settings(also)
    for account in (shop, also):
        # Of these the settings take what is there, as a merchant's file holds them, too.
        load_wechatpay(account)
        load_alipay(account)
    config_from_env(sandbox)
    assert set(listed) == shop.asked | also.asked | sandbox.asked | web.asked | OF_THE_RUN


def test_the_defaults_shown_are_the_defaults(
    listed: dict[str, str], complete: dict[str, str]
) -> None:
    bare = load_settings(complete)
    shown = {
        name: value
        for name, value in listed.items()
        if name not in complete.keys() | OTHER_FILES and value
    }
    assert load_settings({**complete, **shown}) == bare
    numbers = {name for name in shown if hasattr(Settings, name.lower())}
    assert len(numbers) > 5
    assert all(shown[name] == str(getattr(bare, name.lower())) for name in numbers)
    sandbox = {name: value for name, value in shown.items() if name.startswith("SANDBOX_")}
    assert config_from_env(sandbox) == config_from_env({})
    web = load_web_settings({})
    assert web == WebSettings()
    assert load_web_settings(shown) == web
