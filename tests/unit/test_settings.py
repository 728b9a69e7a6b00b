"""Every wrong setting is refused in one sentence that names it and says how to mend it."""

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from config.merchants import read_merchant_file
from config.settings import (
    DATABASE_DRIVERS,
    LOG_LEVELS,
    SettingsError,
    load_settings,
    load_web_settings,
)
from config.values import file_text

ROOT = Path(__file__).resolve().parents[2]
KEY_FILES = (
    *("WECHATPAY_PRIVATE_KEY_FILE", "WECHATPAY_APIV3_KEY_FILE", "WECHATPAY_PUBLIC_KEY_FILE"),
    *("ALIPAY_PRIVATE_KEY_FILE", "ALIPAY_PUBLIC_KEY_FILE"),
)
NAMES = {
    "DATABASE_URL": "sqlite:////srv/payonce.db",
    "LOCK_URL": "file:///srv/locks",
    "WECHATPAY_MCHID": "1900000000",
    "WECHATPAY_APPID": "wx0000000000000001",
    "WECHATPAY_CERT_SERIAL": "A" * 40,
    "WECHATPAY_PUBLIC_KEY_ID": "PUB_KEY_ID_0",
    "ALIPAY_APP_ID": "2021000000000000",
    "ALIPAY_SELLER_ID": "2088000000000000",
    "SECRET_KEY": "s" * 40,
}


@pytest.fixture
def complete(tmp_path: Path) -> dict[str, str]:
    """Settings that can be read."""
    key = tmp_path / "key"
    key.write_text("k" * 32)
    return {**NAMES, "PUBLIC_URL": "http://127.0.0.1:8000", **dict.fromkeys(KEY_FILES, str(key))}


def refusal(values: dict[str, str]) -> str:
    """What is said of these settings: one line, one sentence."""
    with pytest.raises(SettingsError) as refused:
        load_settings(values)
    said = str(refused.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def test_complete_settings_are_read(complete: dict[str, str]) -> None:
    settings = load_settings(complete)
    assert settings.database_url == NAMES["DATABASE_URL"]
    assert settings.log_level == "INFO"


@pytest.mark.parametrize("name", [*NAMES, *KEY_FILES])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_setting_that_has_no_default_must_be_given(
    name: str, value: str | None, complete: dict[str, str]
) -> None:
    del complete[name]
    said = refusal(complete if value is None else {**complete, name: value})
    assert said.startswith(f"{name} is not set: give ")


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, "refuse"), ("", "refuse"), ("refuse", "refuse"), (" Database", "database")],
)
def test_what_happens_without_the_lock_service_is_a_choice(
    complete: dict[str, str], given: str | None, meant: str
) -> None:
    chosen = {} if given is None else {"LOCK_UNAVAILABLE": given}
    assert load_settings({**complete, **chosen}).lock_unavailable == meant


def test_another_choice_than_those_is_refused(complete: dict[str, str]) -> None:
    said = refusal({**complete, "LOCK_UNAVAILABLE": "ignore"})
    assert said == "LOCK_UNAVAILABLE='ignore': give one of refuse, database."


@pytest.mark.parametrize("level", [*LOG_LEVELS, "debug", "Warning"])
def test_a_log_level_is_taken_in_any_case(level: str, complete: dict[str, str]) -> None:
    assert load_settings({**complete, "LOG_LEVEL": level}).log_level == level.upper()


@pytest.mark.parametrize("level", ["loud", "20", "INFO,DEBUG"])
def test_a_log_level_that_is_none_is_answered_with_those_there_are(
    level: str, complete: dict[str, str]
) -> None:
    said = refusal({**complete, "LOG_LEVEL": level})
    assert said == f"LOG_LEVEL={level!r}: give one of DEBUG, INFO, WARNING, ERROR, CRITICAL."


