"""T8: callbacks that are not believed, or that contradict the books, move nothing.

Each is answered in the gateway's own failure form and recorded with its reason. They are signed
with the gateway's real key, so that what is refused is refused for what the test altered.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.books import books, notices_in
from tests.faults.conftest import shop_on
from tests.faults.notices import Callbacks, is_acknowledged
from tests.faults.storm import Member, Storm
from tests.integration.keys import new_key_pair
from tests.shopclient import Answer, Call
from tests.shopkit import Sandbox

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("third_party")]

AMOUNT_FEN = 900
AMOUNT_YUAN = "9.00"


class Target:
    """One shop with an order open on each channel, at which all the callbacks aim."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.callbacks = Callbacks(storm.kit.sandbox, storm.kit.url)
        member = storm.member()
        self.wechatpay_no = self._open(member, "wechatpay")
        self.alipay_no = self._open(member, "alipay")

    @staticmethod
    def _open(member: Member, channel: str) -> str:
        answer = member.client.pay(member.order(), channel, key=channel + member.client.url).send()
        assert answer.status == 200, answer
        return str(answer.json["out_trade_no"])


@pytest.fixture(scope="module")
def target(
    request: pytest.FixtureRequest,
    sandbox_server: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Target]:
    with shop_on(
        "sqlite-files",
        sandbox=sandbox_server,
        folder=tmp_path_factory.mktemp("shop"),
        request=request,
    ) as kit:
        yield Target(Storm(kit=kit, urls=kit.webs(1)))


def altered(call: Call, old: bytes, new: bytes) -> Call:
    """The same callback with a few bytes of its body changed."""
    assert call.body is not None
    assert old in call.body
    return replace(call, body=call.body.replace(old, new, 1))


def with_header(call: Call, name: str, value: str) -> Call:
    return replace(call, headers={**call.headers, name: value})


def wrong_amount(target: Target) -> Call:
    amount = {"total": 1, "payer_total": 1, "currency": "CNY", "payer_currency": "CNY"}
    return target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN, amount=amount)


def wrong_currency(target: Target) -> Call:
    amount = {"total": AMOUNT_FEN, "payer_total": AMOUNT_FEN, "currency": "USD"}
    return target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN, amount=amount)


def wrong_app(target: Target) -> Call:
    return target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN, appid="wx0000000000000000")


def wrong_merchant(target: Target) -> Call:
    return target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN, mchid="1900000999")


def altered_byte(target: Target) -> Call:
    call = target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN)
    return altered(call, b'"encrypt-resource"', b'"encrypt-resourcf"')


def stale(target: Target) -> Call:
    return target.callbacks.wechatpay(
        target.wechatpay_no, AMOUNT_FEN, timestamp=int(time.time()) - 600
    )


def from_the_future(target: Target) -> Call:
    return target.callbacks.wechatpay(
        target.wechatpay_no, AMOUNT_FEN, timestamp=int(time.time()) + 600
    )


def unknown_serial(target: Target) -> Call:
    return target.callbacks.wechatpay(
        target.wechatpay_no, AMOUNT_FEN, serial="PUB_KEY_ID_0000000000000000000000000000000001"
    )


def strangers_key(target: Target) -> Call:
    callbacks = Callbacks(target.storm.kit.sandbox, target.storm.kit.url)
    callbacks.wechatpay_keys = replace(callbacks.wechatpay_keys, platform=new_key_pair())
    return callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN)


def signature_probe(target: Target) -> Call:
    call = target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN)
    return with_header(call, "Wechatpay-Signature", "WECHATPAY/SIGNTEST/" + "A" * 300)


def unsigned(target: Target) -> Call:
    call = target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN)
    return replace(call, headers={"Content-Type": "application/json"})


def form_instead_of_json(target: Target) -> Call:
    call = target.callbacks.alipay(target.alipay_no, AMOUNT_YUAN)
    return replace(call, url=f"{target.storm.kit.url}/webhooks/wechatpay")


def nothing_at_all(target: Target) -> Call:
    return Call(url=f"{target.storm.kit.url}/webhooks/wechatpay", body=b"")


def unknown_trade(target: Target) -> Call:
    return target.callbacks.wechatpay("T0000000000000000001", AMOUNT_FEN)


def other_channels_trade(target: Target) -> Call:
    return target.callbacks.wechatpay(target.alipay_no, AMOUNT_FEN)


def alipay_wrong_amount(target: Target) -> Call:
    return target.callbacks.alipay(target.alipay_no, "0.01")


