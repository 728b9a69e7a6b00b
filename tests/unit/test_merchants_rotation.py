"""Keys change while the shop runs: what is called keeps its keys, and never has two versions."""

import os
import threading
import time
from collections.abc import Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.merchants import AccountSettings, read_merchant_file
from config.settings import Settings, SettingsError
from shop.clock import SystemClock
from shop.gateways.base import Gateway
from shop.gateways.registry import DEFAULT_MERCHANT, Gateways, RotatingGateways
from shop.gateways.wechatpay import WeChatPay
from shop.merchants.errors import MerchantUnusable, UnknownMerchant
from shop.merchants.service import MerchantCredentials
from tests.integration.keys import KeyPair, alipay_keys, new_key_pair, wechatpay_keys

THREADS = 8
CHANNELS = ("wechatpay", "alipay")


@dataclass
class Shelf:
    """Credentials that are no more than a number, for how the registry deals with them."""

    version: int = 0
    broken: set[int] = field(default_factory=set)
    gone: bool = False
    away: bool = False
    reads: int = 0

    def stamp(self, merchant: str) -> Hashable:
        if self.away:
            raise ConnectionError("the books are away")
        if self.gone or merchant != "press":
            raise UnknownMerchant(merchant=merchant)
        return self.version

    def read(self, merchant: str) -> int:
        self.reads += 1
        if self.version in self.broken:
            raise ValueError(f"version {self.version} is no key")
        return self.version


def numbered(merchant: str, version: int) -> Mapping[str, Gateway]:
    """Two gateways that say which version they were made of."""
    return {
        channel: cast("Gateway", SimpleNamespace(channel=channel, version=version))
        for channel in CHANNELS
    }


def version_of(gateways: Gateways) -> int:
    """The version in use; both channels have the same."""
    found = {cast("SimpleNamespace", one).version for one in gateways.of("press").values()}
    assert len(found) == 1
    return int(found.pop())


