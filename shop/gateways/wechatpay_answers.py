"""Making one call to WeChat Pay and reading what came back, as a `Reply`."""

from collections.abc import Callable

from shop.gateways.reading import BadField, fault, identifier
from shop.gateways.replies import Reply, unanswered
from shop.gateways.transport import TransportFault
from shop.gateways.wechatpay_envelope import EnvelopeRefused
from shop.gateways.wechatpay_wire import read_json


def ask(call: Callable[[], tuple[int, bytes]]) -> Reply:
    """Make one call. What the gateway or the network did never raises."""
    try:
        status, body = call()
        if status == 204:
            return Reply()
        if status == 200:
            return Reply(fields=read_json(body))
    except EnvelopeRefused as error:
        return Reply(fault=fault("bad_signature", error))
    except TransportFault as error:
        return unanswered(error)
    return refusal(status, body)


def refusal(status: int, body: bytes) -> Reply:
    """An answer other than 200 or 204. It is unsigned by rule, so TLS alone vouches for it."""
    try:
        fields = read_json(body)
        told = fault(identifier(fields, "code"), fields.get("message", ""))
    except (TransportFault, BadField):
        code = "server_error" if status >= 500 else "bad_answer"
        return Reply(fault=fault(code, f"HTTP {status} without an error code"))
    return Reply(fault=told, conclusive=400 <= status < 500 and status != 429)
