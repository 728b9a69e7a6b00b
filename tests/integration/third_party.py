"""Notices signed, and requests checked, by implementations that none of us wrote.

`tests/node/` pins npm's `alipay-sdk` (official) and `wechatpay-axios-plugin`; the scripts there
take JSON and give JSON. Use the fixture `third_party` before calling anything here: it installs
the packages once per run.
"""

import fcntl
import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.keys import AlipayKeys, WeChatPayKeys

NODE_DIR = Path(__file__).resolve().parent.parent / "node"
MIN_NODE = 18
INSTALL_TIMEOUT_S = 240
SCRIPT_TIMEOUT_S = 60


@pytest.fixture(scope="session")
def third_party() -> None:
    """The npm packages, installed as the lock file says."""
    install_third_party()


def install_third_party() -> None:
    """Run `npm ci` unless the installed packages are those of the lock file already.

    Raises RuntimeError saying what is missing. Safe for test runs beside each other.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise RuntimeError(f"node and npm (node >= {MIN_NODE}) are missing: run `make test` once")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < MIN_NODE:
        raise RuntimeError(f"node {version.strip()} is too old: {MIN_NODE} or newer is needed")
    lock_text = (NODE_DIR / "package-lock.json").read_text(encoding="utf-8")
    stamp = NODE_DIR / "node_modules" / ".payonce-installed"
    with (NODE_DIR / "package.json").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == lock_text:
            return
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=NODE_DIR,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm ci failed in {NODE_DIR}:\n{done.stdout}\n{done.stderr}")
        stamp.write_text(lock_text, encoding="utf-8")


def sign_wechatpay_notice(
    keys: WeChatPayKeys,
    resource: Mapping[str, Any],
    *,
    timestamp: int | None = None,
    serial: str | None = None,
    event_type: str = "TRANSACTION.SUCCESS",
    notice_id: str | None = None,
) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a callback about `resource`, as WeChat Pay would send it.

    `timestamp` in seconds (default: now); `serial` instead of the keys' own.
    """
    answer = run_node(
        "sign-wechatpay-notice.js",
        {
            "privateKey": keys.platform.private_pem,
            "serial": serial or keys.public_key_id,
            "apiv3Key": keys.apiv3_key,
            "id": notice_id or str(uuid.uuid4()),
            "eventType": event_type,
            "originalType": "refund" if event_type.startswith("REFUND.") else "transaction",
            "resource": resource,
            "timestamp": timestamp,
        },
    )
    return dict(answer["headers"]), answer["body"].encode()


def sign_alipay_notice(
    keys: AlipayKeys, params: Mapping[str, str], *, certificates: Mapping[str, str] | None = None
) -> bytes:
    """The form body of a callback with `params`, signed as Alipay would. With `certificates` (PEM
    of `app`, `alipay`, `root`) the SDK checks its work in certificate mode."""
    answer = run_node(
        "sign-alipay-notice.js",
        {
            "privateKey": keys.alipay.private_pem,
            "publicKey": keys.alipay.public_pem,
            "params": params,
            "certificates": certificates,
        },
    )
    return str(answer["body"]).encode("ascii")


def alipay_certificate_numbers(keys: AlipayKeys, certificates: Mapping[str, str]) -> dict[str, str]:
    """The numbers (SN) that the official SDK gives to certificates, by `app`, `alipay`, `root`."""
    request = {"privateKey": keys.app.private_pem, "certificates": certificates}
    return run_node("alipay-certificate-numbers.js", request)


def wechatpay_request_is_valid(
    keys: WeChatPayKeys,
    *,
    method: str,
    uri: str,
    timestamp: str,
    nonce: str,
    body: str,
    signature: str,
) -> bool:
    """Whether wechatpay-axios-plugin finds a merchant's request well signed."""
    answer = run_node(
        "verify-wechatpay-request.js",
        {
            "publicKey": keys.merchant.public_pem,
            "method": method,
            "uri": uri,
            "timestamp": timestamp,
            "nonce": nonce,
            "body": body,
            "signature": signature,
        },
    )
    return answer["valid"] is True


def alipay_request_is_valid(keys: AlipayKeys, params: Mapping[str, str]) -> bool:
    """Whether alipay-sdk finds an application's request well signed."""
    answer = run_node(
        "verify-alipay-request.js",
        {
            "privateKey": keys.app.private_pem,
            "publicKey": keys.app.public_pem,
            "params": params,
        },
    )
    return answer["valid"] is True


def wechatpay_transaction(
    keys: WeChatPayKeys, out_trade_no: str, amount_fen: int, **changes: object
) -> dict[str, Any]:
    """A paid transaction as its notice carries it, with `changes` over it."""
    return {
        "appid": keys.appid,
        "mchid": keys.mchid,
        "out_trade_no": out_trade_no,
        "transaction_id": f"42{uuid.uuid4().int % 10**26:026d}",
        "trade_type": "NATIVE",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "attach": "",
        "success_time": "2026-01-01T12:00:00+08:00",
        "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
        "amount": {
            "total": amount_fen,
            "payer_total": amount_fen,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
        **changes,
    }


def alipay_trade(
    keys: AlipayKeys, out_trade_no: str, total_amount: str, **changes: str
) -> dict[str, str]:
    """A paid trade as its notice carries it (amount in yuan), with `changes` over it."""
    return {
        "notify_time": "2026-01-01 12:00:05",
        "notify_type": "trade_status_sync",
        "notify_id": uuid.uuid4().hex,
        "app_id": keys.app_id,
        "auth_app_id": keys.app_id,
        "charset": "utf-8",
        "version": "1.0",
        "trade_no": f"2026{uuid.uuid4().int % 10**24:024d}",
        "out_trade_no": out_trade_no,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": total_amount,
        "receipt_amount": total_amount,
        "buyer_pay_amount": total_amount,
        "fund_bill_list": f'[{{"amount":"{total_amount}","fundChannel":"ALIPAYACCOUNT"}}]',
        "seller_id": keys.seller_id,
        "buyer_id": "2088102116773037",
        "buyer_logon_id": "159****5620",
        "subject": "保温杯 + 茶叶 100%",
        "gmt_create": "2026-01-01 11:59:30",
        "gmt_payment": "2026-01-01 12:00:00",
        **changes,
    }


def run_node(script: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Give one script of `tests/node/` its JSON, and read its answer. Raises RuntimeError."""
    node = shutil.which("node")
    if node is None:
        raise RuntimeError(f"node >= {MIN_NODE} is missing: run `make test` once")
    done = subprocess.run(
        [node, str(NODE_DIR / script)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{script} failed:\n{done.stderr}")
    answer = json.loads(done.stdout)
    if not isinstance(answer, dict):
        raise RuntimeError(f"{script} answered {done.stdout!r}")
    return answer