class Told:
    """What a registry tells."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, merchant: str, trouble: str) -> None:
        self.said.append(trouble)


@given(st.lists(st.tuples(st.sampled_from(["new", "broken", "away", "back"]), st.booleans())))
def test_the_newest_credentials_that_can_be_used_are_in_use(steps: list[tuple[str, bool]]) -> None:
    shelf, told = Shelf(), Told()
    gateways = RotatingGateways(shelf, numbered, told=told, look_every_s=0.0)
    expected = version_of(gateways)
    for step, look in steps:
        if step in {"new", "broken"}:
            shelf.version += 1
            if step == "broken":
                shelf.broken.add(shelf.version)
        else:
            shelf.away = step == "away"
        if look:
            if not shelf.away and shelf.version not in shelf.broken:
                expected = shelf.version
            assert version_of(gateways) == expected


def test_what_is_wrong_is_told_once_and_the_keys_before_stay() -> None:
    shelf, told = Shelf(), Told()
    gateways = RotatingGateways(shelf, numbered, told=told, look_every_s=0.0)
    assert version_of(gateways) == 0
    shelf.version, shelf.broken = 1, {1}
    assert [version_of(gateways) for _ in range(5)] == [0] * 5
    assert told.said == ["version 1 is no key"]
    assert gateways.trouble("press") == "version 1 is no key"
    shelf.version = 2
    assert version_of(gateways) == 2
    assert told.said == ["version 1 is no key", ""]
    assert gateways.trouble("press") == ""


def test_a_merchant_whose_first_credentials_are_broken_is_unusable_and_not_unknown() -> None:
    shelf = Shelf(broken={0})
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=0.0)
    with pytest.raises(MerchantUnusable, match="cannot take payments right now"):
        gateways.of("press")
    shelf.version = 1
    assert version_of(gateways) == 1


def test_a_merchant_that_is_gone_is_unknown_at_the_next_look() -> None:
    shelf = Shelf()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=0.0)
    kept = gateways.of("press")
    shelf.gone = True
    with pytest.raises(UnknownMerchant):
        gateways.of("press")
    assert set(kept) == set(CHANNELS)
    with pytest.raises(UnknownMerchant):
        gateways.of("nobody")


def test_credentials_are_looked_at_only_so_often() -> None:
    shelf = Shelf()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=3_600.0)
    assert version_of(gateways) == 0
    shelf.version = 1
    assert version_of(gateways) == 0


def test_credentials_that_change_while_they_are_read_are_read_again() -> None:
    shelf = Shelf()

    class Changing(Shelf):
        def read(self, merchant: str) -> int:
            found = super().read(merchant)
            if self.reads == 1:
                self.version += 1
            return found

    shelf = Changing()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=0.0)
    assert version_of(gateways) == 1


def test_a_slow_reading_holds_up_nobody_who_has_keys() -> None:
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Shelf):
        def read(self, merchant: str) -> int:
            if self.version:
                reading.set()
                assert go_on.wait(60)
            return super().read(merchant)

    shelf = Slow()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=0.0)
    assert version_of(gateways) == 0
    shelf.version = 1
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(version_of, gateways)
        assert reading.wait(60)
        assert [version_of(gateways) for _ in range(100)] == [0] * 100
        go_on.set()
        assert reader.result(60) == 1
    assert version_of(gateways) == 1


def test_threads_that_come_while_the_first_reading_lasts_wait_for_it() -> None:
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Shelf):
        def read(self, merchant: str) -> int:
            reading.set()
            assert go_on.wait(60)
            return super().read(merchant)

    shelf = Slow()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=3_600.0)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(version_of, gateways)
        assert reading.wait(60)
        second = threads.submit(version_of, gateways)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        go_on.set()
        assert (first.result(60), second.result(60)) == (0, 0)
    assert shelf.reads == 1


def test_a_child_that_was_forked_while_another_thread_looked_still_gets_its_keys() -> None:
    reading, go_on = threading.Event(), threading.Event()

    class Slow(Shelf):
        def read(self, merchant: str) -> int:
            if os.getpid() == parent:
                reading.set()
                assert go_on.wait(60)
            return super().read(merchant)

    parent, shelf = os.getpid(), Slow()
    gateways = RotatingGateways(shelf, numbered, told=Told(), look_every_s=0.0)
    with ThreadPoolExecutor(1) as threads:
        reader = threads.submit(version_of, gateways)
        assert reading.wait(60)
        child = os.fork()
        if child == 0:
            try:
                os._exit(7 if version_of(gateways) == 0 else 1)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        go_on.set()
        assert reader.result(60) == 0


# With real files and real keys


class Files:
    """A merchant's file and keys, written as an operator would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "merchants"
        self.folder.mkdir()
        self.count = 0

    def write(self, keys: KeyPair, serial: str) -> None:
        """New keys under new names, then the file that names them, at one stroke."""
        self.count += 1
        wechatpay, alipay = wechatpay_keys(), alipay_keys()
        texts = {
            "WECHATPAY_PRIVATE_KEY_FILE": keys.private_pem,
            "WECHATPAY_APIV3_KEY_FILE": wechatpay.apiv3_key,
            "WECHATPAY_PUBLIC_KEY_FILE": wechatpay.platform.public_pem,
            "ALIPAY_PRIVATE_KEY_FILE": keys.private_pem,
            "ALIPAY_PUBLIC_KEY_FILE": alipay.alipay.public_pem,
        }
        values = {
            "WECHATPAY_MCHID": wechatpay.mchid,
            "WECHATPAY_APPID": wechatpay.appid,
            "WECHATPAY_CERT_SERIAL": serial,
            "WECHATPAY_PUBLIC_KEY_ID": wechatpay.public_key_id,
            "ALIPAY_APP_ID": alipay.app_id,
            "ALIPAY_SELLER_ID": alipay.seller_id,
        }
        for name, text in texts.items():
            values[name] = f"{name.lower()}.{self.count}"
            (self.folder / values[name]).write_text(text)
        lines = "".join(f"{name}={value}\n" for name, value in values.items())
        new = self.folder / "press.new"
        new.write_text(lines)
        new.rename(self.folder / "press.env")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def settings_of(files: Files) -> Settings:
    wechatpay, alipay = wechatpay_keys().settings(), alipay_keys().settings()
    return Settings(
        database_url="sqlite://",
        lock_url="file:///",
        secret_key="s" * 32,
        public_url="http://127.0.0.1",
        wechatpay=wechatpay,
        alipay=alipay,
        merchants_dir=str(files.folder),
    )