@pytest.mark.parametrize("driver", DATABASE_DRIVERS)
def test_a_database_of_a_known_kind_is_taken_as_it_is_written(
    driver: str, complete: dict[str, str]
) -> None:
    url = f"{driver}://shop:p%40ss@db/payonce"
    assert load_settings({**complete, "DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize(
    "url", ["foo", "secret", "sqlite", "postgresql+psycopg://x:secret@h:abc/d"]
)
def test_what_is_no_database_address_is_answered_with_examples(
    url: str, complete: dict[str, str]
) -> None:
    said = refusal({**complete, "DATABASE_URL": url})
    assert said.startswith("DATABASE_URL is not the address of a database: give for example ")
    assert "secret" not in said


@pytest.mark.parametrize(
    ("scheme", "written"),
    [
        ("postgres", "write postgresql+psycopg://… instead"),
        ("postgresql", "write postgresql+psycopg://… instead"),
        ("postgresql+psycopg2", "write postgresql+psycopg://… instead"),
        ("mysql", "write mysql+pymysql://… instead"),
        ("mysql+mysqldb", "write mysql+pymysql://… instead"),
        ("mariadb", "write mariadb+pymysql://… instead"),
        ("sqlite+aiosqlite", "write sqlite://… instead"),
        ("oracle", " or ".join(f"{driver}://" for driver in DATABASE_DRIVERS)),
    ],
)
def test_another_driver_is_answered_with_the_right_one(
    scheme: str, written: str, complete: dict[str, str]
) -> None:
    said = refusal({**complete, "DATABASE_URL": f"{scheme}://shop:secret@db/payonce"})
    assert said.startswith(f"DATABASE_URL begins with {scheme}://: ")
    assert written in said
    assert "secret" not in said


def test_a_short_secret_key_is_refused_and_not_shown(complete: dict[str, str]) -> None:
    said = refusal({**complete, "SECRET_KEY": "shortkey"})
    assert said == "SECRET_KEY is too short: give at least 32 random characters."


@pytest.mark.parametrize("name", ["PUBLIC_URL", "WECHATPAY_BASE_URL", "ALIPAY_BASE_URL"])
@pytest.mark.parametrize(
    "url", ["ftp://x", "shop.example", "http://", "http://[x", "http://h:abc", "http://h:0", "//h"]
)
def test_an_address_must_be_a_full_one(name: str, url: str, complete: dict[str, str]) -> None:
    said = refusal({**complete, name: url})
    assert said == f"{name}={url.rstrip('/')!r}: give a full http:// or https:// address."


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("LOCK_LEASE_MS", 1_000, 600_000),
        ("LOCK_WAIT_MS", 0, 30_000),
        ("WEBHOOK_LOCK_WAIT_MS", 0, 4_000),
        ("GATEWAY_CONNECT_TIMEOUT_MS", 100, 30_000),
        ("GATEWAY_READ_TIMEOUT_MS", 100, 60_000),
        ("GATEWAY_CONCURRENCY", 1, 1_000),
        ("GATEWAY_FAILURES", 1, 1_000),
        ("GATEWAY_REST_MS", 100, 600_000),
        ("ORDER_EXPIRY_S", 120, 604_800),
        ("SWEEP_FIRST_MS", 100, 600_000),
        ("SWEEP_INTERVAL_MS", 50, 600_000),
    ],
)
def test_a_number_must_lie_within_its_bounds(
    name: str, low: int, high: int, complete: dict[str, str]
) -> None:
    for bound in (low, high):
        settings = load_settings({**complete, name: str(bound)})
        assert getattr(settings, name.lower()) == bound
    for text in (str(low - 1), str(high + 1), "abc", "1.5", "", "²", "９０００", "9" * 5_000):
        said = refusal({**complete, name: text})
        assert said == f"{name}={text!r}: give a whole number from {low} to {high}."


@pytest.mark.parametrize(("threads", "calls"), [(1, 1), (2, 1), (8, 3), (16, 7)])
def test_two_gateways_that_hang_leave_threads_for_everything_else(
    threads: int, calls: int, complete: dict[str, str]
) -> None:
    derived = load_settings({**complete, "WEB_THREADS": str(threads)})
    assert derived.gateway_concurrency == calls
    assert derived.gateway_concurrency_of_all == max(1, threads - 2)
    chosen = {**complete, "WEB_THREADS": str(threads), "GATEWAY_CONCURRENCY": "5"}
    settings = load_settings(chosen)
    assert settings.gateway_concurrency == 5
    assert settings.gateway_concurrency_of_all == max(5, threads - 2)


@pytest.mark.parametrize("name", KEY_FILES)
def test_a_key_file_must_be_there_and_hold_text(
    name: str, complete: dict[str, str], tmp_path: Path
) -> None:
    missing, empty, binary = tmp_path / "missing", tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe\x00")
    said = {path: refusal({**complete, name: str(path)}) for path in (missing, empty, binary)}
    wanted = "give the path of a PEM file, and not the key itself."
    assert said[missing] == f"{name}: cannot be read (No such file or directory); {wanted}"
    assert said[empty] == f"{name}={empty}: the file is empty."
    assert said[binary] == f"{name}={binary}: the file is no text; {wanted}"


@given(st.text(string.ascii_letters + string.digits + "+/=-\n", min_size=16, max_size=2_000))
def test_a_key_in_place_of_its_path_is_not_shown(key: str) -> None:
    values = {"WECHATPAY_APIV3_KEY_FILE": f"A{key}Z"}
    with pytest.raises(SettingsError) as refused:
        file_text(values, "WECHATPAY_APIV3_KEY_FILE")
    assert "not the key itself" in str(refused.value)
    assert key.strip() not in str(refused.value)
    # A traceback would tell the error before it, which names the path.
    assert refused.value.__context__ is None


@pytest.mark.parametrize("name", ["WECHATPAY_MCHID", "WECHATPAY_APPID", "ALIPAY_SELLER_ID"])
def test_a_number_that_no_gateway_gives_is_refused_and_not_shown(
    name: str, complete: dict[str, str]
) -> None:
    said = refusal({**complete, name: "k" * 33})
    assert said.startswith(f"{name} has more than 32 characters: give the ")
    assert "kk" not in said


