"""The sandbox's small rules: money, moments, schedules, configuration, independence."""

import ast
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import clock, notices
from sandbox.config import ConfigError, SandboxConfig, config_from_env
from sandbox.money import MAX_FEN, parse_yuan, yuan
from sandbox.notices import Delivery, Notice, Wish
from sandbox.store import Store
from sandbox.wechatpay_sign import SignError, parse_authorization


@given(st.integers(1, MAX_FEN))
def test_fen_written_as_yuan_and_read_again_are_the_same(fen: int) -> None:
    assert parse_yuan(yuan(fen)) == fen
    assert parse_yuan(Decimal(fen) / 100) in {fen, None}


@pytest.mark.parametrize(
    ("text", "fen"), [("88.88", 8_888), ("88.8", 8_880), ("88", 8_800), ("0.01", 1), (7, 700)]
)
def test_yuan_are_read_exactly(text: object, fen: int) -> None:
    assert parse_yuan(text) == fen


@pytest.mark.parametrize(
    "value", ["0", "0.001", "-1", "+1", "1,0", " 1", "1 ", "1.", ".5", "1e2", "", None, True, 1.5]
)
def test_what_is_no_amount_is_none(value: object) -> None:
    assert parse_yuan(value) is None


@given(st.integers(0, 4_000_000_000))
def test_moments_written_in_both_ways_are_read_again_to_the_second(second: int) -> None:
    ms = second * 1_000 + 999
    assert clock.parse_rfc3339(clock.rfc3339(ms)) == second * 1_000
    assert clock.parse_plain(clock.plain(ms)) == second * 1_000


@given(st.text())
def test_any_text_is_a_moment_or_none(text: str) -> None:
    for read in (clock.parse_rfc3339, clock.parse_plain):
        moment = read(text)
        assert moment is None or isinstance(moment, int)


@given(st.text())
def test_any_authorization_header_is_read_or_refused(text: str) -> None:
    for header in (text, f"WECHATPAY2-SHA256-RSA2048 {text}"):
        try:
            fields = parse_authorization(header)
        except SignError:
            continue
        assert len(fields) == 5


def waits_of(tmp_path: Path, channel: str, scale: float) -> list[int]:
    """The waits in ms after each failed delivery of a notice, until the gateway gives up."""
    store = Store(tmp_path / "books.sqlite3")
    with store.write() as tx:
        tx.execute(
            "INSERT INTO trades VALUES (1, ?, 'default', 'native', 'N', 's', '', 1, 'u', '', '',"
            " '', '', 0, 'd', 'paid', 'X', 0, 0, 0, NULL, NULL, NULL)",
            (channel,),
        )
        notices.enqueue(
            tx,
            trade_id=1,
            channel=channel,
            kind="payment",
            url="http://127.0.0.1:9/",
            payload={},
            wish=Wish(),
            now=0,
        )
    waits: list[int] = []
    now = 0
    while True:
        with store.write() as tx:
            (claimed,) = notices.claim_due(tx, 10, now)
            assert notices.claim_due(tx, 10, now) == []  # nobody else gets it meanwhile
            failed = Delivery(at_ms=now, duration_ms=1, http_status=500, result="refused")
            notices.record(tx, claimed, failed, scale, now)
            (after,) = notices.of_trade(tx, 1)
        if after.next_at_ms is None:
            assert after.state == "given_up"
            store.close()
            return waits
        waits.append(after.next_at_ms - now)
        now = after.next_at_ms


def test_wechat_pay_retries_on_the_documented_schedule(tmp_path: Path) -> None:
    m, h = 60, 3_600
    documented = [15, 15, 30, 3 * m, 10 * m, 20 * m, 30 * m, 30 * m, 30 * m, h]
    documented += [3 * h, 3 * h, 3 * h, 6 * h, 6 * h]
    assert waits_of(tmp_path, "wechatpay", 1) == [s * 1_000 for s in documented]


def test_alipay_retries_on_the_documented_schedule_scaled(tmp_path: Path) -> None:
    m, h = 60, 3_600
    documented = [0, 0, 0, 4 * m, 10 * m, 10 * m, h, 2 * h, 6 * h, 15 * h]
    assert waits_of(tmp_path, "alipay", 0.01) == [s * 10 for s in documented]


def test_asking_for_a_sending_while_one_is_under_way_is_not_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "books.sqlite3")
    with store.write() as tx:
        claimed = _claimed(tx)
        notices.send_again(tx, 1, 7)
        good = Delivery(at_ms=0, duration_ms=1, http_status=200, result="acknowledged")
        notices.record(tx, claimed, good, 1, 9)
        (after,) = notices.of_trade(tx, 1)
    store.close()
    assert (after.state, after.next_at_ms) == ("delivered", 7)


def _claimed(tx: sqlite3.Connection) -> Notice:
    tx.execute(
        "INSERT INTO trades VALUES (1, 'alipay', 'default', 'precreate', 'N', 's', '', 1, 'u', '',"
        " '', '', '', 0, 'd', 'paid', 'X', 0, 0, 0, NULL, NULL, NULL)"
    )
    notices.enqueue(
        tx,
        trade_id=1,
        channel="alipay",
        kind="payment",
        url="http://127.0.0.1:9/",
        payload={},
        wish=Wish(),
        now=0,
    )
    (claimed,) = notices.claim_due(tx, 1, 0)
    return claimed


def test_a_failed_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "books.sqlite3")

    def fail() -> None:
        with store.write() as tx:
            tx.execute("INSERT INTO balances VALUES ('alipay', 'default', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with store.read() as tx:
        assert tx.execute("SELECT count(*) FROM balances").fetchone()[0] == 0
    store.close()


@pytest.mark.parametrize(
    "env",
    [
        {"SANDBOX_TIME_SCALE": "fast"},
        {"SANDBOX_TIME_SCALE": "0"},
        {"SANDBOX_TIME_SCALE": "nan"},
        {"SANDBOX_TIME_SCALE": "-1"},
        {"SANDBOX_PUBLIC_URL": "127.0.0.1:8001"},
        {"SANDBOX_PUBLIC_URL": "http://127.0.0.1:8001/wechatpay"},
    ],
)
def test_a_wrong_configuration_names_its_variable(env: dict[str, str]) -> None:
    (name,) = env
    with pytest.raises(ConfigError, match=name):
        config_from_env(env)


def test_the_environment_is_read(tmp_path: Path) -> None:
    env = {"SANDBOX_DATA": str(tmp_path), "SANDBOX_TIME_SCALE": "0.5"}
    config = config_from_env({**env, "SANDBOX_PUBLIC_URL": "http://10.0.0.1:9/"})
    expected = SandboxConfig(data=tmp_path, time_scale=0.5, public_url="http://10.0.0.1:9/")
    assert config == expected
    assert config.base_url == "http://10.0.0.1:9"
    assert config.scaled_ms(15) == 7_500


def test_the_sandbox_imports_nothing_of_the_shop() -> None:
    folder = Path(__file__).resolve().parents[2] / "sandbox"
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found.add((node.module or "").partition(".")[0])
    assert "sandbox" in found
    assert found.isdisjoint({"shop", "statemachine", "locks", "config", "tests"})
