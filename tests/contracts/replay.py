"""Playing a recording back: the answers on loopback, every request held to the recorded one."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from shop.clock import Clock
from shop.gateways.base import Gateway, NoticeRefused
from tests.contracts.calls import invoke, to_json
from tests.integration.gateway_server import Reply, Seen, gateway_server

FOLDER = Path(__file__).parent

# What the HTTP library and the place say, not the contract.
UNRECORDED_HEADERS = {"host", "accept-encoding", "content-length", "connection"}


@dataclass(frozen=True)
class FixedClock:
    """A clock that stands still."""

    moment: datetime

    def now(self) -> datetime:
        """See `Clock`."""
        return self.moment


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and its answer."""

    request: Seen
    answer: Reply


Build = Callable[[Mapping[str, Any], str, Clock, Callable[[], str]], Gateway]
"""A gateway from the settings' fields, the base address, the clock and the nonces."""

Resign = Callable[[Mapping[str, Any], Reply], Reply]
"""An answer signed anew by the account's platform key, as its body was changed."""


def nonces() -> Callable[[], str]:
    """Nonces as in every recording: 1, 2, 3 …, of 32 digits."""
    numbers = count(1)
    return lambda: f"{next(numbers):032d}"


def account(channel: str) -> dict[str, Any]:
    """The account of a channel's recordings."""
    loaded: dict[str, Any] = json.loads((FOLDER / channel / "account.json").read_text("utf-8"))
    return loaded


def settings_fields(account: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The fields of the settings, in one mode."""
    fields = {**account["common"], **account["modes"][mode]}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}


def recordings(channel: str) -> list[Path]:
    """All recordings of a channel."""
    return sorted((FOLDER / channel).glob("*/*.json"))


def load(path: Path) -> dict[str, Any]:
    """One recording."""
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def play(
    recording: Mapping[str, Any],
    account: Mapping[str, Any],
    mode: str,
    build: Build,
    resign: Resign,
) -> list[str]:
    """Play a recording; everything in which it went otherwise, in words."""
    clock = FixedClock(datetime.fromisoformat(recording["now"]))
    fields = settings_fields(account, mode)
    with gateway_server() as server:
        exchanges = [exchange_of(one) for one in recording.get("exchanges", [])]
        if recording["call"] == "download_bill":
            exchanges = [
                readdressed(one, recording["address"], server.url, account, resign)
                for one in exchanges
            ]
        wrong: list[str] = []
        server.script = _script(iter(exchanges), wrong)
        # An address that the shop makes without asking anybody names the recorded place.
        gateway = build(fields, server.url if exchanges else recording["address"], clock, nonces())
        if recording["call"] == "read_notice":
            found = read_notice(gateway, recording["notice"])
        else:
            found = invoke(gateway, recording["call"], recording["arguments"])
        if len(server.requests) != len(exchanges):
            wrong.append(f"{len(server.requests)} requests, recorded {len(exchanges)}")
    for name in ("result", "written"):
        if found.get(name) != recording.get(name):
            wrong.append(f"{name}: {found.get(name)!r}, recorded {recording.get(name)!r}")
    return wrong


def read_notice(gateway: Gateway, notice: Mapping[str, Any]) -> dict[str, Any]:
    """What a recorded notice is read as."""
    try:
        read = gateway.read_notice(notice["headers"], body_of(notice))
    except NoticeRefused as refused:
        return {"result": {"refused": refused.reason}}
    return {"result": to_json(read)}


def exchange_of(recorded: Mapping[str, Any]) -> Exchange:
    """One exchange from JSON."""
    asked, said = recorded["request"], recorded["answer"]
    return Exchange(
        request=Seen(
            method=asked["method"],
            target=asked["target"],
            headers=asked["headers"],
            body=body_of(asked),
        ),
        answer=Reply(status=said["status"], headers=said["headers"], body=body_of(said)),
    )


def body_of(message: Mapping[str, Any]) -> bytes:
    """A message's body."""
    if "body_base64" in message:
        return base64.b64decode(message["body_base64"])
    return str(message["body"]).encode()


def body_fields(body: bytes) -> dict[str, str]:
    """A body as it stands in a recording."""
    try:
        return {"body": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def contract_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that belong to the contract, by lower-case name."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() not in UNRECORDED_HEADERS
    }


def readdressed(
    one: Exchange, old: str, new: str, account: Mapping[str, Any], resign: Resign
) -> Exchange:
    """An exchange whose answer names the replaying server, so that its files are found there."""
    for form in (old, old.replace("/", "\\/")):
        if form.encode() in one.answer.body:
            body = one.answer.body.replace(
                form.encode(), (new if form == old else new.replace("/", "\\/")).encode()
            )
            return replace(one, answer=resign(account, replace(one.answer, body=body)))
    return one


def _script(exchanges: Iterator[Exchange], wrong: list[str]) -> Callable[[Seen], Reply]:
    def answer(seen: Seen) -> Reply:
        recorded = next(exchanges, None)
        if recorded is None:
            wrong.append(f"a request too many: {seen.method} {seen.target}")
            return Reply(status=599)
        expected = recorded.request
        for name, found, wanted in (
            ("method", seen.method, expected.method),
            ("target", seen.target, expected.target),
            ("headers", contract_headers(seen.headers), contract_headers(expected.headers)),
            ("body", seen.body, expected.body),
        ):
            if found != wanted:
                wrong.append(f"{name}: {found!r}, recorded {wanted!r}")
        return recorded.answer

    return answer