def test_eight_threads_never_see_keys_of_two_versions_while_they_are_changed(files: Files) -> None:
    pairs = {serial: new_key_pair() for serial in ("A" * 40, "B" * 40)}
    first, second = pairs
    files.write(pairs[first], first)

    def make(merchant: str, account: AccountSettings) -> Mapping[str, Gateway]:
        assert account.wechatpay is not None
        assert account.alipay is not None
        made = (account.wechatpay, account.alipay)
        return {
            channel: cast("Gateway", SimpleNamespace(made=made, settings=one))
            for channel, one in zip(CHANNELS, made, strict=True)
        }

    credentials = MerchantCredentials(settings_of(files))
    gateways = RotatingGateways(credentials, make, told=Told(), look_every_s=0.0)
    done, seen = threading.Event(), set[str]()

    def look() -> None:
        while not done.is_set():
            both = cast("Mapping[str, SimpleNamespace]", gateways.of("press"))
            wechatpay, alipay = (both[channel].settings for channel in CHANNELS)
            pair = pairs[wechatpay.cert_serial]
            assert wechatpay.private_key_pem == alipay.private_key_pem == pair.private_pem
            seen.add(wechatpay.cert_serial)

    with ThreadPoolExecutor(THREADS) as threads:
        lookers = [threads.submit(look) for _ in range(THREADS)]
        try:
            for serial in [second, first] * 4:
                seen.clear()
                files.write(pairs[serial], serial)
                deadline = time.monotonic() + 60
                while serial not in seen and time.monotonic() < deadline:
                    time.sleep(0.001)
                assert serial in seen
        finally:
            done.set()
        for one in lookers:
            one.result(60)


def test_a_real_gateway_is_made_anew_when_its_file_changes_and_kept_when_it_breaks(
    files: Files,
) -> None:
    def make(merchant: str, account: AccountSettings) -> Mapping[str, Gateway]:
        assert account.wechatpay is not None
        return {
            "wechatpay": WeChatPay(
                account.wechatpay,
                connect_timeout_ms=100,
                read_timeout_ms=100,
                clock=SystemClock(),
            )
        }

    told = Told()
    credentials = MerchantCredentials(settings_of(files))
    files.write(wechatpay_keys().merchant, "A" * 40)
    gateways = RotatingGateways(credentials, make, told=told, look_every_s=0.0)
    before = gateways.of("press")["wechatpay"]
    assert gateways.of("press")["wechatpay"] is before
    files.write(new_key_pair(), "B" * 40)
    after = gateways.of("press")["wechatpay"]
    assert after is not before
    (files.folder / f"wechatpay_private_key_file.{files.count}").write_text("no key")
    assert gateways.of("press")["wechatpay"] is after
    (files.folder / "press.env").write_text("SECRET_KEY=of-the-shop\n")
    assert gateways.of("press")["wechatpay"] is after
    assert told.said[0] == ""
    assert "SECRET_KEY" in told.said[-1]
    (files.folder / "press.env").unlink()


def test_the_default_merchants_file_takes_the_place_of_the_environment(files: Files) -> None:
    files.write(wechatpay_keys().merchant, "A" * 40)
    (files.folder / "press.env").rename(files.folder / f"{DEFAULT_MERCHANT}.env")
    account = MerchantCredentials(settings_of(files)).read(DEFAULT_MERCHANT)
    assert account.wechatpay is not None
    assert account.wechatpay.cert_serial == "A" * 40


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PATH=/bin\n", "sets PATH"),
        ("WECHATPAY_MCHID\n", "WECHATPAY_MCHID has no value"),
        ("WECHATPAY_MCHID=\xff\n", "is no text"),
    ],
)
def test_a_merchants_file_that_cannot_be_read_is_refused_with_a_sentence(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "press.env"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=said):
        read_merchant_file(path)
