"""One sending of one notice: built, signed afresh, posted; what came back, judged."""

import json
import time
from urllib.parse import urlencode

import requests

from sandbox import alipay_certs, alipay_sign, clock, forgeries, wechatpay_sign
from sandbox.fault_orders import Fault
from sandbox.keys import Keys
from sandbox.notices import Delivery, Notice

# Enough to see the answer; a receiver that talks on is not listened to.
ANSWER_BYTES = 4_096
_SUMMARIES = {
    ("payment", "SUCCESS"): "支付成功",
    ("refund", "SUCCESS"): "退款成功",
    ("refund", "ABNORMAL"): "退款异常",
    ("refund", "CLOSED"): "退款关闭",
}
_EVENTS = {"payment": "TRANSACTION", "refund": "REFUND"}
_ORIGINALS = {"payment": "transaction", "refund": "refund"}


def deliver(
    keys: Keys, notice: Notice, signed_by: str, timeout_s: float, fault: Fault | None = None
) -> Delivery:
    """Send it. Never raises for what the receiver or the network does. `signed_by` is the choice
    of `settings` for WeChat Pay's notices; `fault` spoils this one sending."""
    started = clock.now_ms()
    if notice.channel == "wechatpay":
        headers, body = _wechatpay(keys, notice, signed_by, started, fault)
    else:
        headers, body = _alipay(keys, notice, started, fault)
    status, answer, result, detail = _post(notice.url, headers, body, timeout_s)
    if status is not None:
        good = _wechatpay_accepts if notice.channel == "wechatpay" else _alipay_accepts
        took_ms = clock.now_ms() - started
        if took_ms > timeout_s * 1_000:
            result, detail = "timeout", f"answered {status} after {took_ms} ms"
        else:
            result = "acknowledged" if good(status, answer) else "refused"
            detail = answer[:200].decode("utf-8", "replace")
    if fault is not None:
        detail = f"({fault.kind}) {detail}"
    return Delivery(
        at_ms=started,
        duration_ms=clock.now_ms() - started,
        http_status=status,
        result=result,
        detail=detail,
    )


def _post(
    url: str, headers: dict[str, str], body: bytes, timeout_s: float
) -> tuple[int | None, bytes, str, str]:
    """Status and the answer's beginning; or no status, and why. Obeys no proxy, no redirect."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            with session.post(
                url,
                data=body,
                headers=headers,
                timeout=timeout_s,
                allow_redirects=False,
                stream=True,
            ) as answer:
                return answer.status_code, _beginning(answer, timeout_s), "", ""
        except requests.Timeout as error:
            return None, b"", "timeout", type(error).__name__
        except (requests.RequestException, OSError, ValueError) as error:
            return None, b"", "unreachable", type(error).__name__


def _beginning(answer: requests.Response, timeout_s: float) -> bytes:
    """The answer's body up to ANSWER_BYTES; one that trickles is cut off at the time-out."""
    deadline = time.monotonic() + timeout_s
    content = b""
    # Single bytes: a larger piece would be waited for until it is full.
    for piece in answer.iter_content(1):
        content += piece
        if len(content) >= ANSWER_BYTES or time.monotonic() > deadline:
            break
    return content


def _wechatpay(
    keys: Keys, notice: Notice, signed_by: str, now: int, fault: Fault | None
) -> tuple[dict[str, str], bytes]:
    told = notice.payload.get("refund_status", "SUCCESS")
    content = {
        "id": notice.event_id,
        "create_time": clock.rfc3339(notice.created_at_ms),
        "resource_type": "encrypt-resource",
        "event_type": f"{_EVENTS[notice.kind]}.{told}",
        "summary": _SUMMARIES[notice.kind, told],
        "resource": wechatpay_sign.encrypted(keys, notice.payload, _ORIGINALS[notice.kind]),
    }
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    serial = wechatpay_sign.notice_serial(keys, signed_by, notice.id, now)
    headers = wechatpay_sign.signed_headers(keys, body, now, serial)
    headers |= {
        "Content-Type": "application/json",
        "Accept": "*/*",
        "User-Agent": "Mozilla/4.0 (WeChat Pay sandbox)",
    }
    if fault is not None and fault.kind == "altered_body":
        # One digit of its id: whoever does not verify takes it for another notice.
        last = notice.event_id[-1]
        other = notice.event_id[:-1] + ("0" if last != "0" else "1")
        body = body.replace(notice.event_id.encode(), other.encode())
    elif fault is not None:
        forgeries.wechatpay(headers, keys, body, serial, fault)
    return headers, body


def _alipay(
    keys: Keys, notice: Notice, now: int, fault: Fault | None
) -> tuple[dict[str, str], bytes]:
    if fault is not None and fault.kind == "clock_off":
        now += fault.offset_s * 1_000
    fields = {str(name): str(value) for name, value in notice.payload.items() if value != ""}
    fields |= {
        "notify_id": notice.event_id,
        "notify_time": clock.plain(now),
        "notify_type": "trade_status_sync",
    }
    signer = alipay_certs.signer(keys, certified="alipay_cert_sn" in notice.payload, now=now)
    signed = alipay_sign.sign_notice(signer.key, fields, signer.cert_sn)
    if fault is not None:
        forgeries.alipay(signed, fault)
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    return headers, urlencode(signed).encode()


def _wechatpay_accepts(status: int, answer: bytes) -> bool:
    """200 or 204, whatever the body says."""
    return status in {200, 204}


def _alipay_accepts(status: int, answer: bytes) -> bool:
    """Exactly the seven bytes `success`, with 200 and no redirect."""
    return status == 200 and answer == b"success"