def alipay_wrong_app(target: Target) -> Call:
    return target.callbacks.alipay(target.alipay_no, AMOUNT_YUAN, app_id="2014000000000001")


def alipay_wrong_merchant(target: Target) -> Call:
    return target.callbacks.alipay(target.alipay_no, AMOUNT_YUAN, seller_id="2088000000000009")


def alipay_altered_byte(target: Target) -> Call:
    call = target.callbacks.alipay(target.alipay_no, AMOUNT_YUAN)
    return altered(call, b"TRADE_SUCCESS", b"TRADE_SUCCESR")


def alipay_json_instead_of_form(target: Target) -> Call:
    call = target.callbacks.wechatpay(target.wechatpay_no, AMOUNT_FEN)
    return replace(call, url=f"{target.storm.kit.url}/webhooks/alipay")


def alipay_strangers_key(target: Target) -> Call:
    callbacks = Callbacks(target.storm.kit.sandbox, target.storm.kit.url)
    callbacks.alipay_keys = replace(callbacks.alipay_keys, alipay=new_key_pair())
    return callbacks.alipay(target.alipay_no, AMOUNT_YUAN)


REFUSED: list[tuple[Callable[[Target], Call], str]] = [
    (wrong_amount, "amount_differs"),
    (wrong_currency, "amount_differs"),
    (wrong_app, "wrong_app"),
    (wrong_merchant, "wrong_merchant"),
    (altered_byte, "bad_signature"),
    (stale, "stale"),
    (from_the_future, "stale"),
    (unknown_serial, "unknown_serial"),
    (strangers_key, "bad_signature"),
    (signature_probe, "bad_signature"),
    (unsigned, "malformed"),
    (form_instead_of_json, "malformed"),
    (nothing_at_all, "malformed"),
    (unknown_trade, "unknown_out_trade_no"),
    (other_channels_trade, "channel_differs"),
    (alipay_wrong_amount, "amount_differs"),
    (alipay_wrong_app, "wrong_app"),
    (alipay_wrong_merchant, "wrong_merchant"),
    (alipay_altered_byte, "bad_signature"),
    (alipay_json_instead_of_form, "malformed"),
    (alipay_strangers_key, "bad_signature"),
]


def assert_failure_form(channel: str, answer: Answer) -> None:
    """As the gateways' pages give it (GATEWAYS A and B): the notice is to be sent again."""
    assert not is_acknowledged(channel, answer.status, answer.body)
    if channel == "wechatpay":
        assert 400 <= answer.status < 600
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["code"] == "FAIL"
        assert answer.json["message"]
    else:
        assert answer.body == b"failure"


@pytest.mark.parametrize(
    ("make", "reason"), REFUSED, ids=[make.__name__ for make, _reason in REFUSED]
)
def test_a_callback_that_is_not_believed_is_recorded_and_moves_nothing(
    target: Target, make: Callable[[Target], Call], reason: str
) -> None:
    kit = target.storm.kit
    call = make(target)
    before, known = books(kit.database_url), len(refusals(target))
    answer = call.send()

    assert_failure_form(call.url.rsplit("/", 1)[1], answer)
    assert books(kit.database_url) == before
    new = refusals(target)[known:]
    assert [(notice["state"], notice["outcome"]) for notice in new] == [("refused", reason)]
    assert kit.broken() == []


def refusals(target: Target) -> list[dict[str, object]]:
    """All refused notices, oldest first."""
    numbers = (target.wechatpay_no, target.alipay_no, "T0000000000000000001", None)
    found = [notice for one in numbers for notice in notices_in(target.storm.kit.database_url, one)]
    assert all(notice["state"] == "refused" for notice in found)
    return sorted(found, key=lambda notice: int(notice["id"]))


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_a_callback_that_is_too_large_is_refused_unread(target: Target, channel: str) -> None:
    kit = target.storm.kit
    before = books(kit.database_url)
    call = Call(url=f"{kit.url}/webhooks/{channel}", body=b"x" * 70_000)
    assert_failure_form(channel, call.send())
    assert books(kit.database_url) == before
    assert kit.broken() == []


@pytest.mark.parametrize("channel", ["wechatpay", "alipay"])
def test_a_callback_address_answers_post_alone(target: Target, channel: str) -> None:
    url = f"{target.storm.kit.url}/webhooks/{channel}"
    for method in ("GET", "PUT", "DELETE"):
        answer = Call(url=url, method=method).send()
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"OPTIONS", "POST"}
    assert Call(url=f"{target.storm.kit.url}/webhooks/paypal", body=b"{}").send().status == 404
    assert target.storm.kit.broken() == []