def test_a_key_pasted_into_a_merchants_file_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "press.env"
    for line in ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC", "c5Xq0Zw3VfX8Jr5nGZ2AbQ=="):
        path.write_text(f"WECHATPAY_MCHID=1\n{line}\n")
        with pytest.raises(SettingsError, match="sets no variable") as refused:
            read_merchant_file(path)
        assert line[:10] not in str(refused.value)


@pytest.mark.parametrize(
    "more", ["/?a=b", "/#there", "/" + "p" * 200], ids=["query", "fragment", "too long"]
)
def test_a_public_address_must_be_one_that_wechat_pay_sends_notices_to(
    complete: dict[str, str], more: str
) -> None:
    for address in (f"https://shop.example{more}", "https://user@shop.example"):
        said = refusal({**complete, "PUBLIC_URL": address})
        assert said.startswith("PUBLIC_URL: WeChat Pay sends no notices there; give scheme")
    load_settings({**complete, "PUBLIC_URL": "https://shop.example/pay/"})


def test_a_default_merchant_that_cannot_exist_ends_the_start(
    complete: dict[str, str], tmp_path: Path
) -> None:
    named = {**complete, "MERCHANT_DEFAULT": "pres", "MERCHANTS_DIR": str(tmp_path)}
    assert refusal(named).startswith("MERCHANT_DEFAULT='pres': there is no such merchant")
    # It may be in the database, which is not asked here.
    load_settings({**named, "CREDENTIALS_KEY": Fernet.generate_key().decode()})
    (tmp_path / "pres.env").write_text("WECHATPAY_MCHID=1\n")
    assert load_settings(named).merchant_default == "pres"


@pytest.mark.parametrize("name", ["PORT", "WEB_WORKERS", "WEB_THREADS"])
@pytest.mark.parametrize("text", ["0", "x", "-1", "99999", "2.5"])
def test_the_web_servers_numbers_are_bounded(name: str, text: str) -> None:
    high = 65_535 if name == "PORT" else 256
    with pytest.raises(SettingsError) as refused:
        load_web_settings({name: text})
    assert str(refused.value) == f"{name}={text!r}: give a whole number from 1 to {high}."


@pytest.mark.parametrize("text", ["", "*", "10.0.0.5", "10.0.0.5, 10.1.0.0/16", "::1"])
def test_proxies_are_addresses_or_networks(text: str) -> None:
    assert load_web_settings({"FORWARDED_ALLOW_IPS": text}).forwarded_allow_ips == text


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("zzz", "zzz"), ("10.0.0.5,proxy", "proxy"), ("10.0.0.5/8", "10.0.0.5/8"), ("::1,", "")],
)
def test_a_proxy_that_is_no_address_is_named(text: str, wrong: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_web_settings({"FORWARDED_ALLOW_IPS": text})
    said = str(refused.value)
    assert said.startswith(f"FORWARDED_ALLOW_IPS={text!r}: {wrong!r} is no IP address or network;")
    assert "\n" not in said


def test_gunicorn_alone_says_the_same_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py", "wsgi:app"],
        cwd=ROOT,
        env={**os.environ, "WEB_WORKERS": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.strip() == "WEB_WORKERS='x': give a whole number from 1 to 256."


def test_metrics_are_off_unless_there_is_a_token(complete: dict[str, str]) -> None:
    assert load_settings(complete).metrics_token == ""
    assert load_settings({**complete, "METRICS_TOKEN": " "}).metrics_token == ""
    given = {"METRICS_TOKEN": "t" * 32, "PROMETHEUS_MULTIPROC_DIR": "/srv/metrics"}
    settings = load_settings({**complete, **given})
    assert (settings.metrics_token, settings.metrics_folder) == ("t" * 32, "/srv/metrics")
    assert "t" * 32 not in repr(settings)


def test_metrics_that_cannot_add_up_or_be_kept_private_are_refused(
    complete: dict[str, str],
) -> None:
    token, folder = "METRICS_TOKEN", "PROMETHEUS_MULTIPROC_DIR"
    assert refusal({**complete, token: "t" * 32}).startswith(f"{folder} is not set, but {token} is")
    assert refusal({**complete, token: "short", folder: "/srv"}).startswith(f"{token} is too short")
    assert refusal({**complete, folder: ""}).startswith(f"{folder} is empty")


@pytest.mark.parametrize(
    ("command", "change", "said"),
    [
        ("seed", {"ORDER_EXPIRY_S": "soon"}, "ORDER_EXPIRY_S='soon': give a whole number"),
        ("--help", {}, "WECHATPAY_PRIVATE_KEY_FILE: not PEM"),
    ],
)
def test_a_command_with_wrong_settings_says_one_sentence(
    complete: dict[str, str], command: str, change: dict[str, str], said: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", command],
        cwd=ROOT,
        env={**os.environ, **complete, **change},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2, run.stderr
    [line] = run.stderr.splitlines()
    assert line.startswith("Error: ")
    assert said in line
