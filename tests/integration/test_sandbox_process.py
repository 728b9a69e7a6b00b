"""The sandbox as processes: keys at the first start, gunicorn, kill -9, a clean end."""

import ast
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from dotenv import dotenv_values

from config.settings import load_settings
from tests.integration.sandbox_kit import Merchant, decrypted, number, receiving
from tests.processes import ManagedProcess, free_port, wait_http, wait_until

ROOT = Path(__file__).resolve().parents[2]


def keys(data: Path, base_url: str) -> None:
    """Run `python -m sandbox keys`."""
    command = [sys.executable, "-m", "sandbox", "keys", "--data", str(data)]
    subprocess.run([*command, "--base-url", base_url], cwd=ROOT, check=True, capture_output=True)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_keys_are_made_once_and_only_the_owner_can_read_them(tmp_path: Path) -> None:
    keys(tmp_path, "http://127.0.0.1:8001")
    first = content(tmp_path)
    keys(tmp_path, "http://127.0.0.1:8001")
    assert content(tmp_path) == first
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_another_base_url_changes_the_settings_but_no_key(tmp_path: Path) -> None:
    keys(tmp_path, "http://127.0.0.1:8001")
    first = content(tmp_path)
    keys(tmp_path, "http://127.0.0.1:9001/")
    second = content(tmp_path)
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"merchant.env", "merchant.certs.env"}
    env = Merchant(tmp_path).env
    assert env["WECHATPAY_BASE_URL"] == "http://127.0.0.1:9001"
    assert env["ALIPAY_BASE_URL"] == "http://127.0.0.1:9001/gateway.do"


def test_many_first_starts_at_once_make_one_set_of_keys(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox", "keys", "--data", str(tmp_path)]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]
    merchant, gateway = Merchant(tmp_path), tmp_path / "gateway"
    for stem, private in (("wechatpay", merchant.private_key), ("alipay", merchant.app_key)):
        known = load_pem_public_key((gateway / f"{stem}_merchant_public_key.pem").read_bytes())
        assert known == private.public_key()
        platform = (gateway / f"{stem}_platform_key.pem").read_bytes()
        ours = load_pem_private_key(platform, None).public_key()
        assert ours == merchant.public_key(f"{stem.upper()}_PUBLIC_KEY_FILE")
    assert not list(tmp_path.rglob(".*.pem.*"))


def test_the_shops_settings_accept_merchant_env(tmp_path: Path) -> None:
    data = tmp_path / "a folder"
    keys(data, "http://127.0.0.1:8001")
    env = {
        **Merchant(data).env,
        "DATABASE_URL": "sqlite://",
        "LOCK_URL": "file:///tmp/locks",
        "SECRET_KEY": "x" * 32,
        "PUBLIC_URL": "http://127.0.0.1:8000",
    }
    settings = load_settings(env)
    assert len(settings.wechatpay.apiv3_key.encode()) == 32
    assert settings.wechatpay.public_key_id.startswith("PUB_KEY_ID_")


@pytest.mark.parametrize(
    "arguments", [["--base-url", "nonsense"], ["--base-url", "http://127.0.0.1:1/path"]]
)
def test_a_base_url_that_cannot_work_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "sandbox", "keys", "--data", str(tmp_path), *arguments]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "SANDBOX_PUBLIC_URL" in done.stderr
    assert "Traceback" not in done.stderr


def served(data: Path, port: int, scale: str) -> ManagedProcess:
    """`python -m sandbox serve`, ready."""
    process = ManagedProcess(
        "sandbox",
        [
            *(sys.executable, "-m", "sandbox", "serve", "--data", str(data)),
            *("--port", str(port), "--time-scale", scale),
        ],
        log=data / "sandbox.log",
        env=dict(os.environ),
        cwd=ROOT,
    )
    process.start()
    wait_http(f"http://127.0.0.1:{port}/healthz", process=process)
    return process


def test_killed_with_a_notice_waiting_it_sends_it_after_the_restart(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with receiving((500, b"not yet")) as receiver:
        process = served(tmp_path, port, "0.2")
        merchant, out_trade_no = Merchant(tmp_path), number()
        merchant.wechatpay(receiver.url).pay("测试商品", out_trade_no, {"total": 5})
        requests.post(f"{url}/admin/trades/{out_trade_no}/pay", timeout=20)
        wait_until(lambda: len(receiver.got) >= 1, "the first notice came")
        process.kill9()
        before = len(receiver.got)
        receiver.answers = [(200, b"")]
        with served(tmp_path, port, "0.2"):
            # No request but the health check is made: the notifier goes on by itself.
            wait_until(lambda: len(receiver.got) > before, "another notice came")
        notices = [json.loads(body) for body in receiver.bodies()]
    assert notices[0]["id"] == notices[-1]["id"]
    assert decrypted(merchant, notices[-1])["out_trade_no"] == out_trade_no


def test_sigterm_ends_it_with_status_0_and_keeps_the_books(tmp_path: Path) -> None:
    port = free_port()
    process = served(tmp_path, port, "1")
    merchant, out_trade_no = Merchant(tmp_path), number()
    merchant.wechatpay().pay("测试商品", out_trade_no, {"total": 5})
    process.send(signal.SIGTERM, group=False)
    assert process.wait() == 0
    assert "Traceback" not in process.log_text()
    with served(tmp_path, port, "1"):
        status, text = merchant.wechatpay().query(out_trade_no=out_trade_no)
        assert (status, json.loads(text)["trade_state"]) == (200, "NOTPAY")


def test_alone_it_makes_what_is_missing_and_says_where_everything_is(tmp_path: Path) -> None:
    # A copy of the folder, with nothing of the project beside it.
    shutil.copytree(ROOT / "sandbox", tmp_path / "sandbox")
    port, data = free_port(), tmp_path / "somewhere" / "new"
    process = ManagedProcess(
        "sandbox",
        [*(sys.executable, "-m", "sandbox", "--port", str(port), "--data", str(data))],
        log=tmp_path / "sandbox.log",
        env=dict(os.environ),
        cwd=tmp_path,
    )
    with process:
        url = f"http://127.0.0.1:{port}"
        wait_http(f"{url}/healthz", process=process)
        for part in (f"{url}/", str(data / "merchant.env"), "docs/sandbox.md"):
            assert part in process.log_text()
        status, _ = Merchant(data).wechatpay().pay("测试商品", number(), {"total": 5})
        assert status == 200
        assert requests.get(f"{url}/portal/wechatpay", timeout=20).status_code == 200


def test_its_requirements_are_all_that_it_imports_at_the_projects_versions() -> None:
    lines = (ROOT / "sandbox" / "requirements.txt").read_text().splitlines()
    named = [line for line in lines if line and not line.startswith("#")]
    assert set(named) <= set((ROOT / "requirements.txt").read_text().splitlines())
    packages = {line.partition("==")[0].lower() for line in named}
    imported = {
        name.partition(".")[0]
        for path in (ROOT / "sandbox").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    # Werkzeug comes with Flask; gunicorn is started, not imported.
    outside = imported - set(sys.stdlib_module_names) - {"sandbox"}
    assert outside | {"gunicorn"} == packages | {"werkzeug"}


def test_another_merchant_has_keys_and_settings_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox", "keys", "--data", str(tmp_path), "--merchant"]
    done = subprocess.run([*command, "books"], cwd=ROOT, check=True, capture_output=True, text=True)
    env = Path(done.stdout.strip())
    assert env == tmp_path / "merchants" / "books.env"
    names = dotenv_values(env)
    assert names["WECHATPAY_MCHID"] != Merchant(tmp_path).env["WECHATPAY_MCHID"]
    wrong = subprocess.run(
        [*command, "../x"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)


def test_ordered_faults_work_under_gunicorn_too(tmp_path: Path) -> None:
    port = free_port()
    with served(tmp_path, port, "1") as process:
        merchant, out_trade_no = Merchant(tmp_path), number()
        for kind, effect in (("drop_before_effect", 404), ("drop_after_effect", 200)):
            order = {"channel": "wechatpay", "op": "prepay", "kind": kind}
            requests.post(f"http://127.0.0.1:{port}/admin/faults", json=order, timeout=20)
            with pytest.raises(requests.ConnectionError):
                merchant.wechatpay().pay("测试商品", out_trade_no, {"total": 5})
            assert merchant.wechatpay().query(out_trade_no=out_trade_no)[0] == effect
        assert "Traceback" not in process.log_text()
